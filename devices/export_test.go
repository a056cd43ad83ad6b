package devices

import (
	"context"

	"muster"
)

// FindAbsent is one turn of RunAbsence.
func (r *Registry) FindAbsent() { r.findAbsent() }

// Begin is the beginning of RunAbsence.
func (r *Registry) Begin() { r.presence.begin(muster.MicrosOf(r.now())) }

// Flush is one turn of Run.
func (r *Registry) Flush(ctx context.Context, last bool) error { return r.flush(ctx, last) }

// Deliver is one turn of RunEvents.
func (r *Registry) Deliver() { r.deliver() }

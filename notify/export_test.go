package notify

import "context"

// Trim is one round of RunTrim.
func (n *Notify) Trim(ctx context.Context) error { return n.trim(ctx) }

// WakeEscalation has RunEscalation look at the time.
func (n *Notify) WakeEscalation() { n.escalates(1) }

package tasks

import (
	"context"
	"encoding/json"
	"sync/atomic"
)

// Step is how far a task is, on its way to the store: the transaction that does a part
// of the work keeps it as well, so that no part is done twice and none is left out.
type Step struct {
	Task string
	Kept
	taken atomic.Bool
}

type stepKey struct{}

// withStep returns a context whose next transaction in the store keeps s.
func withStep(ctx context.Context, s *Step) context.Context {
	return context.WithValue(ctx, stepKey{}, s)
}

// StepOf returns the step that the transaction under ctx is to keep, nil for none.
// The store calls Taken after the commit.
func StepOf(ctx context.Context) *Step {
	s, _ := ctx.Value(stepKey{}).(*Step)
	if s == nil || s.taken.Load() {
		return nil
	}
	return s
}

// Taken says that s was committed. A nil Step has nothing to say.
func (s *Step) Taken() {
	if s != nil {
		s.taken.Store(true)
	}
}

// encode writes v as a checkpoint.
func encode(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmtErr("encode a checkpoint", err)
	}
	if len(b) > MaxCheckpoint {
		return nil, errCheckpoint(len(b))
	}
	return b, nil
}

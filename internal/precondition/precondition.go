// Package precondition carries the condition of a request (If-Match) to the room that makes the change, so that
// both are one step: the API puts it into the context, and a room asks Check, where it is about to change one named
// thing and nobody else can. It knows no HTTP and imports the standard library only.
package precondition

import "context"

type key struct{}

// With returns a context under which a change is made only when check says nil. check gets the thing as it is, or
// nil when there is none, and must be quick: it may be called under a lock. It gets things of other kinds too, should
// a change touch some, and lets those pass.
func With(ctx context.Context, check func(current any) error) context.Context {
	return context.WithValue(ctx, key{}, check)
}

// Check returns why current may not be changed under ctx, nil when it may.
func Check(ctx context.Context, current any) error {
	check, ok := ctx.Value(key{}).(func(current any) error)
	if !ok {
		return nil
	}
	return check(current)
}

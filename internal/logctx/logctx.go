// Package logctx gives each log line the id of the request that it is about: the API puts the id into the context,
// and every line that is logged with that context has it. It imports the standard library only.
package logctx

import (
	"context"
	"log/slog"
)

type key struct{}

// With returns a context whose log lines have the attribute request=id.
func With(ctx context.Context, id string) context.Context { return context.WithValue(ctx, key{}, id) }

// handler adds the id.
type handler struct{ slog.Handler }

// Handler returns h with the ids of contexts; h itself when it has them already.
func Handler(h slog.Handler) slog.Handler {
	if _, ok := h.(handler); ok {
		return h
	}
	return handler{h}
}

// Handle implements slog.Handler.
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id, ok := ctx.Value(key{}).(string); ok {
		r.AddAttrs(slog.String("request", id))
	}
	return h.Handler.Handle(ctx, r) //nolint:wrapcheck // a handler in the middle
}

// WithAttrs implements slog.Handler.
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }

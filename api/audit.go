package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster/audit"
	"muster/feed"
)

// NoteWriter writes what was noted under a context for the audit log and the feed, and
// was not written by a room's own transaction.
type NoteWriter interface {
	WriteNotes(ctx context.Context) error
}

// unaudited in an operation's Metadata marks one that changes nothing that anyone would ask about later,
// or too often to keep each one: what devices say.
const unaudited = "unaudited"

// changes says whether op is one that the audit log wants to know of.
func changes(op *huma.Operation) bool {
	_, not := op.Metadata[unaudited]
	return !not && op.Method != http.MethodGet && op.Method != http.MethodHead
}

// noted returns ctx with trails for the audit log and the feed.
func (a *API) noted(ctx context.Context, r *request) context.Context {
	return feed.With(audit.With(ctx, actorOf(r), a.Now))
}

// noting puts the trails into the context of what changes something.
func (a *API) noting(ctx huma.Context, next func(huma.Context)) {
	if !changes(ctx.Operation()) {
		next(ctx)
		return
	}
	next(huma.WithContext(ctx, a.noted(ctx.Context(), requestOf(ctx.Context()))))
}

func actorOf(r *request) audit.Actor {
	who := audit.Actor{Kind: audit.Anonymous, ID: r.who.ID, Name: r.who.Name, Address: r.address(), Request: r.id}
	switch {
	case r.who.ID == "":
	case r.who.User != "": // sessions come and go
		who.Kind, who.ID = audit.User, r.who.User
	case r.who.Key != "":
		who.Kind, who.ID = audit.Key, r.who.Key
	default:
		who.Kind = audit.User // by the set-up link
	}
	return who
}

// recorded has the audit log hold the change that op made, should no room have noted
// it, and what was noted and not yet written. The change is done: that its record
// failed is logged and counted, and the client is not told otherwise.
func (a *API) recorded(ctx context.Context, op *huma.Operation) {
	t := audit.Of(ctx)
	if t == nil || !changes(op) {
		return
	}
	if !t.Noted() {
		audit.Note(ctx, op.OperationID, strings.TrimPrefix(requestOf(ctx).URL.Path, prefix+"/"), nil, nil)
	}
	if !t.Pending() {
		return
	}
	if err := a.Audit.WriteNotes(context.WithoutCancel(ctx)); err != nil {
		a.metrics.unaudited.Inc()
		a.Log.ErrorContext(ctx, "a change is not in the audit log", "operation", op.OperationID, "err", err)
	}
}

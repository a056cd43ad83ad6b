package api

import (
	"context"
	"net/url"
	"strings"
	"time"

	"muster/audit"
)

const (
	changedTime = time.Second // that a refusal waits for who it was
	changedLook = 8           // newest records that are looked at
)

// ProblemChange is who changed meanwhile what a request was to change.
type ProblemChange struct {
	Name string `json:"name" doc:"Of the user; of an address the part before the @"`
	At   string `json:"at" format:"date-time" doc:"When"`
}

// changedBy says who changed last what r names, to users who are signed in: names are for people. Nil when it was no user,
// or is not known in time.
//
//nolint:contextcheck,nolintlint // the request has the context
func (a *API) changedBy(r *request) *ProblemChange {
	if r.who.User == "" || a.Audit == nil {
		return nil
	}
	object := objectOf(r.URL.EscapedPath())
	ctx, cancel := context.WithTimeout(r.Context(), changedTime)
	defer cancel()
	found, err := a.Audit.Audit(ctx, audit.Query{Object: object, Limit: changedLook})
	if err != nil {
		return nil // the refusal itself is what matters
	}
	for i := range found {
		if found[i].Object != object {
			continue // of something below it
		}
		name, _, _ := strings.Cut(found[i].Actor.Name, "@")
		if found[i].Actor.Kind != audit.User || name == "" {
			return nil
		}
		return &ProblemChange{name, found[i].At.Time().UTC().Format(time.RFC3339Nano)}
	}
	return nil
}

// objectOf is the name in the audit log of what a path of the API is about: devices/d1/desired of itself, rollouts/r1 of
// rollouts/r1/pause.
func objectOf(path string) string {
	parts := strings.Split(strings.Trim(strings.TrimPrefix(path, prefix), "/"), "/")
	own := 2
	if parts[0] == "firmware" {
		own = 3
	}
	if len(parts) > own && parts[len(parts)-1] != "desired" {
		parts = parts[:own]
	}
	for i, p := range parts {
		if plain, err := url.PathUnescape(p); err == nil {
			parts[i] = plain
		}
	}
	return strings.ReplaceAll(strings.Join(parts, "/"), "\x00", "") // PostgreSQL has no NUL in text
}

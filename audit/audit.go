package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"muster"
)

// The kinds of Actor.
const (
	User      = "user"      // a signed-in person
	Key       = "key"       // an API key
	Device    = "device"    // a device, over MQTT or by joining
	Anonymous = "anonymous" // nobody known yet: signing in, resetting a password, joining
	System    = "system"    // Muster itself
)

const (
	// MaxView is the longest view of a thing, in bytes of JSON. Of a longer one the longest members are
	// {"truncated":true,"bytes":n,"sha256":"..."} instead.
	MaxView = 16 << 10
	// MaxNotes is how many changes one transaction names one by one. The rest is counted
	// in one record more.
	MaxNotes = 1000
)

// Actor is who makes changes, and from where.
type Actor struct {
	Kind    string // one of the constants above
	ID      string // of the user, key, session or device; empty when unknown
	Name    string // as people know it at the time
	Address string // of the client, host only; empty for the system
	Request string // id of the HTTP request, as in the log; empty for none
}

// Record is one change.
type Record struct {
	Seq           int64 // its place in the log, from 1, without a gap; set by the store
	At            muster.Micros
	Actor         Actor
	Action        string          // "device.update"
	Object        string          // "devices/d1": the path of the thing in the API
	Before, After json.RawMessage // null for none
	MAC           string          // Keys.MAC of it; empty in records from before there were codes
}

// Trail gathers the changes of one request until a transaction writes them. It is
// safe for concurrent use.
type Trail struct {
	actor Actor
	now   func() time.Time

	mu      sync.Mutex
	pending []Record
	more    int // changes beyond MaxNotes
	noted   bool
}

type trailKey struct{}

// With returns a context under which changes are noted as made by who.
func With(ctx context.Context, who Actor, now func() time.Time) context.Context {
	return context.WithValue(ctx, trailKey{}, &Trail{actor: who, now: now})
}

// Of returns the trail of ctx, nil when there is none.
func Of(ctx context.Context) *Trail {
	t, _ := ctx.Value(trailKey{}).(*Trail)
	return t
}

// Note records a change for the next transaction of the control store under ctx.
// Call it right before the store's call. before and after are views of the thing that
// marshal as JSON and hold no secret, nil for none. Without a trail in ctx it does
// nothing.
func Note(ctx context.Context, action, object string, before, after any) {
	t := Of(ctx)
	if t == nil {
		return
	}
	r := Record{
		At: muster.MicrosOf(t.now()), Actor: t.actor, Action: action, Object: object,
		Before: view(before), After: view(after),
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noted = true
	if len(t.pending) >= MaxNotes {
		t.more++
		return
	}
	t.pending = append(t.pending, r)
}

// Nothing says that the request under ctx changes nothing, so that it leaves no
// record: a dry run.
func Nothing(ctx context.Context) {
	if t := Of(ctx); t != nil {
		t.mu.Lock()
		t.noted = true
		t.mu.Unlock()
	}
}

// Noted says whether anything was noted, or Nothing was said.
func (t *Trail) Noted() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.noted
}

// Pending says whether something waits for a transaction.
func (t *Trail) Pending() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.pending) > 0
}

// Take returns what waits, and forgets it: a transaction that fails leaves no record.
func (t *Trail) Take() []Record {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.pending
	if t.more > 0 {
		last := out[len(out)-1]
		out = append(out, Record{
			At: last.At, Actor: last.Actor, Action: last.Action, Object: last.Object, Before: view(nil),
			After: view(map[string]int{"and_more": t.more}),
		})
	}
	t.pending, t.more = nil, 0
	return out
}

// Put has records wait again for a transaction, which is tried once more.
func (t *Trail) Put(records []Record) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, records...)
}

// view is v as JSON, of at most MaxView bytes.
func view(v any) json.RawMessage { return bounded(v, MaxView) }

// bounded is v as JSON. When that is longer than most, the longest members of an object are cut until it
// is not; 0 for no bound.
func bounded(v any, most int) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	b, err := json.Marshal(v)
	if err != nil { // a view is plain data
		panic(fmt.Errorf("write a view for the audit log: %w", err))
	}
	if most == 0 || len(b) <= most {
		return b
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(b, &members) != nil {
		return cutText(b)
	}
	whole := b
	for range len(members) {
		longest := ""
		for name, m := range members {
			if len(m) > len(members[longest]) || len(m) == len(members[longest]) && name < longest {
				longest = name
			}
		}
		members[longest] = cutText(members[longest])
		if b, err = json.Marshal(members); err == nil && len(b) <= most {
			return b
		}
	}
	return cutText(whole)
}

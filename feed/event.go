package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"

	"muster"
)

// Event is one thing that happened.
type Event struct {
	Seq    int64           // its place in the feed, from 1, without a gap; set by the store
	At     muster.Micros   // when it happened
	Type   string          // one of the catalogue: "device.created"
	Device muster.DeviceID // that it is about, empty for none
	Data   json.RawMessage // an object, as Catalogue describes it
}

// ID returns the event's id, the same over every retry: "evt_42".
func (e Event) ID() string { return "evt_" + strconv.FormatInt(e.Seq, 10) }

// envelope is an event as third parties get it (Standard Webhooks, section "Payload
// structure").
type envelope struct {
	Type      string          `json:"type"`
	Timestamp string          `json:"timestamp"`
	Data      json.RawMessage `json:"data"`
}

// Envelope returns the event as JSON for third parties:
// {"type":...,"timestamp":RFC 3339,"data":{...}}.
func (e Event) Envelope() []byte {
	b, err := json.Marshal(envelope{e.Type, e.At.Time().Format("2006-01-02T15:04:05.000000Z07:00"), e.Data})
	if err != nil { // Data was made by NewEvent or read from the store
		panic(fmt.Errorf("write an event: %w", err))
	}
	return b
}

// NewEvent returns an event. data marshals as a JSON object; the device's id is put into it
// as "device" by those who make it.
func NewEvent(kind string, device muster.DeviceID, at muster.Micros, data any) Event {
	b, err := json.Marshal(data)
	if err != nil { // events are plain data
		panic(fmt.Errorf("write the data of event %s: %w", kind, err))
	}
	return Event{At: at, Type: kind, Device: device, Data: b}
}

// Trail gathers events until a transaction writes them. It is safe for concurrent use.
type Trail struct {
	mu      sync.Mutex
	pending []Event
}

type trailKey struct{}

// With returns a context under which events are noted. One that has a trail already
// is returned as it is.
func With(ctx context.Context) context.Context {
	if Of(ctx) != nil {
		return ctx
	}
	return context.WithValue(ctx, trailKey{}, &Trail{})
}

// Of returns the trail of ctx, nil when there is none.
func Of(ctx context.Context) *Trail {
	t, _ := ctx.Value(trailKey{}).(*Trail)
	return t
}

// Note has the next transaction of the control store under ctx write events. Call it
// right before the store's call. Without a trail in ctx it does nothing.
func Note(ctx context.Context, events ...Event) {
	t := Of(ctx)
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, events...)
}

// Take returns what waits, and forgets it: a transaction that fails tells nothing.
func (t *Trail) Take() []Event {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.pending
	t.pending = nil
	return out
}

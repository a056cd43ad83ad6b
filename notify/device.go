package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"muster"
	"muster/notify/outbox"
)

// maxDeviceMessage is the longest message of a device, in bytes.
const maxDeviceMessage = 32 << 10

// deviceMessage is what a device publishes at devices/{id}/notify/{topic}.
type deviceMessage struct {
	Title     string          `json:"title"`
	Body      string          `json:"body"`
	Severity  string          `json:"severity"`
	Priority  string          `json:"priority"`
	Data      json.RawMessage `json:"data"`
	Link      string          `json:"link"`
	Actions   []Action        `json:"actions"`
	Device    muster.DeviceID `json:"device"`
	DedupKey  string          `json:"dedup_key"`
	Resolve   bool            `json:"resolve"`
	ExpiresAt string          `json:"expires_at"`
}

// ParseDeviceMessage reads what a device publishes: {"title","body","severity","priority",
// "data","link","actions","device","dedup_key","resolve","expires_at"}, of which title is
// needed; severity is info when it is absent. TooLarge or Invalid for anything else.
func ParseDeviceMessage(payload []byte) (Message, error) {
	if len(payload) > maxDeviceMessage {
		return Message{}, muster.Errorf(muster.TooLarge, "a notification of a device has at most %d bytes", maxDeviceMessage)
	}
	var d deviceMessage
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return Message{}, muster.Errorf(muster.Invalid, `the payload is not {"title":"...","severity":"major",...}`)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Message{}, muster.Errorf(muster.Invalid, "there is more behind the JSON object")
	}
	m := Message{
		Title: d.Title, Body: d.Body, Data: d.Data, Link: d.Link, Actions: d.Actions, Device: d.Device, DedupKey: d.DedupKey, Resolve: d.Resolve,
	}
	var err error
	if d.Severity != "" {
		if m.Severity, err = ParseSeverity(d.Severity); err != nil {
			return Message{}, err
		}
	}
	if m.Lane, err = ParsePriority(d.Priority); err != nil {
		return Message{}, err
	}
	if d.ExpiresAt != "" {
		at, err := time.Parse(time.RFC3339, d.ExpiresAt)
		if err != nil {
			return Message{}, muster.InvalidAt("expires_at", "expires_at is not a time as RFC 3339 has it")
		}
		m.Expires = muster.MicrosOf(at)
	}
	return m, nil
}

// ParsePriority reads urgent, normal or bulk; empty is nil, for that of the severity.
func ParsePriority(name string) (*outbox.Lane, error) {
	lanes := map[string]outbox.Lane{"urgent": outbox.Urgent, "normal": outbox.Normal, "bulk": outbox.Bulk}
	if name == "" {
		return nil, nil
	}
	l, ok := lanes[name]
	if !ok {
		return nil, muster.InvalidAt("priority", "there is no priority %.40q: urgent, normal or bulk", name)
	}
	return &l, nil
}

// toDevice is a notification as devices get it at devices/{id}/notifications.
type toDevice struct {
	ID        string          `json:"id"`
	Topic     string          `json:"topic"`
	Severity  string          `json:"severity"`
	Title     string          `json:"title"`
	Body      string          `json:"body,omitempty"`
	Data      json.RawMessage `json:"data,omitempty"`
	Link      string          `json:"link,omitempty"`
	Actions   []Action        `json:"actions,omitempty"`
	Device    string          `json:"device,omitempty"`
	State     string          `json:"state"`
	Ack       bool            `json:"ack"` // an answer at .../notifications/{id}/ack is asked for
	CreatedAt string          `json:"created_at"`
	ExpiresAt string          `json:"expires_at,omitempty"`
}

// DevicePayload returns a delivery's content as devices get it. NotFound when its topic was deleted.
func (n *Notify) DevicePayload(ctx context.Context, body []byte) ([]byte, error) {
	l, err := DecodeLetter(body)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the delivery's content is not understood: %w", err)
	}
	t, err := n.topicFor(ctx, l.Topic)
	if err != nil {
		return nil, err
	}
	if err := n.asItIs(ctx, &l); err != nil {
		return nil, err
	}
	d := toDevice{
		ID: l.ID, Topic: t.Name, Severity: l.Severity.String(), Title: l.Title, Body: l.Body, Data: l.Data, Link: l.Link, Actions: l.Actions,
		Device: l.Device, State: string(l.State), Ack: l.AckPolicy != AckNone && l.State == Open,
		CreatedAt: time.UnixMicro(l.CreatedAt).UTC().Format(time.RFC3339Nano),
	}
	if l.ExpiresAt != 0 {
		d.ExpiresAt = time.UnixMicro(l.ExpiresAt).UTC().Format(time.RFC3339Nano)
	}
	out, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("write a notification for a device: %w", err)
	}
	return out, nil
}

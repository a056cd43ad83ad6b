package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/broker"
	"muster/devices"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func presenceRegistry(t *testing.T, o devices.Options, ids ...muster.DeviceID) *devices.Registry {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	now := time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC)
	r := devices.NewRegistry(c, func() time.Time { return now }, slog.New(slog.DiscardHandler), o)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if _, _, err := r.Create(t.Context(), devices.Spec{ID: id}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func TestPresenceTopicsAreWhatDevicesAre(t *testing.T) {
	r := presenceRegistry(t, devices.Options{}, "a", "b")
	c := devices.Connection{Device: "a", Session: 1, At: time.Date(2026, 5, 1, 10, 0, 1, 0, time.UTC)}
	r.Connected(c)
	r.Disconnected(c, "disconnected", c.At.Add(time.Second))
	s := allStates{presenceStates{r}}
	for topic, want := range map[string]string{
		"devices/a/presence":      `{"state":"offline","since":"2026-05-01T10:00:02.000000Z","reason":"disconnected"}`,
		"devices/b/presence":      `{"state":"never","since":"2026-05-01T10:00:00.000000Z","reason":""}`,
		"devices/nobody/presence": "",
		"devices/a/desired":       "",
		"x/a/presence":            "",
	} {
		payload, ok := s.State(topic)
		if string(payload) != want || ok != (want != "") {
			t.Errorf("%s is at %s, %v", topic, payload, ok)
		}
	}
	both := []string{"devices/a/presence", "devices/b/presence"}
	for filter, want := range map[string][]string{
		"#": both, "devices/#": both, "devices/+/presence": both, "+/+/+": both, "+/+/presence": both, "devices/+/#": both,
		"devices/a/presence": both[:1], "devices/a/+": both[:1], "+/b/#": both[1:], "devices/b/#": both[1:],
		"devices/+/desired": nil, "devices/+": nil, "other/#": nil, "devices/nobody/presence": nil,
	} {
		var got []string
		s.Each(filter, func(topic string) bool { got = append(got, topic); return true })
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", filter, d)
		}
	}
	n := 0
	allStates{presenceStates{r}, presenceStates{r}}.Each("#", func(string) bool { n++; return n < 1 })
	if n != 1 {
		t.Errorf("%d were told after the first was enough", n)
	}
}

var _ statePublisher = (*broker.Broker)(nil)

// published keeps what is published, until it is full.
type published struct {
	topics, payloads []string
	most             int
}

func (p *published) PublishState(_ context.Context, topic string, payload []byte) error {
	if len(p.topics) == p.most {
		return errors.New("stopped")
	}
	p.topics, p.payloads = append(p.topics, topic), append(p.payloads, string(payload))
	return nil
}

func TestChangesOfPresenceArePublishedInOrder(t *testing.T) {
	p := &published{most: 2}
	tell := tellPresence(t.Context(), p, slog.New(slog.DiscardHandler))
	at := muster.MicrosOf(time.Date(2026, 5, 1, 10, 0, 0, 0, time.UTC))
	tell([]devices.Transition{
		{Device: "a", From: "never", To: "online", At: at},
		{Device: "a", From: "online", To: "offline", At: at + 1, Reason: "closed"},
		{Device: "b", From: "never", To: "online", At: at}, // the broker has stopped
	})
	want := &published{
		most:   2,
		topics: []string{"devices/a/presence", "devices/a/presence"},
		payloads: []string{
			`{"state":"online","since":"2026-05-01T10:00:00.000000Z","reason":""}`,
			`{"state":"offline","since":"2026-05-01T10:00:00.000001Z","reason":"closed"}`,
		},
	}
	if d := cmp.Diff(want, p, cmp.AllowUnexported(published{})); d != "" {
		t.Error(d)
	}
}

package trail_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/devices/intake"
	"muster/devices/trail"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a time that tests set.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

func (c *clock) micros() muster.Micros { return muster.MicrosOf(c.now()) }

// store is a real store whose appends fail as long as fail says so.
type store struct {
	*control.Control
	fail func() error
}

func (s *store) AppendEvents(ctx context.Context, es []trail.Event) ([]bool, error) {
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return nil, err
		}
	}
	return s.Control.AppendEvents(ctx, es)
}

func (s *store) AppendLogs(ctx context.Context, rows []trail.LogRow) error {
	if s.fail != nil {
		if err := s.fail(); err != nil {
			return err
		}
	}
	return s.Control.AppendLogs(ctx, rows)
}

// newStore has the devices a, b and c.
func newStore(t *testing.T) *store {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	c, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	var ds []devices.Device
	for _, id := range []muster.DeviceID{"a", "b", "c"} {
		ds = append(ds, devices.Device{ID: id, Profile: "default", Created: 1})
	}
	must(t, c.InsertDevices(t.Context(), ds, nil))
	return &store{Control: c}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T any](t testing.TB, what string, want, got T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// message is one that arrives now; each moves the clock by a microsecond, as intake's
// arrival times differ.
func (c *clock) message(kind intake.Kind, device muster.DeviceID, tail, payload string) intake.Message {
	c.add(time.Microsecond)
	topic := fmt.Sprintf("devices/%s/logs", device)
	if kind == intake.Event {
		topic = fmt.Sprintf("devices/%s/events/%s", device, tail)
	}
	return intake.Message{Kind: kind, Device: device, Topic: topic, Tail: tail, Payload: []byte(payload), QoS: 1, Arrival: c.micros()}
}

// show writes errors as "code: text", nil as "".
func show(errs []error) []string {
	out := make([]string, len(errs))
	for i, err := range errs {
		if err != nil {
			out[i] = intake.CodeOf(err) + ": " + muster.Public(err)
		}
	}
	return out
}

// runUntil runs a loop until cond holds.
func runUntil(t *testing.T, loop func(context.Context) error, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- loop(ctx) }()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() && ctx.Err() == nil {
		<-tick.C
	}
	if ctx.Err() != nil {
		t.Error("the loop did not do it in 20 s")
	}
	cancel()
	must(t, <-done)
}

func contextOf(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(t.Context())
}

// brokenStore fails always.
type brokenStore struct {
	trail.Store
	calls atomic.Int64
}

func (s *brokenStore) broken() error {
	s.calls.Add(1)
	return muster.Errorf(muster.Unavailable, "away")
}

func (s *brokenStore) AppendEvents(context.Context, []trail.Event) ([]bool, error) {
	return nil, s.broken()
}
func (s *brokenStore) AppendLogs(context.Context, []trail.LogRow) error { return s.broken() }
func (s *brokenStore) ExpireEvents(context.Context, muster.Micros, int) (int, error) {
	return 0, s.broken()
}

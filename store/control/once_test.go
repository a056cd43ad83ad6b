package control_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/once"
)

// onceRig is a keeper on a store, at a clock that can be set.
type onceRig struct {
	*testing.T
	*once.Keeper
	at time.Time
}

func newOnce(t *testing.T, s once.Store, l once.Limits) *onceRig {
	t.Helper()
	r := &onceRig{T: t, at: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)}
	r.Keeper = once.New(s, func() time.Time { return r.at }, slog.New(slog.DiscardHandler), l)
	wantNil(t, r.Load(t.Context()))
	return r
}

func asked(key string) once.Request {
	return once.Request{Principal: "key_1", Secret: "mst_secret", Route: "POST /api/v1/devices", Key: key, Print: []byte(`{"id":"d1"}`)}
}

// begin wants a turn.
func (r *onceRig) begin(q once.Request) *once.Turn {
	r.Helper()
	turn, answer, err := r.Begin(r.Context(), q)
	if err != nil || answer != nil {
		r.Fatalf("Begin gives %v, %v", answer, err)
	}
	return turn
}

func (r *onceRig) wantRefusal(q once.Request, want once.RefusedError) {
	r.Helper()
	if _, _, err := r.Begin(r.Context(), q); !errors.Is(err, want) {
		r.Errorf("Begin gives %v, want %s", err, want)
	}
}

var created = once.Answer{Status: 201, Header: map[string]string{"Location": "/api/v1/devices/d1"}, Body: []byte(`{"token":"issued-token"}`)}

func TestARequestIsDoneOnceAndItsAnswerIsGivenAgain(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		r := newOnce(t, c, once.Limits{})
		turn := r.begin(asked("k"))
		r.wantRefusal(asked("k"), once.ErrInFlight)
		wantNil(t, c.InsertDevices(turn.Context(t.Context()), []devices.Device{device("d1")}, nil))
		wantNil(t, turn.End(t.Context(), created, true))
		again := newOnce(t, c, once.Limits{}) // after a restart
		_, answer, err := again.Begin(t.Context(), asked("k"))
		wantNil(t, err)
		if d := cmp.Diff(&created, answer); d != "" {
			t.Error(d)
		}
		other := asked("k")
		other.Print = []byte(`{"id":"d2"}`)
		again.wantRefusal(other, once.ErrMismatch)
		for _, q := range []once.Request{asked("k2"), {Principal: "key_2", Secret: "s", Route: asked("k").Route, Key: "k"}, {Principal: "key_1", Secret: "s", Route: "PUT /x", Key: "k"}} {
			again.begin(q).Abandon()
		}
		row, ok, err := c.Once(t.Context(), "key_1", digestOf(asked("k")))
		wantNil(t, err)
		if !ok || strings.Contains(string(row.Answer), "issued-token") || strings.Contains(string(row.Answer), "Location") {
			t.Errorf("the database shows an answer: %q", row.Answer)
		}
		thief := asked("k")
		thief.Secret = "mst_other"
		if _, a, err := again.Begin(t.Context(), thief); err == nil || a != nil {
			t.Errorf("another credential opens the answer: %v", a)
		}
	})
}

func digestOf(q once.Request) string {
	h := sha256.Sum256([]byte(q.Route + "\x00" + q.Key))
	return hex.EncodeToString(h[:])
}

func TestAfterACrashBetweenTheChangeAndItsAnswerTheRequestIsKnownAsDone(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		turn := newOnce(t, c, once.Limits{}).begin(asked("k"))
		wantNil(t, c.InsertDevices(turn.Context(t.Context()), []devices.Device{device("d1")}, nil))
		newOnce(t, c, once.Limits{}).wantRefusal(asked("k"), once.ErrGone) // the process that ran turn is gone
		// Before the change nothing is written, and the request is done.
		newOnce(t, c, once.Limits{}).begin(asked("k2"))
		newOnce(t, c, once.Limits{}).begin(asked("k2")).Abandon()
	})
}

func TestAFailureThatChangedNothingIsForgottenAndOneThatDidIsKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		r := newOnce(t, c, once.Limits{})
		wantNil(t, c.InsertDevices(t.Context(), []devices.Device{device("d1")}, nil))
		turn := r.begin(asked("k"))
		wantKind(t, c.InsertDevices(turn.Context(t.Context()), []devices.Device{device("d1")}, nil), muster.Conflict)
		wantNil(t, turn.End(t.Context(), once.Answer{Status: 409}, false))
		turn = r.begin(asked("k")) // with this key again
		wantNil(t, c.InsertDevices(turn.Context(t.Context()), []devices.Device{device("d2")}, nil))
		wantNil(t, turn.End(t.Context(), once.Answer{Status: 503}, false))
		if _, a, err := r.Begin(t.Context(), asked("k")); err != nil || a.Status != 503 {
			t.Errorf("after half a change Begin gives %v, %v", a, err)
		}
	})
}

func TestTwoServersDoARequestOnce(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		one, two := newOnce(t, c, once.Limits{}).begin(asked("k")), newOnce(t, c, once.Limits{}).begin(asked("k"))
		wantNil(t, c.InsertDevices(one.Context(t.Context()), []devices.Device{device("d1")}, nil))
		wantKind(t, c.InsertDevices(two.Context(t.Context()), []devices.Device{device("d2")}, nil), muster.Conflict)
		wantNil(t, two.End(t.Context(), once.Answer{Status: 409}, false))
		wantNil(t, one.End(t.Context(), created, true))
		if _, a, err := newOnce(t, c, once.Limits{}).Begin(t.Context(), asked("k")); err != nil || a.Status != 201 {
			t.Errorf("Begin gives %v, %v", a, err)
		}
	})
}

func TestRequestsAreForgottenAfter24HoursAndBounded(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		r := newOnce(t, c, once.Limits{Rows: 3, All: 4, Bytes: 300, Busy: 2})
		for _, k := range []string{"a", "b", "c"} {
			wantNil(t, r.begin(asked(k)).End(t.Context(), created, true))
		}
		r.wantRefusal(asked("d"), once.ErrFull)
		r.wantRefusal(asked("c"), once.ErrGone) // the answers before filled the room
		other := asked("d")
		other.Principal = "key_2"
		wantNil(t, r.begin(other).End(t.Context(), once.Answer{Status: 200, Body: make([]byte, once.MaxAnswer+1)}, true))
		r.wantRefusal(other, once.ErrGone)
		other.Key = "e"
		r.wantRefusal(other, once.ErrFull)
		r.at = r.at.Add(once.Memory + time.Second)
		late := newOnce(t, c, once.Limits{})
		late.at = r.at
		turn := late.begin(asked("a")) // no longer known, though it is not yet purged
		wantNil(t, c.InsertDevices(turn.Context(t.Context()), []devices.Device{device("d1")}, nil))
		wantNil(t, turn.End(t.Context(), created, true))
		wantNil(t, r.Purge(t.Context()))
		if s := r.Stats(); s.Rows != 1 {
			t.Errorf("after the purge there are %+v", s)
		}
		x, y := r.begin(asked("x")), r.begin(asked("y"))
		r.wantRefusal(asked("z"), once.ErrFull)
		x.Abandon()
		y.Abandon()
	})
}

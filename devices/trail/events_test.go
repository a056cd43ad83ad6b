package trail_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/devices/intake"
	"muster/devices/trail"
)

// eventRig is Events on a real store.
type eventRig struct {
	*trail.Events
	*clock
	store *store
	told  []trail.Event
}

func newEvents(t *testing.T) *eventRig {
	r := &eventRig{clock: newClock(), store: newStore(t)}
	r.Events = trail.NewEvents(trail.EventsConfig{
		Store: r.store, Now: r.now, Logger: discard(), OnEvents: func(es []trail.Event) { r.told = append(r.told, es...) },
	})
	return r
}

// send takes one payload as an event of the type e of a.
func (r *eventRig) send(t *testing.T, payload string) string {
	t.Helper()
	return show(r.Take(t.Context(), []intake.Message{r.message(intake.Event, "a", "e", payload)}))[0]
}

func (r *eventRig) all(t *testing.T) []trail.Event {
	t.Helper()
	es, next, err := r.Page(t.Context(), trail.EventQuery{Device: "a", Limit: 10_000, Before: trail.EventPlace{Time: math.MaxInt64}})
	must(t, err)
	if next != nil {
		t.Error("there is a page after all")
	}
	return es
}

func TestWhatAnEventMayBe(t *testing.T) {
	at := time.Date(2026, 11, 22, 11, 0, 0, 0, time.UTC)
	cases := []struct {
		name, payload string
		kept          string // the payload as it is kept, empty when it is refused
		time          time.Time
		refused       string // its beginning
	}{
		{"an object, letter for letter", `{"b": 1.50, "a":[1]}`, `{"b": 1.50, "a":[1]}`, time.Time{}, ""},
		{"a number", `7`, `7`, time.Time{}, ""},
		{"nothing", ``, `null`, time.Time{}, ""},
		{"text becomes a string", "door \"open\"\n", `"door \"open\"\n"`, time.Time{}, ""},
		{"a broken object is text", `{"a":`, `"{\"a\":"`, time.Time{}, ""},
		{"ts", fmt.Sprintf(`{"ts":%d}`, at.UnixMilli()), fmt.Sprintf(`{"ts":%d}`, at.UnixMilli()), at, ""},
		{"timestamp in RFC 3339", `{"timestamp":"2026-11-22T11:00:00Z"}`, `{"timestamp":"2026-11-22T11:00:00Z"}`, at, ""},
		{"a ts that is none is a value", `{"ts":5}`, `{"ts":5}`, time.Time{}, ""},
		{"Ts is a value", `{"Ts":1763812800}`, `{"Ts":1763812800}`, time.Time{}, ""},
		{"before 2000", `{"ts":"1999-01-01T00:00:00Z"}`, "", time.Time{}, "time: time stamp 1999"},
		{"more than 24 h ahead", `{"ts":"2026-11-23T12:00:01Z"}`, "", time.Time{}, "time: time stamp 2026-11-23"},
		{"older than what is kept", `{"ts":"2026-10-22T12:00:00Z"}`, "", time.Time{}, "time: time stamp 2026-10-22T12:00:00Z is older than the 30 days"},
		{"neither JSON nor text", "\xff\xfe", "", time.Time{}, "text: "},
		{"64 KiB", `"` + strings.Repeat("x", 64<<10-2) + `"`, `"` + strings.Repeat("x", 64<<10-2) + `"`, time.Time{}, ""},
		{"more than 64 KiB", strings.Repeat("x", 64<<10+1), "", time.Time{}, "too_large: "},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			r := newEvents(t)
			got := r.send(t, tc.payload)
			if !strings.HasPrefix(got, tc.refused) || (got == "") != (tc.refused == "") {
				t.Fatalf("the answer is %q, want %q", got, tc.refused)
			}
			es := r.all(t)
			if tc.refused != "" {
				want(t, "events", nil, es)
				return
			}
			e := trail.Event{Device: "a", Type: "e", Time: r.micros(), Arrival: r.micros(), Payload: tc.kept, Mark: es[0].Mark}
			if !tc.time.IsZero() {
				e.Time = muster.MicrosOf(tc.time)
			}
			want(t, "events", []trail.Event{e}, es)
			want(t, "told", []trail.Event{e}, r.told)
		})
	}
}

func TestAResendOfAStampedEventMakesNoSecondOne(t *testing.T) {
	r := newEvents(t)
	for range 2 {
		want(t, "answer", "", r.send(t, `{"ts":"2026-11-22T11:00:00Z","n":1}`))
	}
	want(t, "another", "", r.send(t, `{"ts":"2026-11-22T11:00:00Z","n":2}`))
	want(t, "one without ts", "", r.send(t, `{"n":1}`))
	want(t, "and again", "", r.send(t, `{"n":1}`))
	want(t, "events", 4, len(r.all(t)))
	want(t, "events told of", 4, len(r.told))
}

func TestEventsOverTheRateAreRefusedVisiblyAndNobodyElsePays(t *testing.T) {
	r := newEvents(t)
	var ms []intake.Message
	for i := range 150 {
		ms = append(ms, r.message(intake.Event, "a", "e", fmt.Sprint(i)))
	}
	ms = append(ms, r.message(intake.Event, "b", "e", "1"))
	count := func(errs []error) (ok, rate int) {
		for _, s := range show(errs) {
			switch {
			case s == "":
				ok++
			case strings.HasPrefix(s, "rate: more than 10 events a second, or 100 at once"):
				rate++
			default:
				t.Errorf("answer %q", s)
			}
		}
		return ok, rate
	}
	r.store.fail = func() error { return muster.Errorf(muster.Unavailable, "away") }
	for _, s := range show(r.Take(t.Context(), ms[:100])) {
		want(t, "answer while the store is away", "unavailable: away", s)
	}
	r.store.fail = nil
	if ok, rate := count(r.Take(t.Context(), ms)); ok != 101 || rate != 50 {
		t.Errorf("%d kept, %d refused: what was tried again must not count twice", ok, rate)
	}
	r.add(2 * time.Second)
	ms = ms[:0]
	for i := range 30 {
		ms = append(ms, r.message(intake.Event, "a", "e", fmt.Sprint(1000+i)))
	}
	if ok, rate := count(r.Take(t.Context(), ms)); ok != 20 || rate != 10 {
		t.Errorf("2 s later %d kept, %d refused", ok, rate)
	}
}

func TestPagesOfEventsAreWholeAndOrdered(t *testing.T) {
	r := newEvents(t)
	rapid.Check(t, func(rt *rapid.T) {
		times := rapid.SliceOfN(rapid.IntRange(0, 6), 1, 40).Draw(rt, "minutes")
		size := rapid.IntRange(1, 7).Draw(rt, "page size")
		must(t, func() error { _, err := r.store.TrimEvents(t.Context(), "a", 1); return err }())
		base := len(r.all(t))
		r.add(time.Minute)
		for i, m := range times {
			r.add(11 * time.Second) // within the rate
			stamp := r.now().Truncate(time.Hour).Add(time.Duration(m-60) * time.Minute)
			want(t, "answer", "", r.send(t, fmt.Sprintf(`{"ts":%d,"i":%d,"r":%d}`, stamp.Unix(), i, r.micros())))
		}
		before, n := trail.EventPlace{Time: math.MaxInt64}, 0
		var last trail.Event
		for {
			page, next, err := r.Page(t.Context(), trail.EventQuery{Device: "a", Limit: size, Before: before})
			must(t, err)
			for _, e := range page {
				if n++; n > 1 && e.Time > last.Time {
					rt.Errorf("%v comes after %v", e, last)
				}
				last = e
			}
			if next == nil {
				break
			}
			before = *next
		}
		if n != len(times)+base {
			rt.Errorf("the pages hold %d events of %d", n, len(times)+base)
		}
	})
}

func TestEventsOfOtherRooms(t *testing.T) {
	r := newEvents(t)
	must(t, r.Append(t.Context(), []trail.Event{{Device: "a", Type: "login_failed", Payload: `{"peer":"10.0.0.1:99"}`}, {Device: "a", Type: "rotated", Time: 5}}))
	es := r.all(t)
	if len(es) != 2 || !es[0].System || es[0].Time != r.micros() || es[1].Time != 5 || es[1].Payload != "null" {
		t.Errorf("events %+v", es)
	}
	for name, e := range map[string]trail.Event{
		"no type": {Device: "a"}, "a slash": {Device: "a", Type: "a/b"}, "no JSON": {Device: "a", Type: "e", Payload: "x"},
		"a type of 65": {Device: "a", Type: strings.Repeat("x", 65)},
	} {
		if err := r.Append(t.Context(), []trail.Event{{Device: "a", Type: "fine"}, e}); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.Append(t.Context(), make([]trail.Event, 1001)); muster.KindOf(err) != muster.TooLarge {
		t.Errorf("1,001 events: %v", err)
	}
	want(t, "events after what was refused", 2, len(r.all(t)))
}

func TestNotesAreStoredSoonAndNeverWaitedFor(t *testing.T) {
	r := newEvents(t)
	for i := range 150 {
		r.Note(trail.Event{Device: "a", Type: "login_failed", Payload: fmt.Sprint(i)})
	}
	r.Note(trail.Event{Device: "b", Type: "bad type"})
	want(t, "dropped", uint64(51), r.NotesDropped())
	want(t, "events before the loop runs", 0, len(r.all(t)))
	runUntil(t, r.Run, func() bool { return len(r.all(t)) == 100 })
}

func TestTheNewestThousandEventsOfADeviceAreKept(t *testing.T) {
	r := newEvents(t)
	var ms []intake.Message
	for i := range 2000 {
		r.add(time.Second)
		ms = append(ms, r.message(intake.Event, "a", "e", fmt.Sprint(i)))
	}
	for _, s := range show(r.Take(t.Context(), ms)) {
		want(t, "answer", "", s)
	}
	must(t, r.Append(t.Context(), []trail.Event{{Device: "b", Type: "e", Time: 5}, {Device: "b", Type: "e"}}))
	left := func(id muster.DeviceID) int {
		es, _, err := r.Page(t.Context(), trail.EventQuery{Device: id, Limit: 10_000, Before: trail.EventPlace{Time: math.MaxInt64}})
		must(t, err)
		return len(es)
	}
	runUntil(t, r.Trim, func() bool { return left("a") == trail.MaxEvents && left("b") == 1 })
	if es := r.all(t); es[0].Payload != "1999" || es[999].Payload != "1000" {
		t.Errorf("kept %s to %s", es[999].Payload, es[0].Payload)
	}
	for i := range 101 { // and again when 100 more have come
		r.add(time.Second)
		want(t, "answer", "", r.send(t, fmt.Sprint(i)))
	}
	runUntil(t, r.Trim, func() bool { return left("a") == trail.MaxEvents })
}

func TestABrokenStoreStopsNoLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &brokenStore{}
		e := trail.NewEvents(trail.EventsConfig{Store: s, Now: time.Now, Logger: discard()})
		e.Note(trail.Event{Device: "a", Type: "e"})
		ctx, cancel := contextOf(t)
		done := make(chan error, 2)
		go func() { done <- e.Run(ctx) }()
		go func() { done <- e.Trim(ctx) }()
		<-time.After(10 * time.Minute)
		if n := s.calls.Load(); n < 10 || e.NotesDropped() != 1 {
			t.Errorf("%d calls of the store, %d notes dropped", n, e.NotesDropped())
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

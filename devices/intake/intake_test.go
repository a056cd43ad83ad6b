package intake_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"muster"
	"muster/devices/intake"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// owner keeps payloads; plan says what a Take of them answers before it keeps them.
type owner struct {
	mu    sync.Mutex
	kept  []string
	takes []int // how many messages each Take had
	plan  func(ms []intake.Message) []error
}

func (o *owner) Take(_ context.Context, ms []intake.Message) []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.takes = append(o.takes, len(ms))
	errs := make([]error, len(ms))
	if o.plan != nil {
		errs = o.plan(ms)
	}
	for i, err := range errs {
		if err == nil {
			o.kept = append(o.kept, string(ms[i].Payload))
		}
	}
	return errs
}

func all(n int, err error) []error { return slices.Repeat([]error{err}, n) }

// rig is an intake of events, and what it told.
type rig struct {
	*intake.Intake
	owner   *owner
	mu      sync.Mutex
	acks    []string // "token" or "token kind: text", in order
	refused []string // "payload code: reason"
}

func newRig(t testing.TB, o *owner, change ...func(*intake.Config)) *rig {
	r := &rig{owner: o}
	cfg := intake.Config{
		Owners: map[intake.Kind]intake.Owner{intake.Event: o}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Refuse: func(m intake.Message, code, reason string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.refused = append(r.refused, fmt.Sprintf("%s %s: %s", m.Payload, code, reason))
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	in, err := intake.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Intake = in
	return r
}

func (r *rig) Acked(token uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := fmt.Sprint(token)
	if err != nil {
		s += " " + muster.KindOf(err).String() + ": " + err.Error()
	}
	r.acks = append(r.acks, s)
}

func (r *rig) told() (acks, refused []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.acks), slices.Clone(r.refused)
}

func (r *rig) message(token int, qos byte) intake.Message {
	m := intake.Message{Kind: intake.Event, Device: "d", Topic: "devices/d/events/e", Tail: "e", Payload: []byte(fmt.Sprint("p", token)), QoS: qos, Token: uint64(token)}
	if qos > 0 {
		m.From = r
	}
	return m
}

func (r *rig) send(t testing.TB, tokens ...int) {
	t.Helper()
	for _, n := range tokens {
		if err := r.Accept(context.Background(), r.message(n, 1)); err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
	}
}

func (r *rig) stop(t testing.TB, grace time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if err := r.Stop(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// ledger returns the only kind's account, which must balance.
func (r *rig) ledger(t testing.TB) intake.Ledger {
	t.Helper()
	l := r.Status()[0].Ledger
	if l.Received != l.Stored+l.Rejected+l.Dropped+l.Queued {
		t.Errorf("the ledger does not balance: %+v", l)
	}
	return l
}

func want[T any](t testing.TB, what string, want, got T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func seq(from, to int) (tokens []int) {
	for i := from; i < to; i++ {
		tokens = append(tokens, i)
	}
	return tokens
}

func TestMessagesAreKeptInBatchesAndAckedInOrderAfterThat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{})
		r.send(t, seq(0, 1000)...)
		if acks, _ := r.told(); len(acks) > 0 {
			t.Errorf("%d acks before anything was kept", len(acks))
		}
		want(t, "ledger before the start", intake.Ledger{Received: 1000, Queued: 1000}, r.ledger(t))
		r.Start()
		r.stop(t, time.Minute)
		want(t, "batches", []int{500, 500}, r.owner.takes)
		acks, _ := r.told()
		var tokens, payloads []string
		for i := range 1000 {
			tokens, payloads = append(tokens, fmt.Sprint(i)), append(payloads, fmt.Sprint("p", i))
		}
		want(t, "acks", tokens, acks)
		want(t, "kept", payloads, r.owner.kept)
		want(t, "ledger", intake.Ledger{Received: 1000, Stored: 1000}, r.ledger(t))
	})
}

func TestThePayloadIsCopiedAndArrivalGrows(t *testing.T) {
	var seen []muster.Micros
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{plan: func(ms []intake.Message) []error {
			for _, m := range ms {
				seen = append(seen, m.Arrival)
			}
			return make([]error, len(ms))
		}})
		for range 3 {
			m := r.message(7, 0)
			if err := r.Accept(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			m.Payload[0] = 'x'
		}
		r.Start()
		r.stop(t, time.Minute)
		want(t, "kept", []string{"p7", "p7", "p7"}, r.owner.kept)
	})
	if len(seen) != 3 || seen[0] >= seen[1] || seen[1] >= seen[2] {
		t.Errorf("arrivals %v", seen)
	}
}

func TestAStoreThatIsAwayHoldsTheAcksBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := true
		o := &owner{plan: func(ms []intake.Message) []error {
			if away {
				return all(len(ms), muster.Errorf(muster.Unavailable, "away"))
			}
			return make([]error, len(ms))
		}}
		r := newRig(t, o)
		r.Start()
		r.send(t, 1, 2)
		synctest.Wait()
		<-time.After(time.Minute) // of the bubble
		acks, refused := r.told()
		if len(acks)+len(refused) > 0 || !r.Status()[0].Failing {
			t.Errorf("acks %v, refused %v, status %+v", acks, refused, r.Status())
		}
		o.mu.Lock()
		tries := len(o.takes)
		away = false
		o.mu.Unlock()
		if tries < 20 || tries > 60 {
			t.Errorf("%d tries in a minute", tries)
		}
		r.stop(t, time.Minute)
		acks, _ = r.told()
		if len(acks) > 0 {
			t.Errorf("a stop with the store away acked %v", acks)
		}
		want(t, "ledger", intake.Ledger{Received: 2, Queued: 2}, r.ledger(t))
	})
}

func TestItGoesOnByItselfWhenTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		r := newRig(t, &owner{plan: func(ms []intake.Message) []error {
			if time.Since(began) < 10*time.Second {
				return all(len(ms), muster.Errorf(muster.Busy, "later"))
			}
			return make([]error, len(ms))
		}})
		r.Start()
		r.send(t, 1, 2, 3)
		<-time.After(15 * time.Second) // of the bubble
		acks, _ := r.told()
		want(t, "acks", []string{"1", "2", "3"}, acks)
		r.stop(t, time.Minute)
	})
}

func TestWhatIsRefusedForGoodIsAckedAsRefusedAndKept(t *testing.T) {
	cases := []struct {
		name          string
		err           error
		refused, acks string
	}{
		{"by the owner's own words", intake.Refused("rate", "too many"), "p1 rate: too many", "1 invalid: too many"},
		{"by an error of a kind", muster.Errorf(muster.TooLarge, "64 KiB at most"), "p1 too_large: 64 KiB at most", "1 too_large: 64 KiB at most"},
		{"a conflict is none that sending again would solve", muster.Errorf(muster.Conflict, "taken"), "p1 conflict: taken", "1 invalid: taken"},
		{"a fault of ours, after some tries", errors.New("secret"), "p1 internal: internal error", "1 invalid: internal error"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &owner{plan: func(ms []intake.Message) []error {
					errs := make([]error, len(ms))
					for i, m := range ms {
						if string(m.Payload) == "p1" {
							errs[i] = tc.err
						}
					}
					return errs
				}})
				r.send(t, 0, 1, 2)
				r.Start()
				<-time.After(time.Minute) // of the bubble
				r.stop(t, time.Minute)
				acks, refused := r.told()
				want(t, "refused", []string{tc.refused}, refused)
				want(t, "acks", []string{"0", tc.acks, "2"}, acks)
				want(t, "ledger", intake.Ledger{Received: 3, Stored: 2, Rejected: 1}, r.ledger(t))
			})
		})
	}
}

func TestPoisonIsSplitUntilItStandsAlone(t *testing.T) {
	poison := func(what func(n int) []error) func(ms []intake.Message) []error {
		return func(ms []intake.Message) []error {
			for _, m := range ms {
				if string(m.Payload) == "p137" || string(m.Payload) == "p499" {
					return what(len(ms))
				}
			}
			return make([]error, len(ms))
		}
	}
	cases := []struct {
		name, code string
		what       func(n int) []error
	}{
		{"when the transaction is refused", "invalid", func(n int) []error { return all(n, muster.Errorf(muster.Invalid, "bad row")) }},
		{"when the owner panics", "internal", func(int) []error { panic("bad row") }},
		{"when the owner answers for too few", "internal", func(int) []error { return nil }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, &owner{plan: poison(tc.what)})
				r.send(t, seq(0, 500)...)
				r.Start()
				<-time.After(10 * time.Minute) // of the bubble: what panics is tried some times
				r.stop(t, time.Minute)
				acks, refused := r.told()
				want(t, "ledger", intake.Ledger{Received: 500, Stored: 498, Rejected: 2}, r.ledger(t))
				if len(acks) != 500 || len(refused) != 2 || acks[136] != "136" || acks[138] != "138" || len(r.owner.kept) != 498 {
					t.Errorf("%d acks, refused %v", len(acks), refused)
				}
				for i, p := range []string{"p137 ", "p499 "} {
					if len(refused) == 2 && refused[i][:len(p)+len(tc.code)] != p+tc.code {
						t.Errorf("refused %v", refused)
					}
				}
			})
		})
	}
}

func TestAFullQueueSlowsDownAndIsNeverAckedAndDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{})
		for i := range intake.MaxQueued {
			m := r.message(i, 1)
			m.Device = muster.DeviceID(fmt.Sprint("d", i%8)) // nobody has more than its share
			if err := r.Accept(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		waited := func(m intake.Message) (time.Duration, error) {
			began := time.Now()
			err := r.Accept(t.Context(), m)
			return time.Since(began), err
		}
		if d, err := waited(r.message(9999, 1)); d != 20*time.Second || muster.KindOf(err) != muster.Busy {
			t.Errorf("QoS 1 waited for %s and got %v", d, err)
		}
		if d, err := waited(r.message(9999, 0)); d != time.Second || err != nil {
			t.Errorf("QoS 0 waited for %s and got %v", d, err)
		}
		if d, err := waited(r.message(9999, 0)); d != 0 || err != nil {
			t.Errorf("the next of QoS 0 waited for %s and got %v", d, err)
		}
		want(t, "ledger", intake.Ledger{Received: intake.MaxQueued + 2, Queued: intake.MaxQueued, Dropped: 2}, r.ledger(t))
		var late sync.WaitGroup
		late.Go(func() { r.send(t, 10_000) })
		synctest.Wait()
		r.Start()
		late.Wait()
		r.stop(t, time.Minute)
		acks, _ := r.told()
		if len(acks) != intake.MaxQueued+1 || acks[intake.MaxQueued] != "10000" {
			t.Errorf("%d acks, the last %s", len(acks), acks[len(acks)-1])
		}
	})
}

func TestOnePublisherLeavesRoomForTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{})
		accept := func(device, by string) error {
			m := r.message(1, 1)
			m.Device, m.By = muster.DeviceID(device), muster.DeviceID(by)
			return r.Accept(t.Context(), m)
		}
		for i := range intake.MaxQueued / 4 {
			if err := accept(fmt.Sprint("child", i), "gateway"); err != nil {
				t.Fatal(err)
			}
		}
		if err := accept("childX", "gateway"); muster.KindOf(err) != muster.Busy {
			t.Errorf("the gateway over its share got %v", err)
		}
		if err := accept("other", ""); err != nil {
			t.Errorf("another device got %v", err)
		}
		r.Start()
		r.stop(t, time.Minute)
		if err := accept("other", ""); muster.KindOf(err) != muster.Busy {
			t.Errorf("after the stop: %v", err)
		}
	})
}

func TestTheBytesThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, &owner{})
		m := r.message(1, 0)
		m.Payload = make([]byte, 200<<10)
		for range 60 {
			if err := r.Accept(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		n := uint64(intake.MaxBytes / len(m.Payload))
		want(t, "ledger", intake.Ledger{Received: 60, Queued: n, Dropped: 60 - n}, r.ledger(t))
	})
}

func TestAKindWithoutAnOwnerIsNotTaken(t *testing.T) {
	r := newRig(t, &owner{})
	for _, k := range []intake.Kind{intake.Reported, 77} {
		if err := r.Accept(t.Context(), intake.Message{Kind: k}); muster.KindOf(err) != muster.Unavailable {
			t.Errorf("kind %s: %v", k, err)
		}
	}
	if _, err := intake.New(intake.Config{Owners: map[intake.Kind]intake.Owner{77: &owner{}}}); muster.KindOf(err) != muster.Invalid {
		t.Errorf("an owner of no kind: %v", err)
	}
}

// stubborn is an owner whose store fails at random: before the commit, after it (only
// the answer is lost), for some messages, or by a panic. Commits are idempotent.
type stubborn struct {
	mu   sync.Mutex
	dice func() int
	has  map[string]bool
}

func (s *stubborn) Take(_ context.Context, ms []intake.Message) []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	fate := s.dice()
	if fate == 1 {
		return all(len(ms), muster.Errorf(muster.Unavailable, "away"))
	}
	errs := make([]error, len(ms))
	for i, m := range ms {
		if m.Token%97 == 13 {
			errs[i] = intake.Refused("malformed", "unlucky")
		}
		if m.Token%101 == 50 && fate == 2 {
			errs[i] = muster.Errorf(muster.Busy, "that one later")
		}
		if m.Token%211 == 7 {
			return all(len(ms), muster.Errorf(muster.Invalid, "poison"))
		}
	}
	for i, m := range ms {
		if errs[i] == nil {
			s.has[string(m.Payload)] = true
		}
	}
	switch fate {
	case 3:
		return all(len(ms), muster.Errorf(muster.Unavailable, "the answer was lost"))
	case 4:
		panic("after the commit")
	}
	return errs
}

func TestWhatWasAckedIsInTheStoreWhateverFailsAndWheneverItIsKilled(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fates := rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 3, 4}), 1, 40).Draw(rt, "fates")
		count := rapid.IntRange(1, 2000).Draw(rt, "messages")
		life := time.Duration(rapid.IntRange(0, 5000).Draw(rt, "life in ms")) * time.Millisecond
		synctest.Test(t, func(t *testing.T) {
			n := 0
			s := &stubborn{has: map[string]bool{}, dice: func() int { n++; return fates[n%len(fates)] }}
			r := newRig(t, nil, func(c *intake.Config) { c.Owners[intake.Event] = s })
			r.Start()
			r.send(t, seq(0, min(count, 1000))...)
			<-time.After(life) // of the bubble
			r.stop(t, 0)       // as a kill: nothing is waited for
			synctest.Wait()    // but for the worker to be where it stays
			acks, refused := r.told()
			rejected := 0
			for i, a := range acks {
				switch p := fmt.Sprint("p", i); {
				case a == fmt.Sprint(i):
					if !s.has[p] {
						t.Errorf("%s was acked and is not in the store", p)
					}
				case i%97 == 13 || i%211 == 7 || a == fmt.Sprint(i, " invalid: internal error"): // an owner that panicked five times in a row
					rejected++
				default:
					t.Errorf("ack %d is %q", i, a)
				}
			}
			l := r.ledger(t)
			if int(l.Stored+l.Rejected) != len(acks) || int(l.Rejected) != rejected || len(refused) != rejected {
				t.Errorf("%d acks, %d refusals told, %d kept as rejected, ledger %+v", len(acks), rejected, len(refused), l)
			}
		})
	})
}

func TestEveryScrapeBalances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		r := newRig(t, &owner{plan: func(ms []intake.Message) []error {
			errs := make([]error, len(ms))
			errs[0] = intake.Refused("rate", "too many")
			return errs
		}}, func(c *intake.Config) { c.Metrics = reg })
		r.Start()
		r.send(t, seq(0, 10)...)
		r.stop(t, time.Minute)
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				got[f.GetName()+" "+m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
		l := r.ledger(t)
		want(t, "metrics", map[string]float64{
			"muster_intake_received_total event": 10, "muster_intake_stored_total event": float64(l.Stored),
			"muster_intake_rejected_total event": float64(l.Rejected), "muster_intake_dropped_total event": 0, "muster_intake_queued event": 0,
		}, got)
		if l.Rejected == 0 {
			t.Error("nothing was rejected")
		}
	})
}

// steps follows messages.
type steps struct {
	mu  sync.Mutex
	log []string
}

func (s *steps) Begin(m *intake.Message, _ muster.Micros) intake.Trace {
	if m.QoS == 0 {
		return nil
	}
	return &step{s, string(m.Payload)}
}

type step struct {
	s *steps
	p string
}

func (t *step) Step(name string, _ muster.Micros) { t.add(name) }
func (t *step) Refused(code, reason string)       { t.add(code + " " + reason) }
func (t *step) add(what string) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	t.s.log = append(t.s.log, t.p+" "+what)
}

func TestWhoFollowsAMessageIsToldOfEachStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &steps{}
		r := newRig(t, &owner{plan: func(ms []intake.Message) []error {
			return []error{nil, intake.Refused("rate", "too many"), nil}
		}}, func(c *intake.Config) { c.Trace = s })
		r.send(t, 0, 1)
		if err := r.Accept(t.Context(), r.message(2, 0)); err != nil {
			t.Fatal(err)
		}
		r.Start()
		r.stop(t, time.Minute)
		_ = r.Accept(t.Context(), r.message(3, 1)) // refused: it stopped
		want(t, "steps", []string{
			"p0 decoded", "p1 decoded", "p1 rate too many", "p0 stored", "p1 stored", "p0 acked", "p1 acked", "p3 dropped",
		}, s.log)
	})
}

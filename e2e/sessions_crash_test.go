package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	couriers      = 8
	readers       = 6
	retainedTopic = 20
	courierPeriod = 15 * time.Millisecond // readers are away for 400 ms: some 220 messages wait in a session
	arriveLimit   = 30 * time.Second
)

// TestSessionsSurviveKills kills the server again and again while publishers of
// QoS 1 and 2 send to persistent subscribers that come and go. What was
// acknowledged to a publisher reaches everyone who was subscribed before it was
// sent, in order; at QoS 2 once. Retained messages are there afterwards.
func TestSessionsSurviveKills(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	m := serveWatched(t)
	r := newRelay(m)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r.launch(ctx)
	for range kills(10) {
		r.progress(t, int64(50+dice.IntN(700)))
		pause(ctx, time.Duration(dice.IntN(150))*time.Millisecond)
		m.kill()
		m.start()
		if dice.IntN(4) == 0 { // while it starts, too
			pause(ctx, time.Duration(dice.IntN(400))*time.Millisecond)
			m.kill()
			m.start()
		}
		m.ready()
	}
	r.progress(t, 500)
	r.staying.Store(true)
	r.stopping.Store(true)
	timer := time.AfterFunc(finishLimit, cancel)
	r.senders.Wait()
	timer.Stop()
	for deadline := time.Now().Add(arriveLimit); r.missing() > 0 && time.Now().Before(deadline); {
		pause(ctx, 20*time.Millisecond)
	}
	cancel()
	r.hearers.Wait()
	r.verdict(t)
	m.kill() // what was retained is there after one more
	m.start()
	m.ready()
	r.checkRetained(t, m)
}

// relay is all publishers and subscribers of the test.
type relay struct {
	couriers          []*courier
	retained          *courier
	readers           []*reader
	acks              atomic.Int64
	stopping, staying atomic.Bool
	senders, hearers  sync.WaitGroup
}

func newRelay(m *muster) *relay {
	r := &relay{}
	version := func(i int) byte { return byte(4 + i/2%2) } // 3.1.1 and 5
	for i := range couriers {
		topic := fmt.Sprintf("crash/%d/x", i)
		r.couriers = append(r.couriers, &courier{
			addr: m.mqtt, key: m.key, id: fmt.Sprintf("courier-%d", i), index: i, version: version(i), qos: byte(1 + i%2),
			topic: func(int) string { return topic }, period: courierPeriod, acks: &r.acks,
		})
	}
	r.retained = &courier{
		addr: m.mqtt, key: m.key, id: "courier-retained", version: 4, qos: 1, retain: true,
		topic: func(seq int) string { return fmt.Sprintf("kept/%d", seq%retainedTopic) }, period: courierPeriod, acks: &r.acks,
	}
	for i := range readers {
		r.readers = append(r.readers, &reader{
			addr: m.mqtt, key: m.key, id: fmt.Sprintf("reader-%d", i), version: version(2 * i), filter: "crash/+/x",
			couriers: r.couriers, after: time.Duration(i) * 300 * time.Millisecond,
		})
	}
	return r
}

func (r *relay) launch(ctx context.Context) {
	for _, x := range r.readers {
		r.hearers.Go(func() { x.run(ctx, &r.staying) })
	}
	for _, c := range append([]*courier{r.retained}, r.couriers...) {
		r.senders.Go(func() { c.run(ctx, &r.stopping) })
	}
}

// progress waits until n more messages are acknowledged.
func (r *relay) progress(t *testing.T, n int64) {
	t.Helper()
	goal := r.acks.Load() + n
	await(t, fmt.Sprintf("%d more acks", n), progressLimit, func() bool { return r.acks.Load() >= goal })
}

// missing is how many messages have not arrived that must.
func (r *relay) missing() int {
	n := 0
	for _, x := range r.readers {
		x.mu.Lock()
		for i, from := range x.from {
			seen := map[int]bool{}
			for _, seq := range x.got[i] {
				seen[seq] = true
			}
			for seq := from; seq < r.couriers[i].made.Load(); seq++ {
				if !seen[int(seq)] {
					n++
				}
			}
		}
		x.mu.Unlock()
	}
	return n
}

// verdict compares what was acknowledged, which is all that was made, with what
// every reader got.
func (r *relay) verdict(t *testing.T) {
	t.Helper()
	for _, c := range append([]*courier{r.retained}, r.couriers...) {
		for _, v := range c.violations {
			t.Error(v)
		}
	}
	total, repeated := 0, 0
	for _, x := range r.readers {
		for _, v := range x.violations {
			t.Error(v)
		}
		if x.from == nil {
			t.Errorf("%s was never subscribed", x.id)
			continue
		}
		for i, c := range r.couriers {
			f := examine(x.got[i], x.from[i], c.made.Load()-int64(len(c.queue)))
			total, repeated = total+len(x.got[i]), repeated+f.repeated
			if f.lost > 0 {
				t.Errorf("%s lost %d of %d acknowledged messages of %s at QoS %d, the first is %d", x.id, f.lost, c.made.Load()-x.from[i], c.id, c.qos, f.firstLost)
			}
			if f.disorder > 0 {
				t.Errorf("%s got %d messages of %s at QoS %d after a later one, the first is %d", x.id, f.disorder, c.id, c.qos, f.firstDisorder)
			}
			if c.qos == 2 && f.repeated > 0 {
				t.Errorf("%s got %d messages of %s twice at QoS 2, the first is %d", x.id, f.repeated, c.id, f.firstRepeated)
			}
		}
	}
	t.Logf("%d acks; %d deliveries, of which %d were repetitions", r.acks.Load(), total, repeated)
}

// finding is what is wrong with what one reader got of one courier.
type finding struct{ lost, firstLost, disorder, firstDisorder, repeated, firstRepeated int }

// examine takes seqs as they came, and the range of those that must be there.
// Their first occurrences must ascend. One from before the subscription may come late:
// a publisher that had no answer repeats it after a kill.
func examine(got []int, from, to int64) finding {
	f := finding{firstLost: -1, firstDisorder: -1, firstRepeated: -1}
	mark := func(n, first *int, seq int) {
		if *n == 0 {
			*first = seq
		}
		*n++
	}
	seen, last := map[int]bool{}, -1
	for _, seq := range got {
		if seen[seq] {
			mark(&f.repeated, &f.firstRepeated, seq)
			continue
		}
		seen[seq] = true
		if seq < last && int64(seq) >= from {
			mark(&f.disorder, &f.firstDisorder, seq)
		}
		last = max(last, seq)
	}
	for seq := from; seq < to; seq++ {
		if !seen[int(seq)] {
			mark(&f.lost, &f.firstLost, int(seq))
		}
	}
	return f
}

// checkRetained subscribes anew and wants the last message of every topic.
func (r *relay) checkRetained(t *testing.T, m *muster) {
	t.Helper()
	made := int(r.retained.made.Load())
	if made < retainedTopic {
		t.Fatalf("only %d retained messages were published", made)
	}
	want := map[string]string{}
	for seq := range made {
		want[r.retained.topic(seq)] = fmt.Sprintf("0 %d", seq)
	}
	w, err := dialWire(t.Context(), m.mqtt, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.connect("retained-check", m.key, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(w.subscribePacket(1, "kept/#", 0)); err != nil {
		t.Fatal(err)
	}
	for len(want) > 0 {
		head, body, err := w.packet() // within connect's deadline
		if err != nil {
			t.Fatalf("%d retained messages did not come, such as %v: %v", len(want), want, err)
		}
		if head>>4 != 3 {
			continue
		}
		p, err := w.parsePublish(head, body)
		if err != nil {
			t.Fatal(err)
		}
		if want[p.topic] != p.payload {
			t.Errorf("%s has %q retained, want %q", p.topic, p.payload, want[p.topic])
		}
		delete(want, p.topic)
	}
}

func TestTheCheckerFindsWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name string
		got  []int
		want finding
	}{
		{"all in order", []int{1, 2, 3, 4}, finding{0, -1, 0, -1, 0, -1}},
		{"more than what must be there", []int{0, 1, 2, 3, 4, 5}, finding{0, -1, 0, -1, 0, -1}},
		{"one is lost", []int{2, 4}, finding{1, 3, 0, -1, 0, -1}},
		{"repetitions are not disorder", []int{2, 3, 2, 3, 4}, finding{0, -1, 0, -1, 2, 2}},
		{"a first occurrence after a later one", []int{2, 4, 3}, finding{0, -1, 1, 3, 0, -1}},
		{"one from before the subscription that its publisher repeats", []int{2, 3, 1, 2, 3, 4}, finding{0, -1, 0, -1, 2, 2}},
		{"nothing came", nil, finding{3, 2, 0, -1, 0, -1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := examine(test.got, 2, 5); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

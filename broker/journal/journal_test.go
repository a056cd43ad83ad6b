package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
)

func TestRecordsComeBackInTheOrderWritten(t *testing.T) {
	log := newMemLog(0)
	anchor(t, log)
	j, _ := anchored(t, log, nil)
	stop := run(t, j)
	var want []string
	for i := range 500 {
		want = append(want, fmt.Sprintf("record %d", i))
		j.Write([]byte(want[i]), nil, nil, nil)
		if i%100 == 0 {
			flush(t, j)
		}
	}
	stop()
	_, got := anchored(t, log, nil)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if log.last > 50 {
		t.Errorf("500 records made %d frames", log.last)
	}
}

func TestAnswersComeInTheOrderOfWritesFromManyWriters(t *testing.T) {
	j, _ := open(t, newMemLog(0), nil)
	run(t, j)
	var wg sync.WaitGroup
	var busy atomic.Int32
	for w := range 8 {
		wg.Go(func() {
			next := 0
			var all sync.WaitGroup
			for i := range 2000 {
				all.Add(1)
				j.Write([]byte("x"), nil, nil, func(err error) {
					defer all.Done()
					if busy.Add(1) != 1 {
						t.Error("two answers at once")
					}
					if err != nil || next != i {
						t.Errorf("writer %d: answer %d came as the %dth, %v", w, i, next, err)
					}
					next++
					busy.Add(-1)
				})
			}
			all.Wait()
		})
	}
	wg.Wait()
}

func TestWhatIsRefusedKeepsItsPlaceAndTakesNoEffect(t *testing.T) {
	log := newMemLog(0)
	anchor(t, log)
	j, _ := anchored(t, log, nil)
	var got []string
	say := func(name string) func(error) {
		return func(err error) {
			if err != nil {
				name += " " + muster.KindOf(err).String()
			}
			got = append(got, name)
		}
	}
	keep, big := newText("keep"), newText("")
	j.Write([]byte("keep"), &keep.Item, nil, say("first"))
	j.Write(make([]byte, MaxRecord+1), &big.Item, []*Item{&keep.Item}, say("too large"))
	j.WriteFunc(func(b []byte) []byte { return nil }, &big.Item, nil, say("nothing"))
	j.Write(make([]byte, MaxRecord), nil, nil, say("largest"))
	j.Write([]byte(""), nil, nil, say("empty"))
	stop := run(t, j)
	flush(t, j)
	stop()
	if diff := cmp.Diff([]string{"first", "too large too_large", "nothing invalid", "largest", "empty"}, got); diff != "" {
		t.Error(diff)
	}
	if st := j.Stats(); st.Items != 2 || st.PendingBytes != 0 || st.Records != 3 {
		t.Errorf("stats %+v", st)
	}
	_, records := anchored(t, log, nil)
	if len(records) != 3 || records[0] != "keep" || len(records[1]) != MaxRecord || records[2] != "" {
		t.Errorf("%d records came back", len(records))
	}
}

func TestAFrameHasAtMostAMebibyteOfSeveralRecords(t *testing.T) {
	log := newMemLog(0)
	j, _ := open(t, log, nil)
	for range 50 {
		j.Write(make([]byte, 100<<10), nil, nil, nil)
	}
	run(t, j)
	flush(t, j)
	for seq, b := range log.frames {
		if len(b) > frameMost+trailerSize {
			t.Errorf("frame %d has %d bytes", seq, len(b))
		}
	}
	if log.last != 5 {
		t.Errorf("%d frames", log.last)
	}
}

func TestRoomWaitsForWhatIsNotDurable(t *testing.T) {
	log := newMemLog(0)
	log.setGone(false)
	j, _ := open(t, log, func(c *Config) { c.MaxPending = 1000 })
	log.setGone(true)
	run(t, j)
	if err := j.Room(t.Context()); err != nil || j.Full() {
		t.Fatalf("an empty journal has no room: %v", err)
	}
	j.Write(make([]byte, 2000), nil, nil, nil)
	if !j.Full() {
		t.Fatal("there is room beyond the bound")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := j.Room(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("room answered %v", err)
	}
	if err := j.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("flush answered %v", err)
	}
	log.setGone(false)
	if err := j.Room(within(t)); err != nil {
		t.Fatal(err)
	}
	flush(t, j)
}

func TestStoppingAppendsWhatIsPending(t *testing.T) {
	log := newMemLog(0)
	anchor(t, log)
	j, _ := anchored(t, log, nil)
	var answers []error
	for range 3 {
		j.Write([]byte("x"), nil, nil, func(err error) { answers = append(answers, err) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	_, records := anchored(t, log, nil)
	if len(records) != 0 && len(records) != 3 || len(answers) != 3 {
		t.Fatalf("%d records, %d answers", len(records), len(answers))
	}
	for _, err := range answers {
		if (err == nil) != (len(records) == 3) {
			t.Errorf("%d records are there, the answer was %v", len(records), err)
		}
	}
}

func TestStoppingWithoutTheLogTellsEveryWriter(t *testing.T) {
	for _, kind := range []muster.Kind{muster.Busy, muster.Unavailable, muster.Invalid} {
		t.Run(kind.String(), func(t *testing.T) {
			log := newMemLog(0)
			j, _ := open(t, log, nil)
			log.before = func() (error, bool) { return muster.Errorf(kind, "no"), false }
			stop := run(t, j)
			var answers []error
			for range 30 {
				j.Write(make([]byte, 100<<10), nil, nil, func(err error) { answers = append(answers, err) })
			}
			stop()
			want := kind
			if kind == muster.Invalid {
				want = muster.Unavailable
			}
			if len(answers) != 30 {
				t.Fatalf("%d of 30 writers were told", len(answers))
			}
			for _, err := range answers {
				if err == nil || muster.KindOf(err) != want {
					t.Errorf("a writer was told %v", err)
				}
			}
			j.Write([]byte("late"), nil, nil, func(err error) { t.Errorf("a late writer was told %v", err) })
			if err := j.Flush(t.Context()); err != nil {
				t.Errorf("nothing is pending, flush answered %v", err)
			}
		})
	}
}

func TestAnOutageLosesAndReordersNothingAndIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(0)
		var said, answered atomic.Int32
		anchor(t, log)
		j, _ := anchored(t, log, func(c *Config) { c.OnStuck = func(error) { said.Add(1) } })
		j.wait0 = firstWait
		stop := run(t, j)
		var want []string
		write := func(n int) {
			for range n {
				want = append(want, fmt.Sprint(len(want)))
				j.Write([]byte(want[len(want)-1]), nil, nil, func(err error) {
					if err != nil {
						t.Errorf("answer %v", err)
					}
					answered.Add(1)
				})
			}
		}
		write(10)
		synctest.Wait()
		log.setGone(true)
		write(10)
		time.Sleep(4 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if answered.Load() != 10 || said.Load() != 0 {
			t.Fatalf("after 4 s %d answers, stuck said %d times", answered.Load(), said.Load())
		}
		time.Sleep(time.Minute) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		write(10)
		if st := j.Stats(); said.Load() != 1 || st.Stuck < 50*time.Second || st.Errors < 20 {
			t.Fatalf("after a minute stuck was said %d times, stats %+v", said.Load(), st)
		}
		log.setGone(false)
		time.Sleep(3 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if st := j.Stats(); answered.Load() != 30 || st.Stuck != 0 {
			t.Fatalf("after the outage %d answers, stats %+v", answered.Load(), st)
		}
		stop()
		_, got := anchored(t, log, nil)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAPanicEndsNobodyElse(t *testing.T) {
	j, _ := open(t, newMemLog(0), nil)
	run(t, j)
	told := make(chan error, 1)
	j.Write([]byte("a"), nil, nil, func(error) { panic("a writer's fault") })
	j.Write([]byte("b"), nil, nil, func(err error) { told <- err })
	if err := <-told; err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		j.WriteFunc(func([]byte) []byte { panic("an encoder's fault") }, nil, nil, nil)
	}()
	flush(t, j)
	if st := j.Stats(); st.Panics != 1 {
		t.Errorf("%d panics counted", st.Panics)
	}
}

// faulty is a log whose next append panics.
type faulty struct {
	*memLog
	fault atomic.Bool
}

func (l *faulty) Append(ctx context.Context, id string, b []byte) (uint64, error) {
	if l.fault.CompareAndSwap(true, false) {
		_, _ = l.memLog.Append(ctx, id, b)
		panic("a log's fault")
	}
	return l.memLog.Append(ctx, id, b)
}

func TestRunGoesOnAfterAPanicWithoutLossOrRepetition(t *testing.T) {
	log := &faulty{memLog: newMemLog(0)}
	anchor(t, log)
	j, _ := anchored(t, log, nil)
	log.fault.Store(true)
	j.Write([]byte("a"), nil, nil, nil)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = j.Run(t.Context())
	}()
	stop := run(t, j)
	j.Write([]byte("b"), nil, nil, nil)
	flush(t, j)
	stop()
	_, got := anchored(t, log, nil)
	if diff := cmp.Diff([]string{"a", "b"}, got); diff != "" {
		t.Error(diff)
	}
}

func TestRunWithoutReplayIsRefusedWhereThereIsSomethingToReplay(t *testing.T) {
	log := newMemLog(0)
	j, _ := open(t, log, nil)
	stop := run(t, j)
	j.Write([]byte("x"), nil, nil, nil)
	flush(t, j)
	stop()
	again, err := New(Config{Log: log, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Run(t.Context()); muster.KindOf(err) != muster.Invalid || !strings.Contains(err.Error(), "not replayed") {
		t.Errorf("run answered %v", err)
	}
}

func TestAnItemThatGoesBeforeItsEndIsDurableIsNotCleanedOver(t *testing.T) {
	log := newMemLog(0)
	j, _ := open(t, log, nil)
	j.slack = 0
	stop := run(t, j)
	hole := &ghost{}
	hole.Owner = hole
	j.Write([]byte("hole"), &hole.Item, nil, nil)
	flush(t, j)
	hole.gone.Store(true)
	for range 200 {
		j.Write(make([]byte, 100), nil, nil, nil)
		flush(t, j)
	}
	if st := j.Stats(); st.Blocked == 0 || st.Cleaned != 0 {
		t.Errorf("stats %+v", st)
	}
	stop()
	if _, got := open(t, log, nil); got[0] != "hole" {
		t.Errorf("the log begins with %q", got[0])
	}
}

// ghost is an item that may have gone.
type ghost struct {
	Item
	gone atomic.Bool
}

func (g *ghost) AppendRecord(b []byte) []byte {
	if g.gone.Load() {
		return nil
	}
	return append(b, "ghost"...)
}

func TestAnIdleJournalPurgesWhatNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newMemLog(0)
		j, _ := open(t, log, nil)
		stop := run(t, j)
		last := newText(strings.Repeat("x", 300))
		for range 50 {
			next := newText(last.record)
			j.Write([]byte(next.record), &next.Item, []*Item{&last.Item}, nil)
			last = next
			synctest.Wait()
		}
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if st := j.Stats(); st.LogBytes > 1024 || st.Items != 1 {
			t.Errorf("stats %+v", st)
		}
		frames := j.Stats().Frames
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		synctest.Wait()
		if now := j.Stats().Frames; now > frames+1 {
			t.Errorf("%d frames in an idle hour", now-frames)
		}
		stop()
		if _, got := open(t, log, nil); len(got) == 0 || got[len(got)-1] != last.record {
			t.Errorf("the last of %d records is not the item's", len(got))
		}
	})
}

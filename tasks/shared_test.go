package tasks_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"muster/tasks"
)

// worker counts how many of it there are.
type worker struct {
	now, most, starts atomic.Int64
	fail              func(n int64) error // of the start n, from 1; nil goes on until the end
}

func (w *worker) work(ctx context.Context) error {
	n := w.starts.Add(1)
	if now := w.now.Add(1); now > w.most.Load() {
		w.most.Store(now)
	}
	defer w.now.Add(-1)
	if w.fail != nil {
		if err := w.fail(n); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return ctx.Err()
}

func newShared(w *worker) *tasks.Shared {
	return tasks.NewShared("test", time.Second, newDiscard(), w.work)
}

func stopShared(t tb, s *tasks.Shared) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	must(t, s.Stop(ctx))
}

func TestASharedWorkerLivesFromTheFirstViewerUntilAWhileAfterTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &worker{}
		s := newShared(w)
		alive := func(want int64, when string) {
			t.Helper()
			synctest.Wait()
			if got := w.now.Load(); got != want || s.Status().Running != (want > 0) {
				t.Errorf("%s there are %d workers, want %d", when, got, want)
			}
		}
		alive(0, "before anybody watches")
		first, second := s.Join(), s.Join()
		alive(1, "with two viewers")
		first()
		first()
		alive(1, "with one, who is counted once though the other left twice")
		second()
		alive(1, "just after the last left")
		synctest.Wait()
		<-time.After(time.Second - time.Nanosecond)
		alive(1, "within the linger")
		third := s.Join()
		<-time.After(time.Hour)
		alive(1, "with a viewer who came in time")
		if got := w.starts.Load(); got != 1 {
			t.Errorf("it was started %d times", got)
		}
		third()
		<-time.After(time.Second)
		alive(0, "after the linger")
		leave := s.Join()
		alive(1, "with a viewer who came later")
		stopShared(t, s)
		alive(0, "after the stop")
		leave()
		s.Join()()
		<-time.After(time.Hour)
		alive(0, "for viewers after the stop")
		if st := s.Status(); st.Starts != 2 || st.Restarts != 0 {
			t.Errorf("the status is %+v", st)
		}
	})
}

func TestASharedWorkerThatFailsIsStartedAgainWithBackoffWhileSomebodyWatches(t *testing.T) {
	for name, fail := range map[string]func(int64) error{
		"an error": func(int64) error { return errors.New("no luck") },
		"a panic":  func(int64) error { panic("no luck") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &worker{fail: fail}
				s := newShared(w)
				leave := s.Join()
				<-time.After(350 * time.Millisecond) // at 0, 100 and 300 ms
				synctest.Wait()
				if got := w.starts.Load(); got != 3 {
					t.Errorf("it was started %d times", got)
				}
				<-time.After(time.Hour) // every 10 s at last
				synctest.Wait()
				if got := w.starts.Load(); got < 360 || got > 370 {
					t.Errorf("it was started %d times in an hour", got)
				}
				st := s.Status()
				if st.Restarts != int(w.starts.Load()) || !strings.Contains(st.LastErr, "no luck") || st.Starts != 1 {
					t.Errorf("the status is %+v", st)
				}
				leave()
				<-time.After(time.Second)
				synctest.Wait()
				before := w.starts.Load()
				<-time.After(time.Hour)
				synctest.Wait()
				if got := w.starts.Load(); got != before || s.Status().Running {
					t.Errorf("nobody watches, and it was started %d times more", got-before)
				}
				stopShared(t, s)
			})
		})
	}
}

func TestASharedWorkerIsExactWhateverViewersDo(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		type act struct {
			join  bool
			after time.Duration
		}
		acts := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) act {
			return act{rapid.Bool().Draw(rt, "join"), time.Duration(rapid.IntRange(0, 1500).Draw(rt, "ms")) * time.Millisecond}
		}), 1, 40).Draw(rt, "acts")
		failing := rapid.SampledFrom([]int64{0, 2, 3}).Draw(rt, "failing")
		synctest.Test(t, func(t *testing.T) {
			w := &worker{}
			if failing > 0 {
				w.fail = func(n int64) error {
					if n%failing == 0 {
						return errors.New("no luck")
					}
					return nil
				}
			}
			s := newShared(w)
			var leaves []func()
			gone := time.Now().Add(-time.Hour) // when the last viewer left
			for _, a := range acts {
				if a.join {
					leaves = append(leaves, s.Join())
				} else if len(leaves) > 0 {
					leaves[0]()
					if leaves = leaves[1:]; len(leaves) == 0 {
						gone = time.Now()
					}
				}
				<-time.After(a.after)
				synctest.Wait()
				wanted := len(leaves) > 0 || time.Since(gone) < time.Second
				st := s.Status()
				if st.Viewers != len(leaves) || st.Running != wanted || !wanted && w.now.Load() != 0 {
					t.Errorf("%d viewers, %v after the last: %+v with %d workers", len(leaves), time.Since(gone), st, w.now.Load())
				}
				if failing == 0 && wanted && w.now.Load() != 1 {
					t.Errorf("%d workers for %d viewers", w.now.Load(), len(leaves))
				}
			}
			stopShared(t, s)
			if w.most.Load() > 1 || w.now.Load() != 0 {
				t.Errorf("there were %d at once, %d are left", w.most.Load(), w.now.Load())
			}
		})
	})
}

func TestASharedWorkerIsOneForManyViewersAtOnce(t *testing.T) {
	w := &worker{}
	s := tasks.NewShared("test", 0, newDiscard(), w.work)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				s.Join()()
			}
		})
	}
	wg.Wait()
	if got := s.Status().Viewers; got != 0 {
		t.Errorf("%d viewers are left", got)
	}
	stopShared(t, s)
	if w.most.Load() > 1 || w.now.Load() != 0 || w.starts.Load() == 0 {
		t.Errorf("there were %d at once, %d are left, %d starts", w.most.Load(), w.now.Load(), w.starts.Load())
	}
}

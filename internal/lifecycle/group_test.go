package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestALoopThatFailsOrPanicsIsStartedAgainWithABackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(slog.New(slog.DiscardHandler))
		runs := 0
		begun := time.Now()
		g.Go("worker", func(ctx context.Context) error {
			runs++
			switch runs {
			case 1:
				panic("first")
			case 2:
				return errors.New("second")
			}
			<-ctx.Done()
			return nil
		})
		time.Sleep(400 * time.Millisecond) //nolint:forbidigo // synctest's clock
		synctest.Wait()
		if runs != 3 || time.Since(begun) < 300*time.Millisecond {
			t.Errorf("%d runs in %s", runs, time.Since(begun))
		}
		st := g.Status()[0]
		if !st.Running || st.Restarts != 2 || st.LastErr != "second" {
			t.Errorf("status %+v", st)
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		if g.Status()[0].Running {
			t.Error("a loop runs after Stop")
		}
	})
}

func TestStopWaitsForItsLoopsAndNamesThoseThatDoNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(slog.New(slog.DiscardHandler))
		release := make(chan struct{})
		g.Go("stubborn", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Stop(ctx); err == nil || !strings.Contains(err.Error(), "stubborn") {
			t.Errorf("Stop answered %v", err)
		}
		close(release)
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		g.Go("late", func(context.Context) error { t.Error("a loop began after Stop"); return nil })
		synctest.Wait()
	})
}

func TestALoopThatIsDoneStaysDone(t *testing.T) {
	g := NewGroup(slog.New(slog.DiscardHandler))
	done := make(chan struct{})
	g.Go("once", func(context.Context) error { close(done); return nil })
	<-done
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if st := g.Status()[0]; st.Restarts != 0 || st.Running {
		t.Errorf("status %+v", st)
	}
}

func TestGuardTurnsAPanicIntoAnErrorWithItsStack(t *testing.T) {
	err := Guard(func() error { panic("boom") })
	p, ok := errors.AsType[*PanicError](err)
	if !ok || p.Value != "boom" || !strings.Contains(string(p.Stack), "TestGuard") {
		t.Errorf("got %v", err)
	}
}

func TestALoopThatIsMadeToFailIsStartedAgainAndTheOthersGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(slog.New(slog.DiscardHandler))
		var runs [2]atomic.Int32
		for i, name := range []string{"a", "b"} {
			g.Go(name, func(ctx context.Context) error {
				runs[i].Add(1)
				<-ctx.Done()
				return nil
			})
		}
		synctest.Wait()
		if !g.Fail("a", "on purpose\nand more") || g.Fail("nobody", "") {
			t.Error("Fail does not know what runs")
		}
		<-time.After(time.Second) // by the bubble's clock
		synctest.Wait()
		st := g.Status()
		if a, b := runs[0].Load(), runs[1].Load(); a != 2 || b != 1 || st[0].Restarts != 1 || st[1].Restarts != 0 || !st[0].Running {
			t.Errorf("%d and %d runs, %+v", runs[0].Load(), runs[1].Load(), st)
		}
		if st[0].LastErr != "panic: on purpose" || st[0].Restarted.IsZero() || !st[1].Restarted.IsZero() {
			t.Errorf("%+v", st[0])
		}
		if err := g.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

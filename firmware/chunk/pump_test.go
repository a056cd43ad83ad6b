package chunk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/firmware/budget"
	"muster/firmware/budget/budgettest"
	"muster/firmware/chunk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf has images in memory, and counts those that are open.
type shelf struct {
	mu     sync.Mutex
	images map[string][]byte
	open   int
	opened int
}

type image struct {
	*bytes.Reader
	of *shelf
}

func (i image) Close() error {
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	i.of.open--
	return nil
}

func (s *shelf) Open(sha256 string) (chunk.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.images[sha256]
	if !ok {
		return nil, muster.Errorf(muster.NotFound, "there is no such image")
	}
	s.open++
	s.opened++
	return image{bytes.NewReader(b), s}, nil
}

// sink is a device. It can be told not to read, or to be gone.
type sink struct {
	mu     sync.Mutex
	became chunk.Given
	got    []string // offset and length, in order
	bytes  int
	at     []time.Time
	failed []error
	all    *[]string // of all devices together
	name   string
}

func (s *sink) Give(p chunk.Piece) chunk.Given {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.became == chunk.Taken {
		s.got = append(s.got, fmt.Sprintf("%d+%d", p.Off, len(p.Data)))
		s.at = append(s.at, time.Now())
		s.bytes += len(p.Data)
		if s.all != nil {
			*s.all = append(*s.all, s.name)
		}
	}
	return s.became
}

func (s *sink) Fail(_ int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = append(s.failed, err)
}

func (s *sink) set(g chunk.Given) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.became = g
}

const size = 100_000

type rig struct {
	*chunk.Pump
	t      *testing.T
	shelf  *shelf
	cancel context.CancelFunc
	ended  chan error

	budgets *budget.Budgets
	counted *budgettest.Store
}

// spent returns how many bytes of an action a device was sent, as the budgets have it at their end.
func (r *rig) spent(device string, action int64) int64 {
	r.t.Helper()
	r.must(r.budgets.End(r.t.Context()))
	return r.counted.Reserved(budget.Key{Device: muster.DeviceID(device), Action: action})
}

// with runs f in a bubble of its own time, with a Pump; start runs it.
func with(t *testing.T, rate int64, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{images: map[string][]byte{"a": make([]byte, size), "cut": make([]byte, 10)}}
		c := &budgettest.Store{}
		b := budget.New(c, budget.Options{Wait: time.Second})
		p, err := chunk.New(chunk.Config{Images: s, Budgets: b, Rate: rate, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		r := &rig{Pump: p, t: t, shelf: s, cancel: func() {}, budgets: b, counted: c}
		f(r)
		r.cancel()
		if r.ended != nil {
			if err := <-r.ended; !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		if s.open != 0 {
			t.Errorf("%d images are open at the end", s.open)
		}
	})
}

func (r *rig) start() {
	var ctx context.Context
	ctx, r.cancel = context.WithCancel(context.Background())
	r.ended = make(chan error, 1)
	go func() { r.ended <- r.Run(ctx) }()
	synctest.Wait()
}

func (r *rig) ask(device string, action int32, off int64, length, n int, to chunk.Receiver) error {
	return r.Ask(r.t.Context(), chunk.Request{Device: muster.DeviceID(device), Action: action, Total: size, SHA256: "a", Size: size, Off: off, Len: length, N: n, To: to})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) refused(err error, code chunk.Code) {
	r.t.Helper()
	if x, ok := errors.AsType[*chunk.RefusedError](err); !ok || x.Code != code || x.Words == "" {
		r.t.Errorf("%v, want %s", err, code)
	}
}

func TestPiecesComeInOrderAndTheLastIsCutAtTheEnd(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		s := &sink{}
		r.must(r.ask("d", 1, 98_000, 1500, 8, s))
		synctest.Wait()
		if fmt.Sprint(s.got) != "[98000+1500 99500+500]" {
			r.t.Errorf("%v", s.got)
		}
		r.refused(r.ask("d", 1, size, 256, 1, s), chunk.OutOfRange)
		r.refused(r.ask("d", 1, -1, 256, 1, s), chunk.OutOfRange)
	})
}

func TestDevicesAreServedInTurn(t *testing.T) {
	with(t, 0, func(r *rig) {
		var all []string
		for _, name := range []string{"a", "b", "c"} {
			r.must(r.ask(name, 1, 0, 1000, 3, &sink{all: &all, name: name}))
		}
		r.start()
		if len(all) != 9 {
			r.t.Fatalf("%v", all)
		}
		for i := 3; i < 9; i++ {
			if all[i] != all[i-3] || all[i] == all[i-1] {
				r.t.Errorf("%v", all)
			}
		}
	})
}

func TestTheBandwidthIsKept(t *testing.T) {
	with(t, 100_000, func(r *rig) {
		r.start()
		s := &sink{}
		began := time.Now()
		for off := int64(0); off < size; off += 20_000 {
			r.must(r.ask("d", 1, off, 10_000, 2, s))
		}
		<-time.After(10 * time.Second) // of the bubble
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		took := s.at[len(s.at)-1].Sub(began)
		if s.bytes != size || took < 850*time.Millisecond || took > 1100*time.Millisecond {
			r.t.Errorf("%d bytes took %s at 100,000 a second", s.bytes, took)
		}
		for i := 1; i < len(s.at); i++ {
			if gap := s.at[i].Sub(s.at[i-1]); gap > 150*time.Millisecond {
				r.t.Errorf("piece %d came %s after the one before", i, gap)
			}
		}
	})
}

func TestADeviceGetsAtMostThreeTimesTheReleaseForAnAction(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		s := &sink{}
		for range 3 {
			for off := int64(0); off < size; off += 50_000 {
				r.must(r.ask("d", 1, off, 50_000, 1, s))
				synctest.Wait()
			}
		}
		r.refused(r.ask("d", 1, 0, 256, 1, s), chunk.Budget)
		if s.bytes != 3*size {
			r.t.Errorf("%d bytes", s.bytes)
		}
		r.must(r.ask("d", 2, 0, 256, 1, s)) // the next attempt
		r.must(r.ask("e", 1, 0, 256, 1, s)) // another device
	})
}

func TestNoPieceIsSentThatIsNotCounted(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		s := &sink{}
		r.counted.Away(true)
		r.refused(r.ask("d", 1, 0, 1000, 4, s), chunk.Busy)
		r.counted.Away(false)
		r.must(r.ask("d", 1, 0, 1000, 4, s))
		synctest.Wait()
		if s.bytes != 4000 {
			r.t.Errorf("%d bytes", s.bytes)
		}
	})
}

func TestWhatAnotherDoorSentIsCountedForPiecesToo(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		s := &sink{}
		for left := int64(3*size - 1000); left > 0; {
			n, err := r.budgets.Take(r.t.Context(), budget.Key{Device: "d", Action: 1}, left, size)
			r.must(err)
			left -= n
		}
		r.refused(r.ask("d", 1, 0, 500, 3, s), chunk.Budget)
		r.must(r.ask("d", 1, 0, 500, 2, s))
		synctest.Wait()
		r.refused(r.ask("d", 1, 0, 256, 1, s), chunk.Budget)
		if s.bytes != 1000 {
			r.t.Errorf("%d bytes of 1000 that are left", s.bytes)
		}
	})
}

func TestOfPiecesThatDoNotLeaveNothingIsSpent(t *testing.T) {
	for name, c := range map[string]struct {
		want int64
		do   func(r *rig)
	}{
		"sent": {3000, func(r *rig) { r.start(); r.must(r.ask("d", 1, 0, 1000, 3, &sink{})) }},
		"asked for twice": {3000, func(r *rig) {
			s := &sink{}
			r.must(r.ask("d", 1, 0, 1000, 3, s))
			r.must(r.ask("d", 1, 0, 1000, 3, s))
			r.start()
		}},
		"gone":    {0, func(r *rig) { r.start(); r.must(r.ask("d", 1, 0, 1000, 3, &sink{became: chunk.Gone})) }},
		"dropped": {0, func(r *rig) { r.must(r.ask("d", 1, 0, 1000, 3, &sink{})); r.Drop("d"); r.start() }},
		"the end": {0, func(r *rig) { r.must(r.ask("d", 1, 0, 1000, 3, &sink{})); r.End() }},
		"over": {0, func(r *rig) {
			r.must(r.ask("d", 1, 0, 1000, 3, &sink{}))
			r.must(r.ask("d", 2, 0, 1000, 1, &sink{}))
			r.start()
		}},
		"not read": {0, func(r *rig) {
			r.start()
			r.must(r.ask("d", 1, 0, 1000, 3, &sink{became: chunk.Later}))
			<-time.After(time.Minute)
		}},
		"unreadable": {0, func(r *rig) {
			r.start()
			r.must(r.Ask(r.t.Context(), chunk.Request{Device: "d", Action: 1, Total: size, SHA256: "none", Size: size, Len: 1000, N: 3, To: &sink{}}))
		}},
		"dropped while it is given": {1000, func(r *rig) {
			s := &dropper{r: r}
			r.must(r.ask("d", 1, 0, 1000, 3, s))
			r.start()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			with(t, 0, func(r *rig) {
				c.do(r)
				synctest.Wait()
				if got := r.spent("d", 1); got != c.want {
					t.Errorf("%d bytes are spent, want %d", got, c.want)
				}
			})
		})
	}
}

// dropper takes a piece while its action ends.
type dropper struct{ r *rig }

func (d *dropper) Give(chunk.Piece) chunk.Given { d.r.Drop("d"); return chunk.Taken }
func (d *dropper) Fail(int64, error)            {}

func TestWhatWaitsForADeviceIsBoundedAndNotQueuedTwice(t *testing.T) {
	with(t, 0, func(r *rig) {
		s := &sink{}
		r.must(r.ask("d", 1, 0, 256, 8, s))
		r.must(r.ask("d", 1, 256*8, 256, 8, s))
		r.must(r.ask("d", 1, 0, 256, 8, s)) // again, since none has come
		r.refused(r.ask("d", 1, 256*16, 256, 1, s), chunk.Window)
		r.start()
		if len(s.got) != 16 {
			r.t.Errorf("%d pieces", len(s.got))
		}
	})
}

func TestWhoDoesNotReadHoldsUpNobodyAndIsGivenUp(t *testing.T) {
	with(t, 0, func(r *rig) {
		slow, other := &sink{became: chunk.Later}, &sink{}
		r.must(r.ask("slow", 1, 0, 1000, 4, slow))
		r.must(r.ask("d", 1, 0, 1000, 4, other))
		r.start()
		if len(other.got) != 4 {
			r.t.Errorf("the other has %v", other.got)
		}
		slow.set(chunk.Taken)
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		if fmt.Sprint(slow.got) != "[0+1000 1000+1000 2000+1000 3000+1000]" {
			r.t.Errorf("it reads again, and has %v", slow.got)
		}
		slow.set(chunk.Later)
		r.must(r.ask("slow", 1, 0, 1000, 4, slow))
		<-time.After(time.Minute) // of the bubble
		synctest.Wait()
		slow.set(chunk.Taken)
		<-time.After(time.Second) // of the bubble
		synctest.Wait()
		if len(slow.got) != 4 {
			r.t.Errorf("it was given up, and has %v", slow.got)
		}
		r.must(r.ask("slow", 1, 0, 1000, 1, slow))
		synctest.Wait()
		if len(slow.got) != 5 {
			r.t.Errorf("it asks anew, and has %v", slow.got)
		}
	})
}

func TestWhatWaitsIsForgottenWhenTheActionIsOverOrTheDeviceGone(t *testing.T) {
	with(t, 0, func(r *rig) {
		s, gone := &sink{}, &sink{became: chunk.Gone}
		r.must(r.ask("d", 1, 0, 1000, 8, s))
		r.must(r.ask("g", 1, 0, 1000, 8, gone))
		r.Drop("d")
		r.Drop("nobody")
		r.start()
		if len(s.got) != 0 {
			r.t.Errorf("%v", s.got)
		}
		r.must(r.ask("d", 2, 0, 1000, 1, s))
		synctest.Wait()
		if len(s.got) != 1 {
			r.t.Errorf("%v", s.got)
		}
	})
}

func TestAnImageThatCannotBeReadIsSaid(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		cut, missing := &sink{}, &sink{}
		r.must(r.Ask(r.t.Context(), chunk.Request{Device: "d", Action: 1, Total: size, SHA256: "cut", Size: size, Len: 1000, N: 1, To: cut}))
		r.must(r.Ask(r.t.Context(), chunk.Request{Device: "e", Action: 1, Total: size, SHA256: "none", Size: size, Len: 1000, N: 1, To: missing}))
		synctest.Wait()
		if len(cut.failed) != 1 || !errors.Is(cut.failed[0], io.ErrUnexpectedEOF) || len(cut.got) != 0 {
			r.t.Errorf("cut short: %v, %v", cut.failed, cut.got)
		}
		if len(missing.failed) != 1 || muster.KindOf(missing.failed[0]) != muster.NotFound {
			r.t.Errorf("missing: %v", missing.failed)
		}
	})
}

func TestFilesStayOpenWhileTheyAreUsedAndAreBounded(t *testing.T) {
	with(t, 0, func(r *rig) {
		r.start()
		s := &sink{}
		for i := range 100 {
			name := fmt.Sprint("image", i)
			r.shelf.mu.Lock()
			r.shelf.images[name] = make([]byte, 1000)
			r.shelf.mu.Unlock()
			for range 2 {
				r.must(r.Ask(r.t.Context(), chunk.Request{Device: "d", Action: int32(i + 1), Total: 1000, SHA256: name, Size: 1000, Len: 256, N: 2, To: s}))
				synctest.Wait()
			}
		}
		r.shelf.mu.Lock()
		if r.shelf.opened != 100 || r.shelf.open != 64 {
			r.t.Errorf("%d were opened, %d are open", r.shelf.opened, r.shelf.open)
		}
		r.shelf.mu.Unlock()
		<-time.After(10 * time.Minute) // of the bubble
		synctest.Wait()
		r.shelf.mu.Lock()
		defer r.shelf.mu.Unlock()
		if r.shelf.open != 0 {
			r.t.Errorf("%d are open that nobody uses", r.shelf.open)
		}
	})
}

func TestThePlacesOfDevicesAreBounded(t *testing.T) {
	with(t, 0, func(r *rig) {
		s := &sink{}
		for i := range 16384 {
			r.must(r.ask(fmt.Sprint("d", i), 1, 0, 256, 1, s))
		}
		r.refused(r.ask("one more", 1, 0, 256, 1, s), chunk.Busy)
		r.start()
		r.must(r.ask("one more", 1, 0, 256, 1, s))
		synctest.Wait()
		if len(s.got) != 16385 {
			r.t.Errorf("%d pieces", len(s.got))
		}
	})
}

func TestALoopThatBeganAnewServesWhatWaits(t *testing.T) {
	with(t, 0, func(r *rig) {
		s := &sink{became: chunk.Later}
		r.must(r.ask("d", 1, 0, 1000, 2, s))
		r.start()
		r.cancel()
		if err := <-r.ended; !errors.Is(err, context.Canceled) {
			r.t.Fatal(err)
		}
		s.set(chunk.Taken)
		r.start()
		if len(s.got) != 2 {
			r.t.Errorf("%v", s.got)
		}
	})
}

// free takes all.
type free struct{ done chan struct{} }

func (f free) Give(chunk.Piece) chunk.Given { f.done <- struct{}{}; return chunk.Taken }
func (f free) Fail(int64, error)            { f.done <- struct{}{} }

func BenchmarkPieces(b *testing.B) {
	s := &shelf{images: map[string][]byte{"a": make([]byte, 64<<20)}}
	p, err := chunk.New(chunk.Config{Images: s, Budgets: budget.New(&budgettest.Store{}, budget.Options{Times: 1 << 20}), Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	to := free{make(chan struct{}, 100)}
	b.SetBytes(16 << 10)
	off := int64(0)
	for b.Loop() {
		if err := p.Ask(ctx, chunk.Request{Device: "d", Action: 1, Total: 1 << 40, SHA256: "a", Size: 64 << 20, Off: off, Len: 16 << 10, N: 1, To: to}); err != nil {
			b.Fatal(err)
		}
		<-to.done
		off = (off + 16<<10) % (64 << 20)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}

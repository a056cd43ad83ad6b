package tasks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/store/control"
	"muster/tasks"
)

func newDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// trouble is what befalls one step.
type trouble int

const (
	fine      trouble = iota
	away              // the store is away, and nothing is kept
	unheard           // the store has kept it, and its answer is lost
	refused           // the step is refused for good, and done in another way
	stopped           // the process ends before the step
	stoppedIn         // the process ends with the step kept, and nobody told
	troubles  = iota
)

// makers make devices, one in each step, with a line in the result for each.
type makers struct {
	store interface {
		InsertDevices(ctx context.Context, ds []devices.Device, cs []devices.Credential) error
	}
	plan []trouble // used up, one for each try of a step
	name string    // of the devices

	mu    sync.Mutex
	crash chan struct{} // closed when the process is to end
}

func (m *makers) next() trouble {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.plan) == 0 {
		return fine
	}
	t := m.plan[0]
	m.plan = m.plan[1:]
	return t
}

// die ends the process, as far as a test can: the room is stopped while this waits.
func (m *makers) die(ctx context.Context) error {
	m.mu.Lock()
	close(m.crash)
	m.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

const madeDevices = 12

func (m *makers) run(ctx context.Context, r *tasks.Run) error {
	from := 0
	if r.Resume != nil {
		if err := json.Unmarshal(r.Resume, &from); err != nil {
			return err
		}
	}
	out, err := r.Result("text/plain")
	if err != nil {
		return err
	}
	for i := from; i < madeDevices; i++ {
		how := m.next()
		if how == stopped {
			return m.die(ctx)
		}
		fmt.Fprintf(out, "made %d\n", i)
		err := r.Step(ctx, int64(i+1), madeDevices, i+1, func(ctx context.Context) error { return m.do(ctx, how, i) })
		switch {
		case muster.KindOf(err) == muster.Conflict && err != nil: // refused: it is done without trouble
			fmt.Fprintf(out, "made %d\n", i)
			if err := r.Step(ctx, int64(i+1), madeDevices, i+1, func(ctx context.Context) error { return m.do(ctx, fine, i) }); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
	return nil
}

func (m *makers) do(ctx context.Context, how trouble, i int) error {
	switch how {
	case away:
		return muster.Errorf(muster.Unavailable, "the store is away")
	case refused:
		return muster.Errorf(muster.Conflict, "not like this")
	default:
	}
	d := devices.Device{ID: muster.DeviceID(fmt.Sprintf("%s-%03d", m.name, i)), Profile: "default", Created: 1}
	if err := m.store.InsertDevices(ctx, []devices.Device{d}, nil); err != nil {
		return &muster.Error{Kind: muster.Internal, Msg: "a device was made twice", Err: err}
	}
	switch how {
	case unheard:
		return muster.Errorf(muster.Unavailable, "the answer was lost")
	case stoppedIn:
		return m.die(ctx)
	default:
		return nil
	}
}

func TestADurableTaskDoesEachStepOnceWhateverHappens(t *testing.T) {
	dir, cases := t.TempDir(), 0
	store := openStore(t, dir)
	rapid.Check(t, func(rt *rapid.T) {
		cases++
		plan := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) trouble { return trouble(rapid.IntRange(0, troubles-1).Draw(rt, "trouble")) }), 0, 8).Draw(rt, "plan")
		at := rapid.IntRange(0, madeDevices-1).Draw(rt, "at")
		m := &makers{store: store, plan: append(make([]trouble, at), plan...), name: fmt.Sprint("d", cases)}
		stepThrough(t, rt, store, dir, m)
	})
}

func stepThrough(t *testing.T, rt tb, store *control.Control, dir string, m *makers) {
	var id string
	var room *tasks.Tasks
	for {
		m.crash = make(chan struct{})
		room = tasks.New(tasks.Config{Store: store, Loader: store, Dir: filepath.Join(dir, "tasks"), Now: time.Now, Logger: newDiscard(), Retry: time.Millisecond})
		must(rt, room.Register(kindOf("make", m.run, durable)))
		must(rt, room.Load(t.Context()))
		if id == "" {
			task, err := room.Start(t.Context(), "make", nil, owner)
			must(rt, err)
			id = task.ID
		}
		if !crashes(rt, room, m, id) {
			break
		}
		must(rt, room.Stop(context.Background()))
	}
	defer func() { must(rt, room.Stop(context.Background())) }()
	task, err := room.Task(id, me)
	must(rt, err)
	if task.State == tasks.Failed && task.Code == "unavailable" && strings.Contains(task.Error, "begun") {
		return // it was stopped too often: see the test of that
	}
	if task.State != tasks.Succeeded || task.Done != madeDevices {
		rt.Fatalf("it is %s at %d: %s", task.State, task.Done, task.Error)
	}
	_, f, err := room.OpenResult(id, me)
	must(rt, err)
	defer f.Close()
	text, err := io.ReadAll(f)
	must(rt, err)
	var want strings.Builder
	for i := range madeDevices {
		fmt.Fprintf(&want, "made %d\n", i)
	}
	if d := cmp.Diff(want.String(), string(text)); d != "" {
		rt.Errorf("the result differs: %s", d)
	}
	must(rt, store.LoadTasks(t.Context(), func(stored tasks.Task, _ tasks.Kept) error {
		if !stored.State.Final() {
			rt.Errorf("the store has %s as %s", stored.ID, stored.State)
		}
		return nil
	}))
}

// crashes waits until the task has ended, or the process is to end.
func crashes(rt tb, room *tasks.Tasks, m *makers, id string) bool {
	w, err := room.Watch(id)
	must(rt, err)
	defer w.Close()
	for {
		task, err := room.Task(id, me)
		must(rt, err)
		if task.State.Final() {
			return false
		}
		select {
		case <-w.C:
			w.Take()
		case <-m.crash:
			return true
		}
	}
}

func TestQueuedAndRunningTasksGoOnInOrderAfterARestart(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable, func(k *tasks.Kind) { k.Concurrency, k.Queue = 1, 9 }))
	var ids []string
	for i := range 5 {
		task, err := r.StartWith(t.Context(), "gate", nil, owner, strings.NewReader(fmt.Sprint("file ", i)))
		must(t, err)
		ids = append(ids, task.ID)
	}
	<-g.entered
	for range 3 {
		r.restart()
		if run := <-g.entered; run.Task != ids[0] {
			t.Fatalf("%s goes on first, want %s", run.Task, ids[0])
		}
	}
	if _, err := r.Cancel(t.Context(), ids[3], me); err != nil {
		t.Fatal(err)
	}
	r.ends(ids[3], tasks.Cancelled)
	for i, id := range ids {
		if i == 3 {
			continue
		}
		g.open <- nil
		r.ends(id, tasks.Succeeded)
		if i == 2 || i == 4 {
			i++
		}
		if i < 4 {
			run := <-g.entered
			f, err := run.File()
			must(t, err)
			b, err := io.ReadAll(f)
			must(t, err)
			must(t, f.Close())
			if want := fmt.Sprint("file ", i+1); string(b) != want {
				t.Errorf("it comes with %q, want %q", b, want)
			}
		}
	}
	if names := r.fileNames(); len(names) > 0 {
		t.Errorf("%v are left", names)
	}
}

func TestATaskThatNeverGetsFurtherFails(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable))
	task := r.start("gate", "{}")
	for range tasks.MaxAttempts - 1 {
		<-g.entered
		r.restart()
	}
	<-g.entered
	r.restart()
	got := r.ends(task.ID, tasks.Failed)
	if got.Code != "unavailable" || got.Error != "it was begun 5 times without getting any further" {
		t.Errorf("it says %s: %s", got.Code, got.Error)
	}
}

func TestACancelledTaskIsNotBegunAgainThoughTheServerEndsAtOnce(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable))
	task := r.start("gate", "{}")
	<-g.entered
	stored, err := r.Task(task.ID, me)
	must(t, err)
	r.stop()
	stored.Cancelled = true // what Cancel stores before anything else
	must(t, r.store.SaveTask(t.Context(), stored))
	r.open()
	if got := r.ends(task.ID, tasks.Cancelled); !got.Cancelled {
		t.Errorf("it is %+v", got)
	}
	select {
	case <-g.entered:
		t.Error("it was begun again")
	default:
	}
}

func TestATaskOfAKindThatIsNoMoreFails(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable))
	task := r.start("gate", "{}")
	<-g.entered
	r.stop()
	r.kinds = nil
	r.open()
	got := r.ends(task.ID, tasks.Failed)
	if got.Code != "not_found" || len(r.fileNames()) > 0 {
		t.Errorf("it says %s, files %v", got.Code, r.fileNames())
	}
}

func TestWhatWasDoneBeforeACancelIsKeptWhenTheKindSaysSo(t *testing.T) {
	for _, partial := range []bool{false, true} {
		t.Run(fmt.Sprintf("kept %v", partial), func(t *testing.T) {
			g := newGate()
			work := func(ctx context.Context, r *tasks.Run) error {
				out, err := r.Result("text/plain")
				if err != nil {
					return err
				}
				fmt.Fprint(out, "kept ")
				if err := r.Step(ctx, 1, 2, "half", func(context.Context) error { return nil }); err != nil {
					return err
				}
				fmt.Fprint(out, "not kept")
				return g.run(ctx, r)
			}
			r := newRig(t, kindOf("half", work, durable, func(k *tasks.Kind) { k.KeepPartial = partial }))
			task := r.start("half", "{}")
			if run := <-g.entered; run.Resume != nil {
				t.Errorf("the first time it resumes %s", run.Resume)
			}
			_, err := r.Cancel(t.Context(), task.ID, me)
			must(t, err)
			got := r.ends(task.ID, tasks.Cancelled)
			if got.Done != 1 || got.Total != 2 {
				t.Errorf("it is at %d of %d", got.Done, got.Total)
			}
			if !partial {
				_, _, err := r.OpenResult(task.ID, me)
				r.wantKind(err, muster.Conflict)
				return
			}
			if text := r.result(task.ID, me); text != "kept " {
				t.Errorf("the result is %q", text)
			}
		})
	}
}

func TestWhatATaskKeepsIsThereAfterARestartAndGoesWithIt(t *testing.T) {
	g := newGate()
	seen := make(chan string, 2)
	work := func(ctx context.Context, r *tasks.Run) error {
		b, err := r.Recall("plan")
		if err != nil {
			return err
		}
		seen <- string(b)
		if b == nil {
			if err := r.Keep("plan", []byte("the plan")); err != nil {
				return err
			}
		}
		return g.run(ctx, r)
	}
	r := newRig(t, kindOf("plan", work, durable))
	task := r.start("plan", "{}")
	<-g.entered
	r.restart()
	<-g.entered
	if first, second := <-seen, <-seen; first != "" || second != "the plan" {
		t.Errorf("recalled %q and %q", first, second)
	}
	g.open <- nil
	r.ends(task.ID, tasks.Succeeded)
	if names := r.fileNames(); len(names) > 0 {
		t.Errorf("%v are left", names)
	}
}

package tasks_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/audit"
	"muster/feed"
	"muster/store/control"
	"muster/tasks"
)

func TestATaskRunsAndItsResultIsThereForItsTimeToLive(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("durable %v", keep), func(t *testing.T) {
			r := newRig(t, kindOf("hello", says("hello"), func(k *tasks.Kind) { k.Durable = keep }))
			task := r.start("hello", ` {"n": 1} `)
			want := tasks.Task{
				ID: task.ID, Kind: "hello", State: tasks.Succeeded, Owner: owner, Input: json.RawMessage(`{"n":1}`), Durable: keep,
				Created: muster.MicrosOf(r.clock.now()), Started: muster.MicrosOf(r.clock.now()), Ended: muster.MicrosOf(r.clock.now()),
				Expires: muster.MicrosOf(r.clock.now().Add(time.Hour)), Attempts: 1, Result: &tasks.Result{Type: "text/plain", Size: 5},
			}
			if d := cmp.Diff(want, r.ends(task.ID, tasks.Succeeded)); d != "" {
				t.Error(d)
			}
			if got := r.result(task.ID, me); got != "hello" {
				t.Errorf("the result is %q", got)
			}
			r.clock.forward(time.Hour - time.Second)
			must(t, r.Sweep(t.Context()))
			if got := r.result(task.ID, me); got != "hello" {
				t.Errorf("before its time is over the result is %q", got)
			}
			r.clock.forward(time.Second)
			_, _, err := r.OpenResult(task.ID, me)
			r.wantKind(err, muster.NotFound)
			must(t, r.Sweep(t.Context()))
			if names := r.fileNames(); len(names) > 0 {
				t.Errorf("%v are left", names)
			}
			left, err := r.Task(task.ID, me)
			if !keep {
				r.wantKind(err, muster.NotFound)
				return
			}
			must(t, err)
			want.Result, want.Expires = nil, 0
			if d := cmp.Diff(want, left); d != "" {
				t.Error(d)
			}
			r.restart()
			if left, err = r.Task(task.ID, me); err != nil || cmp.Diff(want, left) != "" {
				t.Errorf("after a restart: %v %s", err, cmp.Diff(want, left))
			}
		})
	}
}

func TestWhatCannotBeStartedIsRefused(t *testing.T) {
	odd := func(input json.RawMessage) error {
		if string(input) == `{"odd":true}` {
			return muster.Errorf(muster.Invalid, "odd")
		}
		return nil
	}
	r := newRig(t, kindOf("hello", says("hello"), func(k *tasks.Kind) { k.Check = odd }))
	for _, tc := range []struct {
		name, kind, input string
		want              muster.Kind
	}{
		{"no such kind", "bye", "{}", muster.NotFound},
		{"an input that is no JSON", "hello", "{", muster.Invalid},
		{"an input that is no object", "hello", "[]", muster.Invalid},
		{"an input that is not UTF-8", "hello", "{\"a\":\"\xff\"}", muster.Invalid},
		{"an input that the kind refuses", "hello", `{"odd": true}`, muster.Invalid},
		{"an input that is too long", "hello", `{"a":"` + strings.Repeat("x", tasks.MaxInput) + `"}`, muster.TooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := r.Start(t.Context(), tc.kind, json.RawMessage(tc.input), owner)
			r.wantKind(err, tc.want)
		})
	}
	for _, k := range []tasks.Kind{
		{Name: "x"},
		kindOf("", says("")),
		kindOf("x", nil),
		kindOf("late", says("")),
		kindOf("x", says(""), func(k *tasks.Kind) { k.Durable, k.Key = true, func(json.RawMessage) string { return "" } }),
	} {
		r.wantKind(r.Register(k), muster.Invalid)
	}
	if page, _ := r.List(tasks.Query{By: admins, Limit: 10}); len(page) > 0 {
		t.Errorf("there are %v", page)
	}
}

func TestAsManyRunAndWaitAsMayAndTheNextIsRefused(t *testing.T) {
	for _, keep := range []bool{false, true} {
		g := newGate()
		r := newRig(t, kindOf("gate", g.run, func(k *tasks.Kind) { k.Concurrency, k.Queue, k.Durable = 3, 5, keep }))
		var mu sync.Mutex
		var ids []string
		var busy atomic.Int64
		var wg sync.WaitGroup
		for range 40 {
			wg.Go(func() {
				task, err := r.Start(t.Context(), "gate", nil, owner)
				if err != nil {
					r.wantKind(err, muster.Busy)
					busy.Add(1)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				ids = append(ids, task.ID)
			})
		}
		wg.Wait()
		if len(ids) != 8 || busy.Load() != 32 {
			t.Fatalf("%d were taken and %d refused, want 8 and 32", len(ids), busy.Load())
		}
		for range 3 {
			<-g.entered
		}
		s := r.Stats().Kinds[0]
		if s.Running != 3 || s.Queued != 5 || s.States[tasks.Running] != 3 || s.States[tasks.Queued] != 5 {
			t.Errorf("the status is %+v", s)
		}
		slices.Sort(ids)
		for i := range 8 {
			g.open <- nil
			if i < 5 {
				if next := <-g.entered; !slices.Contains(ids, next.Task) {
					t.Errorf("%s came next", next.Task)
				}
			}
		}
		for _, id := range ids {
			r.ends(id, tasks.Succeeded)
		}
		if _, err := r.Start(t.Context(), "gate", nil, owner); err != nil {
			t.Errorf("with room again: %v", err)
		}
		g.open <- nil
	}
}

func TestTasksOfOneKeyAreOneAndItsResultIsRemembered(t *testing.T) {
	var runs atomic.Int64
	release := make(chan struct{})
	work := func(ctx context.Context, r *tasks.Run) error {
		runs.Add(1)
		<-release
		return says(string(r.Input))(ctx, r)
	}
	shared := func(k *tasks.Kind) {
		k.Concurrency, k.Queue = 1, 1
		k.Key = func(input json.RawMessage) string { return string(input) }
	}
	r := newRig(t, kindOf("draw", work, shared))
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			res, b, err := r.Get(t.Context(), "draw", []byte(`{"a":1}`), owner, time.Minute)
			if err != nil || string(b) != `{"a":1}` || res.Type != "text/plain" {
				t.Errorf("got %s %v %v", b, res, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("it was drawn %d times", runs.Load())
	}
	_, b, err := r.Get(t.Context(), "draw", []byte(`{"a":2}`), owner, time.Minute)
	if err != nil || string(b) != `{"a":2}` || runs.Load() != 2 {
		t.Errorf("another input gives %s %v after %d runs", b, err, runs.Load())
	}
	r.clock.forward(time.Hour)
	must(t, r.Sweep(t.Context()))
	if _, _, err := r.Get(t.Context(), "draw", []byte(`{"a":1}`), owner, time.Minute); err != nil || runs.Load() != 3 {
		t.Errorf("after its time to live: %v, %d runs", err, runs.Load())
	}
}

func TestASharedTaskThatFailedIsBegunAnew(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("draw", g.run, func(k *tasks.Kind) { k.Key = func(json.RawMessage) string { return "" } }))
	first := r.start("draw", "{}")
	<-g.entered
	if again := r.start("draw", "{}"); again.ID != first.ID {
		t.Errorf("%s was not joined but %s begun", first.ID, again.ID)
	}
	g.open <- muster.Errorf(muster.NotFound, "it is gone")
	task := r.ends(first.ID, tasks.Failed)
	if task.Code != "not_found" || task.Error != "it is gone" {
		t.Errorf("it says %s: %s", task.Code, task.Error)
	}
	second := r.start("draw", "{}")
	if second.ID == first.ID {
		t.Error("the failed task was joined")
	}
	<-g.entered
	if _, err := r.Cancel(t.Context(), second.ID, me); err != nil {
		t.Fatal(err)
	}
	r.ends(second.ID, tasks.Cancelled)
	if third := r.start("draw", "{}"); third.ID == second.ID {
		t.Error("the cancelled task was joined")
	}
	g.open <- nil
}

func TestATaskThatTakesTooLongIsTimedOut(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("slow", g.run, func(k *tasks.Kind) { k.Timeout = time.Millisecond }))
	task := r.start("slow", "{}")
	task = r.ends(task.ID, tasks.TimedOut)
	if task.Code != "timeout" || task.Error != "it took longer than 1ms" {
		t.Errorf("it says %s: %s", task.Code, task.Error)
	}
	_, _, err := r.OpenResult(task.ID, me)
	r.wantKind(err, muster.Timeout)
	_, _, err = r.Get(t.Context(), "slow", nil, owner, time.Minute)
	r.wantKind(err, muster.Timeout)
}

func TestWaitingEndsWithTheTaskTheTimeOrTheServer(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run))
	task := r.start("gate", "{}")
	_, err := r.Wait(t.Context(), task.ID, me, time.Millisecond)
	r.wantKind(err, muster.Timeout)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Wait(ctx, task.ID, me, time.Minute)
	r.wantKind(err, muster.Timeout)
	_, err = r.Wait(t.Context(), "tsk_0", me, time.Minute)
	r.wantKind(err, muster.NotFound)
	r.EndWaits()
	_, err = r.Wait(t.Context(), task.ID, me, time.Minute)
	r.wantKind(err, muster.Unavailable)
}

func TestAPanicEndsOneTaskOnlyAndIsCounted(t *testing.T) {
	for _, keep := range []bool{false, true} {
		r := newRig(t, kindOf("bad", func(context.Context, *tasks.Run) error { panic("secret-of-the-panic") }, func(k *tasks.Kind) { k.Concurrency, k.Durable = 1, keep }))
		for n := range 3 {
			task := r.ends(r.start("bad", "{}").ID, tasks.Failed)
			if task.Code != "internal" || task.Error != "internal error" {
				t.Errorf("it says %s: %s", task.Code, task.Error)
			}
			if got := r.Stats().Panics; got != int64(n+1) {
				t.Errorf("%d panics are counted, want %d", got, n+1)
			}
		}
		if log := r.log.String(); !strings.Contains(log, "secret-of-the-panic") || !strings.Contains(log, "goroutine") {
			t.Errorf("the log has no stack: %s", log)
		}
		reg := prometheus.NewPedanticRegistry()
		must(t, reg.Register(r.Metrics()))
		families, err := reg.Gather()
		must(t, err)
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		want := map[string]float64{
			"muster_tasks bad cancelled": 0, "muster_tasks bad failed": 3, "muster_tasks bad queued": 0, "muster_tasks bad running": 0,
			"muster_tasks bad succeeded": 0, "muster_tasks bad timed_out": 0, "muster_tasks_panics_total": 3,
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

func TestATaskIsItsOwnersAndTheAdmins(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run), kindOf("secret", says("credentials"), durable, func(k *tasks.Kind) { k.Private = true }))
	task, secret := r.start("gate", "{}"), r.start("secret", "{}")
	<-g.entered
	r.ends(secret.ID, tasks.Succeeded)
	for name, do := range map[string]func(id string, by tasks.Viewer) error{
		"read":   func(id string, by tasks.Viewer) error { _, err := r.Task(id, by); return err },
		"wait":   func(id string, by tasks.Viewer) error { _, err := r.Wait(t.Context(), id, by, 0); return err },
		"result": func(id string, by tasks.Viewer) error { _, _, err := r.OpenResult(id, by); return err },
		"cancel": func(id string, by tasks.Viewer) error { _, err := r.Cancel(t.Context(), id, by); return err },
	} {
		for _, stranger := range []tasks.Viewer{other, {}} {
			for _, id := range []string{task.ID, secret.ID, "tsk_nothing", ""} {
				if err := do(id, stranger); muster.KindOf(err) != muster.NotFound {
					t.Errorf("%s of another's %q gives %v", name, id, err)
				}
			}
		}
	}
	if page, _ := r.List(tasks.Query{By: other, Limit: 10}); len(page) != 0 {
		t.Errorf("another sees %v", page)
	}
	if got := r.result(secret.ID, me); got != "credentials" {
		t.Errorf("its owner gets %q", got)
	}
	_, f, err := r.OpenResult(secret.ID, admins)
	if r.wantKind(err, muster.Forbidden); f != nil {
		t.Error("an admin gets another's private result")
	}
	if got, err := r.Cancel(t.Context(), task.ID, admins); err != nil || !got.Cancelled {
		t.Errorf("an admin cannot cancel it: %v", err)
	}
	r.ends(task.ID, tasks.Cancelled)
}

func TestTasksAreListedByStateAndKindNewestFirst(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run), kindOf("hello", says("hello")))
	var ids []string
	for range 5 {
		task := r.start("hello", "{}")
		r.ends(task.ID, tasks.Succeeded)
		ids = append(ids, task.ID)
	}
	gated := r.start("gate", "{}")
	<-g.entered
	slices.Reverse(ids)
	all := append([]string{gated.ID}, ids...)
	list := func(q tasks.Query) (out []string, pages int) {
		for q.By = me; ; pages++ {
			page, next := r.List(q)
			for _, task := range page {
				out = append(out, task.ID)
			}
			if q.After = next; next == "" {
				return out, pages + 1
			}
		}
	}
	for _, tc := range []struct {
		name  string
		q     tasks.Query
		want  []string
		pages int
	}{
		{"all", tasks.Query{Limit: 100}, all, 1},
		{"a page at a time", tasks.Query{Limit: 2}, all, 3},
		{"pages that are just full", tasks.Query{Limit: 3}, all, 2},
		{"by kind", tasks.Query{Kind: "hello", Limit: 2}, ids, 3},
		{"by state", tasks.Query{State: tasks.Running, Limit: 2}, all[:1], 1},
		{"nothing", tasks.Query{State: tasks.Failed, Limit: 2}, nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, pages := list(tc.q)
			if d := cmp.Diff(tc.want, got); d != "" || pages != tc.pages {
				t.Errorf("in %d pages: %s", pages, d)
			}
		})
	}
	g.open <- nil
}

func TestTenThousandTasksAreKeptAndTheOldestThatEndedGoes(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run), kindOf("hello", says("x"), func(k *tasks.Kind) { k.Concurrency, k.Queue = 1, 0 }))
	running := r.start("gate", "{}")
	<-g.entered
	var first, second tasks.Task
	for i := range tasks.MaxTasks + 1 {
		task := r.ends(r.start("hello", "{}").ID, tasks.Succeeded)
		switch i {
		case 0:
			first = task
		case 1:
			second = task
		}
	}
	if s := r.Stats(); s.Kept != tasks.MaxTasks || s.MemoryBytes != tasks.MaxTasks-1 {
		t.Errorf("%d tasks with %d bytes are kept", s.Kept, s.MemoryBytes)
	}
	for _, gone := range []string{first.ID, second.ID} {
		_, err := r.Task(gone, me)
		r.wantKind(err, muster.NotFound)
	}
	if _, err := r.Task(running.ID, me); err != nil {
		t.Errorf("one that runs was dropped: %v", err)
	}
	g.open <- nil
}

func TestResultsInMemoryAreBoundedTheOldestGoFirst(t *testing.T) {
	big := strings.Repeat("x", 1<<20)
	r := newRig(t, kindOf("big", says(big)), kindOf("huge", says(big+"x")))
	var ids []string
	for range 66 {
		ids = append(ids, r.ends(r.start("big", "{}").ID, tasks.Succeeded).ID)
	}
	if got := r.Stats().MemoryBytes; got != 64<<20 {
		t.Errorf("results have %d bytes", got)
	}
	for i, id := range ids {
		_, _, err := r.OpenResult(id, me)
		if gone := err != nil; gone != (i < 2) {
			t.Errorf("the result %d of 66: %v", i, err)
		}
	}
	if task := r.ends(r.start("huge", "{}").ID, tasks.Failed); task.Code != "too_large" {
		t.Errorf("a larger one than 1 MiB says %s", task.Code)
	}
}

func TestTheFilesOfTasksAreBounded(t *testing.T) {
	r := newRig(t, kindOf("copy", says(strings.Repeat("x", 600)), durable))
	r.stop()
	r.max = 1000
	r.open()
	_, err := r.StartWith(t.Context(), "copy", nil, owner, strings.NewReader(strings.Repeat("y", 1001)))
	r.wantKind(err, muster.TooLarge)
	if names := r.fileNames(); len(names) > 0 {
		t.Errorf("%v are left", names)
	}
	first := r.start("copy", "{}")
	r.ends(first.ID, tasks.Succeeded)
	if task := r.ends(r.start("copy", "{}").ID, tasks.Failed); task.Code != "too_large" {
		t.Errorf("the second says %s %s", task.Code, task.Error)
	}
	r.clock.forward(time.Hour)
	must(t, r.Sweep(t.Context()))
	r.ends(r.start("copy", "{}").ID, tasks.Succeeded)
	if got := r.Stats().FileBytes; got != 600 {
		t.Errorf("%d bytes are counted", got)
	}
}

func TestStartAndCancelAreAuditedAndTheEndIsInTheFeed(t *testing.T) {
	r := newRig(t, kindOf("hello", says("hello"), durable))
	events := make(chan feed.Event, 10)
	r.store.OnEvents(func(es []feed.Event) {
		for _, e := range es {
			events <- e
		}
	})
	ctx := audit.With(t.Context(), audit.Actor{Kind: audit.User, ID: "usr_1"}, r.clock.now)
	task, err := r.Start(ctx, "hello", nil, owner)
	must(t, err)
	r.ends(task.ID, tasks.Succeeded)
	e := <-events
	if want := fmt.Sprintf(`{"kind":"hello","state":"succeeded","task":%q}`, task.ID); e.Type != feed.TaskFinished || string(e.Data) != want {
		t.Errorf("the feed says %s %s, want %s", e.Type, e.Data, want)
	}
	if _, err := r.Cancel(ctx, task.ID, me); err == nil || audit.Of(ctx).Pending() {
		t.Errorf("cancelling what has ended: %v", err)
	}
	if !audit.Of(ctx).Noted() || audit.Of(ctx).Pending() {
		t.Error("the start was not noted, or not written")
	}
}

func TestFilesThatBelongToNoTaskGoAtStart(t *testing.T) {
	r := newRig(t, kindOf("hello", says("hello"), durable))
	task := r.ends(r.start("hello", "{}").ID, tasks.Succeeded)
	for _, name := range []string{"tmp-123", "tsk_00000000000.result", "tsk_00000000000.in", task.ID + ".in", task.ID + ".plan.kept", "stray"} {
		must(t, os.WriteFile(filepath.Join(r.dir, "tasks", name), []byte("x"), 0o600))
	}
	r.restart()
	if d := cmp.Diff([]string{task.ID + ".result"}, r.fileNames()); d != "" {
		t.Error(d)
	}
	if got := r.result(task.ID, me); got != "hello" || r.Stats().FileBytes != 5 {
		t.Errorf("the result is %q, %d bytes", got, r.Stats().FileBytes)
	}
}

func TestFilesAreForThisUserAlone(t *testing.T) {
	g := newGate()
	work := func(ctx context.Context, r *tasks.Run) error {
		if err := r.Keep("plan", []byte("p")); err != nil {
			return err
		}
		if err := says("secret")(ctx, r); err != nil {
			return err
		}
		return g.run(ctx, r)
	}
	r := newRig(t, kindOf("x", work, durable))
	_, err := r.StartWith(t.Context(), "x", nil, owner, strings.NewReader("tokens"))
	must(t, err)
	<-g.entered
	names := r.fileNames()
	if len(names) != 3 {
		t.Fatalf("there are %v", names)
	}
	for _, name := range append(names, "") {
		info, err := os.Stat(filepath.Join(r.dir, "tasks", name))
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	g.open <- nil
}

func TestWatchersSeeTheLastOfEachTaskHoweverFastItChanges(t *testing.T) {
	r := newRig(t, kindOf("count", func(_ context.Context, run *tasks.Run) error {
		for i := range int64(10_000) {
			run.Progress(i+1, 10_000, "counting")
		}
		return nil
	}))
	all, err := r.Watch("")
	must(t, err)
	defer all.Close()
	task := r.start("count", "{}")
	one, err := r.Watch(task.ID)
	must(t, err)
	r.ends(task.ID, tasks.Succeeded)
	for _, w := range []*tasks.Watcher{all, one} {
		seen := 0
		var last tasks.Task
		for last.State != tasks.Succeeded {
			<-w.C
			for _, got := range w.Take() {
				if got.Done < last.Done {
					t.Errorf("progress went from %d to %d", last.Done, got.Done)
				}
				last = got
				seen++
			}
			if w == one && last.State == "" {
				break // it had ended before it was watched
			}
		}
		if seen > 10_002 || w == all && last.Done != 10_000 {
			t.Errorf("%d changes were seen, the last is %+v", seen, last)
		}
	}
	one.Close()
	if _, err := r.Watch("tsk_nothing"); muster.KindOf(err) != muster.NotFound {
		t.Errorf("watching nothing gives %v", err)
	}
}

func TestCancellingNeverDisagreesWithTheStore(t *testing.T) {
	work := func(ctx context.Context, r *tasks.Run) error {
		if err := says("x")(ctx, r); err != nil {
			return err
		}
		return r.Step(ctx, 1, 1, 1, func(context.Context) error { return nil })
	}
	r := newRig(t, kindOf("quick", work, durable, func(k *tasks.Kind) { k.Concurrency, k.Queue = 4, 50 }))
	var wg sync.WaitGroup
	for range 40 {
		task := r.start("quick", "{}")
		wg.Go(func() {
			got, err := r.Cancel(t.Context(), task.ID, me)
			ended := r.end(task.ID)
			if (err == nil) != (ended.State == tasks.Cancelled) || err == nil && !got.Cancelled {
				t.Errorf("cancelling says %v and it is %s", err, ended.State)
			}
		})
	}
	wg.Wait()
	must(t, r.store.LoadTasks(t.Context(), func(stored tasks.Task, _ tasks.Kept) error {
		shown, err := r.Task(stored.ID, admins)
		if err != nil || shown.State != stored.State || !stored.State.Final() || shown.Cancelled != stored.Cancelled {
			t.Errorf("shown %s, stored %s: %v", shown.State, stored.State, err)
		}
		return nil
	}))
}

// broken fails to save.
type broken struct {
	*control.Control
	fail atomic.Bool
}

func (b *broken) SaveTask(ctx context.Context, task tasks.Task) error {
	if b.fail.Load() {
		return errors.New("the disk is full")
	}
	return b.Control.SaveTask(ctx, task)
}

func TestATaskThatCannotBeStoredDoesNotStartAndTakesNoPlace(t *testing.T) {
	r := newRig(t)
	b := &broken{Control: r.store}
	room := tasks.New(tasks.Config{Store: b, Loader: r.store, Dir: filepath.Join(r.dir, "tasks"), Now: r.clock.now, Logger: newDiscard()})
	must(t, room.Register(kindOf("hello", says("hello"), durable, func(k *tasks.Kind) { k.Concurrency, k.Queue = 1, 0 })))
	must(t, room.Load(t.Context()))
	defer func() { must(t, room.Stop(context.Background())) }()
	b.fail.Store(true)
	for range 3 {
		if _, err := room.StartWith(t.Context(), "hello", nil, owner, strings.NewReader("file")); err == nil || muster.KindOf(err) == muster.Busy {
			t.Errorf("it says %v", err)
		}
	}
	if page, _ := room.List(tasks.Query{By: admins, Limit: 10}); len(page) > 0 || len(r.fileNames()) > 0 {
		t.Errorf("there are %v and %v", page, r.fileNames())
	}
	b.fail.Store(false)
	task, err := room.Start(t.Context(), "hello", nil, owner)
	must(t, err)
	if task, err = room.Wait(t.Context(), task.ID, me, time.Minute); err != nil || task.State != tasks.Succeeded {
		t.Errorf("then it is %s: %v", task.State, err)
	}
}

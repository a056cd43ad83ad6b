package tasks_test

import (
	"context"
	"sync/atomic"
	"testing"

	"muster"
	"muster/tasks"
)

func TestTheTasksOfWhoMayNotComeInAnyMoreAreCancelled(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable, func(k *tasks.Kind) { k.Concurrency, k.Queue = 1, 9 }))
	var gone atomic.Bool
	r.stop()
	r.may = func(o tasks.Owner, _ string) bool { return o.ID != "key_gone" || !gone.Load() }
	r.open()
	theirs := tasks.Owner{Kind: "key", ID: "key_gone", Name: "gone"}
	running, err := r.Start(t.Context(), "gate", nil, theirs)
	must(t, err)
	<-g.entered
	waiting, err := r.Start(t.Context(), "gate", nil, theirs)
	must(t, err)
	ours, err := r.Start(t.Context(), "gate", nil, owner)
	must(t, err)
	r.Recheck()
	if task, err := r.Task(running.ID, tasks.Viewer{Admin: true}); err != nil || task.State != tasks.Running {
		t.Errorf("while its owner may come in it is %s, %v", task.State, err)
	}
	gone.Store(true)
	r.Recheck()
	for _, id := range []string{running.ID, waiting.ID} {
		wantEnd(t, r, id, tasks.Cancelled)
	}
	if run := <-g.entered; run.Task != ours.ID {
		t.Errorf("%s runs next, want %s", run.Task, ours.ID)
	}
}

func TestTheTasksOfWhoMayNotComeInAnyMoreAreNotBegunAgainAfterARestart(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable))
	task := r.start("gate", "{}")
	<-g.entered
	r.stop()
	r.may = func(tasks.Owner, string) bool { return false }
	r.open()
	wantEnd(t, r, task.ID, tasks.Cancelled)
	select {
	case <-g.entered:
		t.Error("it was begun again")
	default:
	}
}

// wantEnd waits for the end of anybody's task.
func wantEnd(t *testing.T, r *rig, id string, want tasks.State) {
	t.Helper()
	w, err := r.Watch(id)
	must(t, err)
	defer w.Close()
	for {
		task, err := r.Task(id, tasks.Viewer{Admin: true})
		must(t, err)
		if task.State.Final() {
			if task.State != want {
				t.Errorf("%s ended as %s, want %s", id, task.State, want)
			}
			return
		}
		<-w.C
		w.Take()
	}
}

func TestNoStepBeginsAfterATaskWasCancelled(t *testing.T) {
	waits, tried := make(chan struct{}), make(chan error, 20)
	begun := 0
	r := newRig(t, kindOf("steps", func(ctx context.Context, run *tasks.Run) error {
		close(waits)
		<-ctx.Done()
		var err error
		for range cap(tried) { // a task that does not look whether it was cancelled
			err = run.Step(ctx, 1, 2, nil, func(context.Context) error { begun++; return nil })
			tried <- err
		}
		return err
	}, durable))
	task := r.start("steps", "{}")
	<-waits
	if _, err := r.Cancel(t.Context(), task.ID, me); err != nil {
		t.Fatal(err)
	}
	r.ends(task.ID, tasks.Cancelled)
	for range cap(tried) {
		if err := <-tried; err == nil {
			t.Error("a step was taken")
		}
	}
	if begun > 0 {
		t.Errorf("%d steps were begun", begun)
	}
}

func TestTheTasksOfWhoHasTheirScopeNoMoreAreCancelled(t *testing.T) {
	g := newGate()
	scoped := func(k *tasks.Kind) { k.Scope = "devices:write" }
	r := newRig(t, kindOf("writes", g.run, durable, scoped), kindOf("reads", g.run, func(k *tasks.Kind) { k.Scope = "devices:read" }))
	var lowered atomic.Bool
	r.stop()
	r.may = func(_ tasks.Owner, scope string) bool {
		return scope == "devices:read" || scope == "devices:write" && !lowered.Load()
	}
	r.open()
	writes := r.start("writes", "{}")
	<-g.entered
	reads := r.start("reads", "{}")
	<-g.entered
	r.Recheck()
	lowered.Store(true)
	r.Recheck()
	wantEnd(t, r, writes.ID, tasks.Cancelled)
	if task, err := r.Task(reads.ID, me); err != nil || task.State != tasks.Running {
		t.Errorf("what he may do still is %s, %v", task.State, err)
	}
}

func TestATaskBeginsOnlyForWhoMayStillComeIn(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("gate", g.run, durable))
	r.stop()
	r.may = func(tasks.Owner, string) bool { return false } // he ended while it was stored
	r.open()
	task := r.start("gate", "{}")
	wantEnd(t, r, task.ID, tasks.Cancelled)
	select {
	case <-g.entered:
		t.Error("it was begun")
	default:
	}
}

func TestAPrivateResultIsForTheOwnerWhileHeHasItsScope(t *testing.T) {
	r := newRig(t, kindOf("secret", says("s3cret"), durable, func(k *tasks.Kind) { k.Private, k.Scope = true, "devices:write" }))
	task := r.start("secret", "{}")
	r.ends(task.ID, tasks.Succeeded)
	has := func(scope string) tasks.Viewer {
		return tasks.Viewer{ID: me.ID, Allows: func(s string) bool { return s == scope }}
	}
	if _, _, err := r.OpenResult(task.ID, has("devices:read")); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("without the scope: %v", err)
	}
	_, f, err := r.OpenResult(task.ID, has("devices:write"))
	must(t, err)
	must(t, f.Close())
}

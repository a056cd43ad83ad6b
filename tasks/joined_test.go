package tasks_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/tasks"
)

func sharedKind(k *tasks.Kind) { k.Key = func(json.RawMessage) string { return "" } }

func person(i int) (tasks.Owner, tasks.Viewer) {
	id := fmt.Sprintf("key_%d", i)
	return tasks.Owner{Kind: "key", ID: id, Name: "Number " + id}, tasks.Viewer{ID: id}
}

func TestWhoJoinsATaskSeesFetchesAndLeavesItAsHisOwn(t *testing.T) {
	g := newGate()
	draw := func(ctx context.Context, run *tasks.Run) error {
		if err := g.run(ctx, run); err != nil {
			return err
		}
		return says("a picture")(ctx, run)
	}
	r := newRig(t, kindOf("draw", draw, sharedKind))
	first, byFirst := person(1)
	second, bySecond := person(2)
	_, byThird := person(3)
	a, err := r.Start(t.Context(), "draw", nil, first)
	must(t, err)
	b, err := r.Start(t.Context(), "draw", nil, second)
	must(t, err)
	<-g.entered
	if a.ID != b.ID || b.Owner != second || b.Joined != nil {
		t.Errorf("%+v was joined as %+v", a, b)
	}
	for by, want := range map[*tasks.Viewer]tasks.Owner{&byFirst: first, &bySecond: second, {Admin: true}: first} {
		one, err := r.Task(a.ID, *by)
		must(t, err)
		list, _ := r.List(tasks.Query{By: *by, Limit: 9})
		if one.Owner != want || len(list) != 1 || list[0].Owner != want || one.Joined != nil {
			t.Errorf("%s sees the owners %v and %v", by.ID, one.Owner, list)
		}
	}
	if _, err := r.Task(a.ID, byThird); muster.KindOf(err) != muster.NotFound {
		t.Errorf("who asked for nothing sees it: %v", err)
	}
	left, err := r.Cancel(t.Context(), a.ID, byFirst)
	must(t, err)
	if left.Cancelled || left.State != tasks.Running {
		t.Errorf("it was left as %+v", left)
	}
	if _, err := r.Task(a.ID, byFirst); muster.KindOf(err) != muster.NotFound {
		t.Errorf("who left sees it: %v", err)
	}
	g.open <- nil
	ended, err := r.Wait(t.Context(), a.ID, bySecond, tasks.MaxWait)
	must(t, err)
	if d := cmp.Diff(tasks.Succeeded, ended.State); d != "" || ended.Owner != second {
		t.Errorf("for who stayed it ended so: %+v", ended)
	}
	_, f, err := r.OpenResult(a.ID, bySecond)
	must(t, err)
	if text, err := io.ReadAll(f); err != nil || string(text) != "a picture" {
		t.Errorf("it fetches %q, %v", text, err)
	}
}

func TestATaskThatEverybodyLeftIsCancelledAndNotJoined(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("draw", g.run, sharedKind))
	first, byFirst := person(1)
	second, bySecond := person(2)
	a, err := r.Start(t.Context(), "draw", nil, first)
	must(t, err)
	_, err = r.Start(t.Context(), "draw", nil, second)
	must(t, err)
	<-g.entered
	for _, by := range []tasks.Viewer{bySecond, byFirst} {
		_, err = r.Cancel(t.Context(), a.ID, by)
		must(t, err)
	}
	wantEnd(t, r, a.ID, tasks.Cancelled)
}

func TestAnAdminWhoDidNotAskEndsATaskForAll(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("draw", g.run, sharedKind))
	for i := range 2 {
		o, _ := person(i)
		_, err := r.Start(t.Context(), "draw", nil, o)
		must(t, err)
	}
	<-g.entered
	list, _ := r.List(tasks.Query{By: tasks.Viewer{Admin: true}, Limit: 9})
	_, err := r.Cancel(t.Context(), list[0].ID, tasks.Viewer{ID: "usr_admin", Admin: true})
	must(t, err)
	wantEnd(t, r, list[0].ID, tasks.Cancelled)
}

func TestASharedTaskGoesOnWhileOneOfThoseWhoWantItMayComeIn(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("draw", g.run, sharedKind))
	first, _ := person(1)
	second, _ := person(2)
	gone := map[string]bool{}
	r.stop()
	r.may = func(o tasks.Owner, _ string) bool { return !gone[o.ID] }
	r.open()
	a, err := r.Start(t.Context(), "draw", nil, first)
	must(t, err)
	_, err = r.Start(t.Context(), "draw", nil, second)
	must(t, err)
	<-g.entered
	gone[first.ID] = true
	r.Recheck()
	if task, err := r.Task(a.ID, tasks.Viewer{Admin: true}); err != nil || task.State != tasks.Running || task.Cancelled {
		t.Errorf("it was ended for who may come in still: %+v, %v", task, err)
	}
	gone[second.ID] = true
	r.Recheck()
	wantEnd(t, r, a.ID, tasks.Cancelled)
}

func TestWhoJoinedFirstIsForgottenWhenTooManyJoin(t *testing.T) {
	g := newGate()
	r := newRig(t, kindOf("draw", g.run, sharedKind))
	var id string
	for i := range tasks.MaxJoined + 2 {
		o, _ := person(i)
		task, err := r.Start(t.Context(), "draw", nil, o)
		must(t, err)
		id = task.ID
	}
	for i, sees := range map[int]bool{0: true, 1: false, 2: true, tasks.MaxJoined + 1: true} {
		_, by := person(i)
		if _, err := r.Task(id, by); (err == nil) != sees {
			t.Errorf("number %d: %v", i, err)
		}
	}
	g.open <- nil
}

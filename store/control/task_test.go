package control_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"muster"
	"muster/devices"
	"muster/store/control"
	"muster/tasks"
)

// work is a task of one kind that does what a test says, with one step.
func work(t *testing.T, c *control.Control, do func(ctx context.Context, r *tasks.Run) error) tasks.Task {
	t.Helper()
	room := tasks.New(tasks.Config{Store: c, Loader: c, Dir: t.TempDir(), Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	wantNil(t, room.Register(tasks.Kind{Name: "work", Timeout: tasks.MaxWait, Concurrency: 1, Durable: true, Run: do}))
	wantNil(t, room.Load(t.Context()))
	task, err := room.Start(t.Context(), "work", nil, tasks.Owner{Kind: "user", ID: "usr_1"})
	wantNil(t, err)
	task, err = room.Wait(t.Context(), task.ID, tasks.Viewer{Admin: true}, tasks.MaxWait)
	wantNil(t, err)
	wantNil(t, room.Stop(context.WithoutCancel(t.Context())))
	return task
}

func stored(t *testing.T, c *control.Control) (ts []tasks.Task, ks []tasks.Kept) {
	t.Helper()
	wantNil(t, c.LoadTasks(t.Context(), func(task tasks.Task, k tasks.Kept) error {
		ts, ks = append(ts, task), append(ks, k)
		return nil
	}))
	return ts, ks
}

func TestTasks(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		one := tasks.Task{
			ID: "tsk_1", Kind: "devices.import", State: tasks.Running, Owner: tasks.Owner{Kind: "user", ID: "usr_1", Name: "Ünï"}, Durable: true,
			Input: json.RawMessage(`{"q":"é\u0000 \"x\""}`), Created: 1, Started: 2, Attempts: 3, Note: "reading",
		}
		two := tasks.Task{
			ID: "tsk_2", Kind: "k", State: tasks.Failed, Input: json.RawMessage(`{}`), Durable: true, Created: 1, Ended: 5, Expires: 6, Done: 3, Total: 4,
			Cancelled: true, Code: "invalid", Error: "words", Result: &tasks.Result{Type: "text/csv", Size: 1 << 40},
		}
		t.Run("what is kept comes back letter for letter, in the order of ids", func(t *testing.T) {
			wantNil(t, c.SaveTask(ctx, two))
			wantNil(t, c.SaveTask(ctx, one))
			ts, ks := stored(t, c)
			same(t, []tasks.Task{one, two}, ts)
			same(t, []tasks.Kept{{}, {Done: 3, Total: 4}}, ks)
		})
		t.Run("saving again keeps what was asked for", func(t *testing.T) {
			changed := one
			changed.State, changed.Cancelled, changed.Input, changed.Attempts = tasks.Queued, true, json.RawMessage(`{"other":1}`), 4
			wantNil(t, c.SaveTask(ctx, changed))
			changed.Input = one.Input
			ts, _ := stored(t, c)
			same(t, []tasks.Task{changed, two}, ts)
		})
		t.Run("they are forgotten, those that are not there too", func(t *testing.T) {
			wantNil(t, c.DeleteTasks(ctx, []string{"tsk_1", "tsk_2", "tsk_3"}))
			wantNil(t, c.DeleteTasks(ctx, nil))
			ts, _ := stored(t, c)
			same(t, nil, ts)
			if _, err := c.KeptOf(ctx, "tsk_1"); muster.KindOf(err) != muster.NotFound {
				t.Errorf("its step gives %v", err)
			}
		})
	})
}

func TestAStepIsKeptWithTheChangeThatDoesIt(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		var kept []tasks.Kept
		look := func(r *tasks.Run) {
			k, err := c.KeptOf(t.Context(), r.Task)
			wantNil(t, err)
			kept = append(kept, k)
		}
		insert := func(id string) func(ctx context.Context) error {
			return func(ctx context.Context) error {
				return c.InsertDevices(ctx, []devices.Device{device(id)}, nil)
			}
		}
		task := work(t, c, func(ctx context.Context, r *tasks.Run) error {
			wantNil(t, r.Step(ctx, 1, 3, "one", insert("a")))
			look(r)
			if err := r.Step(ctx, 2, 3, "two", insert("a")); muster.KindOf(err) != muster.Conflict {
				t.Errorf("a change that is refused gives %v", err)
			}
			look(r)
			wantNil(t, r.Step(ctx, 2, 3, "none", func(context.Context) error { return nil }))
			look(r)
			return r.Step(ctx, 3, 3, "three", func(ctx context.Context) error {
				wantNil(t, insert("b")(ctx)) // keeps it
				look(r)
				return insert("c")(ctx)
			})
		})
		if task.State != tasks.Succeeded {
			t.Errorf("it is %s: %s", task.State, task.Error)
		}
		one := tasks.Kept{Checkpoint: json.RawMessage(`"one"`), Done: 1, Total: 3}
		none, three := tasks.Kept{Checkpoint: json.RawMessage(`"none"`), Done: 2, Total: 3}, tasks.Kept{Checkpoint: json.RawMessage(`"three"`), Done: 3, Total: 3}
		same(t, []tasks.Kept{one, one, none, three}, kept)
	})
}

func TestAStepOfATaskThatIsForgottenChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		task := work(t, c, func(ctx context.Context, r *tasks.Run) error {
			wantNil(t, c.DeleteTasks(ctx, []string{r.Task}))
			return r.Step(ctx, 1, 1, 1, func(ctx context.Context) error {
				return c.InsertDevices(ctx, []devices.Device{device("a")}, nil)
			})
		})
		if task.State != tasks.Failed || task.Code != "conflict" {
			t.Errorf("it is %s %s", task.State, task.Code)
		}
		wantNil(t, c.InsertDevices(t.Context(), []devices.Device{device("a")}, nil)) // the first was not made
	})
}

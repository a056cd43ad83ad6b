package tasks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
	"muster/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tb is what of *testing.T a property's *rapid.T has too.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// clock stands where it is put.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// rig is a room over a real store.
type rig struct {
	*testing.T
	*tasks.Tasks
	store *control.Control
	dir   string
	clock *clock
	log   *logBuffer
	kinds []tasks.Kind
	max   int64 // bytes of files
	may   func(tasks.Owner, string) bool
}

func openStore(t *testing.T, dir string) *control.Control {
	t.Helper()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	c, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newRig(t *testing.T, kinds ...tasks.Kind) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), clock: &clock{at: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)}, log: &logBuffer{}, kinds: kinds}
	r.store = openStore(t, r.dir)
	r.open()
	t.Cleanup(func() { r.stop() })
	return r
}

// open makes the room, as a start of the server does.
func (r *rig) open() {
	r.Helper()
	r.Tasks = tasks.New(tasks.Config{
		Store: r.store, Loader: r.store, Dir: filepath.Join(r.dir, "tasks"), MaxBytes: r.max, May: r.may, Now: r.clock.now,
		Logger: slog.New(slog.NewTextHandler(r.log, nil)),
	})
	for _, k := range r.kinds {
		must(r, r.Register(k))
	}
	must(r, r.Load(context.Background()))
}

func (r *rig) stop() {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	must(r, r.Stop(ctx))
}

// restart is what a process that ends at once and a new one leave and find.
func (r *rig) restart() {
	r.Helper()
	r.stop()
	r.open()
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

var (
	owner  = tasks.Owner{Kind: "user", ID: "usr_1", Name: "one"}
	me     = tasks.Viewer{ID: "usr_1"}
	other  = tasks.Viewer{ID: "usr_2"}
	admins = tasks.Viewer{ID: "usr_3", Admin: true}
)

func (r *rig) start(kind string, input string) tasks.Task {
	r.Helper()
	task, err := r.Start(r.Context(), kind, json.RawMessage(input), owner)
	must(r, err)
	return task
}

// end waits for the end of a task.
func (r *rig) end(id string) tasks.Task {
	r.Helper()
	task, err := r.Wait(r.Context(), id, admins, 30*time.Second)
	must(r, err)
	return task
}

func (r *rig) ends(id string, want tasks.State) tasks.Task {
	r.Helper()
	task := r.end(id)
	if task.State != want {
		r.Fatalf("the task is %s (%s %s), want %s", task.State, task.Code, task.Error, want)
	}
	return task
}

func (r *rig) result(id string, by tasks.Viewer) string {
	r.Helper()
	_, f, err := r.OpenResult(id, by)
	must(r, err)
	defer f.Close()
	b, err := io.ReadAll(f)
	must(r, err)
	return string(b)
}

func (r *rig) wantKind(err error, want muster.Kind) {
	r.Helper()
	if err == nil || muster.KindOf(err) != want {
		r.Errorf("the error is %v, want one of kind %v", err, want)
	}
}

// fileNames returns what is in the room's directory.
func (r *rig) fileNames() []string {
	r.Helper()
	list, err := os.ReadDir(filepath.Join(r.dir, "tasks"))
	if os.IsNotExist(err) {
		return nil
	}
	must(r, err)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// gate is a kind's work that goes on when it is let.
type gate struct {
	entered chan *tasks.Run
	open    chan error
}

func newGate() *gate { return &gate{entered: make(chan *tasks.Run, 100), open: make(chan error)} }

func (g *gate) run(ctx context.Context, r *tasks.Run) error {
	g.entered <- r
	select {
	case err := <-g.open:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func kindOf(name string, run func(context.Context, *tasks.Run) error, change ...func(*tasks.Kind)) tasks.Kind {
	k := tasks.Kind{Name: name, Timeout: time.Minute, Concurrency: 2, Queue: 2, KeepResult: time.Hour, Run: run}
	for _, c := range change {
		c(&k)
	}
	return k
}

func durable(k *tasks.Kind) { k.Durable = true }

// says writes text as the result.
func says(text string) func(context.Context, *tasks.Run) error {
	return func(_ context.Context, r *tasks.Run) error {
		out, err := r.Result("text/plain")
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, text)
		return err
	}
}

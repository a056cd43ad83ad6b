package tasks

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"muster"
)

// Run is a task from the side of those who do the work. It is for one goroutine.
type Run struct {
	// Task is the id, Input what was asked for, Owner by whom.
	Task  string
	Input json.RawMessage
	Owner Owner
	// Resume is the checkpoint of the last step, nil when there is none.
	Resume json.RawMessage

	tasks *Tasks
	job   *job
	kept  Kept // the last step that is known to be kept
	out   *Output
}

// Progress tells how far the task is, for those who watch. It is cheap and may be
// called often; what nobody looked at in time is not seen.
func (r *Run) Progress(done, total int64, note string) {
	if len(note) > maxNote {
		note = strings.ToValidUTF8(note[:maxNote], "")
	}
	t := r.tasks
	t.mu.Lock()
	r.job.Done, r.job.Total, r.job.Note = done, total, note
	t.mu.Unlock()
	t.watch.tell(r.Task)
}

// File opens what came with the request, NotFound when nothing did.
func (r *Run) File() (io.ReadCloser, error) { return r.tasks.files.open(r.Task, inputFile) }

// Keep keeps b under a name (lower-case letters) beside the task until it ends, also
// over a restart; it is durable when Keep returns.
func (r *Run) Keep(name string, b []byte) error {
	return r.tasks.files.put(r.Task, "."+name+keptFile, bytes.NewReader(b))
}

// Recall returns what was kept under name, nil for nothing.
func (r *Run) Recall(name string) ([]byte, error) {
	f, err := r.tasks.files.open(r.Task, "."+name+keptFile)
	if err != nil {
		if muster.KindOf(err) == muster.NotFound {
			return nil, nil
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read what a task kept: %w", err)
	}
	return b, nil
}

// Result returns what the task's result is written to. Of a durable task that goes on
// it holds what belongs to the last step; each call returns the same.
func (r *Run) Result(contentType string) (*Output, error) {
	if r.out != nil {
		r.out.Type = contentType
		return r.out, nil
	}
	out := &Output{Type: contentType, files: r.tasks.files}
	if r.job.kind.Durable {
		f, err := r.tasks.files.result(r.Task, r.kept.Size)
		if err != nil {
			return nil, err
		}
		out.file, out.size = f, r.kept.Size
	}
	r.out = out
	return out, nil
}

// Step does a part of the work: do makes one change of the store under the context that
// it is given, and the checkpoint is kept in that same transaction, with what was
// written to the result before. When do changes nothing the checkpoint is kept by itself.
// When do fails, the step is as if it had not been, and what was written to the result
// since the last step is gone; after Unavailable, and when ctx has ended, Run must return
// that error.
func (r *Run) Step(ctx context.Context, done, total int64, checkpoint any, do func(ctx context.Context) error) error {
	text, err := encode(checkpoint)
	if err != nil {
		return err
	}
	s := &Step{Task: r.Task, Kept: Kept{Checkpoint: text, Done: done, Total: total}}
	if r.out != nil {
		if err := r.out.sync(); err != nil {
			return err
		}
		s.Size = r.out.size
	}
	if ctx.Err() != nil { // do may not look: none begins after the task was cancelled
		return muster.Errorf(muster.Unavailable, "begin a step: %w", context.Cause(ctx))
	}
	under := withStep(ctx, s)
	if err := do(under); err != nil {
		return r.undo(ctx, s, err)
	}
	if !s.taken.Load() {
		if err := r.tasks.store.KeepStep(under); err != nil {
			return fmt.Errorf("keep a step: %w", err)
		}
	}
	r.kept = s.Kept
	r.tasks.mu.Lock()
	r.job.kept, r.job.Attempts = s.Kept, 0
	r.tasks.mu.Unlock()
	r.Progress(done, total, "")
	return nil
}

// undo takes back what was written for a step that failed with err, unless the step may
// be kept for all that: the store is asked for it later.
func (r *Run) undo(ctx context.Context, s *Step, err error) error {
	if r.out == nil || s.taken.Load() || ctx.Err() != nil || muster.KindOf(err) == muster.Unavailable {
		return err
	}
	return firstOf(err, r.out.cut(r.kept.Size))
}

// Output is where a result is written.
type Output struct {
	Type  string // its media type
	files *files
	file  *os.File // nil for one in memory
	buf   []byte
	size  int64
}

// Size returns the bytes that were written.
func (o *Output) Size() int64 { return o.size }

// Write implements io.Writer. TooLarge when there is no room: 1 MiB for a result in
// memory, and for files what the room's directory may hold.
func (o *Output) Write(b []byte) (int, error) {
	if o.file == nil {
		if len(o.buf)+len(b) > maxInBytes {
			return 0, muster.Errorf(muster.TooLarge, "the result is larger than %d bytes", maxInBytes)
		}
		o.buf = append(o.buf, b...)
		o.size += int64(len(b))
		return len(b), nil
	}
	if err := o.files.room(int64(len(b))); err != nil {
		return 0, err
	}
	n, err := o.file.Write(b)
	o.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write a result: %w", err)
	}
	return n, nil
}

func (o *Output) sync() error {
	if o.file == nil {
		return nil
	}
	if err := o.file.Sync(); err != nil {
		return fmt.Errorf("write a result to disk: %w", err)
	}
	return nil
}

// cut forgets what was written after size.
func (o *Output) cut(size int64) error {
	if o.file == nil {
		o.buf, o.size = o.buf[:size], size
		return nil
	}
	if err := o.file.Truncate(size); err != nil {
		return fmt.Errorf("cut a result: %w", err)
	}
	if _, err := o.file.Seek(size, io.SeekStart); err != nil {
		return fmt.Errorf("cut a result: %w", err)
	}
	o.files.used.Add(size - o.size)
	o.size = size
	return nil
}

// firstOf returns err, joined with what went wrong while mending it.
func firstOf(err, mending error) error {
	if mending == nil {
		return err
	}
	return fmt.Errorf("%w (and then: %w)", err, mending)
}

func fmtErr(doing string, err error) error { return fmt.Errorf("%s: %w", doing, err) }

func errCheckpoint(n int) error {
	return muster.Errorf(muster.TooLarge, "a checkpoint of %d bytes is longer than %d", n, MaxCheckpoint)
}

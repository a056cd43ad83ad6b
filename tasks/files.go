package tasks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"muster"
)

// The ends of file names: what came with a request, what Keep kept, and results.
const (
	inputFile  = ".in"
	keptFile   = ".kept"
	resultFile = ".result"
	tmpPrefix  = "tmp-"
)

// files are what tasks keep in the room's directory. A file is written beside its place,
// synced and renamed there; a result grows in place, and as far as a step was kept it is
// synced. They hold credentials: none but this user may read them.
type files struct {
	dir  string
	max  int64        // bytes they may have together
	used atomic.Int64 // about as many as they have; sweep counts anew
}

func (f *files) path(task, end string) string { return filepath.Join(f.dir, task+end) }

// room takes n bytes, or fails with TooLarge.
func (f *files) room(n int64) error {
	if f.used.Add(n) > f.max {
		f.used.Add(-n)
		return muster.Errorf(muster.TooLarge, "the files of tasks have %d bytes together, no more may be kept", f.max)
	}
	return nil
}

// roomWriter counts what is written against the room.
type roomWriter struct {
	files *files
	file  *os.File
}

func (w roomWriter) Write(b []byte) (int, error) {
	if err := w.files.room(int64(len(b))); err != nil {
		return 0, err
	}
	return w.file.Write(b) //nolint:wrapcheck // put says what was done
}

// put writes a whole file, durable when it returns.
func (f *files) put(task, end string, in io.Reader) error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of tasks: %w", err)
	}
	tmp, err := os.CreateTemp(f.dir, tmpPrefix)
	if err != nil {
		return fmt.Errorf("make a file of a task: %w", err)
	}
	n, err := io.Copy(roomWriter{f, tmp}, in)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), f.path(task, end))
	}
	if err != nil {
		f.used.Add(-n)
		_ = os.Remove(tmp.Name()) // swept otherwise
		return fmt.Errorf("write a file of a task: %w", err)
	}
	return f.syncDir()
}

func (f *files) syncDir() error {
	d, err := os.Open(f.dir)
	if err != nil {
		return fmt.Errorf("open the directory of tasks: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync the directory of tasks: %w", err)
	}
	return nil
}

func (f *files) open(task, end string) (*os.File, error) {
	file, err := os.Open(f.path(task, end))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, muster.Errorf(muster.NotFound, "the task has no such file")
	}
	if err != nil {
		return nil, fmt.Errorf("open a file of a task: %w", err)
	}
	return file, nil
}

// result opens a result to be written on after its first size bytes.
func (f *files) result(task string, size int64) (*os.File, error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of tasks: %w", err)
	}
	file, err := os.OpenFile(f.path(task, resultFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a result: %w", err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() < size {
		err = muster.Errorf(muster.Internal, "the result has %d bytes, %d were kept", info.Size(), size)
	}
	if err == nil {
		err = file.Truncate(size)
		f.used.Add(size - info.Size())
	}
	if err == nil {
		_, err = file.Seek(size, io.SeekStart)
	}
	if err == nil {
		err = f.syncDir()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a result: %w", err), file.Close())
	}
	return file, nil
}

// drop removes the files of a task, and with them its result unless it is to be kept.
func (f *files) drop(task string, keepResult bool) error {
	paths, err := filepath.Glob(filepath.Join(f.dir, task+".*"))
	if err != nil { // the pattern is our own
		panic(fmt.Errorf("list the files of a task: %w", err))
	}
	var errs []error
	for _, path := range paths {
		if !keepResult || path != f.path(task, resultFile) {
			errs = append(errs, f.remove(path))
		}
	}
	return errors.Join(errs...)
}

func (f *files) remove(path string) error {
	info, err := os.Stat(path)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove a file of a task: %w", err)
	}
	f.used.Add(-info.Size())
	return nil
}

// sweep removes the files that keep says no to, and what was being written when
// the process died. It counts what is left. Call it before anything is written.
func (f *files) sweep(keep func(task string, result bool) bool) error {
	list, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the files of tasks: %w", err)
	}
	var errs []error
	var size int64
	for _, e := range list {
		task, _, _ := strings.Cut(e.Name(), ".")
		if keep(task, strings.HasSuffix(e.Name(), resultFile)) {
			info, err := e.Info()
			if err == nil {
				size += info.Size()
			}
			errs = append(errs, err)
			continue
		}
		errs = append(errs, os.Remove(filepath.Join(f.dir, e.Name())))
	}
	f.used.Store(size)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("sweep the files of tasks: %w", err)
	}
	return nil
}

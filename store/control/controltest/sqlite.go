package controltest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"muster/store/control"
	"muster/store/sqlite"
)

// makeTime bounds making an original.
const makeTime = 2 * time.Minute

// migrated is a control.db as all migrations leave it. It is made once in a process, and
// nothing changes it.
var migrated = sync.OnceValues(makeFile)

// TB is a test, or a property's check.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
}

// Fill puts a migrated, empty control.db into dir, for sqlite.OpenControl to find. A
// control.db that is there already stays as it is.
func Fill(t TB, dir string) {
	t.Helper()
	file, err := migrated()
	if err == nil {
		err = write(filepath.Join(dir, "control.db"), file)
	}
	if err != nil {
		t.Fatalf("have a migrated control.db: %v", err)
	}
}

func write(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make the file: %w", err)
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(fmt.Errorf("write the file: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close the file: %w", err)
	}
	return nil
}

// makeFile migrates a control.db of its own and returns what is in it.
func makeFile() (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "muster-control-")
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ctx, cancel := context.WithTimeout(context.Background(), makeTime)
	defer cancel()
	h, err := sqlite.OpenControl(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("open it: %w", err)
	}
	if err := migrate(ctx, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite()); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "control.db")
	if _, err := os.Stat(file + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its journal is there after it was closed (%w)", err)
	}
	return os.ReadFile(file)
}

// migrate brings a database up to date and closes it.
func migrate(ctx context.Context, h control.Handles, d control.Dialect) error {
	c, err := control.Open(ctx, h, d)
	if err != nil {
		return fmt.Errorf("migrate it: %w", err)
	}
	if err := c.Close(); err != nil {
		return fmt.Errorf("close it: %w", err)
	}
	return nil
}

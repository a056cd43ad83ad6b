package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"muster"
	"muster/audit"
	"muster/store/control"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// maxFindings is how many faults of the audit log Doctor lists one by one.
const maxFindings = 100

// Check is what Doctor says about one thing.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Doctor looks at the data directory and the database of a server, stopped or running,
// changes nothing, and reports each thing it looked at. dir is the data directory, url
// that of the database, empty for SQLite.
func Doctor(ctx context.Context, dir, url string, now time.Time, look Images, report func(Check)) {
	d := doctor{dir, url, now, look, report}
	if !d.directory() {
		return
	}
	d.running()
	d.space()
	c := d.database(ctx)
	if c == nil {
		return
	}
	d.auditLog(ctx, c)
	d.audited(ctx, c)
	d.rolloutLogs(ctx, c)
	d.images(ctx, c)
	if err := c.Close(); err != nil {
		d.say("database", false, "%s", muster.Public(err))
	}
}

type doctor struct {
	dir, url string
	now      time.Time
	look     Images
	report   func(Check)
}

func (d *doctor) say(name string, ok bool, format string, args ...any) {
	d.report(Check{name, ok, fmt.Sprintf(format, args...)})
}

// directory says whether there is one, and who may read it.
func (d *doctor) directory() bool {
	info, err := os.Stat(d.dir)
	if err != nil || !info.IsDir() {
		d.say("data directory", false, "%s is not there", d.dir)
		return false
	}
	key, err := os.Stat(filepath.Join(d.dir, secretFile))
	switch {
	case err == nil && key.Mode().Perm()&0o077 != 0:
		d.say("data directory", false, "others may read %s: chmod 600 it", filepath.Join(d.dir, secretFile))
	case info.Mode().Perm()&0o007 != 0:
		d.say("data directory", false, "others may look into %s: chmod o= it", d.dir)
	default:
		d.say("data directory", true, "%s, closed to others", d.dir)
	}
	return true
}

// running says whether a server has the directory. Asking takes the lock for a moment.
func (d *doctor) running() {
	f, err := os.Open(filepath.Join(d.dir, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		d.say("server", true, "none has run here yet")
		return
	}
	if err != nil {
		d.say("server", false, "the lock cannot be read: %v", err)
		return
	}
	defer func() { _ = f.Close() }() // and unlocks it
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		d.say("server", true, "running")
		return
	}
	d.say("server", true, "stopped")
}

// space says how much is left where the log and the data lie.
func (d *doctor) space() {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil {
		d.say("free space", false, "it cannot be told: %v", err)
		return
	}
	const least = 1 << 30
	free := st.Bavail * uint64(st.Bsize)
	d.say("free space", free >= least, "%d MiB of %d MiB", free>>20, st.Blocks*uint64(st.Bsize)>>20)
}

// database opens what is there as it is, nil when that cannot be used.
func (d *doctor) database(ctx context.Context) *control.Control {
	handles, dialect, err := d.handles(ctx)
	if err != nil {
		d.say("database", false, "%s", muster.Public(err))
		return nil
	}
	c, have, know, err := control.Look(ctx, handles, dialect)
	switch {
	case err != nil:
		d.say("database", false, "%s", muster.Public(err))
		return nil
	case have > know:
		d.say("database", false, "its schema %d is newer than this muster knows (%d): use a newer muster", have, know)
	case have < know:
		d.say("database", false, "its schema is %d, this muster's %d: the next start brings it up to date; nothing more was looked at", have, know)
	default:
		d.say("database", true, "schema %d", have)
		return c
	}
	_ = c.Close() // nothing was written
	return nil
}

func (d *doctor) handles(ctx context.Context) (control.Handles, control.Dialect, error) {
	if d.url != "" {
		h, err := postgres.OpenControl(ctx, d.url)
		return h, control.Postgres(), err
	}
	if _, err := os.Stat(filepath.Join(d.dir, "control.db")); err != nil {
		return control.Handles{}, control.Dialect{}, muster.Errorf(muster.NotFound, "there is no control.db in %s", d.dir)
	}
	h, err := sqlite.OpenControl(ctx, d.dir)
	if err != nil {
		return control.Handles{}, control.Dialect{}, err
	}
	return control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite(), nil
}

// rolloutLogs reads the logs of all rollouts, and what the audit log says of them.
func (d *doctor) rolloutLogs(ctx context.Context, c *control.Control) {
	found := 0
	rows, err := c.VerifyRollouts(ctx, func(id, what string) {
		if found++; found <= maxFindings {
			d.say("rollouts", false, "rollout %s: %s", id, what)
		}
	})
	switch {
	case err != nil:
		d.say("rollouts", false, "their logs cannot be read: %s", muster.Public(err))
	case found > maxFindings:
		d.say("rollouts", false, "%d faults in all", found)
	case found == 0:
		d.say("rollouts", true, "the audit log vouches for %d changes of devices in their logs", rows)
	}
}

// audited holds what the audit log vouches for against it.
func (d *doctor) audited(ctx context.Context, c *control.Control) {
	found := 0
	n, err := c.VerifyAudited(ctx, func(object, what string) {
		if found++; found <= maxFindings {
			d.say("firmware", false, "%s: %s", object, what)
		}
	})
	switch {
	case err != nil:
		d.say("firmware", false, "what the audit log vouches for cannot be read: %s", muster.Public(err))
	case found > maxFindings:
		d.say("firmware", false, "%d faults in all", found)
	case found == 0:
		d.say("firmware", true, "the audit log vouches for the policy, keys, releases, artifacts and rollouts: %d", n)
	}
}

// auditLog reads the audit log whole.
func (d *doctor) auditLog(ctx context.Context, c *control.Control) {
	secret, err := readSecret(filepath.Join(d.dir, secretFile))
	var keys audit.Keys
	if err == nil {
		keys, err = auditKeys(secret)
	}
	if err != nil {
		d.say("audit log", false, "its key cannot be had: %v", err)
		return
	}
	found := 0
	head := auditHead(filepath.Join(d.dir, auditHeadFile))
	seen, err := audit.Verify(ctx, c, head, keys, d.now, func(f audit.Finding) {
		if found++; found <= maxFindings {
			d.say("audit log", false, "records %d to %d: %s", f.First, f.Last, f.What)
		}
	})
	switch {
	case err != nil:
		d.say("audit log", false, "it cannot be read: %s", muster.Public(err))
	case found > maxFindings:
		d.say("audit log", false, "%d faults in all", found)
	case found == 0:
		d.say("audit log", true, "%d records under %d seals, %d wait for the next seal", seen.Records, seen.Seals, seen.Unsealed)
	}
}

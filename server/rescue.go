package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/store/control"
)

// RescueConfig says whom Rescue lets in.
type RescueConfig struct {
	DataDir, DatabaseURL string
	PublicURL            string // what the link begins with
	Email                string
	DropSecondFactor     bool
	By                   string // who holds the data directory, for the audit log
	Now                  func() time.Time
}

// Rescue makes a user of a stopped server an admin and returns a one-time link by which he
// sets a new password once the server runs again: for when no admin can sign in. It needs
// the data directory and, where that is another, the database; it is recorded in the audit
// log as done by the system, with By as its name, and sealed. Conflict while a server runs
// on the directory, which has its accounts in memory, and when the schema is not this
// muster's; NotFound when no server has run there; else what accounts.Rescue says.
func Rescue(ctx context.Context, cfg RescueConfig) (out accounts.Rescued, err error) {
	if _, err := os.Stat(filepath.Join(cfg.DataDir, secretFile)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return out, muster.Errorf(muster.NotFound, "%s is no data directory of a server: there is no %s", cfg.DataDir, secretFile)
		}
		return out, muster.Errorf(muster.Forbidden, "the data directory cannot be read: %w", err)
	}
	lock, err := lockDir(cfg.DataDir)
	if err != nil {
		if muster.KindOf(err) == muster.Conflict {
			return out, muster.Errorf(muster.Conflict, "a server is running on %s: stop it, run this again, and start it: it has its accounts in memory", cfg.DataDir)
		}
		return out, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	d := doctor{dir: cfg.DataDir, url: cfg.DatabaseURL}
	handles, dialect, err := d.handles(ctx)
	if err != nil {
		return out, err
	}
	c, have, know, err := control.Look(ctx, handles, dialect)
	if err != nil {
		return out, fmt.Errorf("open the database: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if have != know {
		return out, muster.Errorf(muster.Conflict, "the database has schema %d, this muster %d: use the muster that the server runs", have, know)
	}
	return rescue(ctx, cfg, c)
}

// rescue does it on an open database that nobody else uses.
func rescue(ctx context.Context, cfg RescueConfig, c *control.Control) (accounts.Rescued, error) {
	none := slog.New(slog.DiscardHandler)
	secret, err := readSecret(filepath.Join(cfg.DataDir, secretFile))
	if err != nil {
		return accounts.Rescued{}, err
	}
	sealer, err := openAudit(ctx, c, cfg.DataDir, secret, cfg.Now, none)
	if err != nil {
		return accounts.Rescued{}, err
	}
	people := accounts.New(c, cfg.Now, none, accounts.Config{URL: func() string { return cfg.PublicURL }})
	if err := people.Load(ctx); err != nil {
		return accounts.Rescued{}, fmt.Errorf("rescue: %w", err)
	}
	out, err := people.Rescue(audit.With(ctx, audit.Actor{Kind: audit.System, Name: cfg.By}, cfg.Now), cfg.Email, cfg.DropSecondFactor)
	if err != nil {
		return out, err //nolint:wrapcheck // it says what is wrong
	}
	if err := sealer.Seal(ctx); err != nil {
		return out, fmt.Errorf("seal the audit log: %w", err)
	}
	return out, nil
}

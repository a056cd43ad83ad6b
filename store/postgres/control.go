package postgres

import (
	"context"
	"database/sql"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"muster/store/control"
)

// controlConns is how many connections the control data uses; more callers wait
// for one another.
const controlConns = 4

// OpenControl connects to the database at url for package store/control, whose
// schema lies beside telemetry's. It answers as Open does when the server does not
// answer. Both handles are one pool; closing them closes it.
func OpenControl(ctx context.Context, url string) (control.Handles, error) {
	cfg, err := parse(url)
	if err != nil {
		return control.Handles{}, err
	}
	if err := reach(ctx, cfg.ConnConfig); err != nil {
		return control.Handles{}, err
	}
	db := pooled(stdlib.OpenDB(*cfg.ConnConfig, stdlib.OptionAfterConnect(prepareSession)))
	return control.Handles{Write: db, Read: db}, nil
}

func pooled(db *sql.DB) *sql.DB {
	db.SetMaxOpenConns(controlConns)
	db.SetMaxIdleConns(controlConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

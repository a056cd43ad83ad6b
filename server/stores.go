package server

import (
	"context"
	"errors"
	"io"

	"muster/ingest"
	"muster/store/control"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// telemetry is what both engines offer.
type telemetry interface {
	ingest.Store
	ingest.LatestStore
	ingest.RangeStore
	ingest.Eraser
	io.Closer
}

// stores are the open databases.
type stores struct {
	telemetry telemetry
	control   *control.Control
	engine    engine
	shrink    []func(context.Context) error // each gives back memory that is not Go's
}

// openStores opens the engine cfg asks for and brings its schema up to date.
func openStores(ctx context.Context, cfg *Config) (*stores, error) {
	var st stores
	var err error
	if cfg.DatabaseURL != "" {
		err = st.openPostgres(ctx, cfg)
	} else {
		err = st.openSQLite(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, st.close())
	}
	return &st, nil
}

func (st *stores) openPostgres(ctx context.Context, cfg *Config) error {
	handles, err := postgres.OpenControl(ctx, cfg.DatabaseURL)
	if err != nil {
		return err
	}
	if st.control, err = control.Open(ctx, handles, control.Postgres()); err != nil {
		return err
	}
	tel, err := postgres.Open(ctx, cfg.DatabaseURL, cfg.Logger)
	if err != nil {
		return err
	}
	st.telemetry = tel
	i := tel.Info()
	st.engine = engine{Name: "postgres", Version: i.Server, Timescale: i.Timescale, Licence: i.Licence, Hypertable: i.Hypertable, size: tel.Size}
	return nil
}

func (st *stores) openSQLite(ctx context.Context, cfg *Config) error {
	tel, err := sqlite.Open(ctx, cfg.DataDir, cfg.Logger)
	if err != nil {
		return err
	}
	st.telemetry, st.engine = tel, sqliteEngine(cfg.DataDir)
	st.shrink = append(st.shrink, tel.Shrink)
	c, err := sqlite.OpenControl(ctx, cfg.DataDir)
	if err != nil {
		return err
	}
	st.shrink = append(st.shrink, c.Shrink)
	st.control, err = control.Open(ctx, control.Handles{Write: c.Write, Read: c.Read, Query: c.Query}, control.SQLite())
	return err
}

func (st *stores) close() error {
	var err error
	if st.control != nil {
		err = st.control.Close()
	}
	if st.telemetry != nil {
		err = errors.Join(err, st.telemetry.Close())
	}
	return err
}

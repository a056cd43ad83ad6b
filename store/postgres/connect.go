package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"muster"
)

// dialTimeout is how long a server may take to let one connection in.
const dialTimeout = 4 * time.Second

// parse reads a database URL. Its errors never quote the URL, which holds a password.
func parse(url string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid,
			"the database URL cannot be read; it looks like postgres://user:password@host:5432/database?sslmode=verify-full")
	}
	cfg.ConnConfig.ConnectTimeout = dialTimeout
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = "muster"
	}
	return cfg, nil
}

// reach connects once, so that a wrong URL is one sentence at once and not the
// first failure of a pool.
func reach(ctx context.Context, cfg *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return refused(cfg, err)
	}
	return classify("close a connection", c.Close(ctx))
}

// refused says in one sentence why there is no connection. A server that answers
// and says no (wrong password, no such database) is Invalid: asking again will not help.
func refused(cfg *pgx.ConnConfig, err error) error {
	where := fmt.Sprintf("the database %q at %s", cfg.Database, net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))))
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		kind := muster.Unavailable
		if class := e.Code[:min(2, len(e.Code))]; class == "28" || class == "3D" {
			kind = muster.Invalid
		}
		return &muster.Error{Kind: kind, Err: err, Msg: fmt.Sprintf("%s refuses muster: %s (SQLSTATE %s)", where, e.Message, e.Code)}
	}
	cause := "no answer"
	if e, ok := errors.AsType[*net.OpError](err); ok && !e.Timeout() {
		cause = e.Err.Error()
	} else if e, ok := errors.AsType[*net.DNSError](err); ok {
		cause = "no such host " + e.Name
	} else if errors.Is(err, context.DeadlineExceeded) || ok && e.Timeout() {
		cause = fmt.Sprintf("no answer within %v", dialTimeout)
	}
	return &muster.Error{Kind: muster.Unavailable, Err: err, Msg: fmt.Sprintf("%s does not answer: %s", where, cause)}
}

// enableTimescale creates the extension where the server offers it and lets this
// user have it. It does so on a connection of its own, since a server that has the
// extension's files but did not load it at start ends the connection that asks.
// Failure is not an error: native partitions do.
func enableTimescale(ctx context.Context, cfg *pgx.ConnConfig, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	offered, err := createTimescale(ctx, cfg)
	switch {
	case err != nil:
		log.WarnContext(ctx, "timescaledb cannot be enabled; an existing table stays what it is, a new one gets native partitions", "err", err)
	case !offered:
		log.InfoContext(ctx, "the server has no timescaledb; telemetry lies in native partitions")
	}
}

// createTimescale reports whether the server offers the extension.
func createTimescale(ctx context.Context, cfg *pgx.ConnConfig) (offered bool, err error) {
	c, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = c.Close(ctx) }() // the extension is committed by now
	const known = `SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb'),
		EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')`
	var there bool
	if err := c.QueryRow(ctx, known).Scan(&there, &offered); err != nil {
		return false, fmt.Errorf("ask for extensions: %w", err)
	}
	if there || !offered {
		return offered, nil
	}
	// Two processes that start at once take turns: IF NOT EXISTS alone races.
	if _, err := c.Exec(ctx, `SELECT pg_advisory_lock($1)`, lockSchema); err != nil {
		return true, fmt.Errorf("lock the schema: %w", err)
	}
	if _, err := c.Exec(ctx, `SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS timescaledb`,
		pgx.QueryExecModeSimpleProtocol); err != nil {
		return true, fmt.Errorf("create the extension: %w", err)
	}
	return true, nil
}

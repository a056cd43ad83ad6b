package pgtest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// originals is how the names of databases begin that others are copied from.
	originals = "muster_original_"
	// keptOriginals is how many of them stay on a server: those of the newest schemas.
	keptOriginals = 8
	// makeTime bounds making one, and waiting for somebody else who makes it.
	makeTime = 3 * time.Minute
	// lockOriginals is the advisory lock of who makes one, on the server's own database.
	lockOriginals int64 = 0x6d7573746572_74
)

// Copy makes a database that is a copy of an original, which the test's end drops with
// whoever is connected, and returns its URL. Where the server has no original of that name
// (letters, digits and _, at most 40), fill makes it of an empty database, and must leave
// no connection; it stays there for other tests and processes, so its name must say all
// that is in it.
func Copy(t testing.TB, server, name string, fill func(ctx context.Context, url string) error) string {
	t.Helper()
	original := originals + name
	for range keptOriginals { // more, and others drop it as often as it is made
		made, dsn := create(t, server, " TEMPLATE "+original)
		if made {
			return dsn
		}
		if err := makeOriginal(t.Context(), server, original, fill); err != nil {
			t.Fatalf("make the database %s: %v", original, err)
		}
	}
	t.Fatalf("the database %s is dropped as often as it is made", original)
	return ""
}

// makeOriginal makes a database and fills it, unless it is there. It has its name only
// when it is whole.
func makeOriginal(ctx context.Context, server, name string, fill func(context.Context, string) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, makeTime)
	defer cancel()
	c, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close(ctx)) }() // it frees the lock too
	if _, err := c.Exec(ctx, "SELECT pg_advisory_lock($1)", lockOriginals); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	var there bool
	if err := c.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil || there {
		return err
	}
	const unfinished = originals + "unfinished"
	if err := exec(ctx, c, "DROP DATABASE IF EXISTS "+unfinished+" WITH (FORCE)", "CREATE DATABASE "+unfinished); err != nil {
		return err
	}
	dsn, err := urlOf(server, unfinished)
	if err != nil {
		return err
	}
	if err := fill(ctx, dsn); err != nil {
		return fmt.Errorf("fill it: %w", err)
	}
	if err := exec(ctx, c, "ALTER DATABASE "+unfinished+" WITH ALLOW_CONNECTIONS false", "ALTER DATABASE "+unfinished+" RENAME TO "+name); err != nil {
		return err
	}
	return dropOld(ctx, c)
}

// dropOld drops the oldest originals.
func dropOld(ctx context.Context, c *pgx.Conn) error {
	rows, err := c.Query(ctx, `SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY oid DESC OFFSET $2`, originals, keptOriginals)
	if err != nil {
		return fmt.Errorf("list the originals: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("list the originals: %w", err)
	}
	for _, name := range names {
		if err := exec(ctx, c, "DROP DATABASE "+name); err != nil && code(err) != objectInUse { // somebody copies it
			return err
		}
	}
	return nil
}

func exec(ctx context.Context, c *pgx.Conn, statements ...string) error {
	for _, s := range statements {
		if _, err := c.Exec(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}

// SQLSTATEs.
const (
	noSuchDatabase = "3D000"
	objectInUse    = "55006"
)

func code(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

func urlOf(server, database string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", errors.New("the server's URL cannot be parsed")
	}
	u.Path = "/" + database
	return u.String(), nil
}

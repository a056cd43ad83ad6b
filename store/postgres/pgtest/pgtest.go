package pgtest

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// stepTime bounds making a database, and dropping it.
const stepTime = time.Minute

// Server returns the URL of the server that a variable of the environment names. Without
// it the test is skipped; in CI it fails.
func Server(t testing.TB, variable string) string {
	t.Helper()
	server := os.Getenv(variable)
	if server == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set, and CI must not skip", variable)
		}
		t.Skipf("%s is not set: start a server with scripts/timescale-up.sh or scripts/postgres-up.sh and set it", variable)
	}
	return server
}

// Empty makes an empty database on a server, which the test's end drops with whoever is
// connected, and returns its URL.
func Empty(t testing.TB, server string) string {
	t.Helper()
	made, dsn := create(t, server, "")
	if !made {
		t.Fatal("the server has nothing to make a database of")
	}
	return dsn
}

// create makes a database until the test ends, and says whether what it is made of is there.
func create(t testing.TB, server, of string) (made bool, dsn string) {
	t.Helper()
	name := "muster_" + strings.ToLower(rand.Text())
	dsn, err := urlOf(server, name)
	if err != nil {
		t.Fatal(err)
	}
	switch err := run(server, "CREATE DATABASE "+name+of); {
	case code(err) == noSuchDatabase:
		return false, ""
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run(server, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return true, dsn
}

// run runs one statement on a connection of its own.
func run(server, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	c, err := pgx.Connect(ctx, server)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }() // what counts is the statement
	return exec(ctx, c, statement)
}

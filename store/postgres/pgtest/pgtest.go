package pgtest

import (
	"context"
	"crypto/rand"
	"net/url"
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
	name := "muster_" + strings.ToLower(rand.Text())
	run(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { run(t, server, "DROP DATABASE "+name+" WITH (FORCE)") })
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal("the server's URL cannot be parsed")
	}
	u.Path = "/" + name
	return u.String()
}

// run runs one statement on a connection of its own.
func run(t testing.TB, server, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	c, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer func() { _ = c.Close(ctx) }() // what counts is the statement
	if _, err := c.Exec(ctx, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

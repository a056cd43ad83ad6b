package pgtest

import (
	"context"
	"crypto/rand"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestManyWhoCopyAtOnceMakeOneOriginal(t *testing.T) {
	server := Server(t, "MUSTER_TEST_POSTGRES")
	name := "test_" + strings.ToLower(rand.Text())
	t.Cleanup(func() {
		if err := run(server, "DROP DATABASE IF EXISTS "+originals+name); err != nil {
			t.Error(err)
		}
	})
	var filled atomic.Int64
	fill := func(_ context.Context, dsn string) error {
		filled.Add(1)
		return run(dsn, "CREATE TABLE sheet AS SELECT 7 AS n")
	}
	t.Run("together", func(t *testing.T) {
		for range 4 {
			t.Run("copy", func(t *testing.T) {
				t.Parallel()
				dsn := Copy(t, server, name, fill)
				if got := sum(t, dsn); got != 7 {
					t.Errorf("the copy holds %d, want 7", got)
				}
				if err := run(dsn, "INSERT INTO sheet VALUES (1)"); err != nil {
					t.Error(err)
				}
			})
		}
	})
	if n := filled.Load(); n != 1 {
		t.Errorf("the original was filled %d times", n)
	}
	if got := sum(t, Copy(t, server, name, fill)); got != 7 {
		t.Errorf("after the others wrote into theirs a copy holds %d, want 7", got)
	}
}

func sum(t *testing.T, dsn string) (n int64) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.QueryRow(t.Context(), "SELECT sum(n) FROM sheet").Scan(&n); err != nil {
		t.Error(err)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
	return n
}

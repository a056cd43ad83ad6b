package controltest

import (
	"context"
	"fmt"
	"testing"

	"muster/store/control"
	"muster/store/postgres"
	"muster/store/postgres/pgtest"
)

// Database makes a database with migrated, empty control data on a server, which the
// test's end drops with whoever is connected, and returns its URL.
func Database(t testing.TB, server string) string {
	t.Helper()
	dialect := control.Postgres()
	schema, err := control.Schema(dialect)
	if err != nil {
		t.Fatalf("name the schema: %v", err)
	}
	return pgtest.Copy(t, server, schema, func(ctx context.Context, url string) error {
		h, err := postgres.OpenControl(ctx, url)
		if err != nil {
			return fmt.Errorf("open it: %w", err)
		}
		return migrate(ctx, h, dialect)
	})
}

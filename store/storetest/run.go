package storetest

import (
	"context"
	"testing"

	"muster/ingest"
)

// Store is all that an engine's telemetry store does.
type Store interface {
	ingest.Store
	ingest.LatestStore
	ingest.RangeStore
	ingest.Eraser
	Close() error
}

// TB is what both a test and a property check can be asked for.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Database is one database, empty at first, that outlives the stores opened on
// it. The engine's test removes it when the test that asked for it ends.
type Database struct {
	// Open migrates the database up and opens a store on it. Called again after
	// Close it finds the same data.
	Open func(ctx context.Context) (Store, error)
	// SQL answers a query over what is committed, by a way that does not go
	// through the store. Integers come as int64, floats as float64, texts as
	// string, nulls as nil.
	SQL func(t TB, query string) [][]any
	// SetSchemaVersion makes the closed database look as if migration number
	// version had been the last to run.
	SetSchemaVersion func(t TB, version int64)
	// MaxRejected is how many rejected messages a store opened here keeps; 200 to
	// 20,000, so that the test of the bound is short.
	MaxRejected int
}

// Run holds an engine to the contract. fresh returns a new empty database.
func Run(t *testing.T, fresh func(t testing.TB) Database) {
	themes := []struct {
		name string
		run  func(t *testing.T, fresh func(t testing.TB) Database)
	}{
		{"append", testAppend},
		{"duplicates", testDuplicates},
		{"values", testValues},
		{"view", testView},
		{"ranges", testRanges},
		{"latest", testLatest},
		{"cursors", testCursors},
		{"rejected", testRejected},
		{"erase", testErase},
		{"replay", testReplay},
		{"scale", testScale},
		{"migrations", testMigrations},
		{"model", testModel},
	}
	for _, th := range themes {
		t.Run(th.name, func(t *testing.T) { th.run(t, fresh) })
	}
}

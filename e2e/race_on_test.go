//go:build race

package e2e

// buildFlags builds the binary under test as scripts/test.sh builds the tests: with
// the race detector, which need not watch SQLite's own loads and stores.
var buildFlags = []string{"-race", "-gcflags=modernc.org/sqlite/lib=-race=false"}

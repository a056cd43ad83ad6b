//go:build race

package e2e

// watchedFlags builds the watched binary as scripts/test.sh builds the tests: with
// the race detector, which need not watch the loads and stores of SQLite and its C library.
var watchedFlags = []string{
	"-ldflags=-s -w", "-race", "-gcflags=modernc.org/sqlite/lib=-race=false", "-gcflags=modernc.org/libc=-race=false", "-gcflags=modernc.org/memory=-race=false",
}

//go:build race

package e2e

// buildFlags builds the binary under test as scripts/test.sh builds the tests: with
// the race detector, which need not watch the loads and stores of SQLite and its C library.
var buildFlags = []string{
	"-race", "-gcflags=modernc.org/sqlite/lib=-race=false", "-gcflags=modernc.org/libc=-race=false", "-gcflags=modernc.org/memory=-race=false",
}

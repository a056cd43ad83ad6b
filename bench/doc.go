// Package bench compares the muster binary, as it runs in production, with what it
// is held to: the acknowledgements of another broker, the rate of the database
// below. `go test ./bench -run '^$' -bench .` prints each comparison as a ratio of
// both sides in one run on one machine; nothing here asserts a time.
//
// It holds benchmarks only, and starts every server it needs on a free port.
package bench

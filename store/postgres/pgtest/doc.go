// Package pgtest gives tests an empty database each, on a PostgreSQL server that is there.
//
// It is called by tests only, and starts no server: scripts/setup-test.sh does.
package pgtest

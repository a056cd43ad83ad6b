// Package pgtest gives tests a database each, empty or a copy of an original, on a
// PostgreSQL server that is there.
//
// It is called by tests only, and starts no server: scripts/setup-test.sh does.
package pgtest

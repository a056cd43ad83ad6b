// Package controltest gives tests control data that is migrated already and empty: a copy
// of one that was migrated once, since all the migrations take longer than most tests.
//
// It owns the copies' originals: one control.db in the memory of a test process, and on a
// PostgreSQL server one database for each schema, which stays there for the next process.
// Tests of rooms that keep control data call it, and so does server/servertest. Tests of
// the migrations themselves never do: they start from nothing.
package controltest

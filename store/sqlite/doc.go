// Package sqlite is the embedded default: it keeps telemetry in telemetry.db and
// opens control.db, both in one directory, through the pure Go SQLite driver.
//
// It owns the schema of telemetry.db (migrations/), the encoding of a reading as
// one row, and how rows are appended, replaced and read back. server opens it;
// ingest's writer and the API use it through ingest.Store, ingest.LatestStore and
// ingest.RangeStore. It starts no goroutine of its own, keeps no device state,
// and never migrates control.db, which belongs to store/control.
//
// telemetry.db is in WAL mode with synchronous NORMAL: what was appended survives
// the end of the process at once and a power cut after Sync. One connection
// writes; a pool of read-only ones reads, so that a long range stops no writer.
//
// A row holds one reading: its number and boolean values as big-endian floats in
// vals, its JSON values in extra, and in set_id which keys they belong to. A loose
// layout's keys are in extra too, under a negative set_id made from the keys. The
// view telemetry_points shows each value as a row to any sqlite3 shell from 3.38
// on. Its time is text in UTC, as in 2026-01-02T03:04:05.000006Z, which sorts by
// time for the years 0 to 9999. Its value is REAL, 0 or 1 for booleans; its text is
// a JSON string's characters, or any other JSON value's JSON text. Holes are left
// out. A query of it by device uses the index, one by time alone does not.
//
// A reading's arrival time is not kept: Range gives it back as 0. The latest
// values keep theirs.
package sqlite

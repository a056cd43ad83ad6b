// Package postgres keeps telemetry in PostgreSQL 15 or newer, in a TimescaleDB
// hypertable where the extension can be had and in native range partitions where
// it cannot. It implements ingest.Store, ingest.LatestStore and
// ingest.RangeStore, and opens the handles on which package store/control keeps
// the registry.
//
// One row is one reading: the names of its keys are interned (a set), its numbers
// and booleans lie in one float8 array, its JSON values in one jsonb object. The
// view telemetry_points shows one row per value, so that SQL and Grafana users
// need to know none of this. DESIGN section 8.
//
// The server opens it; the ingest writer and the API call it. It never deletes
// telemetry by time, never retries what it was not asked to, and never logs a
// value, a URL or a password.
package postgres

// Package control keeps the control data (devices, credentials, profiles,
// presence, API keys, service accounts, sessions, settings) in a relational
// database, with one SQL text for SQLite and PostgreSQL. It implements devices.Store and accounts.Store.
//
// One text works on both because it keeps to TEXT, BIGINT, BOOLEAN and JSONB
// columns, to ids made in Go and lists given by placeholders; what differs is in
// Dialect. Text sorts bytewise on both. Times are microseconds since 1970, hashes
// lower-case hexadecimal.
//
// The server opens it on handles from package store/sqlite or store/postgres; the
// registry and the accounts call it. It imports no driver, caches nothing, starts
// no goroutine, and never retries.
package control

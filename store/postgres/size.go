package postgres

import "context"

// Size returns the bytes that the whole database takes on the server's disk.
func (t *Telemetry) Size(ctx context.Context) (int64, error) {
	var bytes int64
	err := t.read.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&bytes)
	return bytes, classify("ask for the size of the database", err)
}

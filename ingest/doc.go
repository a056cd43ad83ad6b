// Package ingest takes what devices send to durable rows: it decodes and checks
// a message, puts it in a frame in the log, acknowledges it once the frame is
// durable at the level asked for, keeps the latest values in memory, and writes
// the frames to the store with the cursor in the same transaction. It keeps the
// ledger: received + recovered = stored + duplicate + replaced + rejected +
// dropped + queued, always.
//
// The broker and the API call Accept; the server starts and stops the loops. It
// knows no MQTT, HTTP or SQL.
package ingest

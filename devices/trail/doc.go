// Package trail keeps what a device tells beside its values, and what became of all
// it sent: events and log lines, bounded per device, in the store; and the trace, its
// last messages of any kind with the verdict and the time of each step, in memory.
//
// devices/intake gives it events and log lines; ingest and intake tell the trace of
// each step; other rooms append events of their own about a device; the API reads. It
// never reads telemetry payloads, and knows no HTTP, SQL or MQTT.
package trail

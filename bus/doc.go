// Package bus is the durable logs: an embedded NATS JetStream server whose writes
// are fsynced before they are answered. It is the only importer of NATS, and its
// face to other rooms is free of NATS's types.
//
// The server opens it; ingest appends frames to the telemetry log and reads them
// back, the broker keeps its sessions in a log of its own. It never looks into a
// frame.
package bus

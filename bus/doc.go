// Package bus is the durable log: an embedded NATS JetStream server whose writes
// are fsynced before they are answered. It is the only importer of NATS, and its
// face to other rooms is free of NATS's types.
//
// The server opens it; ingest appends frames to its log and reads them back. It
// never looks into a frame.
package bus

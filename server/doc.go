// Package server wires the rooms together: New builds each in one straight line,
// Start brings them up, Stop takes them down in order (listeners, broker, ingest,
// store). cmd/muster runs it, server/servertest starts all of it on free ports.
// It holds no logic of its own beyond fitting one room's face to another's.
package server

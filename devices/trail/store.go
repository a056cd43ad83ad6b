package trail

import (
	"context"

	"muster"
)

// Event is something that happened on or to a device. Two with the same Device, Time,
// Type and Payload are one: a device that sends an event with a time stamp again, for
// want of an ack, makes no second one.
type Event struct {
	Device  muster.DeviceID
	Type    string        // [A-Za-z0-9._-]{1,64}
	Time    muster.Micros // the device's time stamp or, when it sent none, Arrival
	Arrival muster.Micros
	By      muster.DeviceID // the gateway that published it, else empty
	System  bool            // Muster's own, and not the device's word
	Payload string          // JSON; null when there is none
	Mark    int64           // hash of System, Type and Payload; set by this package
}

// EventPlace is a place in a device's events, which are ordered by time, then mark.
type EventPlace struct {
	Time muster.Micros
	Mark int64
}

// EventQuery asks for the events of a device before a place, the newest first.
type EventQuery struct {
	Device muster.DeviceID
	Type   string        // empty for all
	From   muster.Micros // not before it
	Before EventPlace
	Limit  int
}

// Level says how grave a log line is.
type Level uint8

// The levels of log lines.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Line is a line of a device's log.
type Line struct {
	Time    muster.Micros `json:"t"`           // the device's time stamp, or its arrival
	Stamped bool          `json:"s,omitempty"` // it is the device's
	Level   Level         `json:"l"`
	Text    string        `json:"m"`
	Fields  string        `json:"f,omitempty"` // a JSON object of what else the line said, or empty
}

// LogRow is log lines of a device that were stored together, oldest first: one row of
// fifty costs 3 us a line on SQLite, fifty rows 44 us.
type LogRow struct {
	Device  muster.DeviceID
	Arrival muster.Micros // of the first of them
	Mark    int64         // hash of Lines
	Top     Level         // the gravest level among them
	Count   int           // of Lines
	Lines   []Line
}

// LogQuery asks for the rows of a device's log up to a place and with it, the newest
// first.
type LogQuery struct {
	Device  muster.DeviceID
	Level   Level         // leaves out rows without a line at least as grave
	From    muster.Micros // arrival, not before it
	Arrival muster.Micros // of the place
	Mark    int64
	Limit   int
}

// Store keeps events and log lines. What of a device that is not there, deleted
// meanwhile, is left out and no error.
type Store interface {
	// AppendEvents inserts es in one transaction and returns which were not there yet.
	AppendEvents(ctx context.Context, es []Event) (fresh []bool, err error)
	Events(ctx context.Context, q EventQuery) ([]Event, error)
	// TrimEvents keeps the newest keep events of a device and returns how many there are.
	TrimEvents(ctx context.Context, device muster.DeviceID, keep int) (left int, err error)
	// ExpireEvents deletes up to limit events with a time before at.
	ExpireEvents(ctx context.Context, at muster.Micros, limit int) (n int, err error)

	// AppendLogs inserts rows in one transaction. A row that is there is left alone.
	AppendLogs(ctx context.Context, rows []LogRow) error
	Logs(ctx context.Context, q LogQuery) ([]LogRow, error)
	// TrimLogs keeps the rows that hold the newest keep lines of a device and returns
	// how many lines there are.
	TrimLogs(ctx context.Context, device muster.DeviceID, keep int) (left int, err error)
	// ExpireLogs deletes up to limit rows that arrived before at.
	ExpireLogs(ctx context.Context, at muster.Micros, limit int) (n int, err error)
}

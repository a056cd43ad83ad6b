// Package command sends commands to devices and keeps what became of them, to one
// device or as a job to the many that a query selects.
//
// A command is stored first and sent then: to a connected device at once, to one that
// is away when it comes back, in order, until its time is over. Every step it takes
// is one of a total table (state.go). All changes are made by one owner, in Run,
// which commits up to 500 of them in one transaction, tells of them after that, and
// only then sends what they set free. Callers and the broker's callbacks leave their
// wishes in an inbox and never wait for one another.
//
// The API and package devices/intake call it; the server gives it the broker and the
// store through the interfaces it declares. It knows no MQTT, HTTP or SQL, and keeps
// nothing but open commands and unfinished jobs in memory.
package command

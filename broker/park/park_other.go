//go:build !linux

package park

import (
	"context"
	"errors"
	"syscall"
)

// Waker is told that its socket is readable.
type Waker interface{ Wake() }

// Lot holds nothing here.
type Lot struct{}

// Ticket is one socket's place.
type Ticket struct{ Waker Waker }

// New answers ErrUnsupported.
func New() (*Lot, error) { return nil, errors.ErrUnsupported }

// Park answers ErrUnsupported.
func (*Lot) Park(*Ticket, syscall.RawConn) error { return errors.ErrUnsupported }

// Unpark says that nothing was parked.
func (*Lot) Unpark(*Ticket) bool { return false }

// Wake does nothing.
func (*Lot) Wake(*Ticket) {}

// Len returns 0.
func (*Lot) Len() int { return 0 }

// Run ends at once.
func (*Lot) Run(context.Context) error { return nil }

// Close does nothing.
func (*Lot) Close() error { return nil }

package sqlite

import (
	"context"
	"errors"

	driver "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"muster"
)

// failed returns err as a muster.Error that says what was being done. An error that
// has a kind keeps it; what the data broke is Invalid; what may pass (locked, disk
// full, I/O, the context's end) is Unavailable; the rest is Internal.
func failed(doing string, err error) error {
	if e, ok := errors.AsType[*muster.Error](err); ok {
		return muster.Errorf(e.Kind, "%s: %w", doing, err)
	}
	return muster.Errorf(kindOf(err), "%s: %w", doing, err)
}

func kindOf(err error) muster.Kind {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return muster.Unavailable
	}
	e, ok := errors.AsType[*driver.Error](err)
	if !ok {
		return muster.Internal
	}
	switch e.Code() & 0xff { // the primary code; the rest of the bits are its detail
	case lib.SQLITE_CONSTRAINT, lib.SQLITE_MISMATCH, lib.SQLITE_TOOBIG, lib.SQLITE_RANGE:
		return muster.Invalid
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED, lib.SQLITE_FULL, lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN,
		lib.SQLITE_NOMEM, lib.SQLITE_READONLY, lib.SQLITE_INTERRUPT, lib.SQLITE_PROTOCOL:
		return muster.Unavailable
	}
	return muster.Internal
}

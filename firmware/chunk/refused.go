package chunk

import (
	"fmt"
	"time"

	"muster"
)

// Code says why pieces cannot be had; it is for machines, and stable.
type Code string

// The codes of refusals.
const (
	OutOfRange  Code = "out_of_range" // there are no bytes at the offset
	Window      Code = "window"       // too many pieces wait for the device
	Busy        Code = "busy"         // too many devices fetch images, or what is sent cannot be counted
	Budget      Code = "budget"       // the device has fetched the release three times over, by whatever door
	Unavailable Code = "unavailable"  // the image cannot be read
)

// RefusedError is why pieces are not sent.
type RefusedError struct {
	Code  Code
	After time.Duration // when to try again; 0 for never, unless the action is another
	Words string        // for people
}

// Error implements error.
func (r *RefusedError) Error() string { return r.Words }

// Unwrap gives it a kind.
func (r *RefusedError) Unwrap() error {
	switch r.Code {
	case Window, Busy, Budget, Unavailable: // the next attempt has a budget of its own
		return muster.Errorf(muster.Busy, "%s", r.Words)
	default:
		return muster.Errorf(muster.Invalid, "%s", r.Words)
	}
}

// refuse makes a RefusedError, and counts it.
func (p *Pump) refuse(code Code, after time.Duration, format string, args ...any) *RefusedError {
	p.metrics.refused.WithLabelValues(string(code)).Inc()
	return &RefusedError{Code: code, After: after, Words: fmt.Sprintf(format, args...)}
}

package muster

import (
	"math"
	"strconv"
	"time"
)

// The span of the time stamps that are taken from devices: from OldestStamp to
// MaxAhead before the server's clock (DESIGN, section 4).
const (
	OldestStamp = Micros(946_684_800_000_000) // 2000-01-01
	MaxAhead    = Micros(24 * time.Hour / time.Microsecond)
)

// CheckStamp returns an Invalid error when a device's time stamp at is before 2000,
// or more than 24 h ahead of now.
func CheckStamp(at, now Micros) error {
	switch {
	case at < OldestStamp:
		return Errorf(Invalid, "time stamp %s is before 2000", at.Time().Format(time.RFC3339))
	case at > now+MaxAhead:
		return Errorf(Invalid, "time stamp %s is more than 24 h ahead", at.Time().Format(time.RFC3339))
	}
	return nil
}

// ParseStamp reads a JSON value as a time stamp: a string in RFC 3339, or a number
// as EpochMicros does. It says false for anything else, which is a value and no time.
func ParseStamp(json []byte) (Micros, bool) {
	if n := len(json); n >= 2 && n <= 66 && json[0] == '"' && json[n-1] == '"' {
		t, err := time.Parse(time.RFC3339Nano, string(json[1:n-1]))
		return MicrosOf(t), err == nil
	}
	v, err := strconv.ParseFloat(string(json), 64)
	if err != nil {
		return 0, false
	}
	n := int64(0)
	if v < math.MaxInt64 {
		n = int64(v)
	}
	if i, err := strconv.ParseInt(string(json), 10, 64); err == nil {
		n = i // nanoseconds exceed 2^53
	}
	return EpochMicros(v, n)
}

// EpochMicros reads a number of at least 1e9 as seconds, milliseconds, microseconds
// or nanoseconds since 1970, by its magnitude. n is v as an integer, which of large
// numbers has more digits.
func EpochMicros(v float64, n int64) (Micros, bool) {
	switch {
	case !(v >= 1e9) || v >= math.MaxInt64:
		return 0, false
	case v < 1e11:
		return Micros(math.Round(v * 1e6)), true
	case v < 1e14:
		return Micros(math.Round(v * 1e3)), true
	case v < 1e17:
		return Micros(n), true
	}
	return Micros(n / 1000), true
}

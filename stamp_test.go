package muster_test

import (
	"testing"
	"time"

	"muster"
)

func TestTimeStamps(t *testing.T) {
	at := time.Date(2025, 11, 22, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		name, json string
		want       time.Duration // after at
		ok         bool
	}{
		{"seconds", "1763812800", 0, true},
		{"seconds with a fraction", "1763812800.5", 500 * time.Millisecond, true},
		{"milliseconds", "1763812800001", time.Millisecond, true},
		{"microseconds", "1763812800000001", time.Microsecond, true},
		{"nanoseconds", "1763812800000001999", time.Microsecond, true},
		{"an exponent", "1.7638128e9", 0, true},
		{"RFC 3339", `"2025-11-22T13:00:00.25+01:00"`, 250 * time.Millisecond, true},
		{"a small number", "12345", 0, false},
		{"a negative number", "-1763812800", 0, false},
		{"a huge number", "1e30", 0, false},
		{"NaN", "NaN", 0, false},
		{"text", `"yesterday"`, 0, false},
		{"an object", "{}", 0, false},
		{"nothing", "", 0, false},
		{"a lone quote", `"`, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := muster.ParseStamp([]byte(tt.json))
			if ok != tt.ok || ok && got != muster.MicrosOf(at.Add(tt.want)) {
				t.Errorf("ParseStamp(%s) = %s, %v", tt.json, got.Time(), ok)
			}
		})
	}
	now := muster.MicrosOf(at)
	for at, ok := range map[muster.Micros]bool{
		now: true, muster.OldestStamp: true, muster.OldestStamp - 1: false, now + muster.MaxAhead: true, now + muster.MaxAhead + 1: false,
	} {
		if err := muster.CheckStamp(at, now); (err == nil) != ok || err != nil && muster.KindOf(err) != muster.Invalid {
			t.Errorf("CheckStamp(%s) = %v", at.Time(), err)
		}
	}
}

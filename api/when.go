package api

import (
	"strconv"
	"strings"
	"time"

	"muster"
)

// parseWhen reads a point in time: RFC 3339, or now, now-3h, now+90m, now-7d
// (units s, m, h, d, w). A plus that a client left unescaped arrives as a space
// and counts as the plus it was.
func parseWhen(s string, now time.Time) (muster.Micros, error) {
	s = strings.ReplaceAll(s, " ", "+")
	if offset, ok := strings.CutPrefix(s, "now"); ok {
		d, err := parseOffset(offset)
		if err != nil {
			return 0, err
		}
		return muster.MicrosOf(now.Add(d)), nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, errWhen()
	}
	return muster.MicrosOf(t), nil
}

// maxOffset keeps now+offset within what a time can be, in seconds: 200 years.
const maxOffset = 200 * 366 * 24 * 3600

func parseOffset(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if len(s) < 3 || s[0] != '+' && s[0] != '-' {
		return 0, errWhen()
	}
	seconds, ok := map[byte]int64{'s': 1, 'm': 60, 'h': 3600, 'd': 24 * 3600, 'w': 7 * 24 * 3600}[s[len(s)-1]]
	digits := s[1 : len(s)-1]
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || int64(n) > maxOffset/seconds {
		return 0, errWhen()
	}
	d := time.Duration(int64(n)*seconds) * time.Second
	if s[0] == '-' {
		d = -d
	}
	return d, nil
}

func errWhen() error {
	return muster.Errorf(muster.Invalid, "from and to are RFC 3339 times, or now, now-3h, now+30m, now-7d")
}

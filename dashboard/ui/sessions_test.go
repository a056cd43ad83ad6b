package ui

import (
	"fmt"
	"testing"
)

// TestASessionSaysItsBrowserAndItsSystem lists what browsers call themselves: said in words, and whole in the title.
func TestASessionSaysItsBrowserAndItsSystem(t *testing.T) {
	cases := []struct{ agent, want string }{
		{"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36", "Chrome 156 on Linux"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87", "Edge 126 on Windows"},
		{"Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128 on Windows"},
		{"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", "Safari 17 on macOS"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1", "Safari 17 on iPhone"},
		{"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1", "Chrome 126 on iPhone"},
		{"Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36", "Chrome 126 on Android"},
		{"curl/8.7.1", "curl/8.7.1"},
		{"", "unknown"},
	}
	f := shipFixture(t)
	items := make([]object, len(cases))
	for i, c := range cases {
		items[i] = object{
			"id": fmt.Sprintf("ses_%d", i), "agent": c.agent, "address": "192.0.2.7", "role": "admin", "current": i == 0,
			"created_at": "2026-01-15T12:00:00Z", "last_seen_at": "2026-01-15T12:00:00Z", "expires_at": "2026-03-15T12:00:00Z",
		}
	}
	f.answer("/sessions", object{"items": items, "next": nil})
	f.role, f.user = "admin", object{"id": "usr_1", "name": "Ada Kern", "email": "ada@example.com", "role": "admin", "second_factor": false, "has_password": true, "confirmed": true}
	b := open(t, f.fakeServer)
	b.visit("/account")
	b.waitText(".sessions tbody", "this one")
	for i, c := range cases {
		row := fmt.Sprintf(".sessions tbody tr:nth-child(%d) th > span:first-child", i+1)
		if got := b.text(row); got != c.want {
			t.Errorf("%q is called %q, want %q", c.agent, got, c.want)
		}
		if got := evaluate[string](b, "document.querySelector("+quote(row)+").title"); got != c.agent {
			t.Errorf("the title of %q is %q", c.want, got)
		}
	}
	b.shootAll("sessions")
}

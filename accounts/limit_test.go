package accounts_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster/accounts"
)

func TestABucketIsLikeItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		burst := rapid.IntRange(1, 6).Draw(t, "burst")
		every := time.Duration(rapid.IntRange(1, 50).Draw(t, "every")) * time.Second
		l := accounts.NewLimits()
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		// The model counts tokens as a fraction, and fills them as time goes by.
		tokens, last := float64(burst), now
		for i := range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			if rapid.IntRange(0, 20).Draw(t, "what") == 0 {
				l.Reset("k")
				tokens, last = float64(burst), now
				continue
			}
			tokens = min(float64(burst), tokens+now.Sub(last).Seconds()/every.Seconds())
			last = now
			wait := l.Take(now, "k", burst, every)
			const near = 1e-9
			if (wait == 0) != (tokens >= 1-near) {
				t.Fatalf("with %f tokens the wait is %s", tokens, wait)
			}
			if wait == 0 {
				tokens--
				continue
			}
			if d := wait.Seconds() - (1-tokens)*every.Seconds(); d > 1e-6 || d < -1e-6 {
				t.Fatalf("with %f tokens of %s the wait is %s", tokens, every, wait)
			}
			if l.Take(now.Add(wait), fmt.Sprint("other", i), burst, every) != 0 {
				t.Fatal("another key waits too")
			}
		}
	})
}

func TestBucketsAreBoundedAndTheLeastRecentlyUsedIsForgotten(t *testing.T) {
	l := accounts.NewLimits()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l.Take(now, "used", 1, time.Hour)
	l.Take(now, "old", 1, time.Hour)
	for i := range 2 * accounts.MaxBuckets {
		if i%1000 == 0 && l.Take(now, "used", 1, time.Hour) == 0 {
			t.Fatal("what is used all the time was forgotten")
		}
		l.Take(now, fmt.Sprint(i), 1, time.Hour)
	}
	if n := l.Len(); n != accounts.MaxBuckets {
		t.Errorf("%d are remembered", n)
	}
	if l.Take(now, "old", 1, time.Hour) != 0 {
		t.Error("what was not used is still remembered")
	}
}

func TestNetworks(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1",
		"192.0.2.1:8080":        "192.0.2.1",
		"::ffff:192.0.2.1":      "192.0.2.1",
		"[::ffff:192.0.2.1]:80": "192.0.2.1",
		"2001:db8::1":           "2001:db8::/64",
		"[2001:db8::ffff]:443":  "2001:db8::/64",
		"fe80::1%eth0":          "fe80::/64",
		"":                      "unknown",
		"somewhere":             "unknown",
	} {
		if got := accounts.Network(in); got != want {
			t.Errorf("%q is of %q, want %q", in, got, want)
		}
	}
}

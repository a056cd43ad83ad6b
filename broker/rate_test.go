package broker

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestARateLetsItsBurstAndThenItsRateThrough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := new(Broker)
		b.cfg.Tick = 50 * time.Millisecond
		rate := Rate{Messages: rapid.IntRange(1, 1000).Draw(t, "messages"), Bytes: rapid.IntRange(100, 100_000).Draw(t, "bytes")}
		size := rapid.IntRange(10, 200).Draw(t, "size")
		var r bucket
		b.clock.Store(1_000_000)
		passed, seconds := 0, rapid.IntRange(1, 60).Draw(t, "seconds")
		for end := b.clock.Load() + int64(seconds)*1000; b.clock.Load() < end; {
			wait := r.take(b, rate, 0x30, size, 0)
			passed++
			if wait < 0 || wait > slowest {
				t.Fatalf("wait %v", wait)
			}
			b.clock.Add(wait.Milliseconds())
			if wait == 0 && passed > 10_000_000 {
				t.Fatal("nothing is ever slowed")
			}
		}
		most := min(float64(rate.Messages), float64(rate.Bytes)/float64(size))
		allowed := most*float64(seconds+1+rateBurst) + float64(seconds)*1.1 + 2 // one a second passes at any rate
		if float64(passed) > allowed || float64(passed) < most*float64(seconds)*0.8-1 {
			t.Fatalf("%d messages of %d bytes passed in %d s, allowed are %.0f", passed, size, seconds, allowed)
		}
	})
}

func TestOnlyPublishAndSubscribeCountForTheRate(t *testing.T) {
	b := new(Broker)
	b.clock.Store(1)
	var r bucket
	for kind := range byte(16) {
		for range 10 {
			if wait := r.take(b, Rate{Messages: 1, Bytes: 1}, kind<<4, 1000, 0); kind != 3 && kind != 8 && kind != 10 && wait != 0 {
				t.Errorf("packet type %d waits %v", kind, wait)
			}
		}
	}
}

func TestFightingOverAClientIDCosts(t *testing.T) {
	f := newFlaps(2)
	now := int64(1_000_000)
	want := []time.Duration{0, 0, 0, time.Second, 5 * time.Second, 30 * time.Second, 30 * time.Second}
	for i, d := range want {
		if got := f.delay("x", now); got != d {
			t.Errorf("after %d takeovers: %v, want %v", i, got, d)
		}
		f.ended("x", true, now)
		f.ended("x", false, now)
	}
	if d := f.delay("y", now); d != 0 {
		t.Errorf("another client id waits %v", d)
	}
	now += flapWindow.Milliseconds() + 1
	if d := f.delay("x", now); d != 0 || len(f.ids) != 0 {
		t.Errorf("after a minute: %v, %d ids remembered", d, len(f.ids))
	}
}

func TestFlapsAreBounded(t *testing.T) {
	f := newFlaps(1)
	for i := range maxFlaps + 10 {
		f.ended(string(rune(i)), true, 1)
	}
	if len(f.ids) > maxFlaps {
		t.Errorf("%d ids remembered", len(f.ids))
	}
	f.ended("late", true, flapWindow.Milliseconds()+2)
	if len(f.ids) != 1 {
		t.Errorf("%d ids remembered after a minute, want 1", len(f.ids))
	}
}

func TestAFlappingConnectGivesUpWithItsConnection(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxTakeovers = 1 })
	for range 3 {
		r.flaps.ended("x", true, r.clock.Load())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r.flaps.wait(ctx, r.Broker, "x") {
		t.Error("a connection that has ended is let in")
	}
	if !r.flaps.wait(ctx, r.Broker, "y") || r.metric("flapping_total") != 1 {
		t.Error("one that does not flap is counted or kept out")
	}
}

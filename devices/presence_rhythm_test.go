package devices_test

import (
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// clockwork hears messages of device a at exact microseconds and lets the registry
// look for absent devices each second between.
type clockwork struct {
	*rig
	at muster.Micros
}

func newClockwork(t testing.TB) *clockwork {
	g := newRig(t, devices.Spec{ID: "a"})
	g.connect("a")
	return &clockwork{g, micros(0)}
}

// to goes on to a time; far apart the seconds between are looked at in bounded steps.
func (c *clockwork) to(at muster.Micros) {
	c.at = at
	target := int64(at-micros(0)) / 1e6
	step := max((target-c.now)/50, 1)
	for c.now < target {
		c.now = min(c.now+step, target)
		c.r.FindAbsent()
	}
}

func (c *clockwork) after(seconds float64, lag muster.Micros) {
	c.to(c.at + muster.Micros(seconds*1e6))
	c.r.Observe([]muster.Reading{{Device: "a", Time: c.at - lag, Arrival: c.at}})
}

func (c *clockwork) isQuiet() bool {
	p, _ := c.r.Presence("a")
	return p.State == isQuiet
}

// silence returns how long the device is silent until it is quiet.
func (c *clockwork) silence(most float64) float64 {
	began := c.at
	for !c.isQuiet() {
		c.to(c.at + 1e6)
		if float64(c.at-began)/1e6 > most {
			return most
		}
	}
	p, _ := c.r.Presence("a")
	return float64(p.Since-began) / 1e6
}

func TestAPeriodicDeviceIsNeverQuietUntilItStopsAndThenWithinThreePeriods(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		period := rapid.Float64Range(5, 3000).Draw(rt, "period")
		jitter := rapid.Float64Range(0, 0.2).Draw(rt, "jitter")
		burst := rapid.IntRange(1, 5).Draw(rt, "messages in a burst")
		lag := muster.Micros(rapid.Int64Range(-3600e6, 20*3600e6).Draw(rt, "error of its clock"))
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 1))
		c := newClockwork(t)
		for i := range 120 {
			c.after(period*(1+jitter*(2*rng.Float64()-1)), lag)
			if c.isQuiet() {
				rt.Fatalf("quiet at message %d", i)
			}
			for range burst - 1 {
				c.after(0.01, lag)
			}
		}
		if s := c.silence(4 * period); s > 3*period {
			rt.Fatalf("quiet after %.1f periods", s/period)
		}
		c.after(1, lag)
		if c.isQuiet() {
			rt.Fatal("still quiet after a message")
		}
	})
}

func TestARhythmIsKnownAfterFiveGaps(t *testing.T) {
	c := newClockwork(t)
	for range 5 { // four gaps
		c.after(30, 0)
	}
	c.to(c.at + 86400e6)
	if d, _ := c.r.PresenceDetail("a"); c.isQuiet() || d.Rhythm != 0 || d.CheckIn != 600 {
		t.Errorf("after four gaps it is %+v", d.Presence)
	}
	c.after(0.5, 0) // five gaps, the last one a day long
	if d, _ := c.r.PresenceDetail("a"); d.Rhythm != 30 || d.CheckIn != 30 || c.r.CheckIn("a") != 30 {
		t.Errorf("its rhythm is %d s, its check-in %d s", d.Rhythm, d.CheckIn)
	}
	if s := c.silence(1000); s != 60 {
		t.Errorf("quiet after %.1f s", s)
	}
}

func TestARhythmFollowsTheDevice(t *testing.T) {
	tests := []struct {
		name           string
		live           func(c *clockwork)
		after, atMost  float64 // seconds of silence until it is quiet
		quietsMeantime int     // most times it may be quiet meanwhile
	}{
		{"slower, after two messages", func(c *clockwork) { c.every(10, 50); c.every(60, 3) }, 110, 140, 2},
		{"faster, after four old periods", func(c *clockwork) { c.every(60, 20); c.every(10, 60) }, 18, 30, 0},
		{"a pause is an outlier", func(c *clockwork) { c.every(10, 50); c.every(7200, 1); c.every(10, 1) }, 18, 30, 1},
		{"pauses each night are outliers", func(c *clockwork) {
			for range 5 {
				c.every(60, 300)
				c.every(50000, 1)
			}
			c.every(60, 60)
		}, 110, 180, 5},
		{"a burst of 40 s every ten minutes", func(c *clockwork) {
			for range 50 {
				c.every(560, 1)
				c.every(1, 40)
			}
		}, 900, 1500, 8},
		{"a device that keeps up to ten times a second", func(c *clockwork) { c.every(0.1, 400) }, 2, 4, 0},
		{"a backfill of an hour at once", func(c *clockwork) {
			c.every(60, 50)
			for i := range 3600 { // each a second later, of a time a minute later
				c.after(1, muster.Micros(3600-i)*59e6)
			}
			c.every(60, 1)
		}, 110, 160, 0},
		{"a backfill that comes newest first", func(c *clockwork) {
			c.every(60, 50)
			for i := range 3600 {
				c.after(1, muster.Micros(i)*60e6)
			}
			c.every(60, 1)
		}, 110, 160, 0},
		{"ten minutes of samples uploaded every ten minutes", func(c *clockwork) {
			for range 30 {
				c.after(591, 600e6)
				for i := range 9 {
					c.after(1, muster.Micros(9-i)*60e6)
				}
			}
		}, 1100, 1800, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClockwork(t)
			tt.live(c)
			c.r.Deliver()
			quiets := 0
			for _, tr := range c.told {
				if tr.To == isQuiet {
					quiets++
				}
			}
			if quiets > tt.quietsMeantime {
				t.Errorf("it was quiet %d times, at most %d are fair", quiets, tt.quietsMeantime)
			}
			if s := c.silence(1e5); s < tt.after || s > tt.atMost {
				t.Errorf("quiet after %.1f s, want %v to %v", s, tt.after, tt.atMost)
			}
		})
	}
}

func (c *clockwork) every(seconds float64, n int) {
	for range n {
		c.after(seconds, 0)
	}
}

func TestARhythmOutlivesARestart(t *testing.T) {
	c := newClockwork(t)
	c.every(30, 50)
	c.stop()
	before, _ := c.r.PresenceDetail("a")
	if got := c.m.presence["a"].Rhythm; got != before.Rhythm || got < 28 || got > 36 {
		t.Fatalf("%d s is kept, the device has %d s", got, before.Rhythm)
	}
	c.now += 100
	c.start()
	c.connect("a")
	d, _ := c.r.PresenceDetail("a")
	if d.Rhythm != before.Rhythm {
		t.Errorf("its rhythm is %d s, it was %d s", d.Rhythm, before.Rhythm)
	}
	c.at = micros(c.now)
	if s := c.silence(100); s < 55 || s > 75 {
		t.Errorf("quiet after %.1f s", s)
	}
}

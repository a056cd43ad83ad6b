package sim

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// draw makes n payloads of a profile, dt seconds apart.
func draw(t *testing.T, profile string, seed uint64, n int, dt float64) []map[string]float64 {
	t.Helper()
	src := newSource(profile, rand.New(rand.NewPCG(seed, 1)))
	out := make([]map[string]float64, n)
	for i := range out {
		b := append(src.append([]byte{'{'}, dt), '}')
		numbers := strings.NewReplacer(":true", ":1", ":false", ":0").Replace(string(b))
		if err := json.Unmarshal([]byte(numbers), &out[i]); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
	}
	return out
}

func TestProfilesHaveTheirKeysAndStayInRange(t *testing.T) {
	type span struct{ low, high, step float64 } // step: the most between two messages
	tests := map[string]map[string]span{
		Sensor: {"temperature": {5, 40, 0.21}, "humidity": {0, 100, 0.61}, "battery": {0, 100, 100}},
		Meter:  {"power": {0, 10000, 10.1}, "energy": {1000, 1e6, 1}, "voltage": {200, 260, 0.9}},
		Cold:   {"temperature": {1, 11, 0.21}, "door_open": {0, 1, 1}, "battery": {0, 100, 100}},
		Pump:   {"pressure": {0, 10, 0.061}, "flow": {0, 200, 0.81}, "power_kw": {0, 50, 1}},
		Light:  {"brightness": {0, 100, 1.01}, "power": {0, 100, 1.1}},
		Tracker: {
			"lat": {40, 60, 0.01}, "lon": {-10, 30, 0.01}, "speed": {0, 120, 1.7},
			"heading": {0, 360, 360}, "battery": {0, 100, 100},
		},
	}
	for profile, spans := range tests {
		t.Run(profile, func(t *testing.T) {
			values := draw(t, profile, 7, 20000, 10)
			for i, v := range values {
				if len(v) != len(spans) {
					t.Fatalf("keys %v", v)
				}
				for key, s := range spans {
					got, ok := v[key]
					if !ok || got < s.low || got > s.high || i > 0 && math.Abs(got-values[i-1][key]) > s.step {
						t.Fatalf("message %d: %s = %v after %v; want %v to %v in steps of %v", i, key, got, values[max(i, 1)-1][key], s.low, s.high, s.step)
					}
				}
			}
		})
	}
}

func TestAMetersEnergyIsItsPowerOverTime(t *testing.T) {
	values := draw(t, Meter, 3, 1000, 60)
	kwh := 0.0
	for _, v := range values[1:] {
		kwh += v["power"] / 1000 / 60
	}
	if got := values[999]["energy"] - values[0]["energy"]; math.Abs(got-kwh) > 0.002 {
		t.Errorf("the counter rose by %v kWh, the power was %v kWh", got, kwh)
	}
	if !slices.IsSortedFunc(values, func(a, b map[string]float64) int { return int(math.Copysign(1, a["energy"]-b["energy"])) }) {
		t.Error("the counter fell")
	}
}

func TestATrackerMovesAsItsSpeedAndHeadingSay(t *testing.T) {
	const dt = 10
	values := draw(t, Tracker, 11, 5000, dt)
	moved := 0.0
	for i := 1; i < len(values); i++ {
		a, b := values[i-1], values[i]
		north := (b["lat"] - a["lat"]) * 111.195
		east := (b["lon"] - a["lon"]) * 111.195 * math.Cos(a["lat"]*math.Pi/180)
		km := math.Hypot(north, east)
		moved += km
		if want := b["speed"] * dt / 3600; math.Abs(km-want) > 0.001 {
			t.Fatalf("message %d: moved %v km at %v km/h in %d s", i, km, b["speed"], dt)
		}
		if km < 0.05 {
			continue // too short to measure a heading from six decimals
		}
		course := math.Atan2(east, north) * 180 / math.Pi
		if off := math.Abs(math.Remainder(course-b["heading"], 360)); off > 1.5 {
			t.Fatalf("message %d: course %v, heading %v", i, course, b["heading"])
		}
		if far := math.Hypot((b["lat"]-values[0]["lat"])*111.195, (b["lon"]-values[0]["lon"])*72); far > 2*homeRadius {
			t.Fatalf("message %d: %v km from home", i, far)
		}
	}
	if moved < 50 {
		t.Errorf("moved %v km in %d s", moved, dt*len(values))
	}
}

func TestTheSameSeedMakesTheSameValues(t *testing.T) {
	for _, profile := range []string{Sensor, Meter, Tracker} {
		if d := cmp.Diff(draw(t, profile, 5, 50, 1), draw(t, profile, 5, 50, 1)); d != "" {
			t.Error(d)
		}
	}
	if cmp.Equal(draw(t, Sensor, 5, 50, 1), draw(t, Sensor, 6, 50, 1)) {
		t.Error("two seeds made the same values")
	}
}

func TestAppendFixedIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(-1e12, 1e12).Draw(t, "n")
		decimals := rapid.IntRange(1, 6).Draw(t, "decimals")
		got, err := strconv.ParseFloat(string(appendFixed(nil, n, decimals)), 64)
		want := float64(n) / math.Pow10(decimals)
		if err != nil || got != want {
			t.Fatalf("%s (%v), want %v", appendFixed(nil, n, decimals), err, want)
		}
	})
}

func TestQuantilesAreAtMostAnEighthTooHigh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		us := rapid.SliceOfN(rapid.IntRange(0, 60_000_000), 1, 200).Draw(t, "us")
		var h histogram
		for _, d := range us {
			h.add(time.Duration(d)*time.Microsecond, 1)
		}
		var counts [buckets]uint64
		h.drain(&counts)
		slices.Sort(us)
		for _, q := range []float64{0.5, 0.99} {
			exact := time.Duration(us[max(int(q*float64(len(us))), 1)-1]) * time.Microsecond
			got := quantile(&counts, q)
			if got <= exact || got > exact+exact/8+time.Microsecond {
				t.Fatalf("quantile %v is %v, exactly %v", q, got, exact)
			}
		}
		h.drain(&counts)
		var empty [buckets]uint64
		if h.drain(&empty); quantile(&empty, 0.5) != 0 {
			t.Fatal("a drained histogram has a quantile")
		}
	})
}

package regression

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
)

// The bounds of a Gate.
const (
	MaxKey     = 256 // bytes, as of any key of telemetry
	MinWindow  = 10 * time.Second
	MaxWindow  = 24 * time.Hour
	MaxDevices = 200       // of either side that are looked at
	MaxPercent = 1_000_000 // beyond which nothing is ever worse
)

// Aggregate says what one number the readings of a device are.
type Aggregate string

// The aggregates.
const (
	Avg Aggregate = "avg"
	Min Aggregate = "min"
	Max Aggregate = "max"
	P95 Aggregate = "p95"
)

// Direction is where a value goes when it gets worse.
type Direction string

// The directions.
const (
	Up   Direction = "up"
	Down Direction = "down"
)

// Gate is what the telemetry of a phase is asked. The zero Gate asks nothing.
type Gate struct {
	Key       string        `json:"key"`
	Aggregate Aggregate     `json:"aggregate"`
	Worse     Direction     `json:"worse"`
	Percent   float64       `json:"percent"`     // of the others' mean by which that of the updated may be worse
	Window    time.Duration `json:"window"`      // how far back readings count; of an updated device those since it has the version
	Devices   int           `json:"min_devices"` // that must have readings, on either side
}

// Asked says whether the gate asks anything.
func (g Gate) Asked() bool { return g.Key != "" }

// Check says what of a gate is wrong, as Invalid with the place below at.
func (g Gate) Check(at string) error {
	switch {
	case g == (Gate{}):
		return nil
	case g.Key == "" || len(g.Key) > MaxKey || !utf8.ValidString(g.Key) || strings.ContainsFunc(g.Key, unicode.IsControl):
		return muster.InvalidAt(at+"/key", "key is a key of telemetry, of 1 to %d bytes of plain text", MaxKey)
	case !slices.Contains([]Aggregate{Avg, Min, Max, P95}, g.Aggregate):
		return muster.InvalidAt(at+"/aggregate", "aggregate is %s, %s, %s or %s", Avg, Min, Max, P95)
	case g.Worse != Up && g.Worse != Down:
		return muster.InvalidAt(at+"/worse", "worse is %s or %s", Up, Down)
	case !(g.Percent >= 0 && g.Percent <= MaxPercent): // NaN is neither
		return muster.InvalidAt(at+"/percent", "percent is 0 to %d", MaxPercent)
	case g.Window < MinWindow || g.Window > MaxWindow:
		return muster.InvalidAt(at+"/window_s", "window_s is %d to %d seconds", MinWindow/time.Second, MaxWindow/time.Second)
	case g.Devices < 1 || g.Devices > MaxDevices:
		return muster.InvalidAt(at+"/min_devices", "min_devices is 1 to %d", MaxDevices)
	}
	return nil
}

// Verdict is what the telemetry of updated devices says, for a phase that asks.
type Verdict uint8

// The verdicts.
const (
	NotAsked Verdict = iota
	NotYet           // too little is known
	Good
	Worse // than that of devices that do not have the release
)

// Of returns what one number the readings of a device are; false when none of them is finite. It
// sorts them.
func (a Aggregate) Of(readings []float64) (float64, bool) {
	readings = slices.DeleteFunc(readings, func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) })
	if len(readings) == 0 {
		return 0, false
	}
	slices.Sort(readings)
	last := len(readings) - 1
	switch a {
	case Min:
		return readings[0], true
	case Max:
		return readings[last], true
	case P95:
		return readings[int(math.Ceil(0.95*float64(last+1)))-1], true // nearest rank
	case Avg:
	}
	return mean(readings), true
}

// mean does not overflow where the values do not.
func mean(values []float64) (m float64) {
	for i, v := range values {
		n := float64(i + 1)
		m += v/n - m/n
	}
	return m
}

// Judge compares devices that were updated with those that were not, by one number of each, and
// says in words what it found. With too few devices on either side it is NotYet. A device that
// sends often counts as much as one that seldom does.
func (g Gate) Judge(updated, others []float64) (Verdict, string) {
	if len(updated) < g.Devices || len(others) < g.Devices {
		return NotYet, fmt.Sprintf("too little telemetry of %q is known: of %d updated devices and of %d others, of %d of each it must be",
			g.Key, len(updated), len(others), g.Devices)
	}
	is, was := mean(updated), mean(others)
	words := fmt.Sprintf("%s of %q is %.6g on %d updated devices and %.6g on %d others", g.Aggregate, g.Key, is, len(updated), was, len(others))
	if worse := g.worse(is, was); worse {
		return Worse, fmt.Sprintf("%s: it went %s by more than %g percent", words, g.Worse, g.Percent)
	}
	return Good, words
}

// worse says whether is lies beyond what was allows: beside a mean of 0 nothing does but 0.
func (g Gate) worse(is, was float64) bool {
	room := math.Abs(was) / 100 * g.Percent
	if g.Worse == Down {
		return is < was-room
	}
	return is > was+room
}

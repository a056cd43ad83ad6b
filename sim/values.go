package sim

import (
	"math"
	"math/rand/v2"
	"strconv"
)

// source makes the values of one device: append adds a JSON object without its
// braces for a moment dt seconds after the last one.
type source interface {
	append(b []byte, dt float64) []byte
}

func newSource(profile string, rng *rand.Rand) source {
	switch profile {
	case Meter:
		return newMeter(rng)
	case Tracker:
		return newTracker(rng)
	case Cold:
		return newColdStore(rng)
	case Pump:
		return newPump(rng)
	case Light:
		return newLight(rng)
	default:
		return newSensor(rng)
	}
}

// walk is a value in tenths that wanders by small steps around a home.
type walk struct {
	at, home, step int
}

// next moves w by at most its step and, more often than not, towards home.
func (w *walk) next(rng *rand.Rand) int {
	w.at += rng.IntN(2*w.step+1) - w.step
	if far := w.at - w.home; rng.IntN(40*w.step) < abs(far) {
		w.at -= sign(far) * w.step
	}
	return w.at
}

func abs(n int) int {
	if n < 0 {
		return -n
	}
	return n
}

func sign(n int) int {
	if n < 0 {
		return -1
	}
	return 1
}

// battery is a charge in percent that falls from full to empty in about a month
// and is then changed for a new one.
type battery struct {
	percent float64
}

const batteryPerSecond = 100.0 / (30 * 24 * 3600)

func (c *battery) append(b []byte, dt float64) []byte {
	c.percent -= dt * batteryPerSecond
	if c.percent < 1 {
		c.percent = 100
	}
	b = append(b, `"battery":`...)
	return appendFixed(b, int64(c.percent*10), 1)
}

type sensor struct {
	rng                   *rand.Rand
	temperature, humidity walk // in tenths of a degree Celsius and of a percent
	battery               battery
}

func newSensor(rng *rand.Rand) *sensor {
	t, h := 180+rng.IntN(60), 350+rng.IntN(250)
	return &sensor{
		rng:         rng,
		temperature: walk{at: t, home: t, step: 1},
		humidity:    walk{at: h, home: h, step: 3},
		battery:     battery{percent: 40 + 60*rng.Float64()},
	}
}

func (s *sensor) append(b []byte, dt float64) []byte {
	b = append(b, `"temperature":`...)
	b = appendFixed(b, int64(s.temperature.next(s.rng)), 1)
	b = append(b, `,"humidity":`...)
	b = appendFixed(b, int64(min(max(s.humidity.next(s.rng), 0), 1000)), 1)
	return s.battery.append(append(b, ','), dt)
}

type meter struct {
	rng            *rand.Rand
	power, voltage walk    // in tenths of a watt and of a volt
	energy         float64 // kWh, never falls
}

func newMeter(rng *rand.Rand) *meter {
	p := 2000 + rng.IntN(30000)
	return &meter{
		rng:     rng,
		power:   walk{at: p, home: p, step: 50},
		voltage: walk{at: 2300, home: 2300, step: 4},
		energy:  1000 + 9000*rng.Float64(),
	}
}

func (m *meter) append(b []byte, dt float64) []byte {
	power := max(m.power.next(m.rng), 0)
	m.energy += float64(power) / 10 / 1000 * dt / 3600
	b = append(b, `"power":`...)
	b = appendFixed(b, int64(power), 1)
	b = append(b, `,"energy":`...)
	b = appendFixed(b, int64(m.energy*1000), 3)
	b = append(b, `,"voltage":`...)
	return appendFixed(b, int64(m.voltage.next(m.rng)), 1)
}

// tracker drives around a home: it turns a little all the time, and back once it
// is more than homeRadius away.
type tracker struct {
	rng              *rand.Rand
	lat, lon         float64 // degrees
	homeLat, homeLon float64
	heading          float64 // degrees, 0 is north, 90 is east
	speed            walk    // in tenths of a km/h
	battery          battery
}

const (
	kmPerDegree = 111.195 // of latitude, on a sphere of 6371 km
	homeRadius  = 25.0    // km
	maxSpeed    = 1200    // tenths of a km/h
)

func newTracker(rng *rand.Rand) *tracker {
	lat, lon := 46+6*rng.Float64(), 2+16*rng.Float64()
	v := 300 + rng.IntN(500)
	return &tracker{
		rng: rng,
		lat: lat, lon: lon, homeLat: lat, homeLon: lon,
		heading: 360 * rng.Float64(),
		speed:   walk{at: v, home: v, step: 8},
		battery: battery{percent: 40 + 60*rng.Float64()},
	}
}

func (t *tracker) append(b []byte, dt float64) []byte {
	speed := min(max(t.speed.next(t.rng), 0), maxSpeed)
	t.move(float64(speed)/10, dt)
	b = append(b, `"lat":`...)
	b = appendFixed(b, int64(math.Round(t.lat*1e6)), 6)
	b = append(b, `,"lon":`...)
	b = appendFixed(b, int64(math.Round(t.lon*1e6)), 6)
	b = append(b, `,"speed":`...)
	b = appendFixed(b, int64(speed), 1)
	b = append(b, `,"heading":`...)
	b = strconv.AppendInt(b, int64(t.heading), 10)
	return t.battery.append(append(b, ','), dt)
}

// move drives dt seconds at kmh. A pause longer than a minute was spent parked.
func (t *tracker) move(kmh, dt float64) {
	if dt > 60 {
		dt = 60
	}
	north, east := t.fromHome()
	turn := (t.rng.Float64() - 0.5) * 20
	if math.Hypot(north, east) > homeRadius {
		back := math.Atan2(-east, -north) * 180 / math.Pi
		turn += math.Remainder(back-t.heading, 360) / 4
	}
	t.heading = math.Mod(t.heading+turn+360, 360)
	sin, cos := math.Sincos(t.heading * math.Pi / 180)
	km := kmh * dt / 3600
	t.lat += km * cos / kmPerDegree
	t.lon += km * sin / (kmPerDegree * math.Cos(t.lat*math.Pi/180))
}

// fromHome returns how far from home the tracker is, in km.
func (t *tracker) fromHome() (north, east float64) {
	north = (t.lat - t.homeLat) * kmPerDegree
	east = (t.lon - t.homeLon) * kmPerDegree * math.Cos(t.lat*math.Pi/180)
	return north, east
}

// appendFixed appends n divided by ten to the power of decimals, exactly.
func appendFixed(b []byte, n int64, decimals int) []byte {
	if n < 0 {
		b = append(b, '-')
		n = -n
	}
	scale := int64(1)
	for range decimals {
		scale *= 10
	}
	b = strconv.AppendInt(b, n/scale, 10)
	b = append(b, '.')
	frac := n % scale
	for scale /= 10; scale > 0; scale /= 10 {
		b = append(b, byte('0'+frac/scale%10))
	}
	return b
}

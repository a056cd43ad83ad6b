package sim

import "math/rand/v2"

// warmPart is the part of cold stores whose cooling does not keep up.
const warmPart = 0.01

// coldStore keeps between 2 and 8 degrees Celsius, but for a few.
type coldStore struct {
	rng         *rand.Rand
	temperature walk // in tenths of a degree Celsius
	open        int  // messages for which the door stays open
	battery     battery
}

func newColdStore(rng *rand.Rand) *coldStore {
	home := 35 + rng.IntN(20)
	if rng.Float64() < warmPart {
		home = 92
	}
	return &coldStore{rng: rng, temperature: walk{at: home, home: home, step: 1}, battery: battery{percent: 40 + 60*rng.Float64()}}
}

func (s *coldStore) append(b []byte, dt float64) []byte {
	if s.open > 0 {
		s.open--
	} else if s.rng.IntN(60) == 0 {
		s.open = 1 + s.rng.IntN(3)
	}
	b = append(b, `"temperature":`...)
	b = appendFixed(b, int64(s.temperature.next(s.rng)), 1)
	b = append(b, `,"door_open":`...)
	b = appendBool(b, s.open > 0)
	return s.battery.append(append(b, ','), dt)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, "true"...)
	}
	return append(b, "false"...)
}

// pump has a pressure in bar, a flow in cubic metres an hour, and a power in kilowatts that follows from both.
type pump struct {
	rng            *rand.Rand
	pressure, flow walk // in hundredths of a bar, in tenths of a cubic metre an hour
}

func newPump(rng *rand.Rand) *pump {
	p, f := 380+rng.IntN(180), 300+rng.IntN(600)
	return &pump{rng: rng, pressure: walk{at: p, home: p, step: 3}, flow: walk{at: f, home: f, step: 4}}
}

// pumpLoss is what a pump takes over what it gives.
const pumpLoss = 1.45

func (p *pump) append(b []byte, _ float64) []byte {
	bar, flow := max(p.pressure.next(p.rng), 0), max(p.flow.next(p.rng), 0)
	kilowatts := float64(bar) / 100 * float64(flow) / 10 / 36 * pumpLoss
	b = append(b, `"pressure":`...)
	b = appendFixed(b, int64(bar), 2)
	b = append(b, `,"flow":`...)
	b = appendFixed(b, int64(flow), 1)
	b = append(b, `,"power_kw":`...)
	return appendFixed(b, int64(kilowatts*100), 2)
}

// light is a street light: its brightness in percent, and its power in watts.
type light struct {
	rng        *rand.Rand
	brightness walk // in tenths of a percent
	full       int  // watts
}

func newLight(rng *rand.Rand) *light {
	at := 550 + rng.IntN(300)
	return &light{rng: rng, brightness: walk{at: at, home: at, step: 5}, full: 40 + 20*rng.IntN(4)}
}

func (l *light) append(b []byte, _ float64) []byte {
	level := min(max(l.brightness.next(l.rng), 0), 1000)
	b = append(b, `"brightness":`...)
	b = appendFixed(b, int64(level), 1)
	b = append(b, `,"power":`...)
	return appendFixed(b, int64(level*l.full/100), 1)
}

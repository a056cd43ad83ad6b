package sim

import (
	"errors"
	"math/rand/v2"
	"time"

	"muster"
)

// errCut is the loss of a connection that was asked for.
var errCut = errors.New("cut off")

// cut is when a gateway is without its connection; the zero value is never.
type cut struct{ from, until time.Time }

func (c cut) now(t time.Time) bool { return !t.Before(c.from) && t.Before(c.until) }

// earlier returns when the cut begins, when that is before t and still to come.
func (c cut) earlier(t time.Time) time.Time {
	if c.until.IsZero() || !time.Now().Before(c.from) {
		return t
	}
	return earlier(t, c.from)
}

// newGateway returns the connection of gateway g of a fleet that began at start.
func newGateway(f *fleet, g int, start time.Time) *device {
	first, end := f.cfg.span(g)
	members := make([]*member, 0, end-first)
	for i := first; i < end; i++ {
		members = append(members, newChild(f.cfg, i))
	}
	rng := rand.New(rand.NewPCG(f.cfg.Seed, 1<<32|uint64(g)))
	d := newConnection(f, g, f.cfg.GatewayID(g), rng, members)
	d.announce = true
	if f.cfg.Cut > 0 && g == f.cfg.CutGateway() {
		d.cut = cut{from: start.Add(f.cfg.CutAfter), until: start.Add(f.cfg.CutAfter + f.cfg.Cut)}
	}
	return d
}

// newChild returns device i, for which its gateway speaks.
func newChild(c Config, i int) *member {
	p := c.Place(i)
	rng := rand.New(rand.NewPCG(c.Seed, uint64(i)))
	src := newSource(c.ProfileOf(i), rng)
	if t, ok := src.(*tracker); ok {
		t.lat, t.lon, t.homeLat, t.homeLon = p.Lat, p.Lon, p.Lat, p.Lon
	}
	m := newMember(c.ID(i), src)
	m.firmware = p.Firmware
	if dice := rng.Float64(); dice < c.Silent {
		m.silence = never + int(dice/c.Silent*3)
	}
	return m
}

// introduce has a gateway name those that it speaks for, as often as it connects. It is asked for no
// answer: what a member publishes says the same.
func (d *device) introduce(l *link) error {
	if !d.announce {
		return nil
	}
	topic := appendString(nil, "v1/gateway/connect")
	d.out = d.out[:0]
	for _, m := range d.members {
		if !m.mute() {
			d.payload = appendNamed(d.payload[:0], m.id)
			d.out = appendPublish(d.out, 0, topic, 0, d.payload)
		}
	}
	if len(d.out) == 0 {
		return nil
	}
	return d.write(l, time.Now())
}

// checkGateways says what is wrong with what a Config says about gateways.
func (c *Config) checkGateways() error {
	switch {
	case c.Gateways < 0 || c.Gateways > c.Devices:
		return muster.Errorf(muster.Invalid, "%d gateways: from 0 to as many as there are devices, %d, are possible", c.Gateways, c.Devices)
	case c.Gateways > 0 && (c.Firmware || c.FirmwareDDI > 0):
		return muster.Errorf(muster.Invalid, "devices behind gateways install no firmware: those need a connection of their own")
	case !(c.Silent >= 0 && c.Silent <= MaxSilent): // also refuses NaN
		return muster.Errorf(muster.Invalid, "silent %v: from 0 to %v are possible", c.Silent, MaxSilent)
	case c.Cut < 0 || c.CutAfter < 0:
		return muster.Errorf(muster.Invalid, "a cut of %v after %v: neither can be negative", c.Cut, c.CutAfter)
	case c.Gateways == 0 && (c.Cut > 0 || c.Silent > 0):
		return muster.Errorf(muster.Invalid, "without gateways nothing is cut off, and nobody falls silent")
	}
	return nil
}

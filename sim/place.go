package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"muster"
)

// site is a place with devices.
type site struct {
	name, country string
	lat, lon      float64 // degrees
}

// lot is a part of a fleet behind gateways: what is alike in it.
type lot struct {
	group, kind, prefix, noun string
	share                     int // of all gateways, in percent
	firmware, older           string
	sites                     []site
}

// lots are the parts of a fleet; their shares add up to 100.
func lots() []lot {
	return []lot{
		{"meters-north", Meter, "mtr", "Meter", 30, "2.8.0", "2.7.4", []site{
			{"Narvik", "NO", 68.44, 17.43}, {"Tromso", "NO", 69.65, 18.96}, {"Lulea", "SE", 65.58, 22.15}, {"Oulu", "FI", 65.01, 25.47}, {"Bodo", "NO", 67.28, 14.40},
		}},
		{"meters-south", Meter, "mts", "Meter", 25, "2.8.0", "2.7.4", []site{
			{"Malmo", "SE", 55.60, 13.00}, {"Aarhus", "DK", 56.16, 10.20}, {"Hamburg", "DE", 53.55, 9.99}, {"Rotterdam", "NL", 51.92, 4.48}, {"Lyon", "FR", 45.76, 4.84},
		}},
		{"cold-chain", Cold, "cold", "Cold store", 18, "4.1.2", "4.0.9", []site{
			{"Oslo", "NO", 59.91, 10.75}, {"Bergen", "NO", 60.39, 5.32}, {"Gdansk", "PL", 54.35, 18.65}, {"Bilbao", "ES", 43.26, -2.93},
		}},
		{"trackers", Tracker, "trk", "Tracker", 15, "5.0.3", "4.9.1", []site{
			{"Madrid", "ES", 40.42, -3.70}, {"Vienna", "AT", 48.21, 16.37}, {"Athens", "GR", 37.98, 23.73}, {"Dubai", "AE", 25.20, 55.27},
		}},
		{"pumps", Pump, "pump", "Pump", 8, "1.6.0", "1.5.2", []site{
			{"Nairobi", "KE", -1.29, 36.82}, {"Lima", "PE", -12.05, -77.04}, {"Pune", "IN", 18.52, 73.86},
		}},
		{"street-lights", Light, "lamp", "Street light", 4, "3.2.1", "3.2.0", []site{
			{"Tallinn", "EE", 59.44, 24.75}, {"Riga", "LV", 56.95, 24.11},
		}},
	}
}

// olderPart is the part of devices that run the older version of their lot.
const olderPart = 0.12

// spread is how far around its site a device is, in degrees; most are nearer.
const spread = 0.04

// Place is where and what a device behind a gateway is. The same Config has the same places.
type Place struct {
	Name     string // for people, as "Cold store 12, Oslo"
	Group    string
	Site     string // as "Oslo"
	Country  string // by ISO 3166-1, as "NO"
	Gateway  muster.DeviceID
	Lat, Lon float64 // degrees
	Firmware string  // the version that it says it runs
}

// GatewayOf returns the gateway of device i, counted from 0. Gateways have as many devices each, but
// for one more or less.
func (c Config) GatewayOf(i int) int {
	return int((int64(i)*int64(c.Gateways) + int64(c.Gateways) - 1) / int64(c.Devices))
}

// span returns the first device of gateway g, and the first of the next.
func (c Config) span(g int) (first, end int) {
	return g * c.Devices / c.Gateways, (g + 1) * c.Devices / c.Gateways
}

// GatewayID returns the device id of gateway g, as "sim-gw-narvik-01".
func (c Config) GatewayID(g int) muster.DeviceID {
	return muster.DeviceID(fmt.Sprintf("%s-gw-%s-%02d", c.prefix(), strings.ToLower(c.siteOf(g).name), g+1))
}

// CutGateway returns the gateway that Cut is about.
func (c Config) CutGateway() int { return c.Gateways / 6 }

// lotOf returns what a gateway's devices are.
func (c Config) lotOf(g int) lot {
	all := lots()
	at, sum := g*100/c.Gateways, 0
	for _, l := range all {
		if sum += l.share; at < sum {
			return l
		}
	}
	return all[len(all)-1]
}

func (c Config) siteOf(g int) site {
	sites := c.lotOf(g).sites
	return sites[g%len(sites)]
}

// PlaceOfGateway returns where gateway g is, and of which group its devices are.
func (c Config) PlaceOfGateway(g int) Place {
	s := c.siteOf(g)
	return Place{Name: fmt.Sprintf("Gateway %d, %s", g+1, s.name), Group: c.lotOf(g).group, Site: s.name, Country: s.country, Lat: s.lat, Lon: s.lon}
}

// Place returns where and what device i is. It needs Gateways.
func (c Config) Place(i int) Place {
	g := c.GatewayOf(i)
	l, s := c.lotOf(g), c.siteOf(g)
	rng := rand.New(rand.NewPCG(c.Seed, 1<<33|uint64(i)))
	p := Place{
		Name: fmt.Sprintf("%s %d, %s", l.noun, i+1, s.name), Group: l.group, Site: s.name, Country: s.country, Gateway: c.GatewayID(g),
		Lat: round(s.lat + spread*rng.NormFloat64()), Lon: round(s.lon + spread*rng.NormFloat64()), Firmware: l.firmware,
	}
	if rng.Float64() < olderPart {
		p.Firmware = l.older
	}
	return p
}

// round keeps four decimals of a degree: about ten metres.
func round(degrees float64) float64 { return float64(int64(degrees*1e4)) / 1e4 }

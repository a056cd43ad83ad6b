package sim

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"pgregory.net/rapid"

	"muster"
)

// heard is what a gateway's devices said, by topic.
type heard struct {
	mu     sync.Mutex
	topics map[string]int
	named  map[string]int // by v1/gateway/connect
	gone   map[string]int // by v1/gateway/disconnect
	runs   map[string]string
}

func (h *heard) take(t *testing.T, pk *packets.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var said struct {
		Device   string
		Firmware struct{ Version string }
		TS       int64
	}
	if err := json.Unmarshal(pk.Payload, &said); err != nil {
		t.Errorf("%s: %v: %s", pk.TopicName, err, pk.Payload)
	}
	switch {
	case pk.TopicName == "v1/gateway/connect":
		h.named[said.Device]++
	case pk.TopicName == "v1/gateway/disconnect":
		h.gone[said.Device]++
	case strings.HasSuffix(pk.TopicName, "/reported"):
		h.runs[pk.TopicName] = said.Firmware.Version
	default:
		if said.TS == 0 {
			t.Errorf("%s has no time: %s", pk.TopicName, pk.Payload)
		}
		h.topics[pk.TopicName]++
	}
}

func hears(t *testing.T) (*heard, *mqttServer) {
	t.Helper()
	h := &heard{topics: map[string]int{}, named: map[string]int{}, gone: map[string]int{}, runs: map[string]string{}}
	return h, serve(t, ackAll(func(_ *serverConn, pk packets.Packet) { h.take(t, &pk) }))
}

func TestGatewaysSpeakForAllTheirDevices(t *testing.T) {
	h, s := hears(t)
	cfg := Config{Addr: s.addr, Devices: 300, Gateways: 7, QoS: 1, Limit: 4}
	got := run(t, cfg)
	if n := s.connections(); n != 7 || got.Acked != 1200 || got.Errors != 0 {
		t.Errorf("%d connections for 7 gateways, %+v", n, got)
	}
	if len(h.named) != 300 || len(h.topics) != 300 || len(h.runs) != 300 || len(h.gone) != 0 {
		t.Errorf("named %d, telemetry of %d, versions of %d, gone %d; want 300, 300, 300, 0", len(h.named), len(h.topics), len(h.runs), len(h.gone))
	}
	for i := range cfg.Devices {
		id, p := string(cfg.ID(i)), cfg.Place(i)
		if h.topics["devices/"+id+"/telemetry"] != 3 || h.runs["devices/"+id+"/reported"] != p.Firmware {
			t.Errorf("%s sent %d messages and runs %q, want 3 and %q", id, h.topics["devices/"+id+"/telemetry"], h.runs["devices/"+id+"/reported"], p.Firmware)
		}
	}
}

func TestAPartOfTheDevicesBehindGatewaysFallsSilent(t *testing.T) {
	h, s := hears(t)
	cfg := Config{Addr: s.addr, Devices: 600, Gateways: 3, QoS: 1, Limit: 20, Silent: 0.3}
	run(t, cfg)
	never, few := 0, 0
	for i := range cfg.Devices {
		switch n := h.topics["devices/"+string(cfg.ID(i))+"/telemetry"]; {
		case n == 0:
			never++
		case n < lastWords:
			few++
		}
	}
	if never < 30 || never > 90 || few < 80 || few > 160 || len(h.gone) < 30 || len(h.gone) > 90 || len(h.named) != 600-never {
		t.Errorf("of 600 devices %d never spoke, %d stopped, %d of them with a goodbye, %d were named", never, few, len(h.gone), len(h.named))
	}
}

func TestOneGatewayIsCutOffForAWhileAndComesBackWithAllItHas(t *testing.T) {
	var mu sync.Mutex
	conns := map[string]int{}
	ends := 0
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		mu.Lock()
		switch pk.FixedHeader.Type {
		case packets.Connect:
			conns[pk.Connect.ClientIdentifier]++
		case packets.Disconnect:
			ends++
		}
		mu.Unlock()
		ackAll(func(*serverConn, packets.Packet) {})(c, pk)
	})
	cfg := Config{Addr: s.addr, Devices: 12, Gateways: 6, QoS: 1, Rate: 20, Cut: 50 * time.Millisecond, CutAfter: 100 * time.Millisecond}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	gone := string(cfg.GatewayID(cfg.CutGateway()))
	var last Stats
	err := Run(ctx, cfg, func(st Stats) {
		mu.Lock()
		defer mu.Unlock()
		if last = st; conns[gone] == 2 && ends == 0 && st.Connected == 6 {
			cancel()
		}
	})
	mu.Lock()
	defer mu.Unlock()
	if err != nil || conns[gone] != 2 || last.Errors != 0 {
		t.Errorf("%v: %s connected %d times, want 2; %+v", err, gone, conns[gone], last)
	}
	for id, n := range conns {
		if id != gone && n != 1 {
			t.Errorf("%s connected %d times, and nobody cut it off", id, n)
		}
	}
}

func TestEachDeviceHasOneGatewayAndIsNearItsSite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.IntRange(1, 3000).Draw(t, "devices")
		cfg := Config{Devices: devices, Gateways: rapid.IntRange(1, min(devices, 300)).Draw(t, "gateways"), Seed: rapid.Uint64().Draw(t, "seed")}
		seen := map[muster.DeviceID]bool{}
		for g := range cfg.Gateways {
			first, end := cfg.span(g)
			if n := end - first; n < devices/cfg.Gateways || n > devices/cfg.Gateways+1 {
				t.Fatalf("gateway %d has %d of %d devices", g, n, devices)
			}
			home := cfg.PlaceOfGateway(g)
			for i := first; i < end; i++ {
				p := cfg.Place(i)
				if cfg.GatewayOf(i) != g || p.Gateway != cfg.GatewayID(g) || p.Group != home.Group || p.Firmware == "" {
					t.Fatalf("device %d of gateway %d: %+v", i, g, p)
				}
				if math.Abs(p.Lat-home.Lat) > 10*spread || math.Abs(p.Lon-home.Lon) > 10*spread {
					t.Fatalf("device %d is at %v, %v, its gateway at %v, %v", i, p.Lat, p.Lon, home.Lat, home.Lon)
				}
				seen[cfg.ID(i)] = true
			}
			seen[cfg.GatewayID(g)] = true
		}
		if len(seen) != devices+cfg.Gateways || cfg.CutGateway() >= cfg.Gateways {
			t.Fatalf("%d ids of %d devices and %d gateways; gateway %d is cut off", len(seen), devices, cfg.Gateways, cfg.CutGateway())
		}
	})
}

func TestTheLotsAreAllOfAFleet(t *testing.T) {
	sum := 0
	for _, l := range lots() {
		sum += l.share
	}
	if sum != 100 {
		t.Errorf("the shares add up to %d", sum)
	}
}

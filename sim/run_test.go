package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

// message is what a device publishes.
type message struct {
	TS     int64              `json:"ts"`
	Values map[string]float64 `json:"values"`
}

// inbox collects what arrives, by topic.
type inbox struct {
	mu  sync.Mutex
	got map[string][]message
	err error
}

func (in *inbox) add(pk packets.Packet) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.got == nil {
		in.got = make(map[string][]message)
	}
	var m message
	if err := json.Unmarshal(pk.Payload, &m); err != nil {
		in.err = fmt.Errorf("%s: %w: %s", pk.TopicName, err, pk.Payload)
	}
	in.got[pk.TopicName] = append(in.got[pk.TopicName], m)
}

// run runs the fleet to its end and returns the last statistics.
func run(t *testing.T, cfg Config) Stats {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var last Stats
	if err := Run(ctx, cfg, func(s Stats) { last = s }); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		t.Fatalf("the fleet did not reach its limit; at the end: %+v", last)
	}
	return last
}

func TestEveryMessageIsPublishedOnceAndAcked(t *testing.T) {
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			var in inbox
			received := make(chan struct{}, 6*200)
			s := serve(t, ackAll(func(_ *serverConn, pk packets.Packet) { in.add(pk); received <- struct{}{} }))
			got := run(t, Config{Addr: s.addr, Devices: 6, QoS: qos, Limit: 200, Window: 8, Prefix: "fleet"})
			for range 6 * 200 {
				<-received
			}
			want := Stats{Sent: 1200, Acked: 1200 * uint64(qos)}
			got.AckP50, got.AckP99 = 0, 0
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			in.mu.Lock()
			defer in.mu.Unlock()
			if in.err != nil || len(in.got) != 6 {
				t.Fatalf("%d topics, %v", len(in.got), in.err)
			}
			for topic, ms := range in.got {
				if !strings.HasPrefix(topic, "devices/fleet-000") || !strings.HasSuffix(topic, "/telemetry") || len(ms) != 200 {
					t.Errorf("%s: %d messages", topic, len(ms))
				}
				for i := 1; i < len(ms); i++ {
					if ms[i].TS <= ms[i-1].TS {
						t.Fatalf("%s: ts %d follows %d", topic, ms[i].TS, ms[i-1].TS)
					}
				}
			}
		})
	}
}

func TestUnackedMessagesAreResentInOrderWithDUPAfterAReconnect(t *testing.T) {
	type pub struct {
		ID      uint16
		Dup     bool
		Payload string
	}
	var mu sync.Mutex
	perConn := map[int][]pub{}
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		switch pk.FixedHeader.Type {
		case packets.Connect:
			c.connack(0)
		case packets.Publish:
			mu.Lock()
			perConn[c.number] = append(perConn[c.number], pub{pk.PacketID, pk.FixedHeader.Dup, string(pk.Payload)})
			n := len(perConn[c.number])
			mu.Unlock()
			switch {
			case c.number > 1:
				c.puback(pk.PacketID)
			case n == 2:
				c.puback(pk.PacketID) // out of order: the first is still unacked
			case n == 5:
				c.Close()
			}
		}
	})
	got := run(t, Config{Addr: s.addr, Devices: 1, QoS: 1, Limit: 5, Window: 5})
	if got.Sent != 5 || got.Acked != 5 || got.Resent != 4 || got.Errors != 1 || got.LastError == "" {
		t.Errorf("%+v", got)
	}
	mu.Lock()
	defer mu.Unlock()
	first := perConn[1]
	want := []pub{first[0], first[2], first[3], first[4]}
	for i := range want {
		want[i].Dup = true
	}
	if d := cmp.Diff(want, perConn[2]); d != "" {
		t.Error(d)
	}
}

func TestTheWindowIsNeverExceeded(t *testing.T) {
	const window, limit = 3, 30
	var mu sync.Mutex
	var held []uint16
	most := 0
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		if pk.FixedHeader.Type == packets.Connect {
			c.connack(0)
		}
		if pk.FixedHeader.Type != packets.Publish {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		held = append(held, pk.PacketID)
		most = max(most, len(held))
		if len(held) == window {
			for _, id := range held {
				c.puback(id)
			}
			held = nil
		}
	})
	got := run(t, Config{Addr: s.addr, Devices: 1, QoS: 1, Limit: limit, Window: window})
	if got.Acked != limit || most != window {
		t.Errorf("acked %d, at most %d in flight; want %d and %d", got.Acked, most, limit, window)
	}
}

func TestCancelLeavesWithDisconnectAndNoGoroutines(t *testing.T) {
	var mu sync.Mutex
	left := 0
	t.Cleanup(func() { // after the server has read all there was
		mu.Lock()
		defer mu.Unlock()
		if left != 20 {
			t.Errorf("%d of 20 devices said DISCONNECT", left)
		}
	})
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		switch pk.FixedHeader.Type {
		case packets.Connect:
			c.connack(0)
		case packets.Disconnect:
			mu.Lock()
			left++
			mu.Unlock()
		} // no PUBACK: every device waits with messages in flight
	})
	defer goleakFree(t)
	ctx, cancel := context.WithCancel(t.Context())
	var last Stats
	err := Run(ctx, Config{Addr: s.addr, Devices: 20, QoS: 1, Rate: 50, Ramp: 1000}, func(st Stats) {
		last = st
		if st.Connected == 20 && st.Sent > 100 {
			cancel()
		}
	})
	cancel()
	if err != nil || last.Connected != 0 || last.Sent == 0 || last.Acked != 0 || last.Errors != 0 {
		t.Errorf("%v, %+v", err, last)
	}
}

func TestRefusedDevicesBackOffAndSayWhy(t *testing.T) {
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		if pk.FixedHeader.Type == packets.Connect {
			c.connack(4)
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last Stats
	err := Run(ctx, Config{Addr: s.addr, Devices: 1, QoS: 1}, func(st Stats) {
		last = st
		if st.Errors > 0 {
			cancel()
		}
	})
	if err != nil || last.LastError != "connection refused: bad user name or password" {
		t.Errorf("%v, %+v", err, last)
	}
	if n := s.connections(); n > 8 {
		t.Errorf("%d connections in about a second: no backoff", n)
	}
}

func TestCredentialsAndClientIDArePresented(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	s := serve(t, func(c *serverConn, pk packets.Packet) {
		if pk.FixedHeader.Type == packets.Connect {
			mu.Lock()
			seen = append(seen, fmt.Sprintf("%s %s %s clean=%v", pk.Connect.ClientIdentifier, pk.Connect.Username, pk.Connect.Password, pk.Connect.Clean))
			mu.Unlock()
		}
		ackAll(func(*serverConn, packets.Packet) {})(c, pk)
	})
	run(t, Config{
		Addr: s.addr, Devices: 1, QoS: 1, Limit: 1, Prefix: "x",
		Credentials: func(i int) (string, string) { return fmt.Sprint("user", i), "secret" },
	})
	if d := cmp.Diff([]string{"x-0001 user0 secret clean=false"}, seen); d != "" {
		t.Error(d)
	}
}

func TestTheRateIsKept(t *testing.T) {
	s := serve(t, ackAll(func(*serverConn, packets.Packet) {}))
	start := time.Now()
	got := run(t, Config{Addr: s.addr, Devices: 4, QoS: 1, Rate: 50, Limit: 50})
	// The last of 50 messages is due 49 periods after the first.
	if took := time.Since(start); took < 900*time.Millisecond || got.Acked != 200 {
		t.Errorf("%d messages in %v; 200 in about a second were due", got.Acked, took)
	}
}

func TestABadConfigIsInvalid(t *testing.T) {
	good := Config{Addr: "127.0.0.1:1883", Devices: 1}
	tests := []struct {
		name string
		edit func(*Config)
	}{
		{"an address without a port", func(c *Config) { c.Addr = "localhost" }},
		{"no devices", func(c *Config) { c.Devices = 0 }},
		{"a negative rate", func(c *Config) { c.Rate = -1 }},
		{"QoS 2", func(c *Config) { c.QoS = 2 }},
		{"a window over the bound", func(c *Config) { c.Window = MaxWindow + 1 }},
		{"a negative ramp", func(c *Config) { c.Ramp = -1 }},
		{"a negative limit", func(c *Config) { c.Limit = -1 }},
		{"an unknown profile", func(c *Config) { c.Profile = "toaster" }},
		{"more gateways than devices", func(c *Config) { c.Gateways = 2 }},
		{"firmware behind gateways", func(c *Config) { c.Gateways, c.Firmware = 1, true }},
		{"most devices silent", func(c *Config) { c.Gateways, c.Silent = 1, 0.6 }},
		{"silence without gateways", func(c *Config) { c.Silent = 0.1 }},
		{"a cut without gateways", func(c *Config) { c.Cut = time.Minute }},
		{"a negative cut", func(c *Config) { c.Gateways, c.Cut = 1, -time.Minute }},
		{"a prefix too long for gateways", func(c *Config) { c.Gateways, c.Prefix = 1, strings.Repeat("p", 110) }},
		{"a prefix that no device id may have", func(c *Config) { c.Prefix = "a/b" }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := good
			tt.edit(&cfg)
			if err := Run(t.Context(), cfg, nil); muster.KindOf(err) != muster.Invalid {
				t.Errorf("error %v, want one of kind Invalid", err)
			}
		})
	}
}

// allowAll lets every client in.
type allowAll struct{ mqtt.HookBase }

func (allowAll) ID() string { return "allow-all" }

func (allowAll) Provides(b byte) bool { return b == mqtt.OnConnectAuthenticate || b == mqtt.OnACLCheck }

func (allowAll) OnConnectAuthenticate(*mqtt.Client, packets.Packet) bool { return true }

func (allowAll) OnACLCheck(*mqtt.Client, string, bool) bool { return true }

func TestARealServerAcksTheFleet(t *testing.T) {
	server := mqtt.New(&mqtt.Options{Logger: slog.New(slog.DiscardHandler)})
	if err := server.AddHook(new(allowAll), nil); err != nil {
		t.Fatal(err)
	}
	tcp := listeners.NewTCP(listeners.Config{ID: "t", Address: "127.0.0.1:0"})
	if err := server.AddListener(tcp); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	got := run(t, Config{Addr: tcp.Address(), Devices: 9, QoS: 1, Limit: 300})
	if got.Sent != 2700 || got.Acked != 2700 || got.Errors != 0 {
		t.Errorf("%+v", got)
	}
}

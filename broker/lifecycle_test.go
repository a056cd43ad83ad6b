package broker

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

func TestStartFailsClearlyWhenThePortIsInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r := newRig(t, func(c *Config) { c.Addr = ln.Addr().String() })
	err = r.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "listen for MQTT at "+ln.Addr().String()) || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v", err)
	}
	if r.Addr() != nil {
		t.Error("a broker that did not start has an address")
	}
	r.halt() // does nothing
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	good := newRig(t, nil).cfg
	for name, change := range map[string]func(*Config){
		"packets too small":  func(c *Config) { c.MaxPacket = 10 },
		"a window too large": func(c *Config) { c.Window = 70_000 },
		"a negative limit":   func(c *Config) { c.MaxConnections = -1 },
		"no clock":           func(c *Config) { c.Now = nil },
		"metrics used twice": func(*Config) {},
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg, door{}, newTank(), watcher{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestStopDisconnectsEveryClient(t *testing.T) {
	r := start(t, nil)
	old, five, half := r.client(4, "c", "token-a"), r.client(5, "c", "token-b"), r.dial(4)
	done := make(chan struct{})
	go func() { r.halt(); close(done) }()
	if bye := five.next(packets.Disconnect); bye.ReasonCode != 0x8b {
		t.Errorf("DISCONNECT %#x, want 0x8b", bye.ReasonCode)
	}
	old.ended()
	half.ended()
	get(t, done, "end of Stop")
	if _, err := net.Dial("tcp", r.Addr().String()); err == nil {
		t.Error("the port is still open")
	}
	if err := r.Publish(t.Context(), "x", nil, false, 0); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("Publish after Stop: %v", err)
	}
	r.TellRejected(muster.Rejected{Device: "a"})
	r.halt() // again does nothing
}

func TestStopWaitsForAcksUnderWay(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	c := r.client(4, "c", "token-a")
	c.send(publishPacket("devices/me/telemetry", "x", 1, 7))
	m := get(t, r.sink.messages, "message")
	done := make(chan struct{})
	go func() { r.halt(); close(done) }()
	eventually(t, "the stop", r.stopping.Load)
	m.From.Acked(m.Token, nil)
	if ack := c.next(packets.Puback); ack.PacketID != 7 {
		t.Errorf("PUBACK %d, want 7", ack.PacketID)
	}
	c.ended()
	get(t, done, "end of Stop")
}

func TestAcksAfterStopAreHarmless(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	admin := r.client(4, "x", "admin")
	admin.subscribed("#")
	c := r.client(4, "c", "token-a")
	c.send(publishPacket("devices/me/telemetry", "x", 1, 7))
	m := get(t, r.sink.messages, "message")
	r.halt()
	m.From.Acked(m.Token, nil)
	m.From.Acked(m.Token, nil)
}

// blocked is a sink that never has room.
type blocked struct{ entered chan struct{} }

func (b blocked) Accept(ctx context.Context, _ Message) error {
	b.entered <- struct{}{}
	<-ctx.Done()
	return muster.Errorf(muster.Busy, "log full: %w", ctx.Err())
}

func (blocked) Refuse(Message, string, string, int) {}

func TestABlockedSinkHoldsUpNeitherStopNorKick(t *testing.T) {
	r := newRig(t, nil)
	sink := blocked{make(chan struct{}, 2)}
	r.Broker.sink = sink
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, b := r.client(4, "c", "token-a"), r.client(4, "c", "token-b")
	for _, c := range []*raw{a, b} {
		c.send(publishPacket("devices/me/telemetry", "x", 1, 7))
		get(t, sink.entered, "message at the sink")
	}
	r.Kick("a", "deleted")
	a.ended()
	r.halt()
	b.ended()
}

func TestKickCutsAllConnectionsOfADevice(t *testing.T) {
	r := start(t, nil)
	one, two, other := r.client(4, "1", "token-a"), r.client(5, "2", "token-a"), r.client(4, "1", "token-b")
	r.Kick("a", "the device was deleted")
	if bye := two.next(packets.Disconnect); bye.ReasonCode != 0x98 || bye.Properties.ReasonString != "the device was deleted" {
		t.Errorf("DISCONNECT %#x %q", bye.ReasonCode, bye.Properties.ReasonString)
	}
	one.ended()
	two.ended()
	other.quiet()
}

func TestPublishChecksItsTopic(t *testing.T) {
	r := start(t, nil)
	for _, topic := range []string{"", "a/+", "#", strings.Repeat("x", 2000)} {
		if err := r.Publish(t.Context(), topic, nil, false, 0); muster.KindOf(err) != muster.Invalid {
			t.Errorf("topic %.20q: %v", topic, err)
		}
	}
	if err := r.Publish(t.Context(), "a", nil, false, 3); muster.KindOf(err) != muster.Invalid {
		t.Errorf("QoS 3: %v", err)
	}
}

func TestPublishedMessagesAreRetained(t *testing.T) {
	r := start(t, nil)
	if err := r.Publish(t.Context(), "devices/a/notifications", []byte(`{"state":"online"}`), true, 1); err != nil {
		t.Fatal(err)
	}
	c := r.client(4, "c", "token-a")
	c.subscribed("devices/me/notifications")
	got := c.next(packets.Publish)
	if got.TopicName != "devices/me/notifications" || !got.FixedHeader.Retain || got.FixedHeader.Qos != 1 || string(got.Payload) != `{"state":"online"}` {
		t.Errorf("got %q %q retain %v QoS %d", got.TopicName, got.Payload, got.FixedHeader.Retain, got.FixedHeader.Qos)
	}
}

func TestStatsAndMetricsCount(t *testing.T) {
	r := start(t, nil)
	c := r.client(4, "c", "token-a")
	c.subscribed("devices/me/desired")
	c.send(publishPacket("devices/me/telemetry", "x", 1, 1), publishPacket("devices/me/telemetry", "x", 0, 0))
	c.next(packets.Puback)
	if err := r.Publish(t.Context(), "devices/a/desired", nil, false, 0); err != nil {
		t.Fatal(err)
	}
	c.next(packets.Publish)
	c.quiet()
	if got, want := r.Stats(), (Stats{Connections: 1, Sessions: 1, Received: 2, Sent: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for name, want := range map[string]float64{
		"connections": 1, "sessions": 1, "connects_total": 1, "messages_received_total": 2, "messages_sent_total": 1, "panics_total": 0,
	} {
		if got := r.metric(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if r.metric("received_bytes_total") == 0 || r.metric("sent_bytes_total") == 0 {
		t.Error("bytes are not counted")
	}
}

func TestWebSocketNeedsTheSubprotocolAndARunningBroker(t *testing.T) {
	r := newRig(t, nil)
	srv := httptest.NewServer(http.HandlerFunc(r.ServeWebSocket))
	defer srv.Close()
	if code := status(t, srv.URL); code != http.StatusServiceUnavailable {
		t.Errorf("status %d before Start, want 503", code)
	}
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := status(t, srv.URL); code != http.StatusBadRequest {
		t.Errorf("status %d without subprotocol, want 400", code)
	}
	r.halt()
	if code := status(t, srv.URL); code != http.StatusServiceUnavailable {
		t.Errorf("status %d after Stop, want 503", code)
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}

package broker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"muster"
	"muster/devices"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// door knows three devices, an admin and an account without rights.
type door struct{}

func (door) Authenticate(l Login) (Identity, error) {
	switch {
	case l.Username == "token-a", l.Username == "a" && string(l.Password) == "secret":
		return Identity{Device: "a"}, nil
	case l.Username == "token-b":
		return Identity{Device: "b"}, nil
	case len(l.Username) > 4 && l.Username[:4] == "dev-":
		return Identity{Device: muster.DeviceID(l.Username)}, nil
	case l.Username == "admin":
		return Identity{Name: "root", Admin: true}, nil
	case l.Username == "nobody":
		return Identity{Name: "nobody"}, nil
	case l.Username == "busy":
		return Identity{}, muster.Errorf(muster.Busy, "still starting")
	case l.Username == "broken":
		return Identity{}, errors.New("the registry is broken")
	case l.Username == "banned":
		return Identity{}, muster.Errorf(muster.Forbidden, "this device is disabled")
	}
	return Identity{}, muster.Errorf(muster.Unauthorized, "unknown credential")
}

func (door) Refresh(who Identity) (Identity, error) { return who, nil }

func (door) Parent(muster.DeviceID) muster.DeviceID { return "" }

type refusal struct {
	Device       muster.DeviceID
	Topic        string
	Payload      string
	Code, Reason string
	Size         int
}

// tank is a sink that a test drives: answer decides on a message, and what it
// holds back is acknowledged by the test.
type tank struct {
	broker   *Broker
	messages chan Message
	refusals chan refusal

	mu     sync.Mutex
	answer func(Message) (error, bool) // the error, and whether to give it at once
}

func newTank() *tank {
	return &tank{messages: make(chan Message, 100_000), refusals: make(chan refusal, 1000)}
}

func (s *tank) Accept(ctx context.Context, m Message) error {
	s.mu.Lock()
	answer := s.answer
	s.mu.Unlock()
	m.Payload = bytes.Clone(m.Payload)
	s.messages <- m
	if m.From == nil {
		return ctx.Err()
	}
	if answer == nil {
		m.From.Acked(m.Token, nil)
		return nil
	}
	if err, now := answer(m); now {
		m.From.Acked(m.Token, err)
	}
	return nil
}

// Refuse tells the device, as the real sink has it done once the message is kept.
func (s *tank) Refuse(m Message, code, reason string, size int) {
	s.refusals <- refusal{m.Device, m.Topic, string(m.Payload), code, reason, size}
	s.broker.TellRejected(muster.Rejected{Device: m.Device, Topic: m.Topic, Code: code, Reason: reason})
}

func (s *tank) answers(f func(Message) (error, bool)) {
	s.mu.Lock()
	s.answer = f
	s.mu.Unlock()
}

func (s *tank) hold() { s.answers(func(Message) (error, bool) { return nil, false }) }

type presenceEvent struct {
	Up     bool
	Conn   devices.Connection
	Reason string
}

type watcher struct{ events chan presenceEvent }

func (w watcher) Connected(c devices.Connection) { w.events <- presenceEvent{Up: true, Conn: c} }

func (w watcher) Disconnected(c devices.Connection, reason string, _ time.Time) {
	w.events <- presenceEvent{Conn: c, Reason: reason}
}

type rig struct {
	*Broker
	t     testing.TB
	sink  *tank
	watch watcher
	log   *bytes.Buffer
	reg   *prometheus.Registry
}

func newRig(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, sink: newTank(), watch: watcher{make(chan presenceEvent, 10_000)}, log: new(bytes.Buffer), reg: prometheus.NewRegistry()}
	cfg := Config{
		Addr: "127.0.0.1:0", Now: time.Now, Metrics: r.reg, Log: newMemLog(), Tick: 5 * time.Millisecond, MaxTakeovers: 1000,
		Logger: slog.New(slog.NewTextHandler(&syncWriter{w: r.log}, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg, door{}, r.sink, r.watch)
	if err != nil {
		t.Fatal(err)
	}
	r.Broker, r.sink.broker = b, b
	return r
}

// start returns a running broker that is stopped with the test.
func start(t testing.TB, change func(*Config)) *rig {
	t.Helper()
	r := newRig(t, change)
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	return r
}

func (r *rig) halt() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		r.t.Errorf("stop: %v", err)
	}
}

type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s within %v", what, patience)
		panic("unreachable")
	}
}

func none[T any](t testing.TB, ch <-chan T, what string) {
	t.Helper()
	select {
	case v := <-ch:
		t.Fatalf("unexpected %s: %v", what, v)
	default:
	}
}

// Kick cuts every live connection of a device.
func (r *rig) Kick(id muster.DeviceID, reason string) {
	for s := range r.sessions.of(ownerOf(id, "")) {
		s.kick(reason)
	}
}

// lost returns how many messages the sessions of a device have lost.
func (r *rig) lost(id muster.DeviceID) (n uint64) {
	page, _, err := r.Clients(ClientsQuery{Device: id, Limit: 1000})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range page {
		n += c.Dropped
	}
	return n
}

// eventually waits until something that nothing announces has come true.
func eventually(t testing.TB, what string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !come(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s did not come within %v", what, patience)
		}
	}
}

// untilGone waits until Presence is told that a device disconnected.
func (r *rig) untilGone(t testing.TB) {
	t.Helper()
	for up := true; up; {
		up = get(t, r.watch.events, "presence event").Up
	}
}

// raw is a client that sees every packet as it is on the wire.
type raw struct {
	t       testing.TB
	nc      net.Conn
	r       *bufio.Reader
	version byte
}

func (r *rig) dial(version byte) *raw {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = nc.Close() })
	return &raw{t: r.t, nc: nc, r: bufio.NewReader(nc), version: version}
}

func connectPacket(version byte, id, user, password string) packets.Packet {
	pk := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), ClientIdentifier: id, Clean: true, Keepalive: 60,
			Username: []byte(user), UsernameFlag: user != "", Password: []byte(password), PasswordFlag: password != "",
		},
	}
	return pk
}

// client connects a raw client that must be admitted.
func (r *rig) client(version byte, id, user string, change ...func(*packets.Packet)) *raw {
	r.t.Helper()
	c := r.dial(version)
	pk := connectPacket(version, id, user, "")
	for _, f := range change {
		f(&pk)
	}
	c.send(pk)
	if ack := c.next(packets.Connack); ack.ReasonCode != 0 {
		r.t.Fatalf("CONNACK %#x, want 0", ack.ReasonCode)
	}
	return c
}

func keepSession(pk *packets.Packet) {
	pk.Connect.Clean = false
	if pk.ProtocolVersion == 5 {
		pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag = 600, true
	}
}

func encode(t testing.TB, version byte, pk packets.Packet) []byte {
	t.Helper()
	pk.ProtocolVersion = version
	pk.Mods.AllowResponseInfo = true
	var buf bytes.Buffer
	f := map[byte]func(*bytes.Buffer) error{
		packets.Connect: pk.ConnectEncode, packets.Publish: pk.PublishEncode, packets.Subscribe: pk.SubscribeEncode,
		packets.Unsubscribe: pk.UnsubscribeEncode, packets.Pubrel: pk.PubrelEncode, packets.Puback: pk.PubackEncode,
		packets.Pubrec: pk.PubrecEncode, packets.Pubcomp: pk.PubcompEncode,
		packets.Pingreq: pk.PingreqEncode, packets.Disconnect: pk.DisconnectEncode,
	}[pk.FixedHeader.Type]
	if err := f(&buf); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (c *raw) send(pks ...packets.Packet) {
	c.t.Helper()
	var all []byte
	for _, pk := range pks {
		all = append(all, encode(c.t, c.version, pk)...)
	}
	c.write(all)
}

func (c *raw) write(p []byte) {
	c.t.Helper()
	if err := c.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.nc.Write(p); err != nil {
		c.t.Fatal(err)
	}
}

// read returns the next packet, or the error that ended the connection.
func (c *raw) read() (packets.Packet, error) {
	pk := packets.Packet{ProtocolVersion: c.version}
	if err := c.nc.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return pk, err
	}
	head, err := c.r.ReadByte()
	if err != nil {
		return pk, err
	}
	// Server packets have no flags that FixedHeader.Decode would not know.
	if err := pk.FixedHeader.Decode(head); err != nil && head>>4 != packets.Pubrel {
		return pk, err
	}
	n, _, err := packets.DecodeLength(c.r)
	if err != nil {
		return pk, err
	}
	pk.FixedHeader.Remaining = n
	body := make([]byte, n)
	if _, err := io.ReadFull(c.r, body); err != nil {
		return pk, err
	}
	decode := map[byte]func([]byte) error{
		packets.Connack: pk.ConnackDecode, packets.Publish: pk.PublishDecode, packets.Puback: pk.PubackDecode,
		packets.Pubrec: pk.PubrecDecode, packets.Pubrel: pk.PubrelDecode, packets.Pubcomp: pk.PubcompDecode,
		packets.Suback: pk.SubackDecode, packets.Unsuback: pk.UnsubackDecode, packets.Disconnect: pk.DisconnectDecode,
		packets.Pingresp: pk.PingrespDecode,
	}[pk.FixedHeader.Type]
	return pk, decode(body)
}

// next returns the next packet, which must be of the given type.
func (c *raw) next(kind byte) packets.Packet {
	c.t.Helper()
	pk, err := c.read()
	if err != nil {
		c.t.Fatalf("read %s: %v", packets.PacketNames[kind], err)
	}
	if pk.FixedHeader.Type != kind {
		c.t.Fatalf("got %s (code %#x, topic %q, payload %.40q), want %s",
			packets.PacketNames[pk.FixedHeader.Type], pk.ReasonCode, pk.TopicName, pk.Payload, packets.PacketNames[kind])
	}
	return pk
}

// ended checks that the server ends the connection without another packet.
func (c *raw) ended() {
	c.t.Helper()
	pk, err := c.read()
	if err == nil {
		c.t.Fatalf("got %s, want the connection to end", packets.PacketNames[pk.FixedHeader.Type])
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		c.t.Fatal("the connection does not end")
	}
}

// quiet checks, by a ping, that the server has nothing else to say before it.
func (c *raw) quiet() {
	c.t.Helper()
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.next(packets.Pingresp)
}

func publishPacket(topic, payload string, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos},
		TopicName:   topic, Payload: []byte(payload), PacketID: id,
	}
}

func ackPacket(kind byte, id uint16) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: id}
	if kind == packets.Pubrel {
		pk.FixedHeader.Qos = 1
	}
	return pk
}

func subscribePacket(id uint16, filters ...string) packets.Packet {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: id}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f, Qos: 1})
	}
	return pk
}

// subscribed subscribes and checks that all filters are granted.
func (c *raw) subscribed(filters ...string) {
	c.t.Helper()
	c.send(subscribePacket(1000, filters...))
	ack := c.next(packets.Suback)
	if want := slices.Repeat([]byte{1}, len(filters)); ack.PacketID != 1000 || !bytes.Equal(ack.ReasonCodes, want) {
		c.t.Fatalf("SUBACK %d %#x, want 1000 %#x", ack.PacketID, ack.ReasonCodes, want)
	}
}

// metric returns the sum of a counter or gauge over its labels, or of the one
// whose only label has the value given.
func (r *rig) metric(name string, label ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		r.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "muster_mqtt_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			hit := len(label) == 0
			for _, l := range m.GetLabel() {
				hit = hit || l.GetValue() == label[0]
			}
			if hit {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func versions(t *testing.T, f func(t *testing.T, version byte)) {
	t.Run("MQTT 3.1.1", func(t *testing.T) { f(t, 4) })
	t.Run("MQTT 5", func(t *testing.T) { f(t, 5) })
}

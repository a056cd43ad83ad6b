package broker

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"muster/broker/listen"
)

func TestStoppingTellsClientsAfterTheirAcks(t *testing.T) {
	r := start(t, nil)
	r.sink.hold()
	c := r.client(5, "c", "token-a", withWill("devices/me/telemetry", "gone", 0, 0))
	old := r.client(4, "c", "token-b", withWill("devices/me/telemetry", "gone", 0, 0))
	for i := range uint16(3) {
		c.send(publishPacket("devices/me/telemetry", fmt.Sprint(i), 1, i+1))
	}
	var held []Message
	for range 3 {
		held = append(held, get(t, r.sink.messages, "message"))
	}
	var g group
	g.start(r.halt)
	eventually(t, "the stop", r.stopping.Load)
	for _, m := range held {
		m.From.Acked(m.Token, nil)
	}
	for i := range uint16(3) {
		if ack := c.next(packets.Puback); ack.PacketID != i+1 {
			t.Errorf("PUBACK %d, want %d", ack.PacketID, i+1)
		}
	}
	if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x8b {
		t.Errorf("DISCONNECT %#x, want 0x8b", bye.ReasonCode)
	}
	c.ended()
	old.ended()
	g.close()
	if err := g.wait(t.Context(), "the stop"); err != nil {
		t.Fatal(err)
	}
	none(t, r.sink.messages, "will")
	if n := r.metric("disconnects_total", "server_stopped"); n != 2 {
		t.Errorf("%v disconnects counted", n)
	}
}

func TestStoppingTakesItsTimeForManyClients(t *testing.T) {
	const clients, drain = 3 * drainBatch, 300 * time.Millisecond
	r := start(t, func(c *Config) { c.Drain = drain })
	var cs []*raw
	for i := range clients {
		cs = append(cs, r.client(5, fmt.Sprint(i), "admin"))
	}
	times := make([]time.Duration, clients)
	began := time.Now()
	var g group
	g.start(r.halt)
	for i, c := range cs {
		g.start(func() {
			if pk, err := c.read(); err == nil && pk.FixedHeader.Type == packets.Disconnect && pk.ReasonCode == 0x8b {
				times[i] = time.Since(began)
			}
			_ = c.nc.Close()
		})
	}
	g.close()
	if err := g.wait(t.Context(), "the stop"); err != nil {
		t.Fatal(err)
	}
	slices.Sort(times)
	if times[0] == 0 || times[clients-1] < drain/2 {
		t.Errorf("told between %v and %v, want all, spread over %v", times[0], times[clients-1], drain)
	}
}

func TestStopEndsWithItsContext(t *testing.T) {
	p := boot(t, newMemLog(), 0, nil)
	c := p.client(5, "c", "admin", keepSession)
	p.settled()
	p.grip.close()
	c.send(publishPacket("t", "never durable", 2, 1))
	eventually(t, "the append", p.grip.waits)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := p.Stop(ctx); err == nil {
		t.Error("no error, though not all is durable")
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("Stop took %v", d)
	}
	c.expectNo(packets.Pubrec)
}

// expectNo reads to the end of the connection.
func (c *raw) expectNo(kind byte) {
	c.t.Helper()
	for {
		pk, err := c.read()
		if err != nil {
			return
		}
		if pk.FixedHeader.Type == kind {
			c.t.Errorf("got %s", packets.PacketNames[kind])
		}
	}
}

func TestAClientOverItsRateIsSlowedAndThenCut(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		const over = 300 * time.Millisecond
		l := newLock()
		l.who["slow"] = Identity{Device: "slow", Rate: Rate{Messages: 20}}
		r := guarded(t, l, func(c *Config) { c.OverTime = over })
		c, other := r.client(version, "c", "slow"), r.client(version, "o", "token-b")
		for i := range uint16(40) { // the burst
			c.send(publishPacket("devices/me/telemetry", "x", 1, i+1))
			c.next(packets.Puback)
		}
		if r.metric("throttled_total") != 0 {
			t.Error("slowed within the burst")
		}
		began := time.Now()
		for range 100 {
			c.send(publishPacket("devices/me/telemetry", "x", 0, 0))
		}
		other.publish(publishPacket("devices/me/telemetry", "x", 1, 1))
		if version == 5 {
			if bye := c.next(packets.Disconnect); bye.ReasonCode != 0x97 {
				t.Errorf("DISCONNECT %#x, want 0x97", bye.ReasonCode)
			}
		}
		c.ended()
		passed := 0
		for len(r.sink.messages) > 0 {
			if m := <-r.sink.messages; m.Device == "slow" {
				passed++
			}
		}
		if d := time.Since(began); d < over*3/4 || passed > 40+20*int(d/time.Second+1) || r.metric("throttled_total") < 3 {
			t.Errorf("cut after %v and %d messages", d, passed)
		}
		eventually(t, "the count", func() bool { return r.metric("disconnects_total", "rate") == 1 })
		other.quiet()
	})
}

func TestClientsThatFightOverAnIDAreDelayed(t *testing.T) {
	r := start(t, func(c *Config) { c.MaxTakeovers = 2 })
	var last *raw
	for range 4 { // three takeovers, one more than are free
		c := r.client(5, "c", "token-a")
		if last != nil {
			last.next(packets.Disconnect)
			_ = last.nc.Close()
			eventually(t, "the end of the old connection", func() bool { n, _ := r.conns.count(); return n == 1 })
		}
		last = c
	}
	began := time.Now()
	c := r.client(5, "c", "token-a")
	if d := time.Since(began); d < 900*time.Millisecond {
		t.Errorf("CONNECT was answered after %v, want 1 s", d)
	}
	r.client(5, "other", "token-a").quiet() // another id is not delayed
	c.quiet()
	if n := r.metric("flapping_total"); n != 1 {
		t.Errorf("%v delays counted, want 1", n)
	}
}

func TestAProxysClientIsKnownByItsOwnAddress(t *testing.T) {
	l := newLock()
	r := guarded(t, l, func(c *Config) { c.Proxy = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	c := r.dial(5)
	c.write([]byte("PROXY TCP4 203.0.113.7 198.51.100.1 40000 1883\r\n"))
	c.send(connectPacket(5, "c", "admin", ""))
	c.next(packets.Connack)
	c.quiet()
	if in := l.seen[0]; in.Peer != "203.0.113.7:40000" || in.Listener != "tcp" {
		t.Errorf("peer %q, listener %q", in.Peer, in.Listener)
	}
	if page, _, _ := r.Clients(ClientsQuery{Limit: 1}); page[0].Peer != "203.0.113.7:40000" {
		t.Errorf("listed with peer %q", page[0].Peer)
	}
	bare := r.dial(5)
	bare.send(connectPacket(5, "d", "admin", ""))
	bare.ended()
}

// via is a raw client on a connection of the test's.
func (r *rig) via(nc net.Conn, version byte) *raw {
	r.t.Cleanup(func() { _ = nc.Close() })
	return &raw{t: r.t, nc: nc, r: bufio.NewReader(nc), version: version}
}

func TestAUnixSocketIsAListener(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l := newLock()
	r := guarded(t, l, func(c *Config) { c.Unix = path })
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := r.via(nc, 5)
	c.send(connectPacket(5, "c", "token-a", ""))
	c.next(packets.Connack)
	c.publish(publishPacket("devices/me/telemetry", "x", 1, 1))
	if in := l.seen[0]; in.Peer != "" || in.Listener != "unix" {
		t.Errorf("peer %q, listener %q", in.Peer, in.Listener)
	}
	if got := get(t, r.watch.events, "presence"); got.Conn.Transport != "unix" {
		t.Errorf("presence %+v", got)
	}
	if n := len(r.Addrs()); n != 2 {
		t.Errorf("%d addresses", n)
	}
}

// certify makes a certificate, signed by parent or by itself.
func certify(t *testing.T, name string, parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: parent == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer, with := tmpl, any(key)
	if parent != nil {
		signer, with = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer, &key.PublicKey, with)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func writePEM(t *testing.T, path, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAClientCertificateReachesTheAuthenticator(t *testing.T) {
	dir := t.TempDir()
	ca := certify(t, "ca", nil)
	server, client := certify(t, "mqtt.example", &ca), certify(t, "sensor-1", &ca)
	key, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := listen.LoadCerts(listen.CertsConfig{
		Pairs: []listen.Pair{{
			Cert: writePEM(t, filepath.Join(dir, "s.crt"), "CERTIFICATE", server.Certificate[0]),
			Key:  writePEM(t, filepath.Join(dir, "s.key"), "PRIVATE KEY", key),
		}},
		ClientCA: writePEM(t, filepath.Join(dir, "ca.crt"), "CERTIFICATE", ca.Certificate[0]), ClientAuth: listen.ClientVerify,
	})
	if err != nil {
		t.Fatal(err)
	}
	l := newLock()
	l.who[""] = Identity{Device: "sensor-1"} // by its certificate
	r := guarded(t, l, func(c *Config) { c.TLS, c.Certs = "127.0.0.1:0", certs })
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	nc, err := tls.Dial("tcp", r.Addrs()[1].String(), &tls.Config{
		ServerName: "mqtt.example", RootCAs: pool, Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := r.via(nc, 5)
	c.send(connectPacket(5, "c", "", ""))
	c.next(packets.Connack)
	in := l.seen[0]
	if len(in.Certificates) != 1 || in.Certificates[0].Subject.CommonName != "sensor-1" || in.Listener != "tls" ||
		in.ServerName != "mqtt.example" || in.Peer == "" {
		t.Errorf("login %+v", in)
	}
	c.publish(publishPacket("devices/me/telemetry", "x", 1, 1))
	if m := get(t, r.sink.messages, "message"); m.Device != "sensor-1" {
		t.Errorf("the sink got %+v", m)
	}
	for i := range 300 { // a reader over TLS gets everything, too
		if err := r.Publish(t.Context(), "devices/sensor-1/desired", fmt.Append(nil, i), false, 0); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			c.subscribe(0, sub("devices/me/desired", 0))
		}
	}
	c.messages(numbers(1, 300)...)
}

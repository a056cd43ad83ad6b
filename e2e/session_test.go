package e2e

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/packets"
	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// message is what a client sends or hears.
type message struct {
	topic, payload string
	qos            byte
	retain         bool
}

func (m message) String() string {
	return fmt.Sprintf("%s %q QoS %d retained %v", m.topic, m.payload, m.qos, m.retain)
}

// session is what a test case wants of a client, whichever it is. An error of the
// client fails the test.
type session interface {
	publish(m message)
	subscribe(filter string, qos byte)
	// next returns the next message heard.
	next() message
	// leave ends the connection: politely, with DISCONNECT, or by closing the socket.
	leave(politely bool)
}

// opening says how a session begins. The login is the administrator's.
type opening struct {
	id   string
	keep bool // the session, which may be there already
	will *message
}

// library opens sessions of one client over one road.
type library struct {
	name string
	unix bool // it takes a unix socket
	open func(t *testing.T, m *muster, r road, o opening) session
}

// sessionCases are what every client is held to.
func sessionCases() []struct {
	name string
	run  func(t *testing.T, open func(opening) session, base string)
} {
	return []struct {
		name string
		run  func(t *testing.T, open func(opening) session, base string)
	}{
		{"QoS 0, 1 and 2 arrive at the QoS they are sent at, in order", casesQoS},
		{"a subscription's QoS is the most that it gets", caseLower},
		{"a retained message meets who subscribes later, and an empty one ends it", caseRetained},
		{"a will is heard when a client is lost, and not when it leaves", caseWill},
		{"a kept session gets what came while it was away, in order", caseOffline},
		{"a session that is not kept gets nothing of what came while it was away", caseClean},
		{"64 KiB arrive as they were sent", caseLarge},
	}
}

func casesQoS(t *testing.T, open func(opening) session, base string) {
	sub, pub := open(opening{id: "sub"}), open(opening{id: "pub"})
	sub.subscribe(base+"/+", 2)
	for qos := range byte(3) {
		want := message{topic: base + "/q", payload: fmt.Sprintf("at %d", qos), qos: qos}
		pub.publish(want)
		expect(t, sub, want)
	}
}

func caseLower(t *testing.T, open func(opening) session, base string) {
	sub, pub := open(opening{id: "sub"}), open(opening{id: "pub"})
	sub.subscribe(base+"/zero", 0)
	sub.subscribe(base+"/one", 1)
	pub.publish(message{topic: base + "/zero", payload: "a", qos: 2})
	expect(t, sub, message{topic: base + "/zero", payload: "a"})
	pub.publish(message{topic: base + "/one", payload: "b", qos: 2})
	expect(t, sub, message{topic: base + "/one", payload: "b", qos: 1})
}

func caseRetained(t *testing.T, open func(opening) session, base string) {
	pub := open(opening{id: "pub"})
	kept := message{topic: base + "/kept", payload: "still here", qos: 1, retain: true}
	pub.publish(message{topic: kept.topic, payload: "before", qos: 1, retain: true})
	pub.publish(kept)
	late := open(opening{id: "late"})
	late.subscribe(base+"/#", 1)
	expect(t, late, kept)
	gone := message{topic: kept.topic, qos: 1, retain: true}
	pub.publish(gone)
	gone.retain = false // to who is subscribed already
	expect(t, late, gone)
	last := open(opening{id: "last"})
	last.subscribe(base+"/#", 1)
	end := message{topic: base + "/end", payload: "end", qos: 1}
	pub.publish(end)
	expect(t, last, end)
}

func caseWill(t *testing.T, open func(opening) session, base string) {
	watcher := open(opening{id: "watcher"})
	watcher.subscribe(base+"/#", 1)
	lost := message{topic: base + "/will", payload: "lost", qos: 1}
	polite := message{topic: base + "/will", payload: "never said", qos: 1}
	open(opening{id: "polite", will: &polite}).leave(true)
	open(opening{id: "lost", will: &lost}).leave(false)
	expect(t, watcher, lost)
}

func caseOffline(t *testing.T, open func(opening) session, base string) {
	const n = 40
	first := open(opening{id: "keeper", keep: true})
	first.subscribe(base+"/#", 2)
	first.leave(true)
	pub := open(opening{id: "pub"})
	want := make([]message, n)
	for i := range want {
		want[i] = message{topic: base + "/queue", payload: fmt.Sprint(i), qos: byte(1 + i%2)}
		pub.publish(want[i])
	}
	again := open(opening{id: "keeper", keep: true})
	byQoS := map[byte][]message{}
	for range n { // order is promised within a QoS, MQTT 3.1.1 section 4.6
		got := again.next()
		byQoS[got.qos] = append(byQoS[got.qos], got)
	}
	for _, w := range want {
		same := byQoS[w.qos]
		if len(same) == 0 || same[0] != w {
			t.Fatalf("at QoS %d next is %v, want %s", w.qos, same, w)
		}
		byQoS[w.qos] = same[1:]
	}
	again.leave(true)
	open(opening{id: "keeper"}) // which ends the session
}

func caseClean(t *testing.T, open func(opening) session, base string) {
	first := open(opening{id: "passing"})
	first.subscribe(base+"/#", 1)
	first.leave(true)
	pub := open(opening{id: "pub"})
	pub.publish(message{topic: base + "/missed", payload: "missed", qos: 1})
	again := open(opening{id: "passing"})
	again.subscribe(base+"/#", 1)
	now := message{topic: base + "/now", payload: "now", qos: 1}
	pub.publish(now)
	expect(t, again, now)
}

func caseLarge(t *testing.T, open func(opening) session, base string) {
	sub, pub := open(opening{id: "sub"}), open(opening{id: "pub"})
	sub.subscribe(base+"/large", 1)
	large := message{topic: base + "/large", payload: strings.Repeat("0123456789abcdef", 4096), qos: 1}
	pub.publish(large)
	if got := sub.next(); got != large {
		t.Errorf("%d bytes at %s arrive, want %d", len(got.payload), got.topic, len(large.payload))
	}
}

func expect(t *testing.T, s session, want message) {
	t.Helper()
	if got := s.next(); got != want {
		t.Fatalf("heard %s\nwant  %s", got, want)
	}
}

// TestClientsAndSessions runs every case with every client over every road.
func TestClientsAndSessions(t *testing.T) {
	t.Parallel()
	m, js := serveWatched(t, roadArgs(t)...), newHostJS(t)
	for n, l := range []library{
		{"paho.mqtt.golang (3.1.1)", true, openPaho3},
		{"paho.golang (5)", true, openPaho5},
		{"mqtt.js (3.1.1)", false, js.open(4)},
		{"mqtt.js (5)", false, js.open(5)},
	} {
		for k, r := range roads(t, m) {
			if r.unix && !l.unix {
				continue
			}
			t.Run(l.name+" over "+r.name, func(t *testing.T) {
				r.needed(t)
				for i, c := range sessionCases() {
					t.Run(c.name, func(t *testing.T) {
						own := fmt.Sprintf("cases/%d-%d-%d", n, k, i)
						c.run(t, func(o opening) session {
							o.id = own + "/" + o.id
							return l.open(t, m, r, o)
						}, own)
					})
				}
			})
		}
	}
}

// session3 is paho.mqtt.golang's.
type session3 struct {
	t     *testing.T
	c     paho3.Client
	conn  *cuttable
	heard chan message
}

func openPaho3(t *testing.T, m *muster, r road, o opening) session {
	t.Helper()
	s := &session3{t: t, conn: &cuttable{}, heard: make(chan message, 100)}
	options := paho3.NewClientOptions().AddBroker(r.url).SetClientID(o.id).SetUsername(m.key).SetProtocolVersion(4).
		SetAutoReconnect(false).SetConnectTimeout(clientLimit).SetOrderMatters(true).SetCleanSession(!o.keep).SetTLSConfig(r.tls).
		SetDefaultPublishHandler(func(_ paho3.Client, p paho3.Message) {
			s.heard <- message{p.Topic(), string(p.Payload()), p.Qos(), p.Retained()}
		})
	if o.will != nil {
		options.SetWill(o.will.topic, o.will.payload, o.will.qos, o.will.retain)
	}
	options.SetCustomOpenConnectionFn(func(_ *url.URL, _ paho3.ClientOptions) (net.Conn, error) {
		c, err := r.dial()
		s.conn.Conn = c
		return s.conn, err
	})
	s.c = paho3.NewClient(options)
	must(t, s.c.Connect())
	t.Cleanup(func() { s.c.Disconnect(0) })
	return s
}

func (s *session3) publish(m message) {
	s.t.Helper()
	must(s.t, s.c.Publish(m.topic, m.qos, m.retain, m.payload))
}

func (s *session3) subscribe(filter string, qos byte) {
	s.t.Helper()
	token := s.c.Subscribe(filter, qos, nil)
	must(s.t, token)
	if code := token.(*paho3.SubscribeToken).Result()[filter]; code != qos {
		s.t.Fatalf("subscribe to %s at QoS %d: SUBACK %#x", filter, qos, code)
	}
}

func (s *session3) next() message { s.t.Helper(); return nextOf(s.t, s.heard) }

func (s *session3) leave(politely bool) {
	if politely {
		s.c.Disconnect(250)
		return
	}
	s.conn.Close()
}

func nextOf(t *testing.T, heard <-chan message) message {
	t.Helper()
	select {
	case m := <-heard:
		return m
	case <-time.After(clientLimit):
		t.Fatal("nothing is heard")
		return message{}
	}
}

// cuttable is a connection that the test may close under its client.
type cuttable struct{ net.Conn }

// session5 is paho.golang's.
type session5 struct {
	t     *testing.T
	c     *paho5.Client
	conn  net.Conn
	heard chan message
}

func openPaho5(t *testing.T, m *muster, r road, o opening) session {
	t.Helper()
	conn, err := r.dial()
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	s := &session5{t: t, conn: conn, heard: make(chan message, 100)}
	s.c = paho5.NewClient(paho5.ClientConfig{
		Conn: packets.NewThreadSafeConn(conn), // else its first PINGREQ lands in the middle of another packet over TLS and WebSocket
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			s.heard <- message{p.Packet.Topic, string(p.Packet.Payload), p.Packet.QoS, p.Packet.Retain}
			return true, nil
		}},
	})
	connect := &paho5.Connect{ClientID: o.id, CleanStart: !o.keep, KeepAlive: 30, Username: m.key, UsernameFlag: true, Properties: &paho5.ConnectProperties{}}
	if o.keep {
		hour := uint32(3600)
		connect.Properties.SessionExpiryInterval = &hour
	}
	if o.will != nil {
		connect.WillMessage = &paho5.WillMessage{Topic: o.will.topic, Payload: []byte(o.will.payload), QoS: o.will.qos, Retain: o.will.retain}
		connect.WillProperties = &paho5.WillProperties{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), clientLimit)
	defer cancel()
	if _, err := s.c.Connect(ctx, connect); err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() {
		_ = s.c.Disconnect(&paho5.Disconnect{}) // the case may have left already
		conn.Close()
		<-s.c.Done()
	})
	return s
}

func (s *session5) publish(m message) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), clientLimit)
	defer cancel()
	if _, err := s.c.Publish(ctx, &paho5.Publish{Topic: m.topic, Payload: []byte(m.payload), QoS: m.qos, Retain: m.retain}); err != nil {
		s.t.Fatalf("publish %s: %v", m, err)
	}
}

func (s *session5) subscribe(filter string, qos byte) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), clientLimit)
	defer cancel()
	ack, err := s.c.Subscribe(ctx, &paho5.Subscribe{Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: qos}}})
	if err != nil || ack.Reasons[0] != qos {
		s.t.Fatalf("subscribe to %s at QoS %d: %v, SUBACK %v", filter, qos, err, ack)
	}
}

func (s *session5) next() message { s.t.Helper(); return nextOf(s.t, s.heard) }

func (s *session5) leave(politely bool) {
	if politely {
		if err := s.c.Disconnect(&paho5.Disconnect{}); err != nil {
			s.t.Errorf("disconnect: %v", err)
		}
	}
	s.conn.Close()
	<-s.c.Done()
}

package hazard

import (
	"bytes"
	"fmt"
	"testing"
)

// A session that ended with its connection is not there for the next one, however
// the connection ended (MQTT-3.1.2-6 in 3.1.1; MQTT 5, section 3.1.2.11.2).
func TestASessionThatEndedIsNotPresent(t *testing.T) {
	ends := []struct {
		name string
		end  func(c *client) error
	}{
		{"it takes the first over", func(*client) error { return nil }},
		{"the first has said goodbye", func(c *client) error {
			if err := c.send(goodbyeBytes()); err != nil {
				return err
			}
			_, err := c.end()
			return err
		}},
		{"the first has dropped its socket", func(c *client) error { c.drop(); return nil }},
	}
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		pub := s.client(t, 4, login{id: s.name("pub")})
		for _, tt := range ends {
			t.Run(tt.name, func(t *testing.T) {
				id := s.name("again")
				first := s.client(t, version, login{id: id})
				if err := first.subscribe(1, id); err != nil {
					t.Fatal(err)
				}
				if err := tt.end(first); err != nil {
					t.Fatal(err)
				}
				second := s.client(t, version, login{id: id, keep: true})
				if second.hello.present {
					t.Error("CONNACK says session present")
				}
				if err := pub.publish(id, "for the first", 1); err != nil {
					t.Fatal(err)
				}
				if err := second.ping(); err != nil {
					t.Errorf("the second is sent what the first subscribed to: %v", err)
				}
			})
		}
	})
}

// After a connection is lost between PUBREC and PUBREL, the PUBREL comes in the
// next one, and once (MQTT-4.4.0-1).
func TestAPubrelComesOnceInTheNextConnection(t *testing.T) {
	const rounds = 40
	versions(t, spec{}, func(t *testing.T, s *server, version byte) {
		pub := s.client(t, 4, login{id: s.name("pub")})
		for i := range rounds {
			l := login{id: s.name("sub"), keep: true}
			if err := losePubrel(s, pub, version, l); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			got, err := answerPubrels(s.client(t, version, l))
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			if !bytes.Equal(got, []byte{pubrel}) {
				t.Fatalf("round %d: packets of the types %d come after the return, want one PUBREL", i, got)
			}
		}
	})
}

// losePubrel has a subscriber answer a QoS 2 message with PUBREC and vanish.
func losePubrel(s *server, pub *client, version byte, l login) error {
	c, err := s.connect(version, l)
	if err != nil {
		return err
	}
	if err := c.subscribe(2, l.id); err != nil {
		return err
	}
	id := pub.id()
	if err := pub.send(message{topic: l.id, payload: "x", qos: 2, id: id}.bytes(pub.version)); err != nil {
		return err
	}
	if _, err := pub.next(pubrec); err != nil {
		return err
	}
	if err := pub.send(ack(pubrel, id)); err != nil {
		return err
	}
	if _, err := pub.next(pubcomp); err != nil {
		return err
	}
	p, err := c.next(publish)
	if err != nil {
		return err
	}
	if err := c.send(ack(pubrec, p.id), pingBytes()); err != nil {
		return err
	}
	for p.kind != pingresp { // the server has read the PUBREC
		if p, err = c.next0(); err != nil {
			return fmt.Errorf("wait for PINGRESP: %w", err)
		}
	}
	c.drop()
	return nil
}

// answerPubrels returns the types of what comes by the answers to three pings, and
// completes what is released.
func answerPubrels(c *client) (kinds []byte, err error) {
	for n := 0; n < 3 || len(kinds) == 0; n++ { // the first PUBREL waits until it is durable that it is due
		if err := c.send(pingBytes()); err != nil {
			return kinds, err
		}
		for {
			p, err := c.next0()
			if err != nil {
				return kinds, err
			}
			if p.kind == pingresp {
				break
			}
			kinds = append(kinds, p.kind)
			if p.kind == pubrel {
				err = c.send(ack(pubcomp, p.id))
			}
			if err != nil {
				return kinds, err
			}
		}
	}
	return kinds, nil
}

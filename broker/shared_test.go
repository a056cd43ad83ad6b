package broker

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"
)

// gather reads what has come to each client up to now, without acknowledging it.
func gather(t *testing.T, cs ...*raw) (got [][]packets.Packet) {
	t.Helper()
	got = make([][]packets.Packet, len(cs))
	for i, c := range cs {
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
		for {
			pk, err := c.read()
			if err != nil {
				t.Fatal(err)
			}
			if pk.FixedHeader.Type == packets.Pingresp {
				break
			}
			if pk.FixedHeader.Type == packets.Publish {
				got[i] = append(got[i], pk)
			}
		}
	}
	return got
}

func payloads(pks []packets.Packet) (got []string) {
	for _, pk := range pks {
		got = append(got, string(pk.Payload))
	}
	return got
}

func TestASharedSubscriptionGoesRoundItsConnectedMembers(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		var cs []*raw
		for i := range 4 {
			c := r.client(version, fmt.Sprint(i), "admin", keepSession)
			c.subscribe(0, sub("$share/g/t", 1))
			cs = append(cs, c)
		}
		cs[1].leave(r.Broker)
		online := []*raw{cs[0], cs[2], cs[3]}
		other := r.client(version, "other", "admin") // another group and a plain subscription get everything
		other.subscribe(0, sub("$share/h/t", 0), sub("t", 0))
		publish(t, r.Broker, 0, 30, 1)
		seen := map[string]int{}
		for i, pks := range gather(t, online...) {
			if len(pks) < 7 || len(pks) > 16 { // the one that is away leaves its turns to its neighbour
				t.Errorf("member %d has %d of 30", i, len(pks))
			}
			for _, p := range payloads(pks) {
				seen[p]++
			}
		}
		if len(seen) != 30 {
			t.Errorf("%d of 30 arrived: %v", len(seen), seen)
		}
		if n := len(gather(t, other)[0]); n != 60 {
			t.Errorf("the others got %d copies, want 60", n)
		}
		if page, _, _ := r.Clients(ClientsQuery{Search: "1", Limit: 1}); page[0].Queued > 0 {
			t.Error("copies wait for a member that is away, though others are connected")
		}
	})
}

func TestCopiesGoToTheNextMemberWhenOneLeaves(t *testing.T) {
	leavings := map[string]func(r *rig, c *raw){
		"it closes its socket": func(r *rig, c *raw) { c.leave(r.Broker) },
		"it ends its session":  func(_ *rig, c *raw) { c.send(goodbye(0, 0)); c.ended() },
	}
	for name, leave := range leavings {
		for qos := byte(1); qos <= 2; qos++ {
			t.Run(fmt.Sprintf("%s, QoS %d", name, qos), func(t *testing.T) {
				r := start(t, nil)
				a := r.client(5, "a", "admin", keepSession, func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 3 })
				a.subscribe(0, sub("$share/g/t", qos))
				publish(t, r.Broker, 0, 8, qos)
				flying := receive(t, a, numbers(0, 3)) // sent and unacknowledged; 5 wait
				a.complete(flying[0])
				receive(t, a, numbers(3, 4))
				b := r.client(5, "b", "admin", keepSession)
				b.subscribe(0, sub("$share/g/t", qos))
				leave(r, a)
				want := numbers(4, 8)
				if qos == 1 {
					want = numbers(1, 8)
				}
				b.messages(want...)
				b.quiet()
				if name == "it ends its session" || qos == 1 {
					return
				}
				a = r.client(5, "a", "admin", keepSession)
				a.messages(numbers(1, 4)...) // a QoS 2 copy that was sent stays (MQTT 5, 4.8.2)
				a.quiet()
			})
		}
	}
}

func TestUnsentCopiesGoToTheNextMemberWhenOneUnsubscribes(t *testing.T) {
	r := start(t, nil)
	a := r.client(5, "a", "admin", func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 2 })
	a.subscribe(0, sub("$share/g/t", 1), sub("$share/g/u", 1))
	b := r.client(5, "b", "admin")
	publish(t, r.Broker, 0, 6, 1)
	if err := r.Publish(t.Context(), "u", []byte("other filter"), false, 1); err != nil {
		t.Fatal(err)
	}
	flying := receive(t, a, numbers(0, 2))
	b.subscribe(0, sub("$share/g/t", 1))
	a.unsubscribe("$share/g/t")
	b.messages(numbers(2, 6)...)
	a.complete(flying[0])
	a.message("other filter")
	a.complete(flying[1]) // what was sent stays with the client that is connected
	a.quiet()
	b.quiet()
}

func TestAMemberThatIsAwayGetsCopiesOnlyWhenNobodyIsConnected(t *testing.T) {
	r := start(t, nil)
	away := r.client(5, "away", "admin", keepSession)
	away.subscribe(0, sub("$share/g/t", 1))
	away.leave(r.Broker)
	publish(t, r.Broker, 0, 3, 1)
	publish(t, r.Broker, 90, 91, 0) // QoS 0 is for nobody then
	if n := r.metric("dropped_total", "no_member"); n != 1 {
		t.Errorf("%v copies counted that nobody took, want 1", n)
	}
	c := r.client(5, "c", "admin")
	c.subscribe(0, sub("$share/g/t", 1))
	publish(t, r.Broker, 3, 6, 1)
	c.messages(numbers(3, 6)...)
	c.quiet()
	away = r.client(5, "away", "admin", keepSession)
	away.messages(numbers(0, 3)...)
	away.quiet()
}

func TestACopyThatNobodyCanTakeIsCounted(t *testing.T) {
	r := start(t, nil)
	a := r.client(5, "a", "admin")
	a.subscribe(0, sub("$share/g/t", 1))
	publish(t, r.Broker, 0, 2, 1)
	receive(t, a, numbers(0, 2))
	a.leave(r.Broker)
	eventually(t, "the count", func() bool { return r.metric("dropped_total", "no_member") == 2 })
}

func TestRedirectedCopiesSurviveACrash(t *testing.T) {
	log := newMemLog()
	p := boot(t, log, 0, nil)
	a, b := p.client(5, "a", "admin", keepSession), p.client(5, "b", "admin", keepSession)
	a.subscribe(0, sub("$share/g/t", 1))
	publish(t, p.Broker, 0, 5, 1)
	receive(t, a, numbers(0, 5))
	b.subscribe(0, sub("$share/g/t", 1))
	a.leave(p.Broker)
	receive(t, b, numbers(0, 5))
	p.settled()
	p.crash()
	p = boot(t, log, 0, nil)
	a, b = p.back(5, "a", "admin"), p.back(5, "b", "admin")
	b.messages(numbers(0, 5)...)
	a.quiet()
	if d := cmp.Diff([]string(nil), payloads(gather(t, b)[0])); d != "" {
		t.Error(d)
	}
}

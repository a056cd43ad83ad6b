package broker

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

// behindRoom is a boardRoom whose gateway may bring nobody: it has kid, and gw2 none.
func behindRoom(t testing.TB, s *board, ready func(muster.DeviceID, bool)) (*rig, *nursery) {
	r, n := boardRoom(t, s, func(c *Config) { c.Ready = ready })
	n.change(func() {
		n.who["gw"], n.who["gw2"] = Identity{Device: "gw"}, Identity{Device: "gw2"}
		n.who["brings"] = Identity{Device: "brings", Brings: true}
	})
	return r, n
}

func (n *nursery) moves(r *rig, to muster.DeviceID, kids ...muster.DeviceID) {
	n.change(func() {
		for _, id := range kids {
			n.parents[id] = to
		}
	})
	r.Recheck(func(Identity) bool { return true })
	r.ChildrenCame(kids)
}

// states reads n messages, acknowledges them and returns them sorted.
func (c *raw) states(n int) (got []string) {
	c.t.Helper()
	for range n {
		pk := c.next(packets.Publish)
		got = append(got, fmt.Sprintf("%s %s %v", pk.TopicName, pk.Payload, pk.FixedHeader.Retain))
		if pk.FixedHeader.Qos > 0 {
			c.send(ackPacket(packets.Puback, pk.PacketID))
		}
	}
	c.quiet()
	slices.Sort(got)
	return got
}

func TestOnlyAGatewayMaySubscribeToItsChildrenTogether(t *testing.T) {
	r, _ := behindRoom(t, newBoard(), nil)
	for _, tt := range []struct {
		name, user, filter string
		granted            bool
	}{
		{"commands", "gw", "devices/+/commands/+", true},
		{"desired documents", "gw", "devices/+/desired", true},
		{"errors", "gw", "devices/+/errors", true},
		{"firmware in chunks", "gw", "devices/+/firmware/data/+", true},
		{"notifications", "gw", "devices/+/notifications", true},
		{"presence", "gw", "devices/+/presence", true},
		{"one that may bring children and has none yet", "brings", "devices/+/desired", true},
		{"a device without children", "gw2", "devices/+/desired", false},
		{"an account", "nobody", "devices/+/desired", false},
		{"what children publish", "gw", "devices/+/telemetry", false},
		{"their reported documents", "gw", "devices/+/reported", false},
		{"the answers to commands", "gw", "devices/+/commands/+/result", false},
		{"all of them", "gw", "devices/+/#", false},
		{"every level", "gw", "devices/+/+", false},
		{"all devices", "gw", "devices/#", false},
		{"everything", "gw", "#", false},
		{"a wildcard in front", "gw", "+/+/desired", false},
		{"of the child whole", "gw", "devices/kid/#", false},
		{"shared", "gw", "$share/g/devices/+/desired", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := r.client(5, "c", tt.user)
			want := byte(0x87)
			if tt.granted {
				want = 1
			}
			if ack := c.subscribe(0, sub(tt.filter, 1)); ack.ReasonCodes[0] != want {
				t.Errorf("SUBACK %#x %q, want %#x", ack.ReasonCodes, ack.Properties.ReasonString, want)
			}
		})
	}
}

func TestAGatewayHearsOfItsChildrenAndOfNobodyElse(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		s := newBoard()
		r, n := behindRoom(t, s, nil)
		n.change(func() { n.parents["far"] = "gw2" })
		c, watch := r.client(version, "c", "gw"), r.client(5, "x", "admin")
		c.subscribe(0, sub("devices/+/desired", 1), sub("devices/+/commands/+", 1), sub("devices/+/errors", 0), sub("devices/+/notifications", 2))
		watch.subscribe(0, sub("devices/+/commands/+", 0))
		for _, id := range []string{"gw", "far", "stranger"} {
			r.becomes(s, "devices/"+id+"/desired", id)
			if _, ok := r.command(t, muster.DeviceID(id), "7"); ok {
				t.Errorf("a command for %s was sent", id)
			}
			r.TellRejected(muster.Rejected{Device: muster.DeviceID(id), Topic: "x", Code: "topic"})
		}
		c.quiet()
		r.becomes(s, "devices/kid/desired", "1")
		if got := c.message("1"); got.TopicName != "devices/kid/desired" || got.FixedHeader.Qos != 1 || got.FixedHeader.Retain {
			t.Errorf("told %+v", got)
		}
		done, ok := r.command(t, "kid", "8", func(d *Delivery) { d.Response = "devices/kid/commands/8/result" })
		got := c.message("8")
		if !ok || got.TopicName != "devices/kid/commands/8" || version == 5 && got.Properties.ResponseTopic != "devices/kid/commands/8/result" {
			t.Errorf("sent %v at %s, answer to %s", ok, got.TopicName, got.Properties.ResponseTopic)
		}
		outcomeIs(t, r, done, Acked)
		watch.message("8")
		r.TellRejected(muster.Rejected{Device: "kid", Topic: "x", Code: "topic"})
		if got := c.next(packets.Publish); got.TopicName != "devices/kid/errors" || got.FixedHeader.Qos != 0 {
			t.Errorf("told %+v", got)
		}
		for _, id := range []string{"far", "kid"} {
			watch.publish(publishPacket("devices/"+id+"/notifications", id, 2, 9))
		}
		if got := c.message("kid"); got.TopicName != "devices/kid/notifications" || got.FixedHeader.Qos != 2 {
			t.Errorf("told %+v", got)
		}
		c.unsubscribe("devices/+/commands/+", "devices/+/desired")
		if _, ok := r.command(t, "kid", "9"); ok {
			t.Error("sent to who has unsubscribed")
		}
		r.becomes(s, "devices/kid/desired", "2")
		c.quiet()
	})
}

func TestAGatewayIsToldOfAllItsChildrenWhenItSubscribesAndTheNewestOnceWhenItComesBack(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		s, x := newBoard("devices/far/desired", "far", "devices/gw/desired", "own"), new(readies)
		r, n := behindRoom(t, s, x.told)
		var want []string
		n.change(func() {
			for i := range 300 {
				id := fmt.Sprintf("kid-%03d", i)
				n.parents[muster.DeviceID(id)] = "gw"
				s.set("devices/"+id+"/desired", "old")
				want = append(want, "devices/"+id+"/desired old true")
			}
		})
		c := r.client(version, "c", "gw", keepSession)
		c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1, Filters: packets.Subscriptions{
			sub("devices/+/commands/+", 1), sub("devices/+/desired", 1),
		}})
		var got []string
		for acked := false; len(got) < len(want) || !acked; {
			pk, err := c.read()
			switch {
			case err != nil:
				t.Fatal(err)
			case pk.FixedHeader.Type == packets.Suback:
				acked = true
				continue
			}
			got = append(got, fmt.Sprintf("%s %s %v", pk.TopicName, pk.Payload, pk.FixedHeader.Retain))
			c.send(ackPacket(packets.Puback, pk.PacketID))
		}
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{"gw true"}, x.take()); d != "" {
			t.Errorf("ready (-want +got):\n%s", d)
		}
		c.subscribeKept(2, sub("devices/kid-000/desired", 1), sub("devices/me/desired", 1))
		x.take()
		c.leave(r.Broker)
		r.becomes(s, "devices/kid-000/desired", "new")
		s.set("devices/kid-007/desired", "lost")
		r.becomes(s, "devices/kid-007/desired", "new")
		want[0], want[7] = "devices/kid-000/desired new true", "devices/kid-007/desired new true"
		want = append([]string{"devices/me/desired own true"}, want...)
		slices.Sort(want)
		c = r.client(version, "c", "gw", keepSession)
		if d := cmp.Diff(want, c.states(301)); d != "" {
			t.Errorf("after coming back (-want +got):\n%s", d)
		}
		if d := cmp.Diff([]string{"gw true"}, x.take()); d != "" {
			t.Errorf("ready after coming back (-want +got):\n%s", d)
		}
	})
}

func TestAChildThatMovesIsHeardByItsNewGatewayAtOnceAndByTheOldOneNoMore(t *testing.T) {
	s, x := newBoard("devices/kid/desired", "1", "devices/other/desired", "2"), new(readies)
	r, n := behindRoom(t, s, x.told)
	n.change(func() { n.parents["other"] = "gw2" })
	c, c2 := r.client(4, "c", "gw"), r.client(4, "c", "gw2")
	for _, g := range []*raw{c, c2} {
		g.subscribe(0, sub("devices/+/desired", 0), sub("devices/+/commands/+", 1), sub("devices/+/notifications", 1))
		g.states(1)
	}
	x.take()
	n.moves(r, "gw2", "kid")
	if d := cmp.Diff([]string{"devices/kid/desired 1 true"}, c2.states(1)); d != "" {
		t.Errorf("the new gateway is told (-want +got):\n%s", d)
	}
	if all := x.take(); !slices.Contains(all, "kid false") {
		t.Errorf("ready %q", all)
	}
	r.becomes(s, "devices/kid/desired", "3")
	done, ok := r.command(t, "kid", "8")
	watch := r.client(4, "x", "admin")
	watch.publish(publishPacket("devices/kid/notifications", "4", 1, 1))
	c2.messages("3", "8", "4")
	if outcomeIs(t, r, done, Acked); !ok {
		t.Error("nobody listens")
	}
	c.quiet()
	n.moves(r, "", "kid") // of nobody now: the gateway without children keeps its subscriptions
	if _, ok := r.command(t, "kid", "9"); ok {
		t.Error("a command for a child of nobody was sent")
	}
	n.moves(r, "gw", "kid", "other")
	if d := cmp.Diff([]string{"devices/kid/desired 3 true", "devices/other/desired 2 true"}, c.states(2)); d != "" {
		t.Errorf("the old gateway is told again (-want +got):\n%s", d)
	}
	c2.quiet()
}

func TestWhatWaitsForAGatewayIsNotSentOfChildrenThatHaveMovedMeanwhile(t *testing.T) {
	r, n := behindRoom(t, newBoard(), nil)
	n.change(func() { n.parents["stays"] = "gw" })
	c := r.client(5, "c", "gw", keepSession)
	c.subscribe(0, sub("devices/+/notifications", 1), sub("devices/me/notifications", 1))
	c.leave(r.Broker)
	watch := r.client(4, "x", "admin")
	for i, id := range []string{"kid", "stays", "gw"} {
		watch.publish(publishPacket("devices/"+id+"/notifications", id, 1, uint16(i+1)))
	}
	n.moves(r, "gw2", "kid")
	c = r.client(5, "c", "gw", keepSession)
	c.messages("stays", "gw")
	c.quiet()
}

func TestRetainedMessagesOfAGatewaysChildrenAreShown(t *testing.T) {
	r, n := behindRoom(t, newBoard(), nil)
	n.change(func() { n.parents["far"] = "gw2" })
	watch := r.client(4, "x", "admin")
	for i, id := range []string{"kid", "far", "gw"} {
		watch.publish(retainedPacket("devices/"+id+"/firmware", id, 1, uint16(i+1)))
	}
	c := r.client(5, "c", "gw")
	c.send(subscribePacket(1, "devices/+/firmware"))
	c.next(packets.Suback)
	if d := cmp.Diff([]string{"devices/kid/firmware kid true"}, c.states(1)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// after reads on until a packet of kind comes, past a state that is told once more because
// it changed while the client was told of it.
func (c *raw) after(state string, kind byte) packets.Packet {
	c.t.Helper()
	for {
		pk, err := c.read()
		switch {
		case err != nil:
			c.t.Fatal(err)
		case pk.FixedHeader.Type == packets.Publish && string(pk.Payload) == state:
			c.send(ackPacket(packets.Puback, pk.PacketID))
		case pk.FixedHeader.Type != kind:
			c.t.Fatalf("got %s %q, want %s", packets.PacketNames[pk.FixedHeader.Type], pk.Payload, packets.PacketNames[kind])
		default:
			return pk
		}
	}
}

func TestAFilterThatAProfileNoLongerGrantsDoesNotOutliveItAsOneOfChildren(t *testing.T) {
	s := newBoard()
	r, n := behindRoom(t, s, nil)
	wide := Identity{Device: "gw", Subscribe: []string{"devices/+/desired"}}
	n.change(func() { n.who["gw"] = wide })
	c := r.client(5, "c", "gw")
	c.subscribe(0, sub("devices/+/desired", 1))
	r.becomes(s, "devices/stranger/desired", "1")
	c.message("1")
	n.change(func() { n.who["gw"] = Identity{Device: "gw"} })
	r.Recheck(func(Identity) bool { return true })
	r.becomes(s, "devices/stranger/desired", "2")
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.after("1", packets.Pingresp)
	c.send(subscribePacket(1, "devices/+/desired"))
	c.next(packets.Suback)
	n.change(func() { n.who["gw"] = wide })
	r.Recheck(func(Identity) bool { return true })
	r.becomes(s, "devices/stranger/desired", "3")
	r.becomes(s, "devices/kid/desired", "4")
	c.message("4")
	again := subscribePacket(2)
	again.Filters = packets.Subscriptions{{Filter: "devices/+/desired", Qos: 1, RetainHandling: 2}}
	c.send(again)
	c.after("4", packets.Suback)
	r.becomes(s, "devices/stranger/desired", "5")
	if pk := c.after("4", packets.Publish); string(pk.Payload) != "5" {
		t.Errorf("told %s", pk.Payload)
	}
	r.becomes(s, "devices/kid/desired", "6")
	if pk := c.after("5", packets.Publish); string(pk.Payload) != "6" {
		t.Errorf("told %s", pk.Payload)
	}
	c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	c.after("6", packets.Pingresp)
}

func TestAGatewaysSubscriptionToItsChildrenSurvivesARestart(t *testing.T) {
	log, x := newMemLog(), new(readies)
	s := newBoard("devices/kid/desired", "1", "devices/far/desired", "2")
	n := &nursery{lock: newLock()}
	n.who["gw"] = Identity{Device: "gw"}
	n.parents["kid"] = "gw"
	begin := func() *process {
		p := &process{grip: &grip{memLog: log}}
		p.rig = newRig(t, func(c *Config) { c.Log, c.Ready, c.States, c.Children = p.grip, x.told, s, n })
		p.auth = n.lock
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.halt)
		return p
	}
	p := begin()
	c := p.client(4, "c", "gw", keepSession)
	c.subscribeKept(1, sub("devices/+/desired", 1), sub("devices/+/commands/+", 1))
	p.settled()
	p.crash()
	x.take()
	p = begin()
	c = p.client(4, "c", "gw", keepSession)
	if d := cmp.Diff([]string{"devices/kid/desired 1 true"}, c.states(1)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"gw true"}, x.take()); d != "" {
		t.Errorf("ready (-want +got):\n%s", d)
	}
	if _, ok := p.command(t, "far", "1"); ok {
		t.Error("a command for a stranger was sent")
	}
	done, _ := p.command(t, "kid", "7")
	c.message("7")
	outcomeIs(t, p.rig, done, Acked)
}

package broker

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster"
)

// command sends a command and returns what its outcome is told to.
func (r *rig) command(t testing.TB, id muster.DeviceID, cid string, change ...func(*Delivery)) (<-chan Outcome, bool) {
	t.Helper()
	done := make(chan Outcome, 10)
	d := Delivery{
		Device: id, Topic: "devices/" + string(id) + "/commands/" + cid, Payload: []byte(cid),
		Done: func(o Outcome) { done <- o },
	}
	for _, f := range change {
		f(&d)
	}
	return done, r.Send(d)
}

// outcomeIs checks the outcome, and that it is told once.
func outcomeIs(t testing.TB, r *rig, done <-chan Outcome, want Outcome) {
	t.Helper()
	if got := get(t, done, "outcome"); got != want {
		t.Errorf("outcome %d, want %d", got, want)
	}
	none(t, done, "second outcome")
}

func TestADeliveryIsAckedByTheFirstClientThatAcknowledgesIt(t *testing.T) {
	versions(t, func(t *testing.T, version byte) {
		r := start(t, nil)
		one, two, none0 := r.client(version, "1", "token-a"), r.client(version, "2", "token-a", keepSession), r.client(version, "3", "token-a")
		one.subscribe(0, sub("devices/me/commands/+", 2))
		two.subscribe(0, sub("devices/a/commands/7", 1))
		none0.subscribe(0, sub("devices/me/desired", 1))
		done, ok := r.command(t, "a", "7")
		if !ok {
			t.Fatal("nobody listens")
		}
		if got := one.next(packets.Publish); got.TopicName != "devices/me/commands/7" || got.FixedHeader.Qos != 1 || string(got.Payload) != "7" {
			t.Errorf("got %s %q with QoS %d", got.TopicName, got.Payload, got.FixedHeader.Qos)
		}
		none(t, done, "outcome before an acknowledgement")
		if got := two.message("7"); got.TopicName != "devices/a/commands/7" {
			t.Errorf("got %s", got.TopicName)
		}
		outcomeIs(t, r, done, Acked)
		_ = one.nc.Close()
		none0.quiet()
		eventually(t, "the end", func() bool { return r.Stats().Connections == 2 })
		none(t, done, "second outcome")
	})
}

func TestADeliveryThatNobodyListensToIsNotSent(t *testing.T) {
	r := start(t, nil)
	away := r.client(5, "away", "token-a", keepSession)
	away.subscribe(0, sub("devices/me/commands/+", 1))
	_ = away.nc.Close()
	stranger := r.client(5, "b", "token-b")
	watch := r.client(5, "x", "admin")
	watch.subscribe(0, sub("devices/+/commands/+", 1))
	eventually(t, "the end", func() bool { return r.Stats().Connections == 2 })
	deaf := r.client(5, "deaf", "token-a")
	deaf.subscribe(0, sub("devices/me/commands/8", 1))
	for what, change := range map[string]func(*Delivery){
		"no matching subscription": func(*Delivery) {},
		"another device's topic":   func(d *Delivery) { d.Topic = "devices/b/commands/8" },
		"no topic":                 func(d *Delivery) { d.Topic = "" },
		"a wildcard":               func(d *Delivery) { d.Topic = "devices/a/commands/+" },
		"a topic above":            func(d *Delivery) { d.Topic = "devices/a" },
		"expired":                  func(d *Delivery) { d.Topic, d.Expires = "devices/a/commands/8", time.Now().Add(-time.Second) },
	} {
		if done, ok := r.command(t, "a", "7", change); ok {
			t.Errorf("%s: sent", what)
		} else {
			none(t, done, "outcome")
		}
	}
	for _, c := range []*raw{stranger, watch, deaf} {
		c.quiet()
	}
	r.client(5, "away", "token-a", keepSession).quiet()
}

func TestWhatADeliveryBecomesThatIsNotAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		name string
		want Outcome
		qos  byte
		then func(*raw, *rig)
	}{
		{"sent with QoS 0", Sent, 0, func(*raw, *rig) {}},
		{"the connection ends", Lost, 1, func(c *raw, _ *rig) { _ = c.nc.Close() }},
		{"the client disconnects", Lost, 1, func(c *raw, _ *rig) {
			c.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		}},
		{"another connection takes the session over", Lost, 1, func(_ *raw, r *rig) { r.client(5, "c", "token-a", keepSession).quiet() }},
		{"the device is forgotten", Lost, 1, func(_ *raw, r *rig) { r.Forget("a", "") }},
		{"the broker stops", Lost, 1, func(_ *raw, r *rig) { r.halt() }},
		{"the client refuses it", Lost, 1, func(c *raw, _ *rig) {
			pk := c.next(packets.Publish)
			c.write([]byte{0x40, 3, byte(pk.PacketID >> 8), byte(pk.PacketID), 0x83})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, nil)
			c := r.client(5, "c", "token-a", keepSession)
			c.subscribe(0, sub("devices/me/commands/+", tt.qos))
			done, ok := r.command(t, "a", "7")
			if !ok {
				t.Fatal("nobody listens")
			}
			tt.then(c, r)
			outcomeIs(t, r, done, tt.want)
			if tt.qos == 1 && r.running() { // it is not sent again
				r.client(5, "c", "token-a", keepSession).quiet()
			}
		})
	}
}

func TestADeliveryThatGivesWayOrExpiresInTheQueueIsLost(t *testing.T) {
	var now clock
	r := start(t, func(c *Config) { c.MaxQueued, c.Now = 2, now.now })
	c := r.client(5, "c", "token-a", func(pk *packets.Packet) { pk.Properties.ReceiveMaximum = 1 })
	c.subscribe(0, sub("devices/me/commands/+", 1))
	flight, _ := r.command(t, "a", "flight")
	oldest, _ := r.command(t, "a", "oldest")
	brief, _ := r.command(t, "a", "brief", func(d *Delivery) { d.Expires = now.now().Add(time.Second) })
	last, _ := r.command(t, "a", "last")
	outcomeIs(t, r, oldest, Lost)
	now.add(t, r.Broker, 2*time.Second)
	c.messages("flight", "last")
	outcomeIs(t, r, flight, Acked)
	outcomeIs(t, r, brief, Lost)
	outcomeIs(t, r, last, Acked)
}

func TestADeliveryTooLargeForItsClientIsLost(t *testing.T) {
	r := start(t, nil)
	for _, qos := range []byte{0, 1} {
		c := r.client(5, "c", "token-a", func(pk *packets.Packet) { pk.Properties.MaximumPacketSize = 60 })
		c.subscribe(0, sub("devices/me/commands/+", qos))
		done, ok := r.command(t, "a", "7", func(d *Delivery) { d.Payload = make([]byte, 100) })
		if !ok {
			t.Error("nobody listens")
		}
		outcomeIs(t, r, done, Lost)
		c.quiet()
	}
}

func TestADeliveryCarriesWhatItsAnswerNeeds(t *testing.T) {
	r := start(t, nil)
	me, id, old := r.client(5, "1", "token-a"), r.client(5, "2", "token-a"), r.client(4, "3", "token-a")
	me.subscribe(9, sub("devices/me/commands/+", 1))
	id.subscribe(0, sub("devices/a/commands/+", 0))
	old.subscribe(0, sub("devices/me/commands/+", 1))
	done, _ := r.command(t, "a", "7", func(d *Delivery) {
		d.Response, d.Correlation, d.ContentType, d.Expires = "devices/a/commands/7/result", []byte{7, 0, 8}, "application/json", time.Now().Add(time.Minute)
	})
	want := packets.Properties{
		ResponseTopic: "devices/me/commands/7/result", CorrelationData: []byte{7, 0, 8}, ContentType: "application/json", SubscriptionIdentifier: []int{9},
	}
	got := me.message("7").Properties
	if s := got.MessageExpiryInterval; s < 55 || s > 60 {
		t.Errorf("expires in %d s", s)
	}
	got.MessageExpiryInterval = 0
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("as me (-want +got):\n%s", d)
	}
	if got := id.message("7").Properties; got.ResponseTopic != "devices/a/commands/7/result" || !slices.Equal(got.CorrelationData, []byte{7, 0, 8}) {
		t.Errorf("by id: %+v", got)
	}
	old.message("7")
	outcomeIs(t, r, done, Acked)
}

func TestAGatewayGetsWhatIsForItsChild(t *testing.T) {
	l := newLock()
	l.parents["kid"] = "a"
	l.who["wide"] = Identity{Device: "wide", Subscribe: []string{"devices/+/commands/+"}}
	r := guarded(t, l, nil)
	gw, wide, watch := r.client(5, "g", "token-a"), r.client(5, "w", "wide"), r.client(5, "x", "admin")
	wide.subscribe(0, sub("devices/+/commands/+", 1))
	watch.subscribe(0, sub("devices/+/commands/+", 1))
	if _, ok := r.command(t, "kid", "1"); ok {
		t.Error("sent to who is neither the device nor its gateway")
	}
	gw.subscribe(0, sub("devices/kid/commands/+", 1))
	done, ok := r.command(t, "kid", "2")
	if !ok {
		t.Fatal("nobody listens")
	}
	watch.message("2") // who may see it sees it, and its acknowledgement counts for nothing
	wide.message("2")
	watch.quiet()
	none(t, done, "outcome")
	if got := gw.message("2"); got.TopicName != "devices/kid/commands/2" {
		t.Errorf("got %s", got.TopicName)
	}
	outcomeIs(t, r, done, Acked)
	share := r.client(5, "s", "token-a")
	share.subscribe(0, sub("$share/h/devices/me/commands/+", 1))
	done, _ = r.command(t, "a", "3")
	if got := share.message("3"); got.TopicName != "devices/me/commands/3" {
		t.Errorf("shared: got %s", got.TopicName)
	}
	outcomeIs(t, r, done, Acked)
}

// readies are what Config.Ready was told.
type readies struct {
	mu  sync.Mutex
	all []string
}

func (x *readies) told(id muster.DeviceID, children bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.all = append(x.all, fmt.Sprint(id, " ", children))
}

func (x *readies) take() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := x.all
	x.all = nil
	return all
}

func TestReadyIsToldWhenSomebodyListensToCommands(t *testing.T) {
	l := newLock()
	l.parents["kid"] = "a"
	l.who["wide"] = Identity{Device: "wide", Subscribe: []string{"devices/+/commands/+"}}
	x := new(readies)
	r := guarded(t, l, func(c *Config) { c.Ready = x.told })
	for _, tt := range []struct {
		user, filter string
		want         []string
	}{
		{"token-a", "devices/me/commands/+", []string{"a false"}},
		{"token-a", "devices/a/#", []string{"a false"}},
		{"token-a", "devices/me/commands/7", []string{"a false"}},
		{"token-a", "$share/g/devices/me/commands/+", []string{"a false"}},
		{"token-a", "devices/me/desired", nil},
		{"token-a", "devices/kid/commands/+", []string{"kid false"}},
		{"wide", "devices/+/commands/+", []string{"wide true", "wide false"}},
		{"admin", "devices/+/commands/+", nil},
		{"admin", "#", nil},
	} {
		c := r.client(5, tt.user+tt.filter, tt.user, keepSession)
		if d := cmp.Diff([]string(nil), x.take()); d != "" {
			t.Errorf("%s: told at CONNECT of a new session", tt.filter)
		}
		c.subscribe(0, sub(tt.filter, 1))
		c.quiet()
		if d := cmp.Diff(tt.want, x.take()); d != "" {
			t.Errorf("%s %s (-want +got):\n%s", tt.user, tt.filter, d)
		}
		r.client(5, tt.user+tt.filter, tt.user, keepSession).quiet()
		if d := cmp.Diff(tt.want, x.take()); d != "" {
			t.Errorf("%s %s, on coming back (-want +got):\n%s", tt.user, tt.filter, d)
		}
	}
}

func TestWhatIsQueuedIsSentInOrderWhenReadyIsTold(t *testing.T) {
	var r *rig
	outcomes := make(chan (<-chan Outcome), 100)
	r = newRig(t, func(c *Config) {
		c.Ready = func(id muster.DeviceID, _ bool) {
			for i := range cap(outcomes) {
				done, ok := r.command(t, id, fmt.Sprint(i))
				if !ok {
					t.Errorf("nobody listens to %d", i)
				}
				outcomes <- done
			}
		}
	})
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.halt)
	c := r.client(5, "c", "token-a")
	c.subscribe(0, sub("devices/me/commands/+", 1))
	c.messages(numbers(0, cap(outcomes))...)
	for range cap(outcomes) {
		outcomeIs(t, r, <-outcomes, Acked)
	}
}

func TestEveryDeliveryHasOneOutcomeWhateverHappens(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxQueued = 10 })
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told := map[int]int{}
	sent := map[int]bool{}
	var senders, clients group
	for w := range 4 {
		senders.start(func() {
			for i := w; r.running(); i += 4 {
				ok := r.Send(Delivery{Device: "a", Topic: "devices/a/commands/1", Payload: []byte("x"), Done: func(Outcome) {
					mu.Lock()
					defer mu.Unlock()
					told[i]++
				}})
				if ok {
					mu.Lock()
					sent[i] = true
					mu.Unlock()
				}
			}
		})
	}
	for i := range 3 {
		clients.start(func() {
			for range 10 {
				c := r.client(5, fmt.Sprint(i), "token-a", keepSession)
				c.send(subscribePacket(1, "devices/me/commands/+"))
				for range 20 {
					pk, err := c.read()
					if err != nil {
						t.Error(err)
						return
					}
					if pk.FixedHeader.Type == packets.Publish && pk.PacketID%3 != 0 {
						c.send(ackPacket(packets.Puback, pk.PacketID))
					}
				}
				_ = c.nc.Close()
			}
		})
	}
	clients.close()
	if err := clients.wait(t.Context(), "clients"); err != nil {
		t.Fatal(err)
	}
	r.client(5, "last", "token-a").send(subscribePacket(1, "devices/me/commands/+"))
	r.halt()
	senders.close()
	if err := senders.wait(t.Context(), "senders"); err != nil {
		t.Fatal(err)
	}
	if len(sent) < 100 {
		t.Errorf("only %d were sent", len(sent))
	}
	for i := range sent {
		if told[i] != 1 {
			t.Errorf("outcome %d was told %d times", i, told[i])
		}
	}
	if len(told) != len(sent) {
		t.Errorf("%d outcomes of %d", len(told), len(sent))
	}
}

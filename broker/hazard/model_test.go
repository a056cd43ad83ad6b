package hazard

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Bounds of the model, all below the broker's own, so that nothing may be dropped.
const (
	mostOwed  = 60 // messages that one session has not acknowledged
	mostBurst = 8
	mostFalls = 4 // of one client: from the sixth takeover on the broker slows an id down
)

// Topics and filters of the model. No topic matches two of the filters, so that
// every message comes exactly once; overlapping ones have a test of their own.
var (
	modelTopics  = [...]string{"a", "b", "c/1", "c/2", "d", "d/x/y"}
	modelFilters = [...]string{"a", "b", "c/+", "d/#", "r/+"}
)

// note is a message of the model. Its payload is its number.
type note struct {
	n      int
	from   string
	topic  string // below the run's own prefix
	qos    byte
	retain bool
	again  bool // sent again over a new connection: QoS 1 may come twice
}

// world is the reference model of MQTT beside the real clients that it drives.
type world struct {
	t        *rapid.T
	srv      *server
	prefix   string
	notes    []*note
	retained map[string]*note
	peers    []*peer
}

func TestTheBrokerDoesAsTheModel(t *testing.T) {
	s := musterFor(t, spec{})
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		w := &world{t: t, srv: s, prefix: fmt.Sprintf("run-%d/", run), retained: make(map[string]*note)}
		for i, name := range []string{"ann", "ben", "cid", "dot"} {
			w.peers = append(w.peers, &peer{w: w, name: name, version: byte(4 + i%2)})
		}
		defer w.tidy()
		t.Repeat(map[string]func(*rapid.T){
			"connect":               w.connect,
			"leave":                 w.leave,
			"drop":                  w.drop,
			"take over":             w.takeOver,
			"subscribe":             w.subscribe,
			"unsubscribe":           w.unsubscribe,
			"publish":               w.publish,
			"publish again":         w.publishAgain,
			"drop while publishing": w.dropWhilePublishing,
			"drop while holding":    w.dropWhileHolding,
			"publish more":          w.publish, // twice as likely
			"hold acknowledgements": w.hold,
			"release":               w.release,
		})
		for _, p := range w.peers { // whoever is away comes and gets the rest
			w.t = t
			if p.c == nil && p.keep {
				p.connect(true)
			}
			p.held = holdNothing
			p.giveHeld()
		}
		w.settle()
	})
	s.settle(t, 8*megabyte)
}

// tidy ends every session of the run.
func (w *world) tidy() {
	for _, p := range w.peers {
		if p.c != nil {
			p.c.drop()
		}
		c, err := w.srv.connect(p.version, login{id: w.prefix + p.name})
		if err == nil {
			_ = c.send(goodbyeBytes())
			_, err = c.end()
		}
		if err != nil {
			w.t.Errorf("end the session of %s: %v", p.name, err)
		}
	}
	for topic := range w.retained {
		c, err := w.srv.connect(4, login{id: w.prefix + "tidy"})
		if err == nil {
			err = c.send(message{topic: topic, retain: true}.bytes(4), pingBytes())
		}
		if err == nil {
			_, err = c.next(pingresp)
			c.drop()
		}
		if err != nil {
			w.t.Errorf("clear %s: %v", topic, err)
		}
	}
	w.srv.hangUp()
}

// pick draws one of the peers for which ok, or skips the action.
func (w *world) pick(t *rapid.T, what string, ok func(*peer) bool) *peer {
	w.t = t
	var able []*peer
	for _, p := range w.peers {
		if ok(p) {
			able = append(able, p)
		}
	}
	if len(able) == 0 {
		t.Skip("nobody can")
	}
	return rapid.SampledFrom(able).Draw(t, what)
}

func online(p *peer) bool  { return p.c != nil }
func mayFall(p *peer) bool { return p.c != nil && p.falls < mostFalls }
func free(p *peer) bool    { return p.c != nil && len(p.unacked) == 0 && p.held == holdNothing }
func (w *world) roomy() bool {
	return !slices.ContainsFunc(w.peers, func(p *peer) bool { return p.owed() > mostOwed-mostBurst })
}

func (w *world) connect(t *rapid.T) {
	p := w.pick(t, "who", func(p *peer) bool { return p.c == nil })
	p.connect(rapid.Bool().Draw(t, "keep"))
	w.settle()
	if len(p.subs) > 0 || !w.roomy() {
		return
	}
	for range rapid.IntRange(0, 3).Draw(t, "filters") {
		w.subscribePeer(t, p)
	}
}

func (w *world) takeOver(t *rapid.T) {
	p := w.pick(t, "who", mayFall)
	old := p.c
	p.lose()
	p.connect(rapid.Bool().Draw(t, "keep"))
	code, err := old.end()
	if want := map[byte]byte{4: 0, 5: 0x8e}[p.version]; err != nil || code != want {
		t.Fatalf("%s is taken over: DISCONNECT %#x, %v; want %#x", p.name, code, err, want)
	}
	w.settle()
}

func (w *world) leave(t *rapid.T) {
	p := w.pick(t, "who", online)
	if err := p.c.send(goodbyeBytes()); err != nil {
		t.Fatalf("%s leaves: %v", p.name, err)
	}
	if _, err := p.c.end(); err != nil {
		t.Fatalf("%s leaves: %v", p.name, err)
	}
	p.lose()
	p.falls--
}

func (w *world) drop(t *rapid.T) {
	p := w.pick(t, "who", mayFall)
	if rapid.Bool().Draw(t, "reset") {
		p.c.reset()
	} else {
		p.c.drop()
	}
	p.lose()
}

func (w *world) hold(t *rapid.T) {
	p := w.pick(t, "who", func(p *peer) bool { return online(p) && p.held == holdNothing })
	p.held = rapid.SampledFrom([]holding{holdAll, holdLast}).Draw(t, "what")
}

func (w *world) release(t *rapid.T) {
	p := w.pick(t, "who", func(p *peer) bool { return p.held != holdNothing })
	p.held = holdNothing
	p.giveHeld()
	w.settle()
}

func (w *world) subscribe(t *rapid.T) {
	p := w.pick(t, "who", free)
	if !w.roomy() {
		t.Skip("a queue is nearly full")
	}
	w.subscribePeer(t, p)
}

func (w *world) subscribePeer(t *rapid.T, p *peer) {
	filter := rapid.SampledFrom(modelFilters[:]).Draw(t, "filter")
	qos := byte(rapid.IntRange(0, 2).Draw(t, "qos"))
	p.subs[filter] = qos
	for topic, n := range w.retained {
		if matches(filter, topic) {
			p.expect(n, qos, true)
		}
	}
	if err := p.c.send(subscribeBytes(p.version, 60_000, qos, w.prefix+filter)); err != nil {
		t.Fatal(err)
	}
	p.answer = 0
	if code := p.pump(suback); code != qos {
		t.Fatalf("%s subscribes to %s: SUBACK %#x, want %d", p.name, filter, code, qos)
	}
	w.settle()
}

func (w *world) unsubscribe(t *rapid.T) {
	p := w.pick(t, "who", online)
	filter := rapid.SampledFrom(modelFilters[:]).Draw(t, "filter")
	_, had := p.subs[filter]
	delete(p.subs, filter)
	if err := p.c.send(unsubscribeBytes(p.version, 60_001, w.prefix+filter)); err != nil {
		t.Fatal(err)
	}
	want := byte(0)
	if p.version == 5 && !had {
		want = 0x11
	}
	if code := p.pump(unsuback); code != want {
		t.Fatalf("%s unsubscribes from %s: UNSUBACK %#x, want %#x", p.name, filter, code, want)
	}
	w.settle()
}

// draw draws a burst of one publisher.
func (w *world) draw(t *rapid.T, p *peer) []*note {
	var burst []*note
	for range rapid.IntRange(1, mostBurst/2).Draw(t, "burst") {
		n := &note{n: len(w.notes), from: p.name, qos: byte(rapid.IntRange(0, 2).Draw(t, "qos"))}
		n.topic = rapid.SampledFrom(modelTopics[:]).Draw(t, "topic")
		if rapid.IntRange(0, 5).Draw(t, "retain") == 0 {
			n.topic, n.retain = "r/"+p.name, true // one publisher for each, so that the last is known
		}
		w.notes, burst = append(w.notes, n), append(burst, n)
	}
	return burst
}

// due makes all who subscribe expect a note; sure says that it reaches the broker.
func (w *world) due(n *note, sure bool) {
	for _, p := range w.peers {
		for filter, qos := range p.subs {
			if matches(filter, n.topic) {
				p.expect(n, min(qos, n.qos), false).must = sure && (p.c != nil || min(qos, n.qos) > 0)
			}
		}
	}
	if n.retain {
		w.retained[n.topic] = n
	}
}

// publish has one or two clients publish bursts at the same time.
func (w *world) publish(t *rapid.T) {
	w.burst(t, func(p *peer) bool { return true })
	w.settle()
}

func (w *world) burst(t *rapid.T, ok func(*peer) bool) {
	first := w.pick(t, "who", func(p *peer) bool { return online(p) && ok(p) })
	second := w.pick(t, "and who", func(p *peer) bool { return online(p) && ok(p) })
	if !w.roomy() {
		t.Skip("a queue is nearly full")
	}
	pubs := []*peer{first}
	if second != first {
		pubs = append(pubs, second)
	}
	bursts := make([][]byte, len(pubs))
	for i, p := range pubs {
		for _, n := range w.draw(t, p) {
			w.due(n, true)
			bursts[i] = append(bursts[i], p.put(n)...)
		}
	}
	for i, p := range pubs {
		if err := p.c.send(bursts[i]); err != nil {
			t.Fatalf("%s publishes: %v", p.name, err)
		}
	}
}

// publishAgain has a client publish, lose its connection before it sees an answer,
// and send again what was not acknowledged, as MQTT has it.
func (w *world) publishAgain(t *rapid.T) {
	p := w.pick(t, "who", func(p *peer) bool { return mayFall(p) && p.keep })
	if !w.roomy() {
		t.Skip("a queue is nearly full")
	}
	var burst []byte
	for _, n := range w.draw(t, p) {
		n.again, n.retain = true, false // which one would be retained in the end is not known
		w.due(n, n.qos > 0)
		burst = append(burst, p.put(n)...)
	}
	if err := p.c.send(burst); err != nil {
		t.Fatalf("%s publishes: %v", p.name, err)
	}
	if rapid.Bool().Draw(t, "reset") {
		p.c.reset() // and what the broker has not read yet is gone
	} else {
		p.c.drop()
	}
	out := p.out
	p.lose()
	p.out = out
	p.connect(true)
	p.resend()
	w.settle()
}

// dropWhilePublishing cuts a subscriber off while others publish.
func (w *world) dropWhilePublishing(t *rapid.T) {
	p := w.pick(t, "whom", mayFall)
	w.burst(t, func(q *peer) bool { return q != p })
	p.c.reset()
	p.lose()
	w.settle()
}

// dropWhileHolding cuts a client off that has not acknowledged what it has got: it
// must get the same again when it is back.
func (w *world) dropWhileHolding(t *rapid.T) {
	p := w.pick(t, "whom", func(p *peer) bool { return mayFall(p) && p.keep && len(p.subs) > 0 && p.held == holdNothing })
	p.held = rapid.SampledFrom([]holding{holdAll, holdLast}).Draw(t, "what")
	w.burst(t, func(*peer) bool { return true })
	w.settle()
	p.c.drop()
	p.lose()
}

// settle waits until everything has been acknowledged and has come, and checks
// that nothing else comes.
func (w *world) settle() {
	for _, p := range w.peers {
		if p.c != nil {
			p.pump(0)
		}
	}
	for _, p := range w.peers { // a QoS 2 message may go on with its PUBREL only
		if p.c != nil {
			p.pump(0)
			if err := p.c.send(pingBytes()); err != nil {
				w.t.Fatalf("%s: %v", p.name, err)
			}
			p.pump(pingresp)
		}
	}
}

// matches says whether one of the model's own filters matches topic.
func matches(filter, topic string) bool {
	if base, ok := strings.CutSuffix(filter, "/#"); ok {
		return topic == base || strings.HasPrefix(topic, base+"/")
	}
	if base, ok := strings.CutSuffix(filter, "+"); ok {
		rest, ok := strings.CutPrefix(topic, base)
		return ok && !strings.Contains(rest, "/")
	}
	return filter == topic
}

var errNumber = errors.New("the payload is no number of the model")

// find returns the note that a packet carries.
func (w *world) find(p packet) (*note, error) {
	i, err := strconv.Atoi(string(p.payload))
	if err != nil || i < 0 || i >= len(w.notes) {
		return nil, fmt.Errorf("%w: %q", errNumber, p.payload)
	}
	if n := w.notes[i]; w.prefix+n.topic == p.topic {
		return n, nil
	}
	return nil, fmt.Errorf("%w: topic %q, want %q", errNumber, p.topic, w.notes[i].topic)
}

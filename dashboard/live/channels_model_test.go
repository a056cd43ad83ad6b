package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/dashboard/live"
)

// takePolled applies a frame of system, tasks or a task, and says whether it was one.
func (m *page) takePolled(ch string, f, set map[string]any, del []any) bool {
	id, isTask := strings.CutPrefix(ch, "task:")
	item, _ := f["item"].(map[string]any)
	switch {
	case ch == "system" && f["t"] == "snapshot":
		m.system = item
	case ch == "system":
		maps.Copy(m.system, set)
	case ch == "tasks" && f["t"] == "snapshot":
		m.tasks = map[string]any{}
		for _, it := range f["items"].([]any) {
			m.tasks[it.(map[string]any)["id"].(string)] = it
		}
	case ch == "tasks":
		maps.Copy(m.tasks, set)
		for _, id := range del {
			delete(m.tasks, id.(string))
		}
	case isTask && f["t"] == "snapshot":
		m.task[id] = item
	case isTask && len(del) > 0:
		m.task[id] = nil
	case isTask:
		m.task[id] = set
	default:
		return false
	}
	return true
}

// takeEvent applies a frame of the events channel.
func (m *page) takeEvent(f map[string]any) {
	switch f["t"] {
	case "snapshot", "place", "reset":
		m.place = fmt.Sprint(f["epoch"], "-", f["seq"])
	case "event":
		ev := f["ev"].(map[string]any)
		m.events = append(m.events, fmt.Sprint(f["seq"], " ", ev["type"], " ", ev["data"].(map[string]any)["device"]))
		m.place = fmt.Sprint("E-", f["seq"])
	default:
		m.p.t.Fatalf("got %v", f)
	}
}

// differsPolled compares what of the model is of system, tasks and a task with the world.
func (m *page) differsPolled(s *said, channels ...string) string {
	for _, ch := range channels {
		d := ""
		switch id, isTask := strings.CutPrefix(ch, "task:"); {
		case ch == "system":
			d = cmp.Diff(s.wantSystem(m.user), m.system)
		case ch == "tasks":
			d = cmp.Diff(s.wantTasks(m.user, 2), m.tasks)
		case isTask:
			var want map[string]any
			if b, err := s.Task(live.Principal{Owner: m.user, Admin: m.user == "root"}, id); err == nil {
				want = plain(json.RawMessage(b))
			}
			d = cmp.Diff(want, m.task[id])
		}
		if d != "" {
			return ch + ": " + d
		}
	}
	return ""
}

// streamed is a stream of a channel, whose frames are gathered.
type streamed struct {
	st     *live.Stream
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	frames []map[string]any
}

func (s *site) stream(t tester, who live.Principal, ask live.Ask) *streamed {
	t.Helper()
	out := &streamed{done: make(chan struct{})}
	var err error
	out.st, err = s.g.Attach(who, ask, out.write)
	if err != nil {
		t.Fatalf("attach to %s: %v", ask.Channel, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out.cancel = cancel
	go func() {
		defer close(out.done)
		out.st.Run(ctx)
		out.st.Close()
	}()
	return out
}

func (o *streamed) write(events []byte, frames int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if frames == 0 {
		if string(events) != ":\n\n" {
			panic("a sign of life is " + string(events))
		}
		return nil
	}
	blocks := strings.Split(strings.TrimSuffix(string(events), "\n\n"), "\n\n")
	if len(blocks) != frames {
		panic(fmt.Sprintf("%d events are said to be %d", len(blocks), frames))
	}
	for _, b := range blocks {
		id, named := strings.CutPrefix(b, "id: ")
		if named {
			id, b, _ = strings.Cut(id, "\n")
		}
		data, ok := strings.CutPrefix(b, "data: ")
		f := map[string]any{}
		if err := json.Unmarshal([]byte(data), &f); err != nil || !ok || strings.ContainsAny(data, "\r\n") {
			panic("an event is " + b)
		}
		if named {
			f["id"] = id
		}
		o.frames = append(o.frames, f)
	}
	return nil
}

func (o *streamed) take() []map[string]any {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.frames
	o.frames = nil
	return out
}

func (o *streamed) end() {
	o.cancel()
	<-o.done
}

// both is a socket and streams that show the same channels to the same user.
type both struct {
	s       *site
	user    string
	socket  *page
	stream  *page
	streams map[string]*streamed
}

var bothChannels = []string{"fleet", "devices", "device:dev-001", "system", "tasks", "task:t1"}

func newBoth(s *site, user string) *both {
	b := &both{s: s, user: user, streams: map[string]*streamed{}}
	b.socket, b.stream = newPage(s.browser(user)), newPage(&peer{t: s.t, s: s})
	b.socket.user, b.stream.user = user, user
	for i, ch := range bothChannels {
		b.socket.subs[ch], b.stream.subs[ch] = ch, ch
		cmd := fmt.Sprintf(`{"t":"sub","id":%d,"ch":%q`, 10+i, ch)
		if ch == "tasks" {
			cmd += `,"limit":2`
		}
		b.socket.p.send(cmd + "}")
		b.open(ch)
	}
	for _, f := range b.socket.p.sync() { // a task that changes hands before it is looked at is refused
		b.socket.take(f)
	}
	return b
}

func (b *both) open(ch string) {
	ask := live.Ask{Channel: ch}
	if ch == "tasks" {
		ask.Limit = 2
	}
	b.stream.seq[ch] = 0
	b.streams[ch] = b.s.stream(b.s.t, live.Principal{ID: "s-" + b.user, Name: b.user, Owner: b.user, Admin: b.user == "root"}, ask)
}

// drain applies what has come and says how the models differ from the server.
func (b *both) drain() string {
	for _, f := range b.socket.p.sync() {
		b.socket.take(f)
	}
	for _, st := range b.streams {
		for _, f := range st.take() {
			b.stream.take(f)
		}
	}
	for name, m := range map[string]*page{"socket": b.socket, "stream": b.stream} {
		if d := m.differs(b.s.w) + m.differsPolled(b.s.w.said, bothChannels...); d != "" {
			return name + " of " + b.user + ": " + d
		}
	}
	if d := cmp.Diff(b.socket.order, b.stream.order); d != "" {
		return "order: " + d
	}
	return ""
}

func (b *both) end() {
	for _, st := range b.streams {
		st.end()
	}
	_ = b.socket.p.conn.Close()
}

func (b *both) settle(t *rapid.T) {
	why := ""
	for until := time.Now().Add(waitLong); time.Now().Before(until); runtime.Gosched() {
		b.s.tick(6)
		if why = b.drain(); why == "" {
			return
		}
	}
	t.Fatalf("after settling: %s", why)
}

func TestAStreamsModelEqualsASocketsModelEqualsTheServer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(3)
		w.said.work("t1", "anna")
		s := newSite(t, w, live.Config{CommandBurst: 1 << 20})
		defer s.close()
		l := &life{s: s}
		watch := []*both{newBoth(s, "anna"), newBoth(s, "root")}
		defer func() {
			for _, b := range watch {
				b.end()
			}
		}()
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"say", "presence", "count", "work", "drop", "tick", "again", "settle"}).Draw(t, "step") {
			case "say":
				l.say(t)
			case "presence":
				l.presence(t)
			case "count":
				w.said.count(rapid.SampledFrom([]string{"a", "b", "secret"}).Draw(t, "member"))
			case "work":
				w.said.work(rapid.SampledFrom([]string{"t1", "t2", "t3"}).Draw(t, "task"), rapid.SampledFrom([]string{"anna", "bert"}).Draw(t, "owner"))
			case "drop": // not t1, without which a stream that comes again is refused
				w.said.drop(rapid.SampledFrom([]string{"t2", "t3"}).Draw(t, "task"))
			case "tick":
				s.tick(rapid.IntRange(1, 6).Draw(t, "ticks"))
			case "again":
				b := watch[rapid.IntRange(0, 1).Draw(t, "user")]
				ch := rapid.SampledFrom([]string{"devices", "system", "tasks"}).Draw(t, "channel")
				b.streams[ch].end()
				b.drain()
				b.open(ch)
				b.socket.p.send(fmt.Sprintf(`{"t":"sub","ch":%q,"limit":%d}`, ch, map[string]int{"devices": 50, "system": 50, "tasks": 2}[ch]))
			case "settle":
				watch[0].settle(t)
			}
		}
		for _, b := range watch {
			b.settle(t)
		}
	})
}

func TestTheCountersAreReadOnlyWhileSomebodyWatches(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("anna")
	if n := s.w.said.watched(); n != 0 {
		t.Fatalf("%d watch", n)
	}
	p.send(`{"t":"sub","id":2,"ch":"system"}`)
	p.expect("snapshot")
	st := s.stream(t, live.Principal{ID: "x"}, live.Ask{Channel: "system"})
	if n := s.w.said.watched(); n != 2 {
		t.Errorf("%d watch", n)
	}
	p.send(`{"t":"vis","on":false}`)
	p.sync()
	st.end()
	if n := s.w.said.watched(); n != 0 {
		t.Errorf("%d watch a hidden tab and a stream that ended", n)
	}
}

func TestEventsAreToldOnceAndInOrderOverAnyReconnect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSite(t, newWorld(1), live.Config{CommandBurst: 1 << 20})
		defer s.close()
		begin := func(place string) *page {
			m := newPage(s.browser("anna"))
			m.p.send(fmt.Sprintf(`{"t":"sub","id":2,"ch":"events","after":%q}`, place))
			return m
		}
		m := begin("E-0")
		defer func() { _ = m.p.conn.Close() }()
		total := 0
		for range rapid.IntRange(1, 15).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				n := rapid.SampledFrom([]int{1, 3, 600}).Draw(t, "events")
				for range n {
					s.w.said.happen("device.updated", "dev-000")
				}
				total += n
			case 1:
				s.tick(1)
			case 2: // what is on its way is lost with the socket
				for _, f := range m.p.sync() {
					m.take(f)
				}
				had := m.events
				_ = m.p.conn.Close()
				place := m.place
				if place == "" {
					place = "E-0"
				}
				m = begin(place)
				m.events = had
			case 3: // a hidden tab is told nothing, and goes on where it was
				m.p.send(`{"t":"vis","on":false}`)
				s.w.said.happen("device.created", "dev-000")
				total++
				s.tick(2)
				m.p.send(`{"t":"vis","on":true}`)
			}
		}
		for until := time.Now().Add(waitLong); len(m.events) < total && time.Now().Before(until); {
			s.tick(1)
			for _, f := range m.p.sync() {
				m.take(f)
			}
		}
		if d := cmp.Diff(s.w.said.wantEvents(0), m.events); d != "" {
			t.Fatal(d)
		}
	})
}

func TestEventsAreFilteredAndAPlaceThatIsForgottenIsSaid(t *testing.T) {
	w := newWorld(2)
	w.note("dev-001", "outside")
	s := open(t, w, live.Config{CommandBurst: 1000})
	for range 3 {
		for _, id := range []muster.DeviceID{"dev-000", "dev-001", ""} {
			w.said.happen("device.updated", id)
			w.said.happen("command.sent", id)
		}
	}
	ask := func(p *peer, more string, want int) {
		t.Helper()
		p.send(`{"t":"sub","id":2,"ch":"events","after":"E-0"` + more + `}`)
		n, at := 0, 0.0
		for n < want {
			for _, f := range p.news() {
				if f["t"] == "event" {
					n++
					if seq := f["seq"].(float64); seq <= at {
						t.Errorf("%v after %v", seq, at)
					} else {
						at = seq
					}
				}
			}
		}
		s.tick(2)
		if more := p.sync(); n != want || len(more) > 0 {
			t.Errorf("%s: %d events, then %v; want %d", more, n, more, want)
		}
	}
	all := s.browser("anna")
	ask(all, "", 18)
	ask(all, `,"types":"command.*"`, 9)
	ask(all, `,"types":"command.sent,device.created","q":"dev-001"`, 3)
	ask(s.script("mst_within"), "", 6)
	for _, place := range []string{"OTHER-3", "E-99"} {
		all.send(fmt.Sprintf(`{"t":"sub","id":3,"ch":"events","after":%q}`, place))
		if f := all.expect("snapshot"); f["epoch"] != "E" || f["seq"] != 18.0 {
			t.Errorf("%v", f)
		}
		if f := all.expect("reset"); f["reason"] == "" || f["seq"] != 18.0 {
			t.Errorf("%v", f)
		}
	}
	for _, bad := range []string{`"after":"x"`, `"types":"nothing"`, `"q":"(("`, `"types":"` + strings.Repeat("a", 1025) + `"`} {
		all.send(`{"t":"sub","id":4,"ch":"events",` + bad + `}`)
		if f := all.expect("error"); f["code"] != "invalid" || f["re"] != 4.0 {
			t.Errorf("%.40s: %v", bad, f)
		}
	}
}

func TestWhoIsBoundToSomeDevicesHasNoCountersAndNoTasks(t *testing.T) {
	w := newWorld(1)
	w.said.work("t1", "anna")
	s := open(t, w, live.Config{})
	p := s.script("mst_within")
	for i, ch := range []string{"system", "tasks", "task:t1"} {
		p.send(fmt.Sprintf(`{"t":"sub","id":%d,"ch":%q}`, i, ch))
		if f := p.expect("error"); f["code"] != "forbidden" {
			t.Errorf("%s: %v", ch, f)
		}
		if _, err := s.g.Attach(live.Principal{ID: "k", Only: "x"}, live.Ask{Channel: ch}, nil); muster.KindOf(err) != muster.Forbidden {
			t.Errorf("a stream of %s: %v", ch, err)
		}
	}
	other := s.browser("bert")
	for i, ch := range []string{"task:t1", "task:", "task:" + strings.Repeat("x", 65), "tasks2"} {
		other.send(fmt.Sprintf(`{"t":"sub","id":%d,"ch":%q}`, i, ch))
		want := map[bool]string{true: "not_found", false: "unknown_channel"}[i == 0]
		if f := other.expect("error"); f["code"] != want {
			t.Errorf("%s: %v", ch, f)
		}
	}
}

func TestAStreamEndsWithItsRightsAndWhenTheGatewayStops(t *testing.T) {
	w := newWorld(1)
	s := newSite(t, w, live.Config{})
	st := s.stream(t, live.Principal{ID: "k-1"}, live.Ask{Channel: "fleet"})
	other := s.stream(t, live.Principal{ID: "k-2"}, live.Ask{Channel: "fleet"})
	s.g.Revoke("k-1")
	<-st.done
	frames := st.take()
	if last := frames[len(frames)-1]; last["t"] != "bye" || last["code"] != 4009.0 {
		t.Errorf("it ends with %v", last)
	}
	if n := s.g.Stats().Streams; n != 1 {
		t.Errorf("%d streams", n)
	}
	s.close()
	<-other.done
	if _, err := s.g.Attach(live.Principal{ID: "k"}, live.Ask{Channel: "fleet"}, other.write); muster.KindOf(err) != muster.Unavailable {
		t.Errorf("after the stop: %v", err)
	}
}

func TestAStreamIsNotWrittenToBeforeItRuns(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	var running, early, wrote atomic.Bool
	st, err := s.g.Attach(live.Principal{ID: "k"}, live.Ask{Channel: "fleet"}, func(events []byte, _ int) error {
		early.CompareAndSwap(false, !running.Load())
		wrote.CompareAndSwap(false, strings.Contains(string(events), `"bye"`))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.g.Revoke("k")
	for range 1000 { // whoever writes that has his turns
		runtime.Gosched()
	}
	running.Store(true)
	st.Run(t.Context())
	st.Close()
	if early.Load() || !wrote.Load() {
		t.Errorf("written to before it ran: %v; told why it ends: %v", early.Load(), wrote.Load())
	}
}

package live_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/dashboard/live"
)

// page is a browser's model: what it was told, put together as the contract says.
type page struct {
	p      *peer
	seq    map[string]float64
	fleet  map[string]any
	order  []string // rows in view, in order
	rows   map[string]map[string]any
	device map[string]map[string]any // nil while removed
	subs   map[string]string         // channel to the command that asks for it
	hidden bool
	gone   map[string]bool // devices removed since the view was asked for

	user   string
	system map[string]any
	tasks  map[string]any
	task   map[string]map[string]any // nil while removed
	events []string
	place  string // in the feed
	dots   *picture
}

func newPage(p *peer) *page {
	return &page{
		p: p, seq: map[string]float64{}, rows: map[string]map[string]any{},
		device: map[string]map[string]any{}, subs: map[string]string{}, gone: map[string]bool{}, task: map[string]map[string]any{},
	}
}

func merge(into, set map[string]any) {
	for k, v := range set {
		if old, ok := into[k].(map[string]any); ok && k == "values" {
			maps.Copy(old, v.(map[string]any))
			continue
		}
		into[k] = v
	}
}

// take applies one frame; whatever breaks the contract is fatal.
func (m *page) take(f map[string]any) {
	ch, _ := f["ch"].(string)
	if ch == "events" {
		m.takeEvent(f)
		return
	}
	if f["t"] == "binary" { // it may follow what it was sent with into the time after
		m.takeDots(f["data"].([]byte))
		return
	}
	switch f["t"] {
	case "snapshot", "delta":
		seq := f["seq"].(float64)
		if f["t"] == "delta" && seq != m.seq[ch]+1 {
			m.p.t.Fatalf("%s: seq %v after %v", ch, seq, m.seq[ch])
		}
		m.seq[ch] = seq
		if m.hidden {
			m.p.t.Fatalf("a hidden tab got %v", f)
		}
	case "error":
		code := f["code"]
		if code != "superseded" && code != "not_found" && code != "busy" {
			m.p.t.Fatalf("got %v", f)
		}
		if code != "superseded" {
			delete(m.subs, ch)
			delete(m.device, strings.TrimPrefix(ch, "device:"))
			delete(m.task, strings.TrimPrefix(ch, "task:"))
		}
		return
	default:
		return
	}
	set, _ := f["set"].(map[string]any)
	del, _ := f["del"].([]any)
	switch {
	case ch == "fleet":
		m.fleet = set
		if f["t"] == "snapshot" {
			m.fleet = f["item"].(map[string]any)
		}
	case ch == "dots":
		m.dots = pictureOf(f)
	case m.takePolled(ch, f, set, del):
	case ch == "devices" && f["t"] == "snapshot":
		m.order, m.rows = nil, map[string]map[string]any{}
		for _, it := range f["items"].([]any) {
			row := it.(map[string]any)
			m.order = append(m.order, row["id"].(string))
			m.rows[row["id"].(string)] = row
		}
	case ch == "devices":
		for id, patch := range set {
			if m.rows[id] == nil {
				m.p.t.Fatalf("a row came by itself: %v", f)
			}
			merge(m.rows[id], patch.(map[string]any))
		}
		for _, id := range del {
			delete(m.rows, id.(string))
		}
	default:
		id := strings.TrimPrefix(ch, "device:")
		if f["t"] == "snapshot" {
			m.device[id], _ = f["item"].(map[string]any)
			return
		}
		if len(del) > 0 {
			m.device[id] = nil
			return
		}
		merge(m.device[id], set)
	}
}

// differs compares the model with the world; empty when they agree.
func (m *page) differs(w *world) string {
	if m.subs["fleet"] != "" {
		if d := cmp.Diff(w.wantFleet(), m.fleet); d != "" {
			return "fleet: " + d
		}
	}
	exists := map[string]bool{}
	for _, id := range w.ids() {
		exists[string(id)] = true
	}
	if m.subs["devices"] != "" {
		for _, id := range m.order {
			row, ok := m.rows[id]
			switch {
			case !ok && exists[id] && !m.gone[id]:
				return "row " + id + " went away"
			case ok && !exists[id]:
				return "row " + id + " stayed"
			case ok:
				if d := cmp.Diff(w.wantRow(muster.DeviceID(id)), row); d != "" {
					return "row: " + d
				}
			}
		}
	}
	if m.subs["dots"] != "" {
		if d := m.dots.differs(w); d != "" {
			return "dots: " + d
		}
	}
	for ch := range m.subs {
		if id, ok := strings.CutPrefix(ch, "device:"); ok {
			if d := cmp.Diff(w.wantPage(muster.DeviceID(id)), m.device[id]); d != "" {
				return ch + ": " + d
			}
		}
	}
	return ""
}

// life drives one world and two pages at random.
type life struct {
	s     *site
	pages []*page
	next  int
}

func (l *life) id(t *rapid.T) muster.DeviceID {
	return deviceName(rapid.IntRange(0, 3).Draw(t, "device"))
}

func (l *life) page(t *rapid.T) *page { return l.pages[rapid.IntRange(0, 1).Draw(t, "page")] }

func (l *life) say(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
	v := muster.Value{Key: muster.Key{Name: key, Kind: muster.Number}, Num: float64(rapid.IntRange(0, 3).Draw(t, "value"))}
	switch key {
	case "c":
		v.Key.Kind, v.Num = muster.Bool, float64(rapid.IntRange(0, 1).Draw(t, "flag"))
	case "d":
		v.Key.Kind, v.Text = muster.JSON, rapid.SampledFrom([]string{`"x"`, `[1]`, `{"y":null}`}).Draw(t, "text")
	}
	for range rapid.IntRange(1, 4).Draw(t, "times") {
		l.s.observe(l.id(t), v)
	}
}

func (l *life) presence(t *rapid.T) {
	id := l.id(t)
	l.s.w.setState(id, rapid.SampledFrom([]muster.PresenceState{"online", "offline", "quiet", "updating"}).Draw(t, "state"))
	l.s.g.DevicesChanged([]muster.DeviceID{id})
}

func (l *life) registry(t *rapid.T) {
	id := l.id(t)
	if _, ok := l.s.w.State(id); ok {
		l.s.w.remove(id)
		for _, m := range l.pages {
			m.gone[string(id)] = true
		}
	}
	if rapid.Bool().Draw(t, "again") {
		l.s.w.add(id)
	}
	l.s.g.DevicesChanged([]muster.DeviceID{id})
}

func (l *life) subscribe(t *rapid.T) {
	m := l.page(t)
	ch := rapid.SampledFrom([]string{"fleet", "devices", "devices", "dots", "device:" + string(l.id(t))}).Draw(t, "channel")
	l.next++
	cmd := fmt.Sprintf(`{"t":"sub","id":%d,"ch":%q`, l.next, ch)
	if ch == "devices" {
		cmd += fmt.Sprintf(`,"q":%q,"sort":%q,"limit":%d`,
			rapid.SampledFrom([]string{"", "state:online", "state:offline"}).Draw(t, "q"),
			rapid.SampledFrom([]string{"id", "-seen"}).Draw(t, "sort"), rapid.IntRange(1, 4).Draw(t, "limit"))
		m.gone = map[string]bool{}
	}
	if ch == "dots" {
		cmd += fmt.Sprintf(`,"by":%q`, rapid.SampledFrom([]string{"group", "firmware", "last_seen"}).Draw(t, "by"))
	}
	m.subs[ch] = cmd + "}"
	m.p.send(m.subs[ch])
}

func (l *life) unsubscribe(t *rapid.T) {
	m := l.page(t)
	for ch := range m.subs {
		delete(m.subs, ch)
		m.p.send(fmt.Sprintf(`{"t":"unsub","ch":%q}`, ch))
		return
	}
}

func (l *life) visible(t *rapid.T) {
	m := l.page(t)
	hide := !m.hidden
	m.p.send(fmt.Sprintf(`{"t":"vis","on":%v}`, !hide))
	m.gone = map[string]bool{}
	l.drain(m)
	m.hidden = hide
}

// drain brings the model up to what the server has sent. A page that is about to
// be shown may be told while it drains.
func (l *life) drain(m *page) {
	was := m.hidden
	m.hidden = false
	for _, f := range m.p.sync() {
		m.take(f)
	}
	m.hidden = was
}

func (l *life) reconnect(t *rapid.T) {
	at := rapid.IntRange(0, 1).Draw(t, "page")
	_ = l.pages[at].p.conn.NetConn().Close()
	m := newPage(l.s.browser(fmt.Sprint("user", at)))
	m.subs = l.pages[at].subs
	l.pages[at] = m
	for _, cmd := range m.subs {
		m.p.send(cmd)
	}
}

func (l *life) settle(t *rapid.T) {
	for _, m := range l.pages {
		m.p.send(`{"t":"vis","on":true}`)
		m.hidden = false
	}
	why := ""
	for range 100 {
		l.s.tick(6)
		why = ""
		for _, m := range l.pages {
			for _, f := range m.p.sync() {
				m.take(f)
			}
			why += m.differs(l.s.w)
		}
		if why == "" {
			return
		}
	}
	t.Fatalf("after settling the page differs from the server: %s", why)
}

func TestAPageEqualsTheServerAfterAnySequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSite(t, newWorld(4), live.Config{CommandBurst: 1 << 20})
		defer s.close()
		l := &life{s: s}
		for i := range 2 {
			l.pages = append(l.pages, newPage(s.browser(fmt.Sprint("user", i))))
		}
		defer func() {
			for _, m := range l.pages {
				_ = m.p.conn.Close()
			}
		}()
		t.Repeat(map[string]func(*rapid.T){
			"say": l.say, "say more": l.say, "presence": l.presence, "registry": l.registry,
			"subscribe": l.subscribe, "subscribe more": l.subscribe, "unsubscribe": l.unsubscribe,
			"hide or show": l.visible, "reconnect": l.reconnect, "settle": l.settle,
			"tick": func(t *rapid.T) { s.tick(rapid.IntRange(1, 6).Draw(t, "ticks")) },
			"read": func(t *rapid.T) {
				m := l.page(t)
				for _, f := range m.p.sync() {
					m.take(f)
				}
			},
		})
		l.settle(t)
	})
}

package live_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/dashboard/live"
	"muster/devices"
)

// live.Dots. A section has the devices of one version, in order of id.

func (w *world) Shape() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.shape
}

func (w *world) Arrange(by devices.Arranging, only string) (*devices.Arrangement, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := &devices.Arrangement{}
	for id := range w.devices {
		if only == "" || w.isWithin(id) {
			a.IDs = append(a.IDs, id)
		}
	}
	if by == devices.ByMap {
		a.Cell, a.Places = 5, w.places
	}
	version := func(id muster.DeviceID) string {
		if by == devices.ByFirmware {
			return w.devices[id].Firmware
		}
		return ""
	}
	slices.SortFunc(a.IDs, func(x, y muster.DeviceID) int { return cmp.Or(cmp.Compare(version(x), version(y)), cmp.Compare(x, y)) })
	for at, id := range a.IDs {
		a.Parents = append(a.Parents, w.devices[id].Parent)
		if n := len(a.Sections); n == 0 || a.Sections[n-1].Name != version(id) {
			a.Sections = append(a.Sections, devices.Section{Name: version(id), First: at, Query: "fw=" + version(id)})
		}
		a.Sections[len(a.Sections)-1].Count++
	}
	return a, nil
}

func (w *world) Statuses(a *devices.Arrangement, at []uint32, into []muster.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range into {
		place := i
		if at != nil {
			place = int(at[i])
		}
		into[i] = w.devices[a.IDs[place]].Status // empty when it is gone
	}
}

// flash gives a device a version.
func (w *world) flash(id muster.DeviceID, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.devices[id]
	d.Firmware = version
	w.devices[id] = d
	w.shape++
}

// picture is a browser's model of the dots.
type picture struct {
	version  uint32
	total    int
	by       string
	words    []string
	sections []any
	states   []byte // nil before the first frame
	frames   int
}

func pictureOf(f map[string]any) *picture {
	p := &picture{version: uint32(f["version"].(float64)), total: int(f["total"].(float64)), by: f["by"].(string), sections: f["sections"].([]any)}
	for _, s := range f["states"].([]any) {
		p.words = append(p.words, s.(string))
	}
	return p
}

// takeDots applies a binary frame. One of a layout before the last snapshot may still come
// when the channel was asked for anew.
func (m *page) takeDots(b []byte) {
	p := m.dots
	if p == nil || binary.LittleEndian.Uint32(b[4:8]) != p.version {
		return
	}
	p.frames++
	switch b[0] {
	case 1:
		if len(b) != 8+p.total {
			m.p.t.Fatalf("%d bytes for %d dots", len(b), p.total)
		}
		p.states = slices.Clone(b[8:])
	case 2:
		if p.states == nil {
			m.p.t.Fatalf("changes of nothing")
		}
		for b = b[8:]; len(b) > 0; b = b[4:] {
			v := binary.LittleEndian.Uint32(b)
			p.states[v>>8] = byte(v)
		}
	default:
		m.p.t.Fatalf("a frame begins with %d", b[0])
	}
}

// differs compares the dots with the world.
func (p *picture) differs(w *world) string {
	if p == nil {
		return "there are none"
	}
	a, _ := w.Arrange(devices.Arranging(p.by), "")
	want, got := make([]muster.Status, len(a.IDs)), make([]muster.Status, 0, len(p.states))
	w.Statuses(a, nil, want)
	for _, code := range p.states {
		if int(code) >= len(p.words) {
			got = append(got, "")
			continue
		}
		got = append(got, muster.Status(p.words[code]))
	}
	if len(want) == 0 && p.total == 0 {
		return ""
	}
	sections := make([]any, 0, len(a.Sections))
	for _, s := range a.Sections {
		sections = append(sections, map[string]any{"name": s.Name, "first": float64(s.First), "count": float64(s.Count), "q": s.Query})
	}
	return gocmp.Diff(want, got) + gocmp.Diff(sections, p.sections)
}

// showDots subscribes and reads until the first states have come.
func showDots(p *peer, by string) *page {
	p.t.Helper()
	m := newPage(p)
	p.send(fmt.Sprintf(`{"t":"sub","id":2,"ch":"dots","by":%q}`, by))
	for m.dots == nil || m.dots.states == nil {
		m.take(p.next())
	}
	return m
}

// until ticks until the picture of m is as ok wants it.
func (m *page) until(what string, ok func(*picture) bool) {
	m.p.t.Helper()
	for end := time.Now().Add(waitLong); !ok(m.dots); runtime.Gosched() {
		if time.Now().After(end) {
			m.p.t.Fatalf("the dots do not show %s: %+v", what, m.dots)
		}
		m.p.s.tick(1)
		for _, f := range m.p.sync() {
			m.take(f)
		}
	}
}

func TestDotsShowEachDevicesStateAndChangesAreFourBytes(t *testing.T) {
	w := newWorld(40)
	s := open(t, w, live.Config{})
	m := showDots(s.browser("ann"), "group")
	if d := m.dots.differs(w); d != "" || m.dots.total != 40 || m.dots.frames != 1 {
		t.Fatalf("%s after %d frames", d, m.dots.frames)
	}
	for _, state := range []muster.PresenceState{"online", "quiet", "offline"} { // the last wins
		w.setState("dev-007", state)
		s.g.DevicesChanged([]muster.DeviceID{"dev-007"})
	}
	s.tick(1)
	_, b, err := m.p.conn.ReadMessage()
	if err != nil || len(b) != 12 || binary.LittleEndian.Uint32(b[8:]) != 7<<8|3 {
		t.Fatalf("a change comes as %v, %v", b, err)
	}
	for i := range 20 { // of many changes all states are shorter
		w.setState(deviceName(i), muster.PresenceOnline)
		s.g.DevicesChanged([]muster.DeviceID{deviceName(i)})
	}
	s.tick(1)
	if _, b, err = m.p.conn.ReadMessage(); err != nil || b[0] != 1 || len(b) != 48 {
		t.Fatalf("20 changes come as %v, %v", b, err)
	}
}

func TestTheMapsPlacesComeWithTheLayoutAndAgainWhenTheyMove(t *testing.T) {
	w := newWorld(5)
	w.places = []devices.Place{{Lat: -3385, Lon: 15120, First: 0, Count: 3}, {Lat: 5990, Lon: 1075, First: 3, Count: 2}}
	s := open(t, w, live.Config{CommandBurst: 1 << 20})
	p := s.browser("ann")
	places := func(f map[string]any) string {
		m := newPage(p)
		m.take(f)
		for m.dots.states == nil {
			m.take(p.next())
		}
		return fmt.Sprint(f["cell"], f["places"])
	}
	p.send(`{"t":"sub","id":2,"ch":"dots","by":"map"}`)
	if got := places(p.next()); got != "5 [-3385 15120 3 5990 1075 2]" {
		t.Errorf("the places came as %s", got)
	}
	w.mu.Lock()
	w.places = []devices.Place{{Lat: 5990, Lon: 1075, First: 0, Count: 5}} // the same order of devices
	w.shape++
	w.mu.Unlock()
	for end := time.Now().Add(waitLong); ; runtime.Gosched() {
		s.tick(1)
		if frames := p.sync(); len(frames) > 0 {
			if got := fmt.Sprint(frames[0]["cell"], frames[0]["places"]); got != "5 [5990 1075 5]" {
				t.Errorf("they moved to %s", got)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("nothing was told of it")
		}
	}
}

func TestANewLayoutComesWhenDevicesDoAndNotWhenTheyDoNot(t *testing.T) {
	w := newWorld(5)
	s := open(t, w, live.Config{CommandBurst: 1 << 20})
	m := showDots(s.browser("ann"), "firmware")
	first := m.dots.version
	w.remove("dev-002")
	s.g.DevicesChanged([]muster.DeviceID{"dev-002"})
	s.tick(1)
	if _, b, err := m.p.conn.ReadMessage(); err != nil || binary.LittleEndian.Uint32(b[8:]) != 2<<8|255 {
		t.Fatalf("a removed device comes as %v, %v", b, err)
	}
	m.until("four devices", func(p *picture) bool { return p.total == 4 && p.states != nil })
	w.flash("dev-003", "2.0")
	m.until("two versions", func(p *picture) bool { return len(p.sections) == 2 && p.states != nil })
	if d := m.dots.differs(w); d != "" || m.dots.version == first {
		t.Errorf("version %d: %s", m.dots.version, d)
	}
	version := m.dots.version
	w.note("dev-001", "nothing that is shown")
	shape := w.Shape()
	s.tick(60)
	for _, f := range m.p.sync() {
		m.take(f)
	}
	if m.dots.version != version || w.Shape() != shape {
		t.Errorf("the same devices are a new layout, %d", m.dots.version)
	}
}

func TestDotsAreNamedByTheirPlaceAndRunsByAQuery(t *testing.T) {
	w := newWorld(5)
	s := open(t, w, live.Config{})
	p := s.browser("ann")
	p.send(`{"t":"dots","id":3,"version":1,"from":0,"to":0}`)
	if f := p.expect("error"); f["code"] != "conflict" {
		t.Errorf("before the channel is open: %v", f)
	}
	m := showDots(p, "group")
	p.send(fmt.Sprintf(`{"t":"dots","id":4,"version":%d,"from":1,"to":2}`, m.dots.version))
	f := p.expect("ok")
	if fmt.Sprint(f["ids"]) != "[dev-001 dev-002]" || f["re"] != 4.0 || f["gateway"] != "" || f["q"] != `fw= parent="" id>="dev-001" id<="dev-002"` {
		t.Errorf("%v", f)
	}
	for more, code := range map[string]string{
		`"version":999,"from":0,"to":0`: "conflict", `"from":0,"to":0`: "invalid", `"version":%d,"from":3,"to":2`: "invalid",
		`"version":%d,"from":-1,"to":2`: "invalid", `"version":%d,"from":0,"to":5`: "invalid", `"version":%d,"from":0`: "invalid",
	} {
		p.send(`{"t":"dots","id":5,` + strings.Replace(more, "%d", fmt.Sprint(m.dots.version), 1) + `}`)
		if f := p.expect("error"); f["code"] != code {
			t.Errorf("%s: %v", more, f)
		}
	}
	p.send(`{"t":"sub","id":6,"ch":"dots","by":"colour"}`)
	if f := p.expect("error"); f["code"] != "invalid" {
		t.Errorf("%v", f)
	}
	if _, err := s.g.Attach(live.Principal{ID: "k"}, live.Ask{Channel: "dots"}, nil); muster.KindOf(err) != muster.NotFound {
		t.Errorf("dots over a stream: %v", err)
	}
}

func TestWhoIsBoundToSomeDevicesHasTheirDotsAlone(t *testing.T) {
	w := newWorld(6)
	for i := 3; i < 6; i++ {
		w.note(deviceName(i), "outside")
	}
	s := open(t, w, live.Config{CommandBurst: 1 << 20})
	all, m := showDots(s.browser("ann"), "group"), showDots(s.script("mst_within"), "group")
	if m.dots.total != 3 || all.dots.total != 6 {
		t.Fatalf("%d and %d dots", m.dots.total, all.dots.total)
	}
	w.setState("dev-004", muster.PresenceOnline)
	w.note("dev-001", "outside") // it leaves, and what it does then is nobody's business
	w.setState("dev-001", muster.PresenceOffline)
	s.g.DevicesChanged([]muster.DeviceID{"dev-001", "dev-004"})
	s.tick(1)
	_, b, err := m.p.conn.ReadMessage()
	if err != nil || len(b) != 8+3 || b[8+1] != 255 { // a change in three is sent whole
		t.Fatalf("who may not see it is told %v, %v", b, err)
	}
	m.p.send(fmt.Sprintf(`{"t":"dots","id":9,"version":%d,"from":0,"to":2}`, m.dots.version))
	if f := m.p.expect("ok"); fmt.Sprint(f["ids"]) != "[dev-000  dev-002]" {
		t.Errorf("it is named %v", f)
	}
	m.until("two dots", func(p *picture) bool { return p.total == 2 && p.states != nil })
	if again := showDots(s.script("mst_within"), "group"); again.dots.total != 2 {
		t.Errorf("who comes has %d dots", again.dots.total)
	}
	w.add("dev-009")
	m.until("the new one", func(p *picture) bool { return p.total == 3 && p.states != nil })
}

func TestAHiddenTabGetsNoDotsAndAllOfThemWhenItIsShown(t *testing.T) {
	w := newWorld(30)
	s := open(t, w, live.Config{CommandBurst: 1 << 20})
	m := showDots(s.browser("ann"), "group")
	m.p.send(`{"t":"vis","id":3,"on":false}`)
	m.p.sync()
	before := s.g.Stats().Messages
	for i := range 30 {
		w.setState(deviceName(i), muster.PresenceOnline)
		s.g.DevicesChanged([]muster.DeviceID{deviceName(i)})
		s.tick(1)
	}
	if n := s.g.Stats().Messages - before; n != 0 {
		t.Errorf("a hidden tab is sent %d messages", n)
	}
	m.p.send(`{"t":"vis","id":4,"on":true}`)
	m.until("all online", func(p *picture) bool { return p.differs(w) == "" })
}

func TestAStalledViewerOfDotsHoldsNoMoreThanTheDotsAre(t *testing.T) {
	const n = 20_000
	w := newWorld(0)
	ids := make([]muster.DeviceID, n)
	for i := range ids {
		ids[i] = muster.DeviceID(fmt.Sprintf("d-%05d", i))
		w.add(ids[i])
	}
	s := open(t, w, live.Config{WriteTimeout: time.Minute})
	ann, bob := s.narrow("ann"), showDots(s.browser("bob"), "group")
	defer ann.conn.Close()
	ann.send(`{"t":"sub","id":2,"ch":"dots"}`)
	states := []muster.PresenceState{"online", "offline"}
	flood := func(i int) {
		for _, id := range ids[:3000] {
			w.setState(id, states[i%2])
		}
		s.g.DevicesChanged(ids[:3000])
		bob.until("the flood", func(p *picture) bool { return p.words[p.states[2999]] == string(states[i%2]) })
	}
	i := 0
	for ; s.g.Stats().Slowed < 2; i++ {
		if i > 2000 {
			t.Fatal("a reader that reads nothing is not stepped down")
		}
		flood(i)
	}
	before := heap()
	for range 60 {
		i++
		flood(i)
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("60 rounds took %d bytes of heap for a reader that reads nothing", grown)
	}
	ann.widen()
	view := newPage(ann)
	view.until("the newest", func(p *picture) bool { return p != nil && p.states != nil && p.differs(w) == "" })
}

func TestLayoutsAreMadeAfterTheirLoopFailed(t *testing.T) {
	w := newWorld(3)
	s := open(t, w, live.Config{CommandBurst: 1 << 20})
	m := showDots(s.browser("ann"), "group")
	if !s.g.FailLoop("live-dots", "a test") {
		t.Fatal("there is no such loop")
	}
	w.add("dev-100")
	m.until("the new device after a restart of the loop", func(p *picture) bool { return p.total == 4 && p.states != nil })
}

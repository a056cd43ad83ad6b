package live_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/dashboard/live"
	"muster/notify"
)

// mailroom is a site whose users have inboxes.
func mailroom(t *testing.T, cfg live.Config, users ...string) (*site, *post) {
	t.Helper()
	p := newPost(t)
	t.Cleanup(p.close)
	p.subscribe(users...)
	w := newWorld(1)
	w.post = p
	return open(t, w, cfg), p
}

// follow subscribes to the inbox and returns the answer.
func (p *peer) follow(more string) map[string]any {
	p.t.Helper()
	p.send(`{"t":"sub","id":2,"ch":"inbox"` + more + `}`)
	f := p.expect("snapshot")
	if f["re"] != 2.0 || f["ch"] != "inbox" || f["epoch"] == "" {
		p.t.Fatalf("the inbox answers %v", f)
	}
	return f
}

// leave goes, and waits until the server knows.
func (p *peer) leave() {
	p.t.Helper()
	before := p.s.g.Stats().Connections
	_ = p.conn.Close()
	for until := time.Now().Add(waitLong); p.s.g.Stats().Connections == before; runtime.Gosched() {
		if time.Now().After(until) {
			p.t.Fatalf("who has gone is there still")
		}
	}
}

func placeOf(f map[string]any) string { return fmt.Sprintf("%v-%.0f", f["epoch"], f["seq"]) }

// part returns a member of what an event or an item tells.
func part(f map[string]any, of, name string) any {
	if ev, ok := f["ev"].(map[string]any); ok {
		f = ev
	}
	return f[of].(map[string]any)[name]
}

func (p *peer) event() map[string]any {
	p.t.Helper()
	f := p.expect("event")
	if f["ch"] != "inbox" {
		p.t.Fatalf("got %v", f)
	}
	return f
}

// titles of the items of a snapshot.
func titles(f map[string]any) (out []string) {
	for _, it := range f["items"].([]any) {
		out = append(out, part(it.(map[string]any), "notification", "title").(string))
	}
	return out
}

func TestAnInboxBeginsWithItsNewestItemsAndGoesOnAtOnceWithoutATick(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	for i := range 4 {
		box.tell(fmt.Sprint("old ", i))
	}
	p := s.browser("anna")
	f := p.follow(`,"limit":3`)
	if d := cmp.Diff([]string{"old 3", "old 2", "old 1"}, titles(f)); d != "" || f["more"] != true || f["unread"] != 4.0 || f["open"] != 4.0 {
		t.Errorf("%v: %s", f, d)
	}
	for i := range 3 { // no tick is given
		id := box.tell(fmt.Sprint("new ", i))
		f := p.event()
		if part(f, "notification", "id") != id || part(f, "receipt", "state") != "sent" {
			t.Errorf("got %v, want %s", f, id)
		}
	}
	box.tell("for others", "bert")
	if got := p.sync(); len(got) > 0 {
		t.Errorf("what is not for her came: %v", got)
	}
}

func TestWhoComesAgainWithAPlaceGetsExactlyWhatChangedInOrderOverARestart(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	first := box.tell("first")
	p := s.browser("anna")
	place := placeOf(p.follow(""))
	p.leave()
	second := box.tell("second")
	box.mark("anna", notify.AckedIt, first)
	box.stop()
	s.close()
	box.start() // the same database, another server
	s = open(t, s.w, live.Config{})
	third := box.tell("third")
	p = s.browser("anna")
	f := p.follow(`,"after":"` + place + `"`)
	if _, items := f["items"]; items || placeOf(f) != place || f["unread"] != 2.0 || f["open"] != 2.0 || f["reason"] != nil {
		t.Errorf("it goes on with %v", f)
	}
	var got []any
	for range 3 {
		f := p.event()
		got = append(got, part(f, "notification", "id"), part(f, "receipt", "state"))
	}
	if d := cmp.Diff([]any{second, "sent", first, "acked", third, "sent"}, slices.Clone(got)); d != "" {
		t.Error(d)
	}
	if more := p.sync(); len(more) > 0 {
		t.Errorf("then %v", more)
	}
}

func TestAPlaceOfAnotherInboxIsAnsweredWithASnapshotThatSaysSoAndRubbishIsRefused(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	box.tell("one")
	p := s.browser("anna")
	epoch := p.follow("")["epoch"].(string)
	for _, place := range []string{"OTHER-1", epoch + "-999"} {
		f := p.follow(`,"after":"` + place + `"`)
		if why, _ := f["reason"].(string); why == "" || len(titles(f)) != 1 {
			t.Errorf("%s: %v", place, f)
		}
	}
	for _, bad := range []string{`"after":"x"`, `"after":"-5"`, `"after":"` + strings.Repeat("a", 200) + `-1"`, `"limit":201`, `"limit":0`} {
		p.send(`{"t":"sub","id":4,"ch":"inbox",` + bad + `}`)
		if f := p.expect("error"); f["code"] != "invalid" || f["re"] != 4.0 {
			t.Errorf("%.40s: %v", bad, f)
		}
	}
	box.tell("two") // the channel that was open is as it was
	if f := p.event(); part(f, "notification", "title") != "two" {
		t.Errorf("%v", f)
	}
}

func TestAnAckInOneSessionIsAnEventInTheOtherAndTheFiguresFollow(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna", "bert")
	one, other, bert := s.browser("anna"), s.browser("anna"), s.browser("bert")
	for _, p := range []*peer{one, other, bert} {
		p.follow("")
	}
	id := box.tell("pump")
	for _, p := range []*peer{one, other, bert} {
		p.event()
		p.wantCounts(1, 1)
	}
	one.send(`{"t":"ack","id":7,"n":["` + id + `","ntf_none"],"state":"acked","note":"on my way"}`)
	var moved, told bool
	for !moved || !told { // in either order
		switch f := one.next(); f["t"] {
		case "ok":
			moved = f["re"] == 7.0 && f["moved"] == 1.0 && cmp.Equal(f["missing"], []any{"ntf_none"})
			if !moved {
				t.Fatalf("the ack is answered with %v", f)
			}
		case "event":
			told = part(f, "receipt", "state") == "acked"
		}
	}
	if f := other.event(); part(f, "receipt", "state") != "acked" || part(f, "receipt", "note") != "on my way" || part(f, "notification", "acked_by") != "anna" {
		t.Errorf("the other session is told %v", f)
	}
	if f := bert.event(); part(f, "receipt", "state") != "sent" && part(f, "receipt", "state") != "delivered" || part(f, "notification", "state") != "acked" {
		t.Errorf("the other user is told %v", f)
	}
	for _, p := range []*peer{one, other} {
		p.wantCounts(0, 0)
	}
	bert.wantCounts(1, 0)
	one.send(`{"t":"ack","id":8,"n":["` + id + `"],"state":"read"}`)
	if f := one.expect("ok"); f["moved"] != 0.0 {
		t.Errorf("what is acked is moved to read: %v", f)
	}
}

// wantCounts ticks until the figures are told that must come in the end.
func (p *peer) wantCounts(unread, open float64) {
	p.t.Helper()
	var last map[string]any
	for until := time.Now().Add(waitLong); time.Now().Before(until); runtime.Gosched() {
		p.s.tick(1)
		for _, f := range p.sync() {
			if f["t"] == "counts" {
				last = f
			}
		}
		if last != nil && last["unread"] == unread && last["open"] == open && last["ch"] == "inbox" {
			return
		}
	}
	p.t.Fatalf("the figures are %v, want %v and %v", last, unread, open)
}

func TestWhatMayNotBeMarkedOrSentIsRefusedWithAReason(t *testing.T) {
	s, _ := mailroom(t, live.Config{CommandBurst: 1000}, "anna")
	many := strings.Repeat(`"x",`, notify.MaxMarks) + `"x"`
	for _, c := range []struct{ who, frame, code string }{
		{"anna", `{"t":"ack","id":3,"n":["ntf_1"],"state":"delivered"}`, "invalid"},
		{"anna", `{"t":"ack","id":3,"n":["ntf_1"]}`, "invalid"},
		{"anna", `{"t":"ack","id":3,"state":"seen"}`, "invalid"},
		{"anna", `{"t":"ack","id":3,"n":[` + many + `],"state":"seen"}`, "invalid"},
		{"anna", `{"t":"ack","id":3,"n":"ntf_1","state":"seen"}`, "invalid"},
		{"anna", `{"t":"ack","id":3,"n":["ntf_1"],"state":"acked","note":"` + strings.Repeat("n", 501) + `"}`, "invalid"},
		{"anna", `{"t":"pub","id":3,"topic":"none","msg":{"Title":"t"}}`, "not_found"},
		{"anna", `{"t":"pub","id":3,"topic":"all","msg":{"Title":"t"}}`, "forbidden"},
		{"anna", `{"t":"pub","id":3,"msg":{"Title":"t"}}`, "invalid"},
		{"anna", `{"t":"pub","id":3,"topic":"all"}`, "invalid"},
		{"root", `{"t":"pub","id":3,"topic":"all","msg":{"Title":""}}`, "invalid"},
		{"guest", `{"t":"pub","id":3,"topic":"all","msg":{"Title":"t"}}`, "forbidden"},
		{"mst_good", `{"t":"ack","id":3,"n":["ntf_1"],"state":"seen"}`, "forbidden"},
		{"mst_good", `{"t":"sub","id":3,"ch":"inbox"}`, "forbidden"},
		{"mst_within", `{"t":"pub","id":3,"topic":"all","msg":{"Title":"t"}}`, "forbidden"},
	} {
		var p *peer
		if strings.HasPrefix(c.who, "mst_") {
			p = s.script(c.who)
		} else {
			p = s.browser(c.who)
		}
		p.send(c.frame)
		if f := p.expect("error"); f["code"] != c.code || f["re"] != 3.0 || f["detail"] == "" {
			t.Errorf("%s %.80s: %v, want %s", c.who, c.frame, f, c.code)
		}
		_ = p.conn.Close()
	}
	if _, err := s.g.Attach(live.Principal{ID: "k"}, live.Ask{Channel: "inbox"}, nil); muster.KindOf(err) != muster.Forbidden {
		t.Errorf("a stream of an inbox that is nobody's: %v", err)
	}
}

func TestAPublicationIsAnsweredAndComesToItsSubscribers(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	p := s.browser("anna")
	p.follow("")
	sender := s.browser("root")
	sender.send(`{"t":"pub","id":9,"topic":"all","msg":{"Title":"hello","To":["usr_anna","usr_bert"]}}`)
	f := sender.expect("ok")
	if f["re"] != 9.0 || f["recipients"] != 1.0 || !cmp.Equal(f["not_subscribed"], []any{"usr_bert"}) {
		t.Errorf("%v", f)
	}
	if got := p.event(); part(got, "notification", "id") != f["id"] {
		t.Errorf("%v, want %v", got, f["id"])
	}
	n, err := box.store.Notification(t.Context(), f["id"].(string))
	if err != nil || n.Sender.ID != "usr_root" {
		t.Errorf("%+v %v", n.Sender, err)
	}
}

func TestAHiddenTabIsToldOfItsInboxAndOfNothingElse(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	p := s.browser("anna")
	p.send(`{"t":"sub","id":3,"ch":"fleet"}`)
	p.expect("snapshot")
	p.send(`{"t":"vis","id":4,"on":false}`)
	p.expect("ok")
	p.follow("")
	s.w.extra++
	s.tick(6)
	box.tell("look here")
	if f := p.event(); part(f, "notification", "title") != "look here" {
		t.Errorf("%v", f)
	}
	p.wantCounts(1, 1)
	p.send(`{"t":"vis","id":5,"on":true}`)
	p.expect("ok")
	if f := p.expect("snapshot"); f["ch"] != "fleet" {
		t.Errorf("when it is shown again comes %v", f)
	}
	if got := p.sync(); len(got) > 0 {
		t.Errorf("and then %v", got)
	}
}

// delivered waits until a notification is marked so in somebody's inbox.
func (p *post) waitDelivered(id, user string) {
	p.t.Helper()
	for until := time.Now().Add(waitLong); time.Now().Before(until); runtime.Gosched() {
		r, err := p.store.Receipt(context.Background(), id, subjectOf(user))
		p.must(err)
		if r.State == notify.Delivered && r.Delivered > 0 {
			return
		}
	}
	p.t.Fatalf("%s is not marked as delivered", id)
}

func TestWhatWasWrittenToASocketIsDeliveredAndThatIsNoNewsToThoseWhoHaveIt(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna", "bert")
	before := box.tell("before")
	one, other := s.browser("anna"), s.browser("anna")
	place := placeOf(one.follow(""))
	other.follow("")
	box.waitDelivered(before, "anna")
	id := box.tell("live")
	one.event()
	other.event()
	box.waitDelivered(id, "anna")
	last := box.tell("last") // comes after the marks, in order
	for _, p := range []*peer{one, other} {
		if f := p.event(); part(f, "notification", "id") != last {
			t.Errorf("somebody is told of a delivery: %v", f)
		}
	}
	if r, err := box.store.Receipt(t.Context(), id, subjectOf("bert")); err != nil || r.State != notify.Sent {
		t.Errorf("who is away has %v %v", r.State, err)
	}
	again := s.browser("anna")
	again.follow(`,"after":"` + place + `"`)
	states := map[any]any{}
	for range 3 {
		f := again.event()
		states[part(f, "notification", "id")] = part(f, "receipt", "state")
	}
	if states[before] != "delivered" || states[id] == nil || states[last] == nil {
		t.Errorf("who comes again is told %v", states)
	}
}

func TestATouchOfWhatIsDeliveredIsToldAllTheSame(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna", "bert")
	p := s.browser("anna")
	p.follow("")
	id := box.tell("pump")
	p.event()
	box.waitDelivered(id, "anna")
	box.mark("bert", notify.AckedIt, id)
	if f := p.event(); part(f, "notification", "acked_by") != "bert" || part(f, "receipt", "state") != "delivered" {
		t.Errorf("%v", f)
	}
}

func TestAStreamOfAnInboxHasItsPlacesAsIDsAndGoesOnAfterOne(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	who := live.Principal{ID: "s-anna", Who: whoOf("anna")}
	st := s.stream(t, who, live.Ask{Channel: "inbox"})
	f := st.wait(1)[0]
	if f["t"] != "snapshot" || f["id"] != placeOf(f) {
		t.Fatalf("a stream begins with %v", f)
	}
	var ids []string
	for i := range 3 {
		box.tell(fmt.Sprint(i))
		f := st.wait(1)[0]
		if f["t"] != "event" || part(f, "notification", "title") != fmt.Sprint(i) {
			t.Fatalf("%v", f)
		}
		ids = append(ids, f["id"].(string))
	}
	st.end()
	box.tell("3")
	st = s.stream(t, who, live.Ask{Channel: "inbox", After: ids[1]})
	var got []string
	for _, f := range st.wait(3)[1:] {
		got = append(got, part(f, "notification", "title").(string))
	}
	// Those that were delivered meanwhile are told in the order of that.
	slices.Sort(got)
	if d := cmp.Diff([]string{"2", "3"}, slices.Compact(got)); d != "" {
		t.Error(d)
	}
	st.end()
}

// wait returns the frames that came as soon as there are n.
func (o *streamed) wait(n int) []map[string]any {
	for until := time.Now().Add(waitLong); time.Now().Before(until); runtime.Gosched() {
		o.mu.Lock()
		if len(o.frames) >= n {
			out := o.frames
			o.frames = nil
			o.mu.Unlock()
			return out
		}
		o.mu.Unlock()
	}
	panic(fmt.Sprintf("%d frames do not come", n))
}

func TestAStoreThatDoesNotAnswerIsAskedAgainAndLosesNothing(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna")
	p := s.browser("anna")
	f := p.follow("")
	for range box.burst(300, 0, "anna") { // more than memory has
		f["seq"] = p.event()["seq"]
	}
	place := placeOf(f)
	p.leave()
	p = s.browser("anna")
	box.burst(300, 0, "anna")
	p.follow(`,"after":"` + place + `"`)
	box.flaky.down.Store(true)
	q := s.browser("anna")
	q.send(`{"t":"sub","id":5,"ch":"inbox"}`)
	if f := q.expect("error"); f["re"] != 5.0 || f["retry"] != true {
		t.Errorf("%v", f)
	}
	n := 0
	count := func() {
		for _, f := range p.sync() {
			if f["t"] == "event" && part(f, "receipt", "state") != "delivered" {
				n++
			}
		}
	}
	for s.g.Stats().InboxFaults == 0 {
		s.tick(1)
		count()
	}
	box.flaky.down.Store(false)
	for until := time.Now().Add(waitLong); n < 300 && time.Now().Before(until); {
		s.tick(1)
		count()
	}
	if n < 300 {
		t.Errorf("%d of 300 came", n)
	}
}

func TestAClientThatNeverReadsCostsBoundedMemory(t *testing.T) {
	s, box := mailroom(t, live.Config{WriteTimeout: time.Hour}, "anna")
	p := s.browser("anna")
	p.follow("")
	const rounds, each, size = 40, 100, 8 << 10 // 32 MB
	before := heap()
	for range rounds {
		box.burst(each, size, "anna")
		s.tick(1)
	}
	if grown := (heap() - before) >> 20; grown > 6 { // 256 items in memory are 2 MB
		t.Errorf("it costs %d MB", grown)
	}
	seen := map[any]bool{}
	last := 0.0
	for len(seen) < rounds*each { // now it reads, and has everything
		f := p.next()
		if f["t"] != "event" {
			continue
		}
		if seq := f["seq"].(float64); seq <= last {
			t.Fatalf("%v after %v", seq, last)
		} else {
			last = seq
		}
		seen[part(f, "notification", "id")] = true
	}
}

package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster/dashboard/live"
	"muster/notify"
)

// box is a person's model of an inbox: what was told, put together as the contract says.
type box struct {
	p      *peer
	user   string
	place  string
	seq    float64
	whole  bool // it followed from the beginning, without having been away
	items  map[string]string
	counts [2]float64
}

// stateOf is what of an item is to be the same everywhere. That it was delivered is not
// told to those to whom it was.
func stateOf(f map[string]any) string {
	state := part(f, "receipt", "state")
	if state == "delivered" {
		state = "sent"
	}
	return fmt.Sprint(state, " ", part(f, "notification", "state"), " ", part(f, "notification", "acked_by"), " ", part(f, "notification", "version"), " ",
		part(f, "receipt", "note"))
}

func (b *box) take(f map[string]any) {
	t := b.p.t
	switch f["t"] {
	case "snapshot":
		b.place, b.seq = placeOf(f), f["seq"].(float64)
		b.counts = [2]float64{f["unread"].(float64), f["open"].(float64)}
		if items, ok := f["items"].([]any); ok {
			b.items = map[string]string{}
			for _, it := range items {
				item := it.(map[string]any)
				b.items[part(item, "notification", "id").(string)] = stateOf(item)
			}
		}
	case "event":
		id, seq, now := part(f, "notification", "id").(string), f["seq"].(float64), stateOf(f)
		if seq <= b.seq {
			t.Fatalf("%s: %v comes after %v", b.user, seq, b.seq)
		}
		if b.whole && b.items[id] == now {
			t.Fatalf("%s is told again of %s: %s", b.user, id, now)
		}
		b.items[id], b.seq = now, seq
		b.place = fmt.Sprintf("%s-%.0f", b.place[:strings.LastIndexByte(b.place, '-')], seq)
	case "counts":
		b.counts = [2]float64{f["unread"].(float64), f["open"].(float64)}
	case "ok", "rate":
	default:
		t.Fatalf("%s got %v", b.user, f)
	}
}

func (b *box) drain() {
	for _, f := range b.p.sync() {
		b.take(f)
	}
}

// differs compares the model with the store.
func (b *box) differs(p *post) string {
	items, err := p.store.Inbox(context.Background(), notify.InboxQuery{Subject: subjectOf(b.user), Limit: 10_000})
	p.must(err)
	want := map[string]string{}
	for i := range items {
		want[items[i].Notification.ID] = stateOf(plain(json.RawMessage(appendItem(nil, &items[i]))))
	}
	counts, err := p.store.InboxCounts(context.Background(), subjectOf(b.user), nil)
	p.must(err)
	return cmp.Diff(want, b.items) + cmp.Diff([2]float64{float64(counts.Unread), float64(counts.Open)}, b.counts)
}

// TestEachFollowerHasExactlyWhatIsInItsInbox: random sends, marks and acks by all doors,
// bursts that memory does not hold, sessions that are slow, hidden, go, and come again with
// their place: no event comes twice or out of order, and in the end all have the newest.
func TestEachFollowerHasExactlyWhatIsInItsInbox(t *testing.T) {
	box0 := newPost(t)
	defer box0.close()
	run := 0
	rapid.Check(t, func(t *rapid.T) {
		run++
		box0.t = t
		users := []string{fmt.Sprint("anna", run), fmt.Sprint("bert", run)}
		box0.subscribe(users...)
		w := newWorld(1)
		w.post = box0
		s := newSite(t, w, live.Config{CommandBurst: 1 << 20})
		defer s.close()
		begin := func(b *box) {
			b.p = s.browser(b.user)
			after := ""
			if b.place != "" {
				after = fmt.Sprintf(`,"after":%q`, b.place)
			}
			b.p.send(`{"t":"sub","ch":"inbox","limit":200` + after + `}`)
		}
		boxes := []*box{{user: users[0]}, {user: users[0]}, {user: users[1]}}
		for _, b := range boxes {
			b.whole, b.items = true, map[string]string{}
			begin(b)
			b.drain()
		}
		defer func() {
			for _, b := range boxes {
				_ = b.p.conn.Close()
			}
		}()
		var ids []string
		some := func() []string {
			n := rapid.IntRange(1, 3).Draw(t, "how many")
			var out []string
			for range n {
				if len(ids) > 0 {
					out = append(out, rapid.SampledFrom(ids).Draw(t, "which"))
				}
			}
			return out
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			b := boxes[rapid.IntRange(0, len(boxes)-1).Draw(t, "who")]
			switch step := rapid.SampledFrom([]string{"send", "send", "mark", "ack", "burst", "drain", "again", "hide", "show", "tick", "all"}).Draw(t, "step"); step {
			case "send":
				ids = append(ids, box0.tell("t", users[:rapid.IntRange(1, 2).Draw(t, "to")]...))
			case "mark":
				if which := some(); len(which) > 0 {
					box0.mark(b.user, rapid.SampledFrom([]notify.ReceiptState{notify.Seen, notify.Read, notify.AckedIt}).Draw(t, "state"), which...)
				}
			case "ack":
				for _, id := range some() {
					b.p.send(`{"t":"ack","n":["` + id + `"],"state":"acked","note":"n"}`)
				}
			case "burst":
				n := rapid.SampledFrom([]int{1, 20, 300}).Draw(t, "size")
				ids = append(ids, box0.burst(n, 100, users...)...)
				for _, b := range boxes {
					b.whole = b.whole && n < 256 // beyond, some are told again that they were delivered
				}
			case "drain":
				b.drain()
			case "again": // what is on its way is lost with the socket
				_ = b.p.conn.Close()
				b.whole = false
				begin(b)
			case "hide", "show":
				b.p.send(fmt.Sprintf(`{"t":"vis","on":%v}`, step == "show"))
			case "tick":
				s.tick(rapid.IntRange(1, 3).Draw(t, "ticks"))
			case "all":
				_, err := box0.ReadAll(context.Background(), subjectOf(b.user), "")
				box0.must(err)
			}
		}
		for _, b := range boxes {
			why := ""
			for until := time.Now().Add(waitLong); ; runtime.Gosched() {
				s.tick(1)
				b.drain()
				if why = b.differs(box0); why == "" {
					break
				}
				if time.Now().After(until) {
					t.Fatalf("%s has something else: %s", b.user, why)
				}
			}
		}
		if n := s.g.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

package live_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/dashboard/live"
)

// These tests put a change into the narrowest places: between the look at a
// device and the use of what was seen.

func TestChangeDuringThePassIsNotLost(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	p.send(`{"t":"sub","id":2,"ch":"devices"}`)
	p.expect("snapshot")
	s.w.onLook(func() { s.observe("dev-000", number("temp", 2)) })
	s.observe("dev-000", number("temp", 1))
	want := s.w.wantRow("dev-000")["values"]
	for range 20 {
		for _, f := range p.news() {
			got := f["set"].(map[string]any)["dev-000"].(map[string]any)["values"]
			if want = s.w.wantRow("dev-000")["values"]; cmp.Equal(got, want) && got.(map[string]any)["temp"].([]any)[0] == 2.0 {
				return
			}
		}
	}
	t.Fatalf("the second value never comes; the server has %v", want)
}

func TestChangeDuringTheFirstLookIsNotUndone(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	s.observe("dev-000", number("temp", 1))
	s.w.onLook(func() { // the subscriber has seen 1; a whole pass sees 2
		s.observe("dev-000", number("temp", 2))
		s.tick(2)
	})
	p.send(`{"t":"sub","id":2,"ch":"device:dev-000"}`)
	m := newPage(p)
	m.subs["device:dev-000"] = "yes"
	m.take(p.expect("snapshot"))
	s.tick(2)
	for _, f := range p.sync() {
		m.take(f)
	}
	if why := m.differs(s.w); why != "" {
		t.Fatal(why)
	}
}

func TestChangeBetweenTheLookAndTheSnapshotIsTold(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	s.w.onLook(func() { s.observe("dev-000", number("temp", 2)) })
	p.send(`{"t":"sub","id":2,"ch":"device:dev-000"}`)
	m := newPage(p)
	m.subs["device:dev-000"] = "yes"
	m.take(p.expect("snapshot"))
	for _, f := range p.news() {
		m.take(f)
	}
	if why := m.differs(s.w); why != "" {
		t.Fatal(why)
	}
}

func TestShownAgainChannelByChannel(t *testing.T) {
	s := open(t, newWorld(2), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	p.send(`{"t":"vis","on":false}`)
	p.send(`{"t":"sub","id":2,"ch":"device:dev-000"}`)
	p.send(`{"t":"sub","id":3,"ch":"device:dev-001"}`)
	p.sync()
	first := make(chan struct{})
	s.w.onLook(func() { // the first channel opens; the look at the second waits until it was sent
		s.w.onLook(func() { <-first })
	})
	p.send(`{"t":"vis","id":4,"on":true}`)
	seen := map[any]bool{}
	for len(seen) < 2 {
		f := p.next()
		if f["t"] != "snapshot" {
			continue
		}
		if len(seen) == 0 {
			close(first)
		}
		seen[f["ch"]] = true
		id := f["item"].(map[string]any)["id"].(string)
		if d := cmp.Diff(s.w.wantPage(muster.DeviceID(id)), f["item"]); d != "" {
			t.Fatal(d)
		}
	}
	if n := s.g.Stats().Panics; n != 0 {
		t.Fatalf("%d panics", n)
	}
}

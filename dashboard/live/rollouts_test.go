package live_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"muster"
	"muster/dashboard/live"
)

// rollouts are known by their ids, with how many devices are in flight.
type rollouts struct {
	mu      sync.Mutex
	changes uint64
	flying  map[string]int
	failing bool
}

func (r *rollouts) Changes() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changes
}

func (r *rollouts) Rollout(id string) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.flying[id]
	switch {
	case r.failing:
		return nil, muster.Errorf(muster.Unavailable, "the database is away")
	case !ok:
		return nil, muster.Errorf(muster.NotFound, "there is no such rollout")
	}
	return json.Marshal(map[string]any{"id": id, "in_flight": n})
}

func (r *rollouts) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	r.changes++
}

func TestARolloutIsShownAsItIsNowAndOnlyToWhoMaySeeFirmware(t *testing.T) {
	w := newWorld(1)
	w.rollouts = &rollouts{changes: 1, flying: map[string]int{"rol_1": 3}}
	s := open(t, w, live.Config{})
	write := func([]byte, int) error { return nil }
	for who, want := range map[*live.Principal]muster.Kind{
		{ID: "k"}:                              muster.Forbidden,
		{ID: "k", Firmware: true, Only: "x:*"}: muster.Forbidden,
	} {
		if _, err := s.g.Attach(*who, live.Ask{Channel: "rollout:rol_1"}, write); muster.KindOf(err) != want || err == nil {
			t.Errorf("%+v: %v", who, err)
		}
	}
	p := s.browser("anna")
	p.send(`{"t":"sub","id":2,"ch":"rollout:rol_2"}`)
	if f := p.expect("error"); f["code"] != "not_found" {
		t.Errorf("one that is not there: %v", f)
	}
	p.send(`{"t":"sub","id":3,"ch":"rollout:rol_1"}`)
	if f := p.expect("snapshot"); fmt.Sprint(f["item"]) != "map[id:rol_1 in_flight:3]" {
		t.Errorf("the snapshot is %v", f)
	}
	for n := range 5 { // of many changes between two ticks the last is told
		w.rollouts.set(func() { w.rollouts.flying["rol_1"] = 10 + n })
	}
	s.tick(2)
	if got := p.news(); len(got) != 1 || got[0]["t"] != "delta" || fmt.Sprint(got[0]["set"]) != "map[id:rol_1 in_flight:14]" {
		t.Errorf("it is told %v", got)
	}
	w.rollouts.set(func() { w.rollouts.failing = true })
	s.tick(4)
	if got := p.sync(); len(got) != 0 {
		t.Errorf("while the store is away it is told %v", got)
	}
	w.rollouts.set(func() { w.rollouts.failing = false; delete(w.rollouts.flying, "rol_1") })
	s.tick(2)
	if got := p.news(); len(got) != 1 || fmt.Sprint(got[0]["del"]) != "[rol_1]" {
		t.Errorf("of its end it is told %v", got)
	}
}

package live_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"muster/dashboard/live"
)

// second has five ticks pass, each with a change for every peer, and returns how many state
// frames came to all.
func (s *site) second(step *int, peers []*peer, views []*page) (all int) {
	s.t.Helper()
	for range 5 {
		*step++
		s.observe(deviceName(0), number("temperature", float64(*step)))
		s.tick(1)
		for i, p := range peers {
			for _, f := range p.sync() {
				views[i].take(f)
				all++
			}
		}
	}
	return all
}

func TestWhatAllViewersAreToldInASecondIsBounded(t *testing.T) {
	const viewers, bound = 20, 30 // at 5 Hz 100 frames would come, at 2 Hz 40, at 1 Hz 20
	s := open(t, newWorld(1), live.Config{MostFrames: bound})
	peers, views := make([]*peer, viewers), make([]*page, viewers)
	for i := range peers {
		peers[i] = s.browser(fmt.Sprint("viewer-", i))
		views[i] = newPage(peers[i])
		views[i].subs["devices"] = `{"t":"sub","id":2,"ch":"devices"}`
		peers[i].send(views[i].subs["devices"])
		views[i].take(peers[i].expect("snapshot"))
	}
	step := 0
	if all := s.second(&step, peers, views) + s.second(&step, peers, views); all <= 2*bound {
		t.Fatalf("%d frames come in the first two seconds, want more than the bound: the test tests nothing", all)
	}
	for range 10 {
		s.second(&step, peers, views)
	}
	told(t, s, peers, 1)
	if all := s.second(&step, peers, views); all > bound {
		t.Errorf("%d frames come in a second, want at most %d", all, bound)
	}
	for _, p := range peers[4:] {
		_ = p.conn.Close()
	}
	peers, views = peers[:4], views[:4]
	for until := time.Now().Add(waitLong); s.g.Stats().Connections != len(peers); runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatalf("%d connections are left", s.g.Stats().Connections)
		}
	}
	for range 30 {
		s.second(&step, peers, views)
	}
	told(t, s, peers, 5)
	s.tick(2)
	for i, v := range views {
		for _, f := range peers[i].sync() {
			v.take(f)
		}
		if got, want := fmt.Sprint(v.rows[string(deviceName(0))]["values"].(map[string]any)["temperature"].([]any)[0]), fmt.Sprint(step); got != want {
			t.Errorf("viewer %d has %s at last, want %s", i, got, want)
		}
	}
}

// told checks that the pace is hz, and that each of peers knows.
func told(t *testing.T, s *site, peers []*peer, hz int) {
	t.Helper()
	if now := s.g.Stats().Hz; now != hz {
		t.Errorf("the pace is %d Hz, want %d", now, hz)
	}
	for i, p := range peers {
		if n := len(p.rates); n == 0 || p.rates[n-1] != float64(hz) {
			t.Fatalf("viewer %d was told the rates %v, want %d at last", i, p.rates, hz)
		}
	}
}

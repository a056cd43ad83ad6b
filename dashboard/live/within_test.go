package live_test

import (
	"fmt"
	"strings"
	"testing"

	"muster"
	"muster/dashboard/live"
)

// script connects with a token and says hello.
func (s *site) script(token string) *peer {
	s.t.Helper()
	p := s.connect(nil)
	p.send(`{"t":"hello","id":1,"token":"` + token + `"}`)
	p.expect("welcome")
	return p
}

func TestWhoIsBoundToSomeDevicesSeesNoOthers(t *testing.T) {
	w := newWorld(6)
	for i := 3; i < 6; i++ {
		w.note(deviceName(i), "outside")
	}
	s := open(t, w, live.Config{})
	p := s.script("mst_within")
	p.send(`{"t":"sub","id":2,"ch":"fleet"}`)
	if f := p.expect("error"); f["code"] != "forbidden" {
		t.Errorf("the fleet's figures: %v", f)
	}
	for i, id := range []string{"dev-004", "nobody"} {
		p.send(fmt.Sprintf(`{"t":"sub","id":%d,"ch":"device:%s"}`, 3+i, id))
		if f := p.expect("error"); f["code"] != "not_found" || f["detail"] != "there is no device "+id {
			t.Errorf("%s: %v", id, f)
		}
	}
	p.send(`{"t":"sub","id":5,"ch":"devices"}`)
	if f := p.expect("snapshot"); f["total"] != 3.0 || len(f["items"].([]any)) != 3 {
		t.Errorf("the list has %v of %v", f["items"], f["total"])
	}
	// Nobody is told how many devices there are outside: not when more come either.
	all := s.browser("anna")
	all.send(`{"t":"sub","id":2,"ch":"devices"}`)
	if f := all.expect("snapshot"); f["total"] != 6.0 {
		t.Errorf("who sees all sees %v", f["total"])
	}
	w.add("zzz")
	w.note("zzz", "outside")
	s.g.DevicesChanged([]muster.DeviceID{"zzz"})
	for _, id := range w.ids() {
		s.observe(id, muster.Value{Key: muster.Key{Name: "t"}, Num: 4})
	}
	s.tick(6)
	got := fmt.Sprint(p.news())
	if strings.Contains(got, "dev-003") || strings.Contains(got, "zzz") || strings.Contains(got, "drift") || !strings.Contains(got, "dev-002") {
		t.Errorf("it is told %s", got)
	}
	if got := fmt.Sprint(all.news()); !strings.Contains(got, "dev-003") {
		t.Errorf("who sees all is told %s", got)
	}
}

func TestADeviceThatLeavesWhatSomebodyMaySeeIsTakenAwayAtOnce(t *testing.T) {
	w := newWorld(2)
	s := open(t, w, live.Config{})
	p, page := s.script("mst_within"), s.script("mst_within")
	p.send(`{"t":"sub","id":2,"ch":"devices"}`)
	page.send(`{"t":"sub","id":2,"ch":"device:dev-000"}`)
	p.expect("snapshot")
	page.expect("snapshot")
	w.note("dev-000", "outside") // nothing that is shown
	s.g.DevicesChanged([]muster.DeviceID{"dev-000"})
	for name, peer := range map[string]*peer{"list": p, "page": page} {
		if f := peer.news()[0]; f["t"] != "delta" || fmt.Sprint(f["del"]) != "[dev-000]" || f["set"] != nil {
			t.Errorf("the %s is told %v", name, f)
		}
	}
	s.observe("dev-000", muster.Value{Key: muster.Key{Name: "t"}, Num: 7})
	s.tick(3)
	for name, peer := range map[string]*peer{"list": p, "page": page} {
		for _, f := range peer.sync() {
			if strings.Contains(fmt.Sprint(f), "dev-000") {
				t.Errorf("the %s is told %v of a device outside", name, f)
			}
		}
	}
	w.note("dev-000", "")
	s.g.DevicesChanged([]muster.DeviceID{"dev-000"})
	if f := page.news()[0]; f["t"] != "snapshot" {
		t.Errorf("when it is back the page is told %v", f)
	}
}

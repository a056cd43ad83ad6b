package devices_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

func TestARestartRaisesNoFalseOffline(t *testing.T) {
	specs := []devices.Spec{
		{ID: "back"},
		{ID: "gone"},
		{ID: "off"},
		{ID: "new"},
		{ID: "http", CheckIn: 300},
		{ID: "g1"},
		{ID: "seldom", Parent: "g1", CheckIn: 3600},
		{ID: "often", Parent: "g1", CheckIn: 10},
		{ID: "g2"},
		{ID: "lost", Parent: "g2"},
	}
	g := newRig(t, specs...)
	for _, id := range []muster.DeviceID{"back", "gone", "off", "g1", "g2"} {
		g.connect(id)
	}
	for _, id := range []muster.DeviceID{"http", "seldom", "often", "lost"} {
		g.hear(id)
	}
	g.pass(5)
	g.end("off", "disconnected")
	for _, id := range []muster.DeviceID{"back", "g1"} { // others are cut by the process's end
		g.end(id, "server stopped")
	}
	g.pass(3)
	g.stop()
	g.told = nil
	g.now = 100
	g.start()
	for _, id := range []muster.DeviceID{"back", "gone", "http", "g1", "seldom", "often", "g2", "lost"} {
		g.want(id, unknown, 8, "server restarted")
	}
	g.want("off", offline, 5, "disconnected")
	g.want("new", never, 0, "")
	g.pass(5)
	g.connect("back")
	g.connect("g1")
	g.pass(24)
	g.want("gone", unknown, 8, "server restarted")
	g.hear("seldom")
	g.pass(1)
	g.want("back", online, 105, "")
	g.want("g1", online, 105, "")
	g.want("seldom", online, 129, "")
	g.want("gone", offline, 130, "not back after server restart")
	g.want("g2", offline, 130, "not back after server restart")
	g.want("lost", offline, 130, "gateway g2: not back after server restart")
	g.want("often", offline, 125, "not back after server restart") // it had 20 s from its gateway's return on
	g.want("http", unknown, 8, "server restarted")
	g.pass(600)
	g.want("http", offline, 700, "not back after server restart")
	g.wantTold("back", online)
	g.wantTold("seldom", online)
	g.wantTold("off")
	g.wantTold("gone", offline)
}

// A gateway and its children whose times come in the same second are judged in one order, whoever else
// is waited for.
func TestAGatewayIsJudgedBeforeItsChildrenThatAreDueWithIt(t *testing.T) {
	for others := range 12 {
		specs := []devices.Spec{{ID: "g", CheckIn: 7}}
		for i := range 4 {
			specs = append(specs, devices.Spec{ID: muster.DeviceID(fmt.Sprint("c", i)), Parent: "g", CheckIn: 10})
		}
		children := specs[1:]
		for i := range others {
			specs = append(specs, devices.Spec{ID: muster.DeviceID(fmt.Sprint("o", i)), CheckIn: int64(13 + i%3)})
		}
		g := newRig(t, specs...)
		g.connect("g")
		for _, s := range specs[1:] {
			g.hear(s.ID)
		}
		g.pass(1)
		g.stop()
		g.start()
		g.pass(15)
		g.connect("g")
		g.pass(6)
		g.hear("g")
		g.pass(14) // the gateway is quiet from now on, and 20 s after its return are over
		g.want("g", isQuiet, 36, "silent")
		for _, s := range children {
			g.want(s.ID, unknown, 1, "server restarted")
		}
		g.pass(20)
		for _, s := range children {
			g.want(s.ID, offline, 56, "not back after server restart")
		}
	}
}

func TestTheWaitAfterARestartGoesOnWhileDevicesComeBack(t *testing.T) {
	const n = 3000
	specs := make([]devices.Spec, n)
	for i := range specs {
		specs[i].ID = muster.DeviceID(fmt.Sprint("d", i))
	}
	tests := []struct {
		name  string
		rate  int // devices a second
		until int64
	}{
		{"a storm is waited for", 20, 150},
		{"a trickle is not", 1, 30},
		{"nobody comes", 0, 30},
		{"after five minutes it is over", 9, 300},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t, specs...)
			for _, s := range specs {
				g.connect(s.ID)
			}
			g.stop()
			g.start()
			g.told = nil
			boot, next := g.now, 0
			for g.r.Counts()[muster.Status(offline)] == 0 && g.r.Counts()[muster.Status(unknown)] > 0 {
				for range tt.rate {
					if next < n {
						g.connect(specs[next].ID)
						next++
					}
				}
				g.pass(1)
			}
			if got := g.now - boot; got != tt.until {
				t.Errorf("it was over after %d s, want %d", got, tt.until)
			}
			for _, tr := range g.told {
				if tr.To == offline && tr.Device < specs[next/n].ID {
					t.Errorf("false: %+v", tr)
				}
			}
			if back := g.r.Counts()[muster.Status(online)]; back != next {
				t.Errorf("%d are online, %d came back", back, next)
			}
		})
	}
}

// TestAHundredThousandDevicesComeBackThrough250Gateways is the storm after a restart:
// the gateways return over a minute, their children speak within another two.
func TestAHundredThousandDevicesComeBackThrough250Gateways(t *testing.T) {
	const gateways, kids = 250, 400
	g := newRig(t)
	var specs []devices.Spec
	var names []muster.DeviceID
	for i := range gateways {
		gw := muster.DeviceID(fmt.Sprintf("g%03d", i))
		specs = append(specs, devices.Spec{ID: gw})
		names = append(names, gw)
		for j := range kids {
			specs = append(specs, devices.Spec{ID: muster.DeviceID(fmt.Sprintf("%s-%03d", gw, j)), Parent: gw})
		}
	}
	const each = 401 * 20
	for from := 0; from < len(specs); from += each {
		if _, _, err := g.r.CreateMany(context.Background(), specs[from:min(from+each, len(specs))]); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range specs {
		if s.Parent == "" {
			g.connect(s.ID)
		}
	}
	for _, s := range specs {
		if s.Parent != "" {
			g.hear(s.ID)
		}
	}
	g.stop()
	g.now = 60
	g.start()
	g.told = nil
	if n := g.r.Counts()[muster.Status(unknown)]; n != len(specs) {
		t.Fatalf("%d are unknown", n)
	}
	began := time.Now()
	var spent time.Duration
	for s := range int64(180) {
		for i, gw := range names {
			if int64(i)%60 == s {
				g.connect(gw)
			}
		}
		var rs []muster.Reading
		for i, sp := range specs {
			if sp.Parent != "" && 60+int64(i%120) == s {
				rs = append(rs, muster.Reading{Device: sp.ID, Arrival: micros(g.now), Time: micros(g.now)})
			}
		}
		from := time.Now()
		g.r.Observe(rs)
		g.pass(1)
		spent += time.Since(from)
	}
	t.Logf("100,250 devices came back in 180 s of their time; presence took %v of %v", spent, time.Since(began))
	if d := cmp.Diff(map[muster.Status]int{"never": 0, "online": len(specs), "quiet": 0, "offline": 0, "unknown": 0, "updating": 0}, g.r.Counts()); d != "" {
		t.Error(d)
	}
	if len(g.told) != len(specs) {
		t.Errorf("%d changes were told of %d devices", len(g.told), len(specs))
	}
	for _, tr := range g.told {
		if tr.To != online || tr.From != unknown {
			t.Fatalf("false: %+v", tr)
		}
	}
}

func TestTheStripAndUptimeCountWhatIsKnown(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"}, devices.Spec{ID: "never"})
	g.now = 3600
	g.connect("a")
	g.now = 2 * 3600
	g.end("a", "disconnected")
	g.now = 3 * 3600
	g.connect("a")
	g.now = 4 * 3600
	g.stop()
	g.now = 5 * 3600
	g.start()
	g.now += 20
	g.connect("a")
	g.now = 6 * 3600
	d, _ := g.r.PresenceDetail("a")
	want := []devices.Stretch{
		{State: never, From: micros(0), To: micros(3600)},
		{State: online, From: micros(3600), To: micros(7200)},
		{State: offline, From: micros(7200), To: micros(3 * 3600)},
		{State: online, From: micros(3 * 3600), To: micros(4 * 3600)},
		{State: unknown, From: micros(4 * 3600), To: micros(5*3600 + 20)},
		{State: online, From: micros(5*3600 + 20), To: micros(6 * 3600)},
	}
	if diff := cmp.Diff(want, d.Strip); diff != "" {
		t.Errorf("strip (-want +got):\n%s", diff)
	}
	up := devices.Uptime{Online: 3*3600 - 20, Offline: 3600, Unknown: 3620}
	if diff := cmp.Diff(up, d.Uptime); diff != "" {
		t.Errorf("uptime (-want +got):\n%s", diff)
	}
	if p, ok := d.Uptime.Percent(); !ok || p < 74.8 || p > 75 {
		t.Errorf("%v %% online", p)
	}
	if d, _ := g.r.PresenceDetail("never"); len(d.Strip) != 1 || d.Strip[0].State != never || d.Uptime != (devices.Uptime{}) {
		t.Errorf("one that never was: %+v", d)
	}
	g.now = 29*86400 - 1
	d, _ = g.r.PresenceDetail("a")
	if len(d.Strip) != 1 || d.Strip[0] != (devices.Stretch{State: online, From: micros(g.now - 86400), To: micros(g.now)}) {
		t.Errorf("a day later the strip is %v", d.Strip)
	}
	if sum := d.Uptime.Online + d.Uptime.Offline + d.Uptime.Unknown; sum != g.now-3600 {
		t.Errorf("the uptime adds up to %d s of %d", sum, g.now-3600)
	}
	g.now = 90 * 86400
	d, _ = g.r.PresenceDetail("a")
	if want := int64(29*86400 + 6*3600); d.Uptime != (devices.Uptime{Online: want}) { // 06:00 today
		t.Errorf("after 90 days it is %+v, want %d s online", d.Uptime, want)
	}
}

func TestADeviceThatFlapsAllDayKeepsAWholeStripOfBoundedSize(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	for range 86400 / 20 {
		g.connect("a")
		g.now += 15
		g.end("a", "disconnected")
		g.now += 5
	}
	g.stop()
	if n := len(g.m.history["a"].History); n > 2200 {
		t.Errorf("its history has %d bytes", n)
	}
	d, _ := g.r.PresenceDetail("a")
	if len(d.Strip) > 130 || d.Strip[0].From > micros(g.now-86400+1000) || d.Strip[len(d.Strip)-1].To != micros(g.now) {
		t.Errorf("%d stretches, from %v", len(d.Strip), d.Strip[0].From.Time())
	}
	for i, s := range d.Strip[1:] {
		if s.From != d.Strip[i].To {
			t.Fatalf("a gap before %+v", s)
		}
	}
	if p, _ := d.Uptime.Percent(); p < 74 || p > 76 {
		t.Errorf("%v %% online, want 75", p)
	}
}

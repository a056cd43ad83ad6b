package devices_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/feed"
)

// wantFeed saves presence, checks the types of events that came with it, as
// "device type", and forgets them.
func (g *rig) wantFeed(want ...string) {
	g.Helper()
	if err := g.r.Flush(context.Background(), false); err != nil {
		g.Fatal(err)
	}
	var got []string
	for _, e := range g.m.feed {
		got = append(got, string(e.Device)+" "+e.Type)
	}
	g.m.feed = nil
	if d := cmp.Diff(want, got); d != "" {
		g.Errorf("after %d s the feed (-want +got):\n%s", g.now, d)
	}
}

func TestTheFeedIsToldOfPresenceWithTheRowThatIsSaved(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a", CheckIn: 10}, devices.Spec{ID: "b"})
	g.wantFeed()
	g.connect("a")
	g.connect("b")
	g.hear("a")
	g.wantFeed("a "+feed.PresenceOnline, "b "+feed.PresenceOnline)
	g.wantFeed()
	g.pass(30)
	g.wantFeed("a " + feed.PresenceQuiet)
	g.hear("a")
	g.end("b", "disconnected")
	if err := g.r.Flush(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	want := []feed.Event{
		{At: micros(30), Type: feed.PresenceOnline, Device: "a", Data: []byte(`{"device":"a","state":"online","since":"2050-01-01T06:00:30.000000Z","reason":""}`)},
		{At: micros(30), Type: feed.PresenceOffline, Device: "b", Data: []byte(`{"device":"b","state":"offline","since":"2050-01-01T06:00:30.000000Z","reason":"disconnected"}`)},
	}
	if d := cmp.Diff(want, g.m.feed); d != "" {
		t.Error(d)
	}
}

func TestADeviceThatIsBackWhatItWasBeforeItIsSavedIsNoNews(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	g.connect("a")
	g.wantFeed("a " + feed.PresenceOnline)
	g.end("a", "keep alive ran out")
	g.pass(3)
	g.connect("a") // within the grace
	g.wantFeed()
	g.end("a", "disconnected")
	g.connect("a") // between two flushes
	g.wantFeed()
}

func TestPresenceThatCannotBeSavedIsToldWhenItCan(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "a"})
	g.connect("a")
	g.m.setDown(true)
	if err := g.r.Flush(context.Background(), false); err == nil || len(g.m.feed) > 0 {
		t.Errorf("a store that is down gives %v and %d events", err, len(g.m.feed))
	}
	g.m.setDown(false)
	g.wantFeed("a " + feed.PresenceOnline)
}

func TestARestartIsNoNewsOfDevicesThatComeBack(t *testing.T) {
	g := newRig(t, devices.Spec{ID: "back"}, devices.Spec{ID: "gone"}, devices.Spec{ID: "off"})
	for _, id := range []muster.DeviceID{"back", "gone", "off"} {
		g.connect(id)
	}
	g.pass(1)
	g.end("off", "disconnected")
	g.wantFeed("back "+feed.PresenceOnline, "gone "+feed.PresenceOnline, "off "+feed.PresenceOffline)
	g.stop()
	g.now = 100
	g.start()
	g.wantFeed()
	g.connect("back")
	g.wantFeed()
	g.pass(31)
	g.wantFeed("gone " + feed.PresenceOffline)
	g.connect("off")
	g.wantFeed("off " + feed.PresenceOnline)
}

package target_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/devices"
	"muster/devices/query"
	"muster/firmware"
	"muster/firmware/desk"
	"muster/firmware/rollout"
	"muster/firmware/target"
)

// world has one device, d, and one release, rel.
type world struct {
	at       time.Time
	device   devices.Device
	presence muster.PresenceState
	seen     muster.Micros
	reported map[string]string // by the path
	release  target.Release
	err      error
	patching bool
	asked    []string // which patches, of release and version
}

func (w *world) Get(id muster.DeviceID) (devices.Device, error) {
	if id != "d" {
		return devices.Device{}, muster.Errorf(muster.NotFound, "there is no such device")
	}
	return w.device, nil
}

func (w *world) Presence(id muster.DeviceID) (muster.Presence, bool) {
	return muster.Presence{State: w.presence, LastSeen: w.seen}, id == "d"
}

func (w *world) CheckIn(muster.DeviceID) int64 { return 600 }

func (w *world) Leaf(_ muster.DeviceID, _ query.Field, path []string) string {
	return w.reported[strings.Join(path, ".")]
}

func (w *world) Known(context.Context, string) (target.Release, error) { return w.release, w.err }

// Waits implements target.Patches.
func (w *world) Waits(release, version string) bool {
	w.asked = append(w.asked, release+" "+version)
	return w.patching
}

func newWorld() *world {
	m := &firmware.Manifest{Product: "pump", Version: "2.0.0"}
	return &world{
		at: time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC), device: devices.Device{ID: "d", Firmware: "1.4.0"}, presence: muster.PresenceOnline,
		reported: map[string]string{}, release: target.Release{Manifest: m, Signed: true},
	}
}

func (w *world) fleet(t *testing.T) *target.Fleet {
	t.Helper()
	f := target.New(w, w, w, w, func() time.Time { return w.at })
	if err := f.Refresh(t.Context(), []rollout.Rollout{{ID: "r", Release: "rel"}}); err != nil {
		t.Fatal(err)
	}
	return f
}

func tags(t *testing.T, m map[string]string) devices.Tags {
	t.Helper()
	list, err := devices.TagsOf(m)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// depends has the release depend on two other products.
func depends(w *world) {
	w.release.Manifest.Depends = []firmware.Depend{{Product: "radio", Version: "1.2.0"}, {Product: "boot", Version: "3.0.0"}}
}

func TestWhatAReleaseIsToADevice(t *testing.T) {
	board := func(w *world) {
		w.release.Manifest.Hardware = []firmware.Hardware{{Board: "p1", Revisions: []string{"a", "b"}}}
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, w *world)
		is   func(f rollout.Facts) bool
	}{
		"another version is to be replaced":         {func(*testing.T, *world) {}, func(f rollout.Facts) bool { return !f.Installed && f.Version == "1.4.0" && f.Reachable }},
		"its own version is installed":              {func(_ *testing.T, w *world) { w.device.Firmware = "v2.0.0" }, func(f rollout.Facts) bool { return f.Installed }},
		"a version of the product itself is nearer": {func(_ *testing.T, w *world) { w.reported["versions.pump"] = `"2.0.0"` }, func(f rollout.Facts) bool { return f.Installed && f.Version == "2.0.0" }},
		"a version of another title is none":        {func(_ *testing.T, w *world) { w.reported["fw_title"] = `"boot"` }, func(f rollout.Facts) bool { return f.Version == "" && !f.Installed }},
		"a title beside the firmware's version": {func(_ *testing.T, w *world) {
			w.reported["fw_title"], w.reported["firmware.version"] = `"boot"`, `"1.4.0"`
		}, func(f rollout.Facts) bool { return f.Version == "1.4.0" }},
		"the product's own title":           {func(_ *testing.T, w *world) { w.reported["fw_title"] = `"pump"` }, func(f rollout.Facts) bool { return f.Version == "1.4.0" }},
		"a version that is no text is none": {func(_ *testing.T, w *world) { w.reported["versions.pump"] = `2` }, func(f rollout.Facts) bool { return f.Version == "1.4.0" }},
		"hardware by tags": {func(t *testing.T, w *world) {
			board(w)
			w.device.Tags = tags(t, map[string]string{"board": "p1", "revision": "b"})
		}, func(f rollout.Facts) bool { return f.Hardware }},
		"hardware by what it reports": {func(_ *testing.T, w *world) {
			board(w)
			w.reported["hw.board"], w.reported["hw.revision"] = `"p1"`, `"a"`
		}, func(f rollout.Facts) bool { return f.Hardware }},
		"a tag goes before what it reports": {func(t *testing.T, w *world) {
			board(w)
			w.reported["hw.board"], w.reported["hw.revision"] = `"p1"`, `"a"`
			w.device.Tags = tags(t, map[string]string{"board": "p2"})
		}, func(f rollout.Facts) bool { return !f.Hardware }},
		"another revision": {func(t *testing.T, w *world) {
			board(w)
			w.device.Tags = tags(t, map[string]string{"board": "p1", "revision": "c"})
		}, func(f rollout.Facts) bool { return !f.Hardware && !f.NoHardware }},
		"hardware that nobody knows":     {func(_ *testing.T, w *world) { board(w) }, func(f rollout.Facts) bool { return !f.Hardware && f.NoHardware }},
		"a version below the least":      {func(_ *testing.T, w *world) { w.release.Manifest.MinFrom = "1.5.0" }, func(f rollout.Facts) bool { return !f.Source && !f.Unknown }},
		"a version over the least":       {func(_ *testing.T, w *world) { w.release.Manifest.MinFrom = "1.4.0" }, func(f rollout.Facts) bool { return f.Source && !f.Unknown }},
		"an older version is not newer":  {func(*testing.T, *world) {}, func(f rollout.Facts) bool { return !f.Newer }},
		"a newer version":                {func(_ *testing.T, w *world) { w.device.Firmware = "v2.0.1" }, func(f rollout.Facts) bool { return f.Newer && !f.Installed }},
		"a candidate of a newer version": {func(_ *testing.T, w *world) { w.device.Firmware = "2.1.0-rc.1" }, func(f rollout.Facts) bool { return f.Newer }},
		"a candidate of the release":     {func(_ *testing.T, w *world) { w.device.Firmware = "2.0.0-rc.1" }, func(f rollout.Facts) bool { return !f.Newer }},
		"another build of the release":   {func(_ *testing.T, w *world) { w.device.Firmware = "2.0.0+7" }, func(f rollout.Facts) bool { return !f.Newer && !f.Installed }},
		"no version is not newer":        {func(_ *testing.T, w *world) { w.device.Firmware = "" }, func(f rollout.Facts) bool { return !f.Newer }},
		"software that reports no version is not the firmware's": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.device.Firmware = firmware.Software, "2.0.0"
		}, func(f rollout.Facts) bool { return !f.Installed && f.Version == "" }},
		"software by its own version": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.reported["versions.pump"] = firmware.Software, `"2.0.0"`
		}, func(f rollout.Facts) bool { return f.Installed && f.Version == "2.0.0" }},
		"software is older than the firmware": {func(_ *testing.T, w *world) { w.release.Manifest.Type, w.device.Firmware = firmware.Software, "9.0.0" }, func(f rollout.Facts) bool { return !f.Newer }},
		"software is older than the device's": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.reported["versions.pump"] = firmware.Software, `"9.0.0"`
		}, func(f rollout.Facts) bool { return f.Newer }},
		"software below the least beside newer firmware": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.release.Manifest.MinFrom, w.device.Firmware = firmware.Software, "1.5.0", "9.0.0"
			w.reported["versions.pump"] = `"1.4.0"`
		}, func(f rollout.Facts) bool { return !f.Source && !f.Unknown }},
		"software over the least beside older firmware": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.release.Manifest.MinFrom, w.device.Firmware = firmware.Software, "1.5.0", "0.1.0"
			w.reported["versions.pump"] = `"1.6.0"`
		}, func(f rollout.Facts) bool { return f.Source && !f.Unknown }},
		"a least version of software that nobody reports": {func(_ *testing.T, w *world) {
			w.release.Manifest.Type, w.release.Manifest.MinFrom, w.device.Firmware = firmware.Software, "1.5.0", "9.0.0"
		}, func(f rollout.Facts) bool { return f.Unknown }},
		"a least version and none known":        {func(_ *testing.T, w *world) { w.release.Manifest.MinFrom, w.device.Firmware = "1.4.0", "" }, func(f rollout.Facts) bool { return f.Unknown }},
		"what it depends on and nobody reports": {func(_ *testing.T, w *world) { depends(w) }, func(f rollout.Facts) bool { return f.Missing == "radio 1.2.0" }},
		"the device's own version is not that of what it depends on": {func(_ *testing.T, w *world) {
			depends(w)
			w.device.Firmware = "1.9.0"
		}, func(f rollout.Facts) bool { return f.Missing == "radio 1.2.0" }},
		"what it depends on is too old": {func(_ *testing.T, w *world) {
			depends(w)
			w.reported["versions.radio"], w.reported["versions.boot"] = `"1.2.0-rc.1"`, `"3.0.0"`
		}, func(f rollout.Facts) bool { return f.Missing == "radio 1.2.0" }},
		"the second that it depends on is too old": {func(_ *testing.T, w *world) {
			depends(w)
			w.reported["versions.radio"], w.reported["versions.boot"] = `"v1.2"`, `"2.9.9"`
		}, func(f rollout.Facts) bool { return f.Missing == "boot 3.0.0" }},
		"all that it depends on is there": {func(_ *testing.T, w *world) {
			depends(w)
			w.reported["versions.radio"], w.reported["versions.boot"] = `"1.2.0"`, `"3.1.0"`
		}, func(f rollout.Facts) bool { return f.Missing == "" }},
		"a release that is revoked": {func(_ *testing.T, w *world) { w.release.Withdrawn = true }, func(f rollout.Facts) bool { return f.Withdrawn }},
		"a release that is gone":    {func(_ *testing.T, w *world) { w.err = muster.Errorf(muster.NotFound, "gone") }, func(f rollout.Facts) bool { return f.Withdrawn && !f.Installed }},
		"a release that is over":    {func(_ *testing.T, w *world) { w.release.Manifest.Expires = w.at }, func(f rollout.Facts) bool { return !f.Signed }},
		"a device that is away":     {func(_ *testing.T, w *world) { w.presence = muster.PresenceOffline }, func(f rollout.Facts) bool { return !f.Reachable }},
		"the time where it is": {func(t *testing.T, w *world) { w.device.Tags = tags(t, map[string]string{"tz": "Europe/Berlin"}) }, func(f rollout.Facts) bool {
			return f.Local.Hour() == 1 && f.Local.Location().String() == "Europe/Berlin"
		}},
		"a zone that is none": {func(t *testing.T, w *world) { w.device.Tags = tags(t, map[string]string{"tz": "Local"}) }, func(f rollout.Facts) bool {
			return f.Local.Location().String() == "Asia/Tokyo" // the plan's
		}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			c.make(t, w)
			if f := w.fleet(t).Facts(&rollout.Rollout{Release: "rel", Plan: rollout.Plan{Zone: "Asia/Tokyo"}}, "d"); !c.is(f) {
				t.Errorf("%+v", f)
			}
		})
	}
}

func TestADeviceOrAReleaseThatIsNotKnownIsOfferedNothing(t *testing.T) {
	w := newWorld()
	f := w.fleet(t)
	for name, facts := range map[string]rollout.Facts{
		"device": f.Facts(&rollout.Rollout{Release: "rel"}, "gone"), "release": f.Facts(&rollout.Rollout{Release: "other"}, "d"),
	} {
		r := &rollout.Rollout{Status: rollout.Running, Plan: rollout.DefaultPlan(), Counts: make([]rollout.Counts, 3)}
		if _, held := rollout.Held(r, &rollout.Device{}, &facts, 1); !held {
			t.Errorf("an unknown %s is offered the release", name)
		}
	}
	w.err = errors.New("the store is away")
	if err := f.Refresh(t.Context(), []rollout.Rollout{{ID: "r", Release: "rel"}}); err == nil {
		t.Error("nothing is said of a catalogue that cannot be read")
	}
	if facts := f.Facts(&rollout.Rollout{Release: "rel"}, "d"); !facts.Signed {
		t.Error("what was known before is forgotten")
	}
}

func TestWhoAskedJustNowIsThere(t *testing.T) {
	w := newWorld()
	w.presence = muster.PresenceNever
	f := w.fleet(t)
	r := &rollout.Rollout{Release: "rel"}
	there := func() bool { return f.Facts(r, "d").Reachable }
	if there() || f.Life("d").There {
		t.Fatal("who never came is there")
	}
	f.Asked("d")
	if !there() || !f.Life("d").There {
		t.Error("who asked is not there")
	}
	w.at = w.at.Add(10 * time.Minute)
	if there() || !f.Life("d").There {
		t.Error("who asked ten minutes ago is there, or is dead")
	}
	w.at = w.at.Add(time.Hour)
	if f.Life("d").There {
		t.Error("who asked more than an hour ago is alive")
	}
}

func TestADeviceIsSilentByItsOwnRhythm(t *testing.T) {
	w := newWorld()
	w.presence, w.seen = muster.PresenceOffline, muster.MicrosOf(w.at)
	f := w.fleet(t)
	want := rollout.Life{Heard: w.seen, Until: muster.MicrosOf(w.at.Add(20 * time.Minute))} // it is expected every ten minutes
	if got := f.Life("d"); got != want {
		t.Errorf("it is known that %+v, want %+v", got, want)
	}
	if got := f.Life("stranger"); got != (rollout.Life{}) {
		t.Errorf("of who is not there it is known that %+v", got)
	}
}

func TestThreeFailuresInADayBlockADevice(t *testing.T) {
	w := newWorld()
	f := w.fleet(t)
	r := &rollout.Rollout{ID: "r", Release: "rel"}
	began := muster.MicrosOf(w.at)
	change := func(to rollout.State, e rollout.Event) rollout.Change {
		return rollout.Change{Device: "d", From: rollout.Installing, To: to, Event: e, At: muster.MicrosOf(w.at)}
	}
	f.SetFailures([]desk.Failure{{Device: "d", Rollout: "other", At: began}})
	w.at = w.at.Add(time.Hour)
	f.Changed("another", []rollout.Change{change(rollout.Queued, rollout.SaysFailed), change(rollout.Queued, rollout.Recall), change(rollout.Confirmed, rollout.Soaked)})
	if b := f.Facts(r, "d").Blocked; b != 0 {
		t.Fatal("two failures block")
	}
	f.Changed("another", []rollout.Change{change(rollout.TimedOut, rollout.Silence)})
	day := muster.Micros(24 * time.Hour / time.Microsecond)
	if b := f.Facts(r, "d").Blocked; b != began+day {
		t.Errorf("blocked until %d, want %d", b, began+day)
	}
	w.at = w.at.Add(23 * time.Hour)
	if b := f.Facts(r, "d").Blocked; b != 0 {
		t.Error("blocked a day after the first")
	}
	if since := target.FailuresSince(w.at); since != began {
		t.Errorf("since %d, want %d", since, began)
	}
}

func TestOnlyFailuresInOtherRolloutsBlock(t *testing.T) {
	w := newWorld()
	f := w.fleet(t)
	began := muster.MicrosOf(w.at)
	const second = muster.Micros(time.Second / time.Microsecond)
	fail := func(id string, at muster.Micros) {
		f.Changed(id, []rollout.Change{{Device: "d", From: rollout.Installing, To: rollout.Queued, Event: rollout.SaysFailed, At: at}})
	}
	until := func(id string) muster.Micros { return f.Facts(&rollout.Rollout{ID: id, Release: "rel"}, "d").Blocked }
	day := muster.Micros(24 * time.Hour / time.Microsecond)
	for i := range muster.Micros(10) { // as many as a plan may have
		fail("a", began-day/2+i*second)
	}
	if own, other := until("a"), until("b"); own != 0 || other != began-day/2+7*second+day {
		t.Errorf("ten failures in a rollout block it until %d, and another until %d", own, other)
	}
	fail("b", began-3*second)
	fail("b", began-2*second)
	if got := until("a"); got != 0 {
		t.Errorf("two failures in another block until %d", got)
	}
	fail("c", began-second)
	if got := until("a"); got != began-3*second+day {
		t.Errorf("three failures in others block until %d", got)
	}
	for range 20 { // what is remembered is bounded, and leaves none out
		fail("a", began)
	}
	if own, b, c := until("a"), until("b"), until("c"); own != began-3*second+day || b != began+day || c != began+day {
		t.Errorf("a is blocked until %d, b until %d, c until %d", own, b, c)
	}
}

func TestPatchesAreAskedForWhoMayHaveTheRelease(t *testing.T) {
	r := &rollout.Rollout{Release: "rel"}
	w := newWorld()
	w.patching = true
	f := w.fleet(t)
	if !f.Facts(r, "d").Patching || len(w.asked) != 1 || w.asked[0] != "rel 1.4.0" {
		t.Errorf("%q was asked for", w.asked)
	}
	for name, change := range map[string]func(){
		"who has it already": func() { w.device.Firmware = "2.0.0" }, "a release that is revoked": func() { w.release.Withdrawn = true },
		"other hardware": func() { w.release.Manifest.Hardware = []firmware.Hardware{{Board: "p1"}} }, "a release without signatures": func() { w.release.Signed = false },
	} {
		*w = *newWorld()
		w.patching = true
		change()
		if w.fleet(t).Facts(r, "d").Patching || len(w.asked) != 0 {
			t.Errorf("%s: %q was asked for", name, w.asked)
		}
	}
}

// TestNoPatchIsChosenBySoftwareThatReportsNoVersionOfItsOwn: the firmware's says nothing of it.
func TestNoPatchIsChosenBySoftwareThatReportsNoVersionOfItsOwn(t *testing.T) {
	r := &rollout.Rollout{Release: "rel"}
	for own, want := range map[string]string{"": "", `"1.1.0"`: "1.1.0"} {
		w := newWorld()
		w.patching, w.release.Manifest.Type = true, firmware.Software
		if own != "" {
			w.reported["versions.pump"] = own
		}
		f := w.fleet(t)
		if facts := f.Facts(r, "d"); facts.Version != want || facts.Patching != (want != "") || f.Replaced(r, "d") != want {
			t.Errorf("it reports %s, and is to have a patch of %q (%t), or of %q", own, facts.Version, facts.Patching, f.Replaced(r, "d"))
		}
	}
}

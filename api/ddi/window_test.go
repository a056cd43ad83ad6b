package ddi_test

import (
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/firmware/rollout"
)

// windows gives the rollout a window that is open now, or one that is not.
func (r *rig) windows(open bool) {
	r.Helper()
	clock := func(in time.Duration) rollout.Clock {
		at := r.now().Add(in)
		return rollout.Clock(at.Hour()*60 + at.Minute())
	}
	w := rollout.Window{From: clock(2 * time.Hour), To: clock(3 * time.Hour)}
	if open {
		w = rollout.Window{From: clock(-time.Hour), To: clock(time.Hour)}
	}
	r.must(r.store.RescheduleRollout(r.Context(), "r", muster.MicrosOf(r.now()), func(x *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		x.Plan.Windows = []rollout.Window{w}
		return nil, nil
	}))
	r.tick()
}

// part is how the device is to go about its deployment.
func (r *rig) part() string {
	r.Helper()
	link := r.links()["deploymentBase"]
	if link == "" {
		return "none"
	}
	d := r.do("GET", link, "").json(r.T)["deployment"].(map[string]any)
	return fmt.Sprint(d["download"], " ", d["update"], " ", d["maintenanceWindow"])
}

// TestOutsideOfItsWindowADeviceGoesOnFetchingAndWaitsWithTheImage: its slot is another's meanwhile, and when its window
// opens it installs what it has, by the same action and without fetching again.
func TestOutsideOfItsWindowADeviceGoesOnFetchingAndWaitsWithTheImage(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	feedback := fmt.Sprintf("%s/deploymentBase/%d/feedback", home, action)
	image := fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)
	slots := func() int {
		x, err := r.store.Rollout(t.Context(), "r")
		r.must(err)
		return x.InFlight()
	}
	r.windows(true)
	if got := r.part(); got != "forced forced available" {
		t.Fatalf("in its window it is %s", got)
	}
	r.says(200, feedback, "download", "none", "")
	r.windows(false)
	if got := r.part(); got != "forced skip unavailable" {
		t.Fatalf("outside of its window it is %s", got)
	}
	r.says(200, feedback, "closed", "success", `,"details":["Skipped Update."]`)
	r.is(rollout.Downloading)
	if got := r.do("GET", image, ""); got.status != 200 {
		t.Fatalf("the image is answered %d", got.status)
	}
	r.says(200, feedback, "closed", "success", "")
	r.is(rollout.Downloaded)
	r.add(10 * time.Second)
	r.tick()
	if d := r.device(); !d.Parked() || slots() != 0 || d.Action != action {
		t.Fatalf("it is %+v, %d slots are taken", d, slots())
	}
	for range 3 {
		r.add(6 * time.Hour)
		r.windows(false)
		if got := r.part(); got != "forced skip unavailable" {
			t.Fatalf("while it waits it is %s", got)
		}
	}
	r.windows(true)
	r.links() // it is there
	r.tick()
	if d, got := r.device(), r.part(); got != "forced forced available" || d.State != rollout.Downloaded || d.Action != action || d.Failures != 0 || slots() != 1 {
		t.Fatalf("in the next it is %s: %+v, %d slots are taken", got, d, slots())
	}
	r.says(200, feedback, "closed", "success", "")
	r.is(rollout.Rebooting)
}

// TestAnOfferThatNobodyTookUpIsNotToldOutsideOfItsWindow, also before it is taken back.
func TestAnOfferThatNobodyTookUpIsNotToldOutsideOfItsWindow(t *testing.T) {
	r := newRig(t)
	action := r.roll()
	r.must(r.store.RescheduleRollout(t.Context(), "r", muster.MicrosOf(r.now()), func(x *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		from := rollout.Clock((r.now().Hour() + 2) % 24 * 60)
		x.Plan.Windows = []rollout.Window{{From: from, To: (from + 30) % 1440}}
		return nil, nil
	}))
	r.is(rollout.Offered)
	if l := r.links(); l["deploymentBase"] != "" || l["cancelAction"] != "" {
		t.Errorf("it has %v", l)
	}
	for _, path := range []string{fmt.Sprintf("%s/deploymentBase/%d", home, action), fmt.Sprintf("%s/softwaremodules/%d/artifacts/%s", home, action, r.shelf.release.Files[0].Filename)} {
		if got := r.do("GET", path, ""); got.status != 404 {
			t.Errorf("%s is answered %d", path, got.status)
		}
	}
	r.tick()
	if d := r.device(); d.State != rollout.Queued || d.Failures != 0 {
		t.Errorf("it is %+v", d)
	}
}

// TestWhoWasToldToInstallHasInstalledThoughItsWindowHasClosedMeanwhile: SWUpdate writes what it fetches as it comes.
func TestWhoWasToldToInstallHasInstalledThoughItsWindowHasClosedMeanwhile(t *testing.T) {
	r := newRig(t)
	feedback := fmt.Sprintf("%s/deploymentBase/%d/feedback", home, r.roll())
	r.windows(true)
	if got := r.part(); got != "forced forced available" {
		t.Fatalf("in its window it is %s", got)
	}
	r.says(200, feedback, "proceeding", "none", "")
	r.is(rollout.Downloading)
	r.windows(false)
	r.says(200, feedback, "closed", "success", "")
	r.is(rollout.Rebooting)
}

package devices_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

// erasing returns the ids whose data is to be deleted, found page by page.
func erasing(r *devices.Registry, page int) []muster.DeviceID {
	var all []muster.DeviceID
	for after := muster.DeviceID(""); ; after = all[len(all)-1] {
		ids, _ := r.Erasing(after, page)
		if len(ids) == 0 {
			return all
		}
		all = append(all, ids...)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestADeviceDeletedWithItsDataCannotBeMadeAgainBeforeItsDataIsGone(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	for _, id := range []muster.DeviceID{"a", "b", "c", "d"} {
		mustCreate(t, r, devices.Spec{ID: id})
	}
	_, more := r.Erasing("", 10)
	must(t, r.DeleteMany(t.Context(), []muster.DeviceID{"c", "a"}, devices.EraseData))
	must(t, r.Delete(t.Context(), "b", devices.EraseData))
	must(t, r.Delete(t.Context(), "d", devices.KeepData))
	if !isClosed(more) {
		t.Error("whoever waits for erasures is not told")
	}

	mustCreate(t, r, devices.Spec{ID: "d"})
	for _, r := range []*devices.Registry{r, open(t, m, devices.Options{})} { // and after a restart
		if d := cmp.Diff([]muster.DeviceID{"a", "b", "c"}, erasing(r, 2)); d != "" {
			t.Error(d)
		}
		if n, oldest := r.Erasures(); n != 3 || oldest == 0 || !r.IsErasing("a") || r.IsErasing("d") || r.Has("a") || !r.Has("d") {
			t.Errorf("%d are pending since %d", n, oldest)
		}
		_, _, err := r.Create(t.Context(), devices.Spec{ID: "a"})
		wantKind(t, err, muster.Conflict)
		if err == nil || !strings.Contains(muster.Public(err), "is being deleted; try again") {
			t.Errorf("a new device with the id is refused with %q", err)
		}
		wantKind(t, r.CheckSpec(devices.Spec{ID: "b"}, nil), muster.Conflict)
		_, _, err = r.CreateMany(t.Context(), []devices.Spec{{ID: "e"}, {ID: "c"}})
		wantKind(t, err, muster.Conflict)
	}

	must(t, r.Erased(t.Context(), []muster.DeviceID{"a", "c"}))
	mustCreate(t, r, devices.Spec{ID: "a"})
	if d := cmp.Diff([]muster.DeviceID{"b"}, erasing(open(t, m, devices.Options{}), 10)); d != "" {
		t.Error(d)
	}
	must(t, r.Erased(t.Context(), []muster.DeviceID{"b", "never"}))
	if n, oldest := r.Erasures(); n != 0 || oldest != 0 {
		t.Errorf("%d are pending since %d", n, oldest)
	}
}

func TestWhatBecomesOfTheDataMustBeSaid(t *testing.T) {
	r := open(t, newMemory(), devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	for _, data := range []devices.Data{"", "erase", "KEEP"} {
		err := r.Delete(t.Context(), "a", data)
		wantKind(t, err, muster.Invalid)
		for _, part := range []string{"data=keep", "data=delete", "continues it", "for good"} {
			if err == nil || !strings.Contains(muster.Public(err), part) {
				t.Errorf("%q is refused with %v, want it to say %q", data, err, part)
			}
		}
	}
	if !r.Has("a") {
		t.Error("the device is gone")
	}
}

func TestAStoreThatIsDownErasesNothing(t *testing.T) {
	m := newMemory()
	r := open(t, m, devices.Options{})
	mustCreate(t, r, devices.Spec{ID: "a"})
	mustCreate(t, r, devices.Spec{ID: "b"})
	must(t, r.Delete(t.Context(), "b", devices.EraseData))
	m.setDown(true)
	if err := r.Delete(t.Context(), "a", devices.EraseData); err == nil {
		t.Error("a device was deleted without a store")
	}
	if err := r.Erased(t.Context(), []muster.DeviceID{"b"}); err == nil {
		t.Error("an erasure ended without a store")
	}
	if got := erasing(r, 10); !cmp.Equal(got, []muster.DeviceID{"b"}) || !r.Has("a") {
		t.Errorf("%v are to be erased", got)
	}
	m.setDown(false)
	wantKind(t, r.DeleteMany(t.Context(), []muster.DeviceID{"a", "nobody"}, devices.EraseData), muster.NotFound)
	if r.IsErasing("a") || !r.Has("a") {
		t.Error("half of a deletion was done")
	}
}

func TestTheDataOfADeviceThatExistsIsLeftAlone(t *testing.T) {
	m := newMemory()
	mustCreate(t, open(t, m, devices.Options{}), devices.Spec{ID: "a"})
	m.erasures["a"], m.erasures["b"] = 1, 2
	if got := erasing(open(t, m, devices.Options{}), 10); !cmp.Equal(got, []muster.DeviceID{"b"}) {
		t.Errorf("%v are to be erased", got)
	}
}

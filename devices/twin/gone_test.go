package twin_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/store/control"
)

// A device's deletion is committed a moment before the registry knows of it.
func TestWhatIsChangedOfADeviceThatTheStoreHasNoMoreIsRefusedAsOfNoDevice(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("a", "b")
		must(t, c.DeleteDevices(t.Context(), []muster.DeviceID{"a"}))
		errs := r.twins.ApplyReported(t.Context(), []twin.Report{
			{Device: "a", Patch: []byte(`{"x":1}`)}, {Device: "b", Patch: []byte(`{"x":1}`)}, {Device: "a", Patch: []byte(`{"x":2}`)},
		})
		wantKind(t, errs[0], muster.NotFound)
		must(t, errs[1])
		wantKind(t, errs[2], muster.NotFound)
		_, err := r.twins.PatchDesired(t.Context(), twin.Device("a"), []byte(`{"x":1}`), nil)
		wantKind(t, err, muster.NotFound)
		errs = r.twins.PatchDevices(t.Context(), []muster.DeviceID{"a", "b"}, []byte(`{"x":3}`))
		wantKind(t, errs[0], muster.NotFound)
		must(t, errs[1])
		if _, told := r.told["a"]; told || r.told["b"].Next != `{"x":3}` {
			t.Errorf("told %+v", r.told)
		}
		if tw := r.get("a"); string(tw.Reported)+string(tw.Desired) != "{}{}" {
			t.Errorf("seen %+v", tw)
		}
	})
}

func TestManyDevicesAreChangedInOneTransactionAndToldAfterIt(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		var ids []muster.DeviceID
		for i := range 50 {
			ids = append(ids, name(i))
		}
		r.device(ids...)
		r.patch(twin.Device(ids[3]), `{"x":1}`)
		r.patch(twin.Device(ids[4]), fmt.Sprintf(`{"big":%q}`, strings.Repeat("x", 10_000)))
		r.told, r.changes = map[muster.DeviceID]twin.Change{}, 0
		var told []int
		r.onTold = func() { told = append(told, r.changes) }
		asked := append([]muster.DeviceID{"nobody"}, append(ids, ids[0])...)
		errs := r.twins.PatchDevices(t.Context(), asked, []byte(`{"x":1}`))
		wantKind(t, errs[0], muster.NotFound)
		for _, err := range errs[1:] {
			must(t, err)
		}
		if d := cmp.Diff([]int{49}, told); d != "" {
			t.Errorf("told so many at a time (-want +got):\n%s", d)
		}
		for _, id := range ids {
			if got, err := r.twins.Level(twin.Device(id)); err != nil || id != ids[4] && string(got.State) != `{"x":1}` {
				t.Errorf("%s wants %s, %v", id, got.State, err)
			}
		}
		before := r.changes
		for _, err := range r.twins.PatchDevices(t.Context(), ids, []byte(`{"x":1}`)) {
			must(t, err)
		}
		if r.changes != before {
			t.Error("who has it already is told again")
		}
		for _, err := range r.twins.PatchDevices(t.Context(), ids[:2], []byte(`[1]`)) {
			wantKind(t, err, muster.Invalid)
		}
		r.store.set(1, false)
		for _, err := range r.twins.PatchDevices(t.Context(), ids[:2], []byte(`{"y":1}`)) {
			wantKind(t, err, muster.Internal)
		}
		wantKind(t, r.twins.PatchDevices(t.Context(), make([]muster.DeviceID, devices.MaxBatch+1), nil)[0], muster.TooLarge)
		r.settle()
		r.restart()
		if got := r.get(ids[1]); string(got.Desired) != `{"x":1}` {
			t.Errorf("after a restart it wants %s", got.Desired)
		}
	})
}

// A desired job over 10,000 devices on SQLite: what each of them costs by a call of its
// own, and by calls for many.
func BenchmarkAPatchOf10kDevices(b *testing.B) {
	for _, batch := range []int{1, 100, 500, 10_000} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			const n = 10_000
			r := newRig(b, onSQLite(b))
			r.many(n, func(i int) devices.Spec { return devices.Spec{ID: name(i)} })
			ids := make([]muster.DeviceID, n)
			for i := range ids {
				ids[i] = name(i)
			}
			for k := 0; b.Loop(); k++ {
				patch := fmt.Appendf(nil, `{"interval":%d}`, k)
				for from := 0; from < n; from += batch {
					if batch == 1 {
						_, err := r.twins.PatchDesired(b.Context(), twin.Device(ids[from]), patch, nil)
						must(b, err)
						continue
					}
					for _, err := range r.twins.PatchDevices(b.Context(), ids[from:from+batch], patch) {
						must(b, err)
					}
				}
			}
		})
	}
}

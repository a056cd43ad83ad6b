package control_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/devices"
	"muster/store/control"
)

func wantErasures(t *testing.T, c *control.Control, want ...devices.Erasure) {
	t.Helper()
	var got []devices.Erasure
	wantNil(t, c.LoadErasures(t.Context(), func(e devices.Erasure) error { got = append(got, e); return nil }))
	if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("erasures (-want +got):\n%s", d)
	}
}

func TestErasuresAreRecordedWithTheDeletion(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		var ds []devices.Device
		var ids []muster.DeviceID
		for i := range 700 { // more than one statement takes
			ds = append(ds, device(fmt.Sprintf("d%03d", i)))
			ids = append(ids, ds[i].ID)
		}
		kept := device("kept")
		wantNil(t, c.InsertDevices(ctx, append(ds, kept), nil))
		t.Run("a deletion that fails records nothing", func(t *testing.T) {
			wantKind(t, c.EraseDevices(ctx, []muster.DeviceID{"d000", "nobody"}, 5), muster.NotFound)
			wantErasures(t, c)
			if n := len(holds(t, c).Devices); n != 701 {
				t.Errorf("there are %d devices, want 701", n)
			}
		})
		t.Run("devices that are deleted with their data are recorded, also for the next start", func(t *testing.T) {
			wantNil(t, c.EraseDevices(ctx, ids[:1], 5))
			wantNil(t, c.EraseDevices(ctx, ids[1:], 7))
			var want []devices.Erasure
			for _, id := range ids {
				want = append(want, devices.Erasure{Device: id, Since: 7})
			}
			want[0].Since = 5
			for _, c := range []*control.Control{c, e.control(t)} {
				wantErasures(t, c, want...)
				wantHeld(t, c, held{Devices: []devices.Device{kept}})
			}
		})
		t.Run("an erasure that is over is forgotten, and one that is not there is none", func(t *testing.T) {
			wantNil(t, c.DeleteErasures(ctx, append(ids[:699:699], "nobody")))
			wantErasures(t, c, devices.Erasure{Device: "d699", Since: 7})
		})
		t.Run("a device that is deleted and keeps its data is none", func(t *testing.T) {
			wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"kept"}))
			wantErasures(t, c, devices.Erasure{Device: "d699", Since: 7})
		})
	})
}

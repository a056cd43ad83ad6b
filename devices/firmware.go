package devices

import (
	"context"

	"muster"
)

// FirmwareReport says which firmware version a device reports, empty for none any more.
type FirmwareReport struct {
	Device  muster.DeviceID
	Version string // one that Device.Firmware may not be is left out
}

// SetFirmware keeps the versions that devices report, in one transaction; at most
// MaxBatch. Of two reports of one device the last counts. Reports of devices that are
// not there any more are left out.
func (r *Registry) SetFirmware(ctx context.Context, reports []FirmwareReport) error {
	if len(reports) > MaxBatch {
		return muster.Errorf(muster.TooLarge, "%d firmware reports at once, at most %d are allowed", len(reports), MaxBatch)
	}
	last := make(map[muster.DeviceID]int, len(reports))
	for i, f := range reports {
		if checkText("the firmware version", f.Version, MaxFirmware) == nil {
			last[f.Device] = i
		}
	}
	var u update
	err := r.change(ctx, func(ctx context.Context) (err error) {
		cs := make([]DeviceChange, 0, len(last))
		for i := range reports {
			f := &reports[i]
			if at, ok := last[f.Device]; !ok || at != i {
				continue
			}
			if d, err := r.Get(f.Device); err == nil && d.Firmware != f.Version {
				cs = append(cs, DeviceChange{ID: f.Device, Change: Change{Firmware: &f.Version}})
			}
		}
		u, err = r.update(ctx, cs)
		return err
	})
	if err == nil && len(u.changed) > 0 {
		r.reshaped(u.changed)
	}
	return err
}

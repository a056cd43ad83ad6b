package server

import (
	"context"
	"slices"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/firmware/desk"
)

// runningVersions keeps what devices say they run in the reported side of their twins, where rules and
// pages read it. It is a desk.Versions.
type runningVersions struct{ rollouts *rollouts }

// Say implements desk.Versions.
func (v runningVersions) Say(ctx context.Context, list []desk.Runs) []error {
	errs := make([]error, 0, len(list))
	var ids []muster.DeviceID
	for part := range slices.Chunk(list, devices.MaxBatch) {
		batch := make([]twin.Report, len(part))
		for i, r := range part {
			batch[i] = twin.Report{Device: r.Device, Version: r.Version, Product: r.Product, Beside: r.Beside}
		}
		for i, err := range v.rollouts.server.twins.ApplyReported(ctx, batch) {
			if errs = append(errs, err); err == nil {
				ids = append(ids, part[i].Device)
			}
		}
	}
	v.rollouts.came(ids...)
	return errs
}

var _ desk.Versions = runningVersions{}

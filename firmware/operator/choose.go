package operator

import (
	"muster"
	"muster/devices/query"
)

// Registry is what a Devices needs of *devices.Registry.
type Registry interface {
	Compile(q string) (*query.Expr, error)
	MatchAll(e *query.Expr) []muster.DeviceID
	Matches(id muster.DeviceID, e *query.Expr) bool
}

// Devices is a Chooser over the registry.
type Devices struct{ Registry Registry }

// Check implements Chooser.
func (d Devices) Check(q string) error {
	_, err := d.Registry.Compile(q)
	return err //nolint:wrapcheck // it says what is wrong with the query, and where
}

// MatchAll implements Chooser.
func (d Devices) MatchAll(q string) ([]muster.DeviceID, error) {
	e, err := d.Registry.Compile(q)
	if err != nil {
		return nil, err //nolint:wrapcheck // likewise
	}
	return d.Registry.MatchAll(e), nil
}

// Matches implements Chooser. A query that names what is gone matches nothing.
func (d Devices) Matches(q string, id muster.DeviceID) bool {
	e, err := d.Registry.Compile(q)
	return err == nil && d.Registry.Matches(id, e)
}

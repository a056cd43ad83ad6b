package server

import (
	"muster"
	"muster/devices"
	"muster/devices/query"
)

// dots arranges devices for the live gateway: it is a live.Dots.
type dots struct{ registry *devices.Registry }

// Shape implements live.Dots.
func (d dots) Shape() uint64 { return d.registry.Shape() }

// Arrange implements live.Dots.
func (d dots) Arrange(by devices.Arranging, only string) (*devices.Arrangement, error) {
	var e *query.Expr
	if only != "" {
		var err error
		if e, err = d.registry.Selector(only); err != nil {
			return nil, err //nolint:wrapcheck // it says what of the selector is wrong
		}
	}
	return d.registry.Arrange(by, e) //nolint:wrapcheck // it says what it does not take
}

// Statuses implements live.Dots.
func (d dots) Statuses(a *devices.Arrangement, at []uint32, into []muster.Status) {
	d.registry.Statuses(a, at, into)
}

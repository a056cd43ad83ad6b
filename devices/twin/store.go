package twin

import (
	"context"
	"encoding/json"
	"strings"

	"muster"
	"muster/devices"
)

// Document is one document as it is kept.
type Document struct {
	Text    string // canonical JSON, at most MaxDocument bytes; empty when there never was one
	Version int64  // of its last change, 0 when there never was one
	// At has for each top-level member of Text, in their order, when its value changed
	// last.
	At []muster.Micros
}

// LevelRow is the desired document of a level above the device.
type LevelRow struct {
	Level Level
	Document
}

// Row is all that is kept of one device's twin.
type Row struct {
	Device  muster.DeviceID
	Created muster.Micros // of the device, so that no row passes to another with its id
	// Version and Effective are the merge of the levels, as the device is told it.
	Version   int64
	Effective string
	Desired   Document // of the device's own level
	Reported  Document
	// Converged says whether Reported has every leaf of Effective; Diverged are the paths
	// where it has not, at most MaxDiverged of DivergedCount.
	Converged     bool
	Diverged      []string
	DivergedCount int
}

// Store keeps the twins. Every write is one transaction and keeps last, the newest
// version that was given out, unless it has a newer one.
type Store interface {
	// LastTwinVersion returns the newest version that was given out, 0 at first.
	LastTwinVersion(ctx context.Context) (int64, error)
	LoadTwinLevels(ctx context.Context, each func(LevelRow) error) error
	// LoadTwins leaves out Created.
	LoadTwins(ctx context.Context, each func(Row) error) error
	// PutTwinLevel answers NotFound when the profile or group of the level is not there.
	// The level is deleted with it.
	PutTwinLevel(ctx context.Context, row LevelRow, last int64) error
	// SaveTwins writes whole rows. A row whose device is not there, or was created at
	// another time, is left out: it returns those devices.
	SaveTwins(ctx context.Context, rows []Row, last int64) (gone []muster.DeviceID, err error)
	// SaveEffective is SaveTwins for what follows from the levels: all but Desired and
	// Reported, which a new row has empty; it does not say what it leaves out.
	SaveEffective(ctx context.Context, rows []Row, last int64) error
}

// Finder finds devices.
type Finder interface {
	Get(id muster.DeviceID) (devices.Device, error)
	Each(yield func(devices.Device) bool)
}

// Labels finds what devices may have in common.
type Labels interface {
	Profile(name string) (devices.Profile, error)
	Group(name string) (devices.Group, error)
}

// Registry is what twins need of *devices.Registry.
type Registry interface {
	Finder
	Labels
	SetFirmware(ctx context.Context, reports []devices.FirmwareReport) error
}

// Level is where a desired document is written. Levels can be compared with ==.
type Level struct {
	kind levelKind
	name string
}

type levelKind uint8

const (
	fleetLevel levelKind = iota
	profileLevel
	groupLevel
	deviceLevel
)

// Fleet is the level of all devices, the lowest.
func Fleet() Level { return Level{} }

// Profile is the level of the devices that have a profile.
func Profile(name string) Level { return Level{profileLevel, name} }

// Group is the level of the members of a static group. Of several groups the bytewise
// last one wins.
func Group(name string) Level { return Level{groupLevel, name} }

// Device is one device's own level, the highest.
func Device(id muster.DeviceID) Level { return Level{deviceLevel, string(id)} }

// String returns fleet, profile:NAME, group:NAME or device: which device it is, is
// known where it is asked.
func (l Level) String() string {
	switch l.kind {
	case profileLevel:
		return "profile:" + l.name
	case groupLevel:
		return "group:" + l.name
	case deviceLevel:
		return "device"
	default:
		return "fleet"
	}
}

// object is the level's document in the audit log: its path in the API.
func (l Level) object() string {
	switch l.kind {
	case profileLevel:
		return "profiles/" + l.name + "/desired"
	case groupLevel:
		return "groups/" + l.name + "/desired"
	case deviceLevel:
		return "devices/" + l.name + "/desired"
	default:
		return "fleet/desired"
	}
}

// audited is a document in the audit log, nil for none.
func audited(text string) any {
	if text == "" {
		return nil
	}
	return json.RawMessage(text)
}

// ParseLevel reads what String returns of a level above the device.
func ParseLevel(s string) (Level, error) {
	kind, name, _ := strings.Cut(s, ":")
	switch {
	case s == "fleet":
		return Fleet(), nil
	case kind == "profile" && name != "":
		return Profile(name), nil
	case kind == "group" && name != "":
		return Group(name), nil
	}
	return Level{}, muster.Errorf(muster.Invalid, "a level is fleet, profile:NAME or group:NAME")
}

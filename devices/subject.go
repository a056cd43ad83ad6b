package devices

import (
	"muster"
	"muster/devices/query"
)

// Values gives the latest telemetry of devices, from memory.
type Values interface {
	// Value returns the newest value of a key, false when there is none.
	Value(id muster.DeviceID, key string) (muster.Value, bool)
}

// Twins gives the twins of devices, from memory.
type Twins interface {
	// Leaf returns what lies at path in a side, query.Reported or query.Desired (the
	// effective one), as JSON text; empty when nothing does.
	Leaf(id muster.DeviceID, side query.Field, path []string) string
	// Difference returns whether the sides agree, and when path is not empty whether
	// it is one of the dotted paths that differ.
	Difference(id muster.DeviceID, path string) (converged, differs bool)
	// HasTwin says whether something is reported or desired.
	HasTwin(id muster.DeviceID) bool
}

// subject is a device as the query language sees it: a query.Subject. It is used
// for one device after the other.
type subject struct {
	r *Registry
	d Device

	children, credentials bool

	asked    bool // what follows is there
	state    muster.PresenceState
	updating bool
	seen     muster.Micros
	checkIn  int64
}

// fill takes e's part over, with the lock held.
func (s *subject) fill(r *Registry, e *entry) {
	s.r, s.d, s.children, s.credentials, s.asked = r, e.Device, len(e.children) > 0, len(e.creds) > 0, false
}

// attend takes p's presence over, with the tracker's lock held.
func (s *subject) attend(p *track) {
	s.asked, s.state, s.updating, s.seen, s.checkIn = true, stateNames[p.state], p.updating, max(p.seen, p.heard), p.checkIn()
}

func (s *subject) ID() muster.DeviceID           { return s.d.ID }
func (s *subject) Name() string                  { return s.d.Name }
func (s *subject) Profile() string               { return s.d.Profile }
func (s *subject) Parent() muster.DeviceID       { return s.d.Parent }
func (s *subject) Firmware() string              { return s.d.Firmware }
func (s *subject) Notes() string                 { return s.d.Notes }
func (s *subject) Created() muster.Micros        { return s.d.Created }
func (s *subject) Tag(key string) (string, bool) { return s.d.Tags.Get(key) }
func (s *subject) InGroup(name string) bool      { return s.d.Groups.Has(name) } // saved queries are expanded
func (s *subject) Converged() bool               { ok, _ := s.r.twins.Difference(s.d.ID, ""); return ok }

func (s *subject) Diverged(path string) bool {
	_, yes := s.r.twins.Difference(s.d.ID, path)
	return yes
}
func (s *subject) Value(key string) (muster.Value, bool) { return s.r.values.Value(s.d.ID, key) }

// Presence implements query.Subject. Of a device that was deleted it is none.
func (s *subject) Presence() (state muster.PresenceState, lastSeen muster.Micros, checkIn int64) {
	if !s.asked {
		s.asked, s.checkIn = true, query.DefaultCheckIn
		s.r.presence.mu.Lock()
		if p, ok := s.r.presence.rows[s.d.ID]; ok {
			s.attend(p)
		}
		s.r.presence.mu.Unlock()
	}
	return s.state, s.seen, s.checkIn
}

// Updating implements query.Subject.
func (s *subject) Updating() bool {
	s.Presence()
	return s.updating
}

// Twin implements query.Subject.
func (s *subject) Twin(side query.Field, path []string) string {
	return s.r.twins.Leaf(s.d.ID, side, path)
}

// Location implements query.Subject.
func (s *subject) Location() (lat, lon float64, ok bool) {
	return s.d.Location.Lat, s.d.Location.Lon, s.d.Location.Set
}

// Has implements query.Subject.
func (s *subject) Has(what string) bool {
	switch what {
	case query.HasChildren:
		return s.children
	case query.HasTags:
		return s.d.Tags != Tags{}
	case query.HasLocation:
		return s.d.Location.Set
	case query.HasTwin:
		return s.r.twins.HasTwin(s.d.ID)
	case query.HasCredential:
		return s.credentials
	default:
		return false
	}
}

// nothing stands for rooms that are not there.
type nothing struct{}

func (nothing) Value(muster.DeviceID, string) (muster.Value, bool)          { return muster.Value{}, false }
func (nothing) Leaf(muster.DeviceID, query.Field, []string) string          { return "" }
func (nothing) Difference(muster.DeviceID, string) (converged, differ bool) { return true, false }
func (nothing) HasTwin(muster.DeviceID) bool                                { return false }

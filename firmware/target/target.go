package target

import (
	"context"
	"fmt"
	"sync"
	"time"

	"muster"
	"muster/devices"
	"muster/devices/query"
	"muster/firmware"
	"muster/firmware/rollout"
)

// Devices is the registry.
type Devices interface {
	Get(id muster.DeviceID) (devices.Device, error)
	Presence(id muster.DeviceID) (muster.Presence, bool)
	// CheckIn returns how many seconds apart messages of a device are expected.
	CheckIn(id muster.DeviceID) int64
}

// Reported is what devices report; Leaf returns the JSON text of a member, empty for none.
type Reported interface {
	Leaf(id muster.DeviceID, side query.Field, path []string) string
}

// Release is what must be known of a release before an offer.
type Release struct {
	Manifest  *firmware.Manifest
	Signed    bool // as the server asks for, by keys that are good
	Withdrawn bool
	Outdated  bool // deprecated: no rollout begins with it
}

// Catalogue knows releases. One that is not there is NotFound.
type Catalogue interface {
	Known(ctx context.Context, release string) (Release, error)
}

// Patches has patches made.
type Patches interface {
	// Waits has the patches to a release made for devices that report a version, if they are not there, and
	// says whether an offer to such a device is to wait for them. It does not wait itself.
	Waits(release, version string) bool
}

const (
	maxPolled = 200_000         // devices that asked just now; when there are more the oldest are forgotten first
	polled    = 2 * time.Minute // for which a device that asked counts as there
	alive     = time.Hour       // for which one that asks only now and then counts as alive
)

// Fleet is a director.Fleet. It is safe for concurrent use.
type Fleet struct {
	devices   Devices
	reported  Reported
	catalogue Catalogue
	patches   Patches // nil for none
	now       func() time.Time

	mu       sync.Mutex
	releases map[string]known // of rollouts that are open
	rollouts map[string]bool  // whose releases are in it
	asked    *recent
	failures failures
}

// known is a release with its version parsed; broken when it has none that can be read.
type known struct {
	Release

	version, least firmware.Version
	hasLeast       bool
	needs          []need
}

// need is another product that a release depends on, with the least version.
type need struct {
	product string
	least   firmware.Version
}

// missing returns the first of what a release needs that a device does not report at versions.PRODUCT
// of its twin; empty for none.
func (f *Fleet) missing(id muster.DeviceID, needs []need) string {
	for _, n := range needs {
		if v, ok := firmware.Reported(f.text(id, "versions", n.product)); !ok || v.Compare(n.least) < 0 {
			return n.product + " " + n.least.String()
		}
	}
	return ""
}

// New returns a Fleet that knows no release yet: see Refresh. No offer waits for patches when patches is nil.
func New(d Devices, r Reported, c Catalogue, patches Patches, now func() time.Time) *Fleet {
	return &Fleet{devices: d, reported: r, catalogue: c, patches: patches, now: now, releases: map[string]known{}, rollouts: map[string]bool{}, asked: newRecent(maxPolled), failures: newFailures()}
}

// Refresh reads what the catalogue says now of the releases of rollouts, and forgets all
// others. A release that is gone counts as withdrawn.
func (f *Fleet) Refresh(ctx context.Context, open []rollout.Rollout) error {
	next, of := make(map[string]known, len(open)), make(map[string]bool, len(open))
	for i := range open {
		of[open[i].ID] = true
		id := open[i].Release
		if _, ok := next[id]; ok {
			continue
		}
		k, err := f.look(ctx, id)
		if err != nil {
			return fmt.Errorf("look up the release of rollout %s: %w", open[i].ID, err)
		}
		next[id] = k
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releases, f.rollouts = next, of
	return nil
}

// Knows implements director.Fleet.
func (f *Fleet) Knows(rollout string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rollouts[rollout]
}

// Learn is Refresh for one more rollout, of which a device reports before the next round: after a
// start of the server too.
func (f *Fleet) Learn(ctx context.Context, r *rollout.Rollout) error {
	k, err := f.look(ctx, r.Release)
	if err != nil {
		return fmt.Errorf("look up the release of rollout %s: %w", r.ID, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.releases[r.Release], f.rollouts[r.ID] = k, true
	return nil
}

func (f *Fleet) look(ctx context.Context, id string) (known, error) {
	r, err := f.catalogue.Known(ctx, id)
	if muster.KindOf(err) == muster.NotFound {
		return known{Release: Release{Manifest: &firmware.Manifest{}, Withdrawn: true}}, nil
	}
	if err != nil {
		return known{}, err //nolint:wrapcheck // Refresh says for which rollout
	}
	k := known{Release: r}
	if k.version, err = firmware.ParseVersion(r.Manifest.Version); err != nil {
		return known{}, fmt.Errorf("read the version of release %s: %w", id, err)
	}
	if r.Manifest.MinFrom != "" {
		k.hasLeast = true
		if k.least, err = firmware.ParseVersion(r.Manifest.MinFrom); err != nil {
			return known{}, fmt.Errorf("read the least version of release %s: %w", id, err)
		}
	}
	for _, d := range r.Manifest.Depends {
		least, err := firmware.ParseVersion(d.Version)
		if err != nil {
			return known{}, fmt.Errorf("read what release %s depends on: %w", id, err)
		}
		k.needs = append(k.needs, need{d.Product, least})
	}
	return k, nil
}

func (f *Fleet) release(id string) (known, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k, ok := f.releases[id]
	return k, ok
}

// Facts implements director.Fleet. A device that is not there any more is not reachable.
func (f *Fleet) Facts(r *rollout.Rollout, id muster.DeviceID) rollout.Facts {
	now := f.now()
	k, ok := f.release(r.Release)
	d, err := f.devices.Get(id)
	if !ok || err != nil {
		return rollout.Facts{Gone: muster.KindOf(err) == muster.NotFound, Hardware: true, Source: true, Signed: ok && k.Signed, Withdrawn: ok && k.Withdrawn, Local: now}
	}
	facts := rollout.Facts{
		Version: f.own(&d, &k), Hardware: f.fits(&d, k.Manifest.Hardware), Source: true,
		Signed: k.Signed && !expired(k.Manifest, now), Withdrawn: k.Withdrawn,
		Blocked: f.blocked(id, r.ID, now), Reachable: f.there(id, now, polled), Local: now.In(zoneOf(&d, r.Plan.Zone)),
	}
	facts.NoHardware = !facts.Hardware && f.board(&d) == ""
	facts.Installed, facts.Missing = k.is(facts.Version), f.missing(id, k.needs)
	facts.Newer = k.below(facts.Version)
	if k.hasLeast {
		v, known := firmware.Reported(facts.Version)
		facts.Unknown = !known
		facts.Source = !known || v.Compare(k.least) >= 0
	}
	if f.patches != nil && facts.Version != "" && facts.Signed && facts.Hardware && facts.Source && !facts.Withdrawn && !facts.Installed && (!facts.Newer || r.Downgrade) {
		facts.Patching = f.patches.Waits(r.Release, facts.Version)
	}
	return facts
}

// Local is a desk.Local.
func (f *Fleet) Local(id muster.DeviceID, zone string) time.Time {
	now := f.now()
	d, err := f.devices.Get(id)
	if err != nil {
		return now
	}
	return now.In(zoneOf(&d, zone))
}

// own returns the version of what a release replaces at a device. Software beside the firmware has a version of
// its own, which the firmware's says nothing of; empty when the device reports none.
func (f *Fleet) own(d *devices.Device, k *known) string {
	if k.Manifest.Type == firmware.Software {
		return f.text(d.ID, "versions", k.Manifest.Product)
	}
	return f.version(d, k.Manifest.Product)
}

// Replaced returns the version of what a rollout's release replaces at a device, as Facts has it; empty when that is not known.
func (f *Fleet) Replaced(r *rollout.Rollout, id muster.DeviceID) string {
	k, ok := f.release(r.Release)
	d, err := f.devices.Get(id)
	if !ok || err != nil {
		return ""
	}
	return f.own(&d, &k)
}

// below says whether a release is older than a version.
func (k *known) below(version string) bool {
	v, ok := firmware.Reported(version)
	return ok && k.version != firmware.Version{} && v.Compare(k.version) > 0
}

// Barred says whether the release of a rollout may be offered to nobody as of now; false for one that is not known.
func (f *Fleet) Barred(r *rollout.Rollout) bool {
	k, ok := f.release(r.Release)
	return ok && (k.Withdrawn || !k.Signed || expired(k.Manifest, f.now()))
}

// Outdated says whether no rollout begins with the release of one any more, as of now; false for one that is not known.
func (f *Fleet) Outdated(r *rollout.Rollout) bool {
	k, ok := f.release(r.Release)
	return ok && k.Outdated
}

func expired(m *firmware.Manifest, now time.Time) bool {
	return !m.Expires.IsZero() && !now.Before(m.Expires)
}

// is says whether a reported version is the release's.
func (k *known) is(version string) bool {
	return k.version != firmware.Version{} && k.version.Is(version)
}

// Is implements director.Fleet.
func (f *Fleet) Is(r *rollout.Rollout, version string) bool {
	k, ok := f.release(r.Release)
	return ok && k.is(version)
}

// Life implements director.Fleet. By its own rhythm a device is silent when twice the time between its
// messages has passed, as for its status.
func (f *Fleet) Life(id muster.DeviceID) rollout.Life {
	l := rollout.Life{There: f.there(id, f.now(), alive)}
	if p, ok := f.devices.Presence(id); ok && p.LastSeen > 0 {
		l.Heard = p.LastSeen
		l.Until = p.LastSeen + 2*muster.Micros(f.devices.CheckIn(id))*muster.Micros(time.Second/time.Microsecond)
	}
	return l
}

// there says whether a device is connected, or asked within a time.
func (f *Fleet) there(id muster.DeviceID, now time.Time, within time.Duration) bool {
	if p, ok := f.devices.Presence(id); ok && (p.State == muster.PresenceOnline || p.State == muster.PresenceQuiet) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.asked.at(id)
	return ok && now.Sub(at) < within
}

// Asked notes that a device that holds no connection has asked for its firmware.
func (f *Fleet) Asked(id muster.DeviceID) {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked.note(id, now)
}

// Version implements director.Fleet. What a device says once it has an offer is of that, where it says no more: of software
// too, for hawkBit's clients have one version.
func (f *Fleet) Version(r *rollout.Rollout, id muster.DeviceID) string {
	k, ok := f.release(r.Release)
	d, err := f.devices.Get(id)
	if !ok || err != nil {
		return ""
	}
	return f.version(&d, k.Manifest.Product)
}

// version returns the version that a device reports of a product: versions.PRODUCT of its
// twin, else its firmware's. Empty when it reports none, or that of another title.
func (f *Fleet) version(d *devices.Device, product string) string {
	if v := f.text(d.ID, "versions", product); v != "" {
		return v
	}
	if title := f.text(d.ID, "fw_title"); title != "" && title != product && f.text(d.ID, "firmware") == "" && f.text(d.ID, "firmware", "version") == "" {
		return "" // its only version is fw_version, which is the title's
	}
	return d.Firmware
}

// Runs returns the version that a device last said it runs of a product, by whichever door, or of its firmware
// unless the product is beside that; empty for none.
func (f *Fleet) Runs(id muster.DeviceID, product string, beside bool) string {
	if product != "" {
		if v := f.text(id, "versions", product); v != "" || beside {
			return v
		}
	}
	d, err := f.devices.Get(id)
	if err != nil {
		return ""
	}
	return d.Firmware
}

// text returns a string that a device reports.
func (f *Fleet) text(id muster.DeviceID, path ...string) string {
	return plainString(f.reported.Leaf(id, query.Reported, path))
}

// fits says whether a release for some hardware is for a device: one of its tags board and
// revision, else of hw.board and hw.revision of its twin.
func (f *Fleet) fits(d *devices.Device, on []firmware.Hardware) bool {
	if len(on) == 0 {
		return true
	}
	revision, ok := d.Tags.Get("revision")
	if !ok {
		revision = f.text(d.ID, "hw", "revision")
	}
	return runsOn(on, f.board(d), revision)
}

// board is what a device is, as a person or the device itself says; empty when nobody has.
func (f *Fleet) board(d *devices.Device) string {
	if board, ok := d.Tags.Get("board"); ok {
		return board
	}
	return f.text(d.ID, "hw", "board")
}

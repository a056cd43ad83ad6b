package api

import (
	"context"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/devices"
	"muster/devices/query"
)

// Selecting is what the API needs to keep a key to the devices that its selector selects.
type Selecting interface {
	// Selector compiles a key's device selector; its answer is kept.
	Selector(text string) (*query.Expr, error)
	Matches(id muster.DeviceID, e *query.Expr) bool
	// WouldMatch says whether a device that is to be made would match.
	WouldMatch(s devices.Spec, e *query.Expr) bool
}

// How an operation that names no device in its path treats a key with a selector. What
// is not listed is Forbidden to it, so that a new operation is closed until somebody has
// thought about it.
func opensToSelectors(operation string) bool {
	switch operation {
	case "get-me", "sign-out", // of the caller
		"list-profiles", "get-profile", "list-event-types": // of no device
		return true
	case "list-devices", "list-device-facets", "explain-device-query", "list-sparklines", "export-devices", "list-groups", "get-group", // count and show what is within
		"create-device", "import-devices", "update-devices", "delete-devices", // change what is within
		"list-rollout-devices", "list-rejected", "list-candidates", "get-candidate", "adopt-candidate", "refuse-candidate",
		"write-telemetry", "stream", "send-to-stream": // filter by the selector itself
		return true
	}
	return false
}

// within keeps who has a device selector to its devices. A device outside is answered as
// one that does not exist. It runs before any input is looked at, and after an answer that is given again for its
// Idempotency-Key: the same key had it when the device was within.
func (a *API) within(ctx huma.Context, next func(huma.Context)) {
	req := requestOf(ctx.Context())
	req.op = ctx.Operation()
	if req.who.Selector == "" {
		next(ctx)
		return
	}
	op := ctx.Operation()
	ofDevice := strings.Contains(op.Path, "{device}")
	if !ofDevice && !opensToSelectors(op.OperationID) {
		a.refuse(ctx, muster.Errorf(muster.Forbidden, "a key with a device selector may not do this"))
		return
	}
	only, err := a.Registry.Selector(req.who.Selector)
	if err != nil {
		a.refuse(ctx, err)
		return
	}
	if ofDevice && !a.Registry.Matches(muster.DeviceID(ctx.Param("device")), only) {
		a.refuse(ctx, errNoDevice())
		return
	}
	req.only = only
	next(ctx)
}

// registry returns the registry as who asks may see and change it.
func (a *API) registry(ctx context.Context) Registry {
	if only := requestOf(ctx).only; only != nil {
		return narrowed{a.Registry, only}
	}
	return a.Registry
}

// sees says whether who asks may know of the device id.
func (a *API) sees(ctx context.Context, id muster.DeviceID) bool {
	only := requestOf(ctx).only
	return only == nil || a.Registry.Matches(id, only)
}

// seesNew says whether who asks may know of what would become the device that s describes.
func (a *API) seesNew(ctx context.Context, s devices.Spec) bool {
	only := requestOf(ctx).only
	return only == nil || a.Registry.WouldMatch(s, only)
}

// narrowed is the registry with the devices that match only, and no others. What it does
// not override has nothing of devices, or is closed to keys with a selector.
type narrowed struct {
	Registry
	only *query.Expr
}

// The registry's own words: who is told them learns nothing of devices outside.
func errNoDevice() error { return muster.Errorf(muster.NotFound, "there is no such device") }

func errNoGroup() error { return muster.Errorf(muster.NotFound, "there is no such group") }

func errNoParent() error {
	return muster.InvalidAt("parent", "the device that is to be the parent does not exist")
}

func (n narrowed) check(ids ...muster.DeviceID) error {
	for _, id := range ids {
		if !n.Matches(id, n.only) {
			return errNoDevice()
		}
	}
	return nil
}

// Get implements DeviceReader.
func (n narrowed) Get(id muster.DeviceID) (devices.Device, error) {
	if err := n.check(id); err != nil {
		return devices.Device{}, err
	}
	return n.Registry.Get(id)
}

// Select implements DeviceReader. How many devices were looked at would tell how many
// there are: the plan says of those that were found only.
func (n narrowed) Select(s devices.Selection) (devices.Selected, error) {
	s.Query = query.Both(n.only, s.Query)
	out, err := n.Registry.Select(s)
	out.Plan = devices.Plan{Index: "scan", Scanned: len(out.Devices)}
	return out, err
}

// MatchAll implements BulkKeeper.
func (n narrowed) MatchAll(e *query.Expr) []muster.DeviceID {
	return n.Registry.MatchAll(query.Both(n.only, e))
}

// Members implements GroupKeeper.
func (n narrowed) Members(name string) (int, error) {
	if _, err := n.Group(name); err != nil {
		return 0, err
	}
	e, err := n.Compile("group:" + name)
	if err != nil {
		return 0, err
	}
	return len(n.MatchAll(e)), nil
}

// mayMake refuses a device that would be outside, or have its parent there.
func (n narrowed) mayMake(s *devices.Spec) error {
	if s.Parent != "" && n.hides(s.Parent) {
		return errNoParent()
	}
	if !n.WouldMatch(*s, n.only) {
		return muster.Errorf(muster.Forbidden, "the device would not be one that the key's selector selects")
	}
	return nil
}

// mayChange refuses changes of devices outside, and parents there but for the one that
// the device has.
func (n narrowed) mayChange(id muster.DeviceID, c *devices.Change) error {
	d, err := n.Get(id)
	if err != nil {
		return err
	}
	if c.Parent != nil && *c.Parent != d.Parent && *c.Parent != "" && n.hides(*c.Parent) {
		return errNoParent()
	}
	return nil
}

// hides says whether there is a device id outside.
func (n narrowed) hides(id muster.DeviceID) bool {
	_, err := n.Registry.Get(id)
	return err == nil && !n.Matches(id, n.only)
}

// Create implements DeviceWriter.
func (n narrowed) Create(ctx context.Context, s devices.Spec) (devices.Device, devices.Issued, error) {
	if err := n.mayMake(&s); err != nil {
		return devices.Device{}, devices.Issued{}, err
	}
	return n.Registry.Create(ctx, s)
}

// CreateMany implements bulk.Registry.
func (n narrowed) CreateMany(ctx context.Context, specs []devices.Spec) ([]devices.Device, []devices.Issued, error) {
	for i := range specs {
		if err := n.mayMake(&specs[i]); err != nil {
			return nil, nil, err
		}
	}
	return n.Registry.CreateMany(ctx, specs)
}

// CheckSpec implements bulk.Checker.
func (n narrowed) CheckSpec(s devices.Spec, f *devices.Families) error {
	if err := n.mayMake(&s); err != nil {
		return err
	}
	return n.Registry.CheckSpec(s, f)
}

// Update implements DeviceWriter.
func (n narrowed) Update(ctx context.Context, id muster.DeviceID, c devices.Change) (devices.Device, error) {
	if err := n.mayChange(id, &c); err != nil {
		return devices.Device{}, err
	}
	return n.Registry.Update(ctx, id, c)
}

// UpdateMany implements bulk.Registry.
func (n narrowed) UpdateMany(ctx context.Context, cs []devices.DeviceChange) ([]devices.Device, error) {
	for i := range cs {
		if err := n.mayChange(cs[i].ID, &cs[i].Change); err != nil {
			return nil, err
		}
	}
	return n.Registry.UpdateMany(ctx, cs)
}

// CheckChange implements bulk.Checker.
func (n narrowed) CheckChange(id muster.DeviceID, c devices.Change, f *devices.Families) error {
	if err := n.mayChange(id, &c); err != nil {
		return err
	}
	return n.Registry.CheckChange(id, c, f)
}

// DeleteMany implements DeviceDeleter.
func (n narrowed) DeleteMany(ctx context.Context, ids []muster.DeviceID, data devices.Data) error {
	if err := n.check(ids...); err != nil {
		return err
	}
	return n.Registry.DeleteMany(ctx, ids, data)
}

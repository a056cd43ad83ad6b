package devices

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"muster"
)

// Spec describes a device to be made.
type Spec struct {
	ID   muster.DeviceID
	Name string // at most MaxName bytes
	// Credential is the kind of credential to make with it, empty for none.
	Credential CredentialKind
	// Given is the token or secret itself when the user chose it (see
	// AddCredential for its limits); empty lets Muster make one.
	Given string
	// Grants are further credentials to make with it, of which nothing is to be shown.
	Grants []Grant
	// Profile is the name of a profile that exists, empty for DefaultProfile.
	Profile string
	// Parent is the gateway that the device belongs to, empty for none: a device that
	// exists or is made in the same batch. See MaxDepth.
	Parent muster.DeviceID

	Tags     Tags
	Groups   Groups // static ones that exist
	Location Location
	CheckIn  int64
	Notes    string
}

// device returns the device that s describes, or Invalid.
func (s *Spec) device(at muster.Micros) (Device, error) {
	if _, err := muster.ParseDeviceID(string(s.ID)); err != nil {
		return Device{}, muster.At(err, "id")
	}
	d := Device{
		ID: s.ID, Name: s.Name, Created: at, Profile: cmp.Or(s.Profile, DefaultProfile), Parent: s.Parent,
		Tags: s.Tags, Groups: s.Groups, Location: s.Location, CheckIn: s.CheckIn, Notes: s.Notes,
	}
	err := d.check()
	return d, err
}

// check says whether what is written on a device may be.
func (d *Device) check() error {
	if err := checkText("the device's name", d.Name, MaxName); err != nil {
		return muster.At(err, "name")
	}
	if err := checkNotes(d.Notes); err != nil {
		return muster.At(err, "notes")
	}
	if err := checkText("the firmware version", d.Firmware, MaxFirmware); err != nil {
		return err
	}
	if d.CheckIn < 0 || d.CheckIn > MaxCheckIn {
		return muster.InvalidAt("check_in_s", "the expected check-in is not between 0 and %d seconds", MaxCheckIn)
	}
	return muster.At(d.Location.check(), "location")
}

// Create makes one device, and with it the credential its Spec asks for. Issued
// is zero when none was asked for. A taken id or token is a Conflict, a profile or
// parent that does not exist Invalid.
func (r *Registry) Create(ctx context.Context, s Spec) (Device, Issued, error) {
	ds, is, err := r.CreateMany(ctx, []Spec{s})
	if err != nil {
		return Device{}, Issued{}, err
	}
	return ds[0], is[0], nil
}

// CreateMany makes all of specs in one transaction, or none; at most MaxBatch.
// The results are in the order of specs.
func (r *Registry) CreateMany(ctx context.Context, specs []Spec) ([]Device, []Issued, error) {
	if len(specs) > MaxBatch {
		return nil, nil, muster.Errorf(muster.TooLarge, "%d devices at once, at most %d are allowed", len(specs), MaxBatch)
	}
	b, err := r.prepare(specs)
	if err != nil {
		return nil, nil, err
	}
	err = r.change(ctx, func(ctx context.Context) error {
		if err := r.checkFree(b); err != nil {
			return err
		}
		if err := r.checkPlaces(b); err != nil {
			return err
		}
		noteCreated(ctx, b)
		if err := r.store.InsertDevices(ctx, b.devices, b.creds); err != nil {
			return fmt.Errorf("insert %d devices: %w", len(b.devices), err)
		}
		r.admit(b)
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	if kids := b.children(); len(kids) > 0 {
		r.children(kids)
	}
	r.reshaped(b.ids())
	return b.devices, b.issued, nil
}

// batch is what CreateMany is about to make.
type batch struct {
	devices []Device
	creds   []Credential
	issued  []Issued
	tokens  []string // of issued and others, empty ones among them
}

func (b *batch) ids() []muster.DeviceID {
	ids := make([]muster.DeviceID, len(b.devices))
	for i, d := range b.devices {
		ids[i] = d.ID
	}
	return ids
}

// children are those that have a parent.
func (b *batch) children() (ids []muster.DeviceID) {
	for _, d := range b.devices {
		if d.Parent != "" {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

func (r *Registry) prepare(specs []Spec) (*batch, error) {
	now := r.now()
	b := &batch{devices: make([]Device, 0, len(specs)), issued: make([]Issued, 0, len(specs))}
	for _, s := range specs {
		d, err := s.device(muster.MicrosOf(now))
		if err != nil {
			return nil, err
		}
		b.devices = append(b.devices, d)
		if err := b.grant(&s, now); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// grant adds the credentials of s.
func (b *batch) grant(s *Spec, now time.Time) error {
	grants := s.Grants
	if len(grants) >= MaxCredentials {
		return muster.Errorf(muster.Invalid, "a device has at most %d credentials", MaxCredentials)
	}
	shown := Issued{}
	if s.Credential != "" {
		c, is, err := (&Grant{Kind: s.Credential, Given: s.Given}).credential(s.ID, now)
		if err != nil {
			return err
		}
		b.creds, shown = append(b.creds, c), is
	}
	for i := range grants {
		c, is, err := grants[i].credential(s.ID, now)
		if err != nil {
			return err
		}
		b.creds, b.tokens = append(b.creds, c), append(b.tokens, is.Token)
	}
	b.issued, b.tokens = append(b.issued, shown), append(b.tokens, shown.Token)
	return nil
}

// checkFree refuses ids and tokens that are taken, in the registry or twice in
// the batch. A token may not be spelled like a device id either: the user name of
// CONNECT would then mean two devices.
func (r *Registry) checkFree(b *batch) error {
	ids := make(map[muster.DeviceID]struct{}, len(b.devices))
	tokens := make(map[[32]byte]struct{}, len(b.creds))
	for _, c := range b.creds {
		if c.Kind == Secret {
			continue
		}
		if _, twice := tokens[c.Hash]; twice || r.auth.taken(c.Hash) {
			return errTaken(c.Kind)
		}
		tokens[c.Hash] = struct{}{}
	}
	for _, d := range b.devices {
		if _, twice := ids[d.ID]; twice {
			return muster.Errorf(muster.Conflict, "device id %q is given twice", d.ID)
		}
		ids[d.ID] = struct{}{}
		if _, err := r.Get(d.ID); err == nil {
			return muster.Errorf(muster.Conflict, "device id %q is taken", d.ID)
		}
		if r.erasing.has(d.ID) {
			return errErasing(d.ID)
		}
		hash := sha256.Sum256([]byte(d.ID))
		if _, clash := tokens[hash]; clash || r.auth.taken(hash) {
			return errTokenTaken()
		}
	}
	return r.checkTokensAgainstIDs(b)
}

// checkTokensAgainstIDs refuses a chosen token that is some device's id.
func (r *Registry) checkTokensAgainstIDs(b *batch) error {
	for _, token := range b.tokens {
		if token == "" {
			continue
		}
		if _, err := r.Get(muster.DeviceID(token)); err == nil {
			return errTokenTaken()
		}
	}
	return nil
}

// admit puts a stored batch into memory: presence first and rights last, so that
// a device that gets in is there in full.
func (r *Registry) admit(b *batch) {
	entries := make(map[muster.DeviceID]*entry, len(b.devices))
	added := make([]*entry, len(b.devices))
	for i, d := range b.devices {
		added[i] = &entry{Device: d, track: r.presence.add(&d)}
		entries[d.ID] = added[i]
	}
	creds := make([]*held, len(b.creds))
	for i, c := range b.creds {
		creds[i] = hold(c)
		e := entries[c.Device]
		e.creds = append(e.creds, creds[i])
	}
	r.insert(added)
	for _, h := range creds {
		r.expiry.set(h)
		r.auth.add(h)
	}
}

func (r *Registry) insert(added []*entry) {
	slices.SortFunc(added, compareEntries)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range added {
		r.useProfile(e)
		r.joinGroups(e)
		r.byID[e.ID] = e
	}
	for _, e := range added {
		r.link(e)
	}
	if len(added) == 1 {
		i, _ := slices.BinarySearchFunc(r.order, added[0], compareEntries)
		r.order = slices.Insert(r.order, i, added[0])
		return
	}
	r.order = merge(r.order, added)
}

// merge merges two sorted lists that share no id.
func merge(a, b []*entry) []*entry {
	out := make([]*entry, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compareEntries(a[0], b[0]) < 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// entry returns id's entry. Only the holder of the turn may use what changes in it.
func (r *Registry) entry(id muster.DeviceID) (*entry, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[id]
	if !ok {
		return nil, errNoDevice()
	}
	return e, nil
}

func errTaken(kind CredentialKind) error {
	if kind == X509 {
		return muster.Errorf(muster.Conflict, "a device has this key already: two devices may not share one")
	}
	return errTokenTaken()
}

func errTokenTaken() error {
	return muster.Errorf(muster.Conflict, "this token cannot be used: it is taken")
}

package devices

import (
	"cmp"
	"context"

	"muster"
	"muster/audit"
	"muster/feed"
)

// maxSingly is how many devices of one transaction the audit log names one by one with
// what they were and are. More are counted in one record; the feed names all.
const maxSingly = 100

// deviceView is a device in the audit log.
type deviceView struct {
	ID       muster.DeviceID `json:"id"`
	Name     string          `json:"name"`
	Profile  string          `json:"profile"`
	Parent   muster.DeviceID `json:"parent,omitempty"`
	Tags     Tags            `json:"tags"`
	Groups   []string        `json:"groups,omitempty"`
	Location *Location       `json:"location,omitempty"`
	CheckIn  int64           `json:"check_in_s,omitempty"`
	Notes    string          `json:"notes,omitempty"`
	Firmware string          `json:"firmware,omitempty"`
}

func viewOf(d Device) *deviceView {
	v := &deviceView{
		ID: d.ID, Name: d.Name, Profile: d.Profile, Parent: d.Parent, Tags: d.Tags, Groups: d.Groups.Names(),
		CheckIn: d.CheckIn, Notes: d.Notes, Firmware: d.Firmware,
	}
	if d.Location != (Location{}) {
		v.Location = &d.Location
	}
	return v
}

func object(id muster.DeviceID) string { return "devices/" + string(id) }

// batchView is many devices in the audit log.
type batchView struct {
	Devices int             `json:"devices"`
	First   muster.DeviceID `json:"first"`
	Last    muster.DeviceID `json:"last"`
	Data    Data            `json:"data,omitempty"`
}

func noteCreated(ctx context.Context, b *batch) {
	for _, d := range b.devices {
		feed.Note(ctx, feed.NewEvent(feed.DeviceCreated, d.ID, d.Created, map[string]any{
			"device": d.ID, "name": d.Name, "profile": d.Profile,
		}))
	}
	for i := range b.creds {
		if c := &b.creds[i]; c.Kind == Adoption { // only a candidate of the adoption inbox brings one
			feed.Note(ctx, feed.NewEvent(feed.DeviceAdopted, c.Device, c.Created, map[string]any{"device": c.Device}))
		}
	}
	if n := len(b.devices); n > maxSingly {
		audit.Note(ctx, "device.create_many", "devices", nil, batchView{Devices: n, First: b.devices[0].ID, Last: b.devices[n-1].ID})
		return
	}
	for _, d := range b.devices {
		audit.Note(ctx, "device.create", object(d.ID), nil, viewOf(d))
	}
	for i := range b.creds {
		noteCredential(ctx, "credential.create", nil, &b.creds[i])
	}
}

// noteUpdated notes the devices of entries, which become news.
func noteUpdated(ctx context.Context, at muster.Micros, entries []*entry, news []Device) {
	for i, d := range news {
		feed.Note(ctx, feed.NewEvent(feed.DeviceUpdated, d.ID, at, map[string]any{
			"device": d.ID, "changed": differing(entries[i].Device, d),
		}))
	}
	if n := len(news); n > maxSingly {
		audit.Note(ctx, "device.update_many", "devices", nil, batchView{Devices: n, First: news[0].ID, Last: news[n-1].ID})
		return
	}
	for i, d := range news {
		audit.Note(ctx, "device.update", object(d.ID), viewOf(entries[i].Device), viewOf(d))
	}
}

// differing names the parts in which two devices differ.
func differing(a, b Device) []string {
	var out []string
	for _, part := range []struct {
		name string
		same bool
	}{
		{"name", a.Name == b.Name},
		{"profile", a.Profile == b.Profile},
		{"parent", a.Parent == b.Parent},
		{"tags", a.Tags == b.Tags},
		{"groups", a.Groups == b.Groups},
		{"location", a.Location == b.Location},
		{"check_in_s", a.CheckIn == b.CheckIn},
		{"notes", a.Notes == b.Notes},
		{"firmware", a.Firmware == b.Firmware},
	} {
		if !part.same {
			out = append(out, part.name)
		}
	}
	return out
}

func noteDeleted(ctx context.Context, at muster.Micros, gone []*entry, data Data) {
	for _, e := range gone {
		feed.Note(ctx, feed.NewEvent(feed.DeviceDeleted, e.ID, at, map[string]any{"device": e.ID, "data": data}))
	}
	if n := len(gone); n > maxSingly {
		audit.Note(ctx, "device.delete_many", "devices", batchView{Devices: n, First: gone[0].ID, Last: gone[n-1].ID, Data: data}, nil)
		return
	}
	for _, e := range gone {
		audit.Note(ctx, "device.delete", object(e.ID), viewOf(e.Device), map[string]Data{"data": data})
	}
}

// credentialView is a credential in the audit log: nothing that lets anybody in.
type credentialView struct {
	ID      string         `json:"id"`
	Kind    CredentialKind `json:"kind"`
	Label   string         `json:"label,omitempty"`
	Expires muster.Micros  `json:"expires,omitempty"`
	CA      string         `json:"ca,omitempty"`
	Revoked muster.Micros  `json:"revoked,omitempty"`
}

func credentialViewOf(c *Credential) any {
	if c == nil {
		return nil
	}
	return &credentialView{c.ID, c.Kind, c.Label, c.Expires, c.CA, c.Revoked}
}

// noteCredential notes a credential that is made, changed or gone, for the audit log.
func noteCredential(ctx context.Context, action string, before, after *Credential) {
	c := after
	if c == nil {
		c = before
	}
	audit.Note(ctx, action, object(c.Device)+"/credentials/"+c.ID, credentialViewOf(before), credentialViewOf(after))
}

func (r *Registry) noteAdded(ctx context.Context, c *Credential, drop []*held, rotated *swap) {
	at := muster.MicrosOf(r.now())
	noteCredential(ctx, "credential.create", nil, c)
	feed.Note(ctx, feed.NewEvent(feed.DeviceCredentialAdded, c.Device, at, map[string]any{
		"device": c.Device, "credential": c.ID, "kind": c.Kind,
	}))
	for _, h := range drop {
		was := h.snapshot()
		noteCredential(ctx, "credential.delete", &was, nil)
		feed.Note(ctx, removed(at, &was))
	}
	if rotated != nil {
		was := rotated.old.snapshot()
		noteCredential(ctx, "credential.rotate", &was, &rotated.fresh.Credential)
	}
}

func (r *Registry) noteRemoved(ctx context.Context, was, is *Credential) {
	noteCredential(ctx, "credential.delete", was, is)
	feed.Note(ctx, removed(muster.MicrosOf(r.now()), was))
}

func removed(at muster.Micros, c *Credential) feed.Event {
	return feed.NewEvent(feed.DeviceCredentialRemoved, c.Device, at, map[string]any{"device": c.Device, "credential": c.ID})
}

// profileView is a profile in the audit log.
type profileView struct {
	Name           string   `json:"name"`
	Publish        []string `json:"publish,omitempty"`
	Subscribe      []string `json:"subscribe,omitempty"`
	Level          string   `json:"level,omitempty"`
	MessageRate    int64    `json:"message_rate,omitempty"`
	ByteRate       int64    `json:"byte_rate,omitempty"`
	CreateChildren bool     `json:"create_children,omitempty"`
}

// noteProfile notes a profile that is put or gone; nil for none.
func noteProfile(ctx context.Context, action string, before, after *Profile) {
	view := func(p Profile) any { return profileView(p) }
	audit.Note(ctx, action, "profiles/"+cmp.Or(after, before).Name, viewOrNil(before, view), viewOrNil(after, view))
}

// groupView is a group in the audit log.
type groupView struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Query       string `json:"query,omitempty"`
}

// noteGroup notes a group that is put or gone; nil for none.
func noteGroup(ctx context.Context, action string, before, after *Group) {
	view := func(g Group) any { return groupView(g) }
	audit.Note(ctx, action, "groups/"+cmp.Or(after, before).Name, viewOrNil(before, view), viewOrNil(after, view))
}

// viewOrNil is the view of a thing, nil when there is none.
func viewOrNil[T any](thing *T, view func(T) any) any {
	if thing == nil {
		return nil
	}
	return view(*thing)
}

package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"math"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/ingest"
)

type device struct {
	ID        muster.DeviceID `json:"id"`
	Name      string          `json:"name"`
	Profile   string          `json:"profile" doc:"Name of its profile, default unless another was set"`
	Parent    muster.DeviceID `json:"parent,omitempty" doc:"Id of the gateway it belongs to, absent for none"`
	CreatedAt string          `json:"created_at" format:"date-time"`
	Labels
	Status     muster.Status   `json:"status" enum:"never,online,quiet,offline,unknown,updating" doc:"How it is in one word: updating while it is connected and a firmware action is under way, else its presence"`
	Presence   presence        `json:"presence"`
	Connection *connection     `json:"connection,omitempty" doc:"While the device is connected"`
	Ledger     ingest.Ledger   `json:"ledger" doc:"Messages of this device since the server started"`
	MQTT       *DeviceSessions `json:"mqtt,omitempty" doc:"What its MQTT sessions hold for it and have lost; absent in lists"`
}

type presence struct {
	State    muster.PresenceState `json:"state" enum:"never,online,quiet,offline,unknown"`
	Since    string               `json:"since" format:"date-time"`
	LastSeen *string              `json:"last_seen" format:"date-time" doc:"Null when it never was"`
	Reason   string               `json:"reason" doc:"Why it is offline or unknown"`
}

type connection struct {
	Peer       string `json:"peer"`
	ClientID   string `json:"client_id"`
	Protocol   int    `json:"protocol" doc:"3 for MQTT 3.1, 4 for 3.1.1, 5 for 5"`
	Transport  string `json:"transport" enum:"tcp,tls,ws,unix"`
	KeepAliveS int    `json:"keep_alive_s"`
	Since      string `json:"since" format:"date-time"`
}

type newDevice struct {
	ID      string `json:"id" minLength:"1" maxLength:"128" doc:"[A-Za-z0-9._:-], not \".\", \"..\" or \"me\""`
	Name    string `json:"name,omitempty" maxLength:"200"`
	Profile string `json:"profile,omitempty" maxLength:"64" doc:"Name of a profile that exists; default when absent"`
	Parent  string `json:"parent,omitempty" maxLength:"128" doc:"Id of the gateway it belongs to, which must exist; none when absent"`
	DeviceLabels
	Credential string `json:"credential,omitempty" enum:"token,secret,none" doc:"What to make with it; token unless a secret is given"`
	Token      string `json:"token,omitempty" maxLength:"256" doc:"Your own token instead of a made one, at least 20 characters"`
	Secret     string `json:"secret,omitempty" maxLength:"256" doc:"Your own secret instead of a made one, at least 16 bytes"`
}

type changedDevice struct {
	Name    *string `json:"name,omitempty" maxLength:"200" nullable:"false"`
	Profile *string `json:"profile,omitempty" maxLength:"64" nullable:"false" doc:"Name of a profile that exists; empty for default"`
	Parent  *string `json:"parent,omitempty" maxLength:"128" nullable:"false" doc:"Id of the gateway it belongs to, which must exist; empty for none"`
	ChangedLabels
}

type createdDevice struct {
	Device     device  `json:"device"`
	Credential *issued `json:"credential,omitempty" doc:"Shown this once"`
}

// DevicePath is the part of an input that names a device. It is exported because
// huma looks into exported embedded fields only.
type DevicePath struct {
	Device string `path:"device" doc:"The device's id"`
}

// existing returns the id in the path when there is such a device.
func (a *API) existing(in DevicePath) (muster.DeviceID, error) {
	id, err := muster.ParseDeviceID(in.Device)
	if err != nil {
		return "", muster.At(err, "device")
	}
	_, err = a.Registry.Get(id)
	return id, err
}

func (a *API) device(d devices.Device) device {
	out := device{
		ID: d.ID, Name: d.Name, Profile: d.Profile, Parent: d.Parent, CreatedAt: stamp(d.Created), Labels: labelsOf(d),
		Ledger: a.Live.DeviceLedger(d.ID),
	}
	is, p, ok := a.Registry.Status(d.ID)
	if !ok { // deleted this moment
		p.Since = d.Created
	}
	out.Status = is
	out.Presence = presence{State: p.State, Since: stamp(p.Since), LastSeen: stampOrNull(p.LastSeen), Reason: p.Reason}
	if c, ok := a.Registry.Connection(d.ID); ok {
		out.Connection = &connection{
			Peer: c.Peer, ClientID: c.ClientID, Protocol: int(c.Protocol), Transport: c.Transport,
			KeepAliveS: int(c.KeepAlive.Seconds()), Since: stamp(muster.MicrosOf(c.At)),
		}
	}
	return out
}

// one is a device with what its MQTT sessions hold, which is too much to find out
// for each device of a list.
func (a *API) one(d devices.Device) device {
	out, sessions := a.device(d), a.Clients.DeviceSessions(d.ID)
	out.MQTT = &sessions
	return out
}

// wish is which credential a body asks for: kind, and the text when it brings its
// own. An empty kind means none.
func wish(kind, token, secret string) (devices.CredentialKind, string, error) {
	switch {
	case token != "" && secret != "":
		return "", "", muster.At(muster.Errorf(muster.Invalid, "give a token or a secret, not both"), "token", "secret")
	case token != "" && kind != "" && kind != "token", secret != "" && kind != "" && kind != "secret":
		return "", "", muster.At(muster.Errorf(muster.Invalid, "the credential given is not of the kind asked for"), "credential", "kind", "token", "secret")
	case secret != "":
		return devices.Secret, secret, nil
	case kind == "none":
		return "", "", nil
	case kind == "secret":
		return devices.Secret, "", nil
	default:
		return devices.Token, token, nil
	}
}

func (a *API) deviceRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-devices", Method: http.MethodGet, Path: "/devices", Tags: []string{"devices"}, Summary: "List devices",
	}, a.listDevices)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "create-device", Method: http.MethodPost, Path: "/devices", DefaultStatus: http.StatusCreated,
		Tags: []string{"devices"}, Summary: "Make a device, with a credential", Errors: []int{409},
	}, a.createDevice)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-device", Method: http.MethodGet, Path: "/devices/{device}", Tags: []string{"devices"},
		Summary: "Get a device", Errors: []int{404},
	}, a.getDevice)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "change-device", Method: http.MethodPatch, Path: "/devices/{device}", Tags: []string{"devices"},
		Summary:     "Change what is written on a device",
		Description: "What is absent or null stays. Rights that change so are those of open connections at once.", Errors: []int{404, 409},
	}, a.changeDevice)
	a.facetRoutes()
	a.sparklineRoute()
	a.deleteRoute()
	a.credentialRoutes()
}

func (a *API) getDevice(ctx context.Context, in *DevicePath) (*body[device], error) {
	id, err := a.existing(*in)
	if err != nil {
		return nil, err
	}
	d, err := a.Registry.Get(id)
	if err != nil {
		return nil, err
	}
	documented(ctx, deviceTag(d))
	return &body[device]{a.one(d)}, nil
}

// deviceTag is the tag of what is written on d.
func deviceTag(d devices.Device) string {
	line := make([]byte, 0, 512)
	add := func(s string) { line = append(strconv.AppendInt(line, int64(len(s)), 10), s...) }
	for _, s := range [...]string{string(d.ID), d.Name, d.Profile, string(d.Parent), d.Notes, d.Firmware, d.Location.Label} {
		add(s)
	}
	for _, n := range [...]uint64{
		uint64(d.Created), uint64(d.CheckIn), math.Float64bits(d.Location.Lat), math.Float64bits(d.Location.Lon),
	} {
		line = binary.LittleEndian.AppendUint64(line, n)
	}
	line = strconv.AppendBool(line, d.Location.Set)
	for k, v := range d.Tags.All() {
		add(k)
		add(v)
	}
	for _, g := range d.Groups.Names() {
		add(g)
	}
	sum := sha256.Sum256(line)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// devicePage is a page of devices with how they were found.
type devicePage struct {
	Items []device `json:"items" nullable:"false"`
	Next  *string  `json:"next" doc:"The cursor of the next page, null on the last"`
	Total *int     `json:"total,omitempty" doc:"How many devices match on all pages; when it was asked for"`
	Plan  plan     `json:"plan"`
}

type plan struct {
	Index   string `json:"index" enum:"id,group,parent,order,scan" doc:"What found the devices: an index, the order of ids, or a look at each device (scan)"`
	Scanned int    `json:"scanned" doc:"How many devices were looked at"`
}

func (a *API) listDevices(ctx context.Context, in *struct {
	Q      string `query:"q" maxLength:"2048" doc:"Which devices, in the query language: words of id or name, and terms such as group:cold status!=online v.battery<15"`
	Sort   string `query:"sort" maxLength:"256" doc:"id, name, profile, firmware, status, seen, created or v.KEY, with a - for the largest first"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"4096" doc:"The next of the page before"`
	Total  bool   `query:"total" doc:"Count all that match"`
},
) (*body[devicePage], error) {
	e, err := a.Registry.Compile(in.Q)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	found, err := a.registry(ctx).Select(devices.Selection{Query: e, Sort: in.Sort, After: in.Cursor, Limit: in.Limit, Total: in.Total})
	if err != nil {
		return nil, err
	}
	items := make([]device, len(found.Devices))
	for i, d := range found.Devices {
		items[i] = a.device(d)
	}
	p := list(items, found.Next).Body
	out := devicePage{Items: p.Items, Next: p.Next, Plan: plan{found.Plan.Index, found.Plan.Scanned}}
	if in.Total {
		out.Total = &found.Total
	}
	return &body[devicePage]{out}, nil
}

func (a *API) createDevice(ctx context.Context, in *body[newDevice]) (*created[createdDevice], error) {
	b := in.Body
	id, err := muster.ParseDeviceID(b.ID)
	if err != nil {
		return nil, muster.At(err, "id")
	}
	kind, given, err := wish(b.Credential, b.Token, b.Secret)
	if err != nil {
		return nil, err
	}
	spec := devices.Spec{
		ID: id, Name: b.Name, Credential: kind, Given: given, Profile: b.Profile, Parent: muster.DeviceID(b.Parent),
	}
	if err := b.write(&spec); err != nil {
		return nil, err
	}
	d, is, err := a.registry(ctx).Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &created[createdDevice]{prefix + "/devices/" + string(id), createdDevice{a.one(d), issuedOf(is)}}, nil
}

func (a *API) changeDevice(ctx context.Context, in *struct {
	DevicePath
	Conditions
	Body changedDevice
},
) (*body[device], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	c := devices.Change{Name: in.Body.Name, Profile: in.Body.Profile}
	if in.Body.Parent != nil {
		parent := muster.DeviceID(*in.Body.Parent)
		c.Parent = &parent
	}
	if err := in.Body.write(&c); err != nil {
		return nil, err
	}
	if ctx, err = bound(ctx, in.Conditions, deviceTag); err != nil {
		return nil, err
	}
	d, err := a.registry(ctx).Update(ctx, id, c)
	if err != nil {
		return nil, err
	}
	documented(ctx, deviceTag(d))
	return &body[device]{a.one(d)}, nil
}

package api

import (
	"cmp"
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/join"
)

// AuthorityKeeper keeps certificate authorities.
type AuthorityKeeper interface {
	Authorities() []join.Authority
	Authority(id string) (join.Authority, error)
	AddAuthority(ctx context.Context, s join.AuthoritySpec) (join.Authority, error)
	VerifyAuthority(ctx context.Context, id, pem string) (join.Authority, error)
	ChangeAuthority(ctx context.Context, id string, c join.AuthorityChange) (join.Authority, error)
	DeleteAuthority(ctx context.Context, id string) error
}

// ProvisioningKeeper says which devices may register themselves, and registers them.
type ProvisioningKeeper interface {
	Provisioning(profile string) (join.Provisioning, error)
	PutProvisioning(ctx context.Context, profile string, s join.ProvisioningSpec) (join.Provisioning, string, error)
	DeleteProvisioning(ctx context.Context, profile string) error
	Provision(ctx context.Context, peer string, r join.Request) (join.Response, error)
}

// Claims gives devices to those who know their code.
type Claims interface {
	NewClaimCode(ctx context.Context, device muster.DeviceID, within time.Duration) (string, time.Time, error)
	Claim(ctx context.Context, who join.Claimer, device muster.DeviceID, code string) (devices.Device, error)
}

// Joining is what the API needs of *join.Join.
type Joining interface {
	AuthorityKeeper
	ProvisioningKeeper
	Claims
	AdoptionKeeper
	Inbox
}

// authority is a certificate authority as it is shown.
type authority struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Subject     string `json:"subject"`
	NotBefore   string `json:"not_before" format:"date-time"`
	NotAfter    string `json:"not_after" format:"date-time"`
	Fingerprint string `json:"fingerprint" doc:"SHA-256 of the certificate"`
	Profile     string `json:"profile" doc:"Of devices that it makes"`
	JIT         bool   `json:"jit" doc:"A certificate whose common name is no device makes that device when it first connects"`
	IDFrom      string `json:"id_from" enum:"cn" doc:"Where a certificate has the device's id"`
	CreatedAt   string `json:"created_at" format:"date-time"`

	Proof      string `json:"proof" enum:"certificate,none" doc:"How it is shown that whoever registered it has its key"`
	Verified   bool   `json:"verified" doc:"It lets nobody in before"`
	VerifiedAt string `json:"verified_at,omitempty" format:"date-time"`
	Code       string `json:"verification_code,omitempty" doc:"Common name of the certificate that proves it, until it is verified"`
}

func authorityOf(a join.Authority) authority {
	sum := join.Fingerprint(a.Cert)
	out := authority{
		ID: a.ID, Name: a.Name, Subject: a.Cert.Subject.String(), NotBefore: stamp(muster.MicrosOf(a.Cert.NotBefore)),
		NotAfter: stamp(muster.MicrosOf(a.Cert.NotAfter)), Fingerprint: hex.EncodeToString(sum[:]), Profile: a.Profile, JIT: a.JIT, IDFrom: "cn",
		CreatedAt: stamp(a.Created), Proof: string(a.Proof), Verified: a.Verified != 0,
	}
	if out.Verified {
		out.VerifiedAt = stamp(a.Verified)
	} else {
		out.Code = a.Code
	}
	return out
}

type newAuthority struct {
	Name        string `json:"name" minLength:"1" maxLength:"200"`
	Certificate string `json:"certificate" minLength:"1" maxLength:"16384" doc:"One certificate in PEM; it need not be self-signed"`
	Profile     string `json:"profile,omitempty" maxLength:"64" doc:"Of devices that it makes; default when absent"`
	JIT         bool   `json:"jit,omitempty" doc:"Whether it makes devices"`
	IDFrom      string `json:"id_from,omitempty" enum:"cn"`
	Proof       string `json:"proof,omitempty" enum:"certificate,none" doc:"certificate when absent: it lets nobody in before verify; none: on your word that you have its key"`
}

type changedAuthority struct {
	Name    *string `json:"name,omitempty" maxLength:"200" nullable:"false"`
	Profile *string `json:"profile,omitempty" maxLength:"64" nullable:"false"`
	JIT     *bool   `json:"jit,omitempty" nullable:"false"`
}

// AuthorityPath is the part of an input that names a certificate authority.
type AuthorityPath struct {
	Authority string `path:"authority" maxLength:"64"`
}

func (a *API) joinRoutes() {
	a.authorityRoutes()
	a.provisioningRoutes()
	a.claimRoutes()
}

func (a *API) authorityRoutes() {
	const path = "/certificate-authorities"
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-certificate-authorities", Method: http.MethodGet, Path: path, Tags: []string{"joining"}, Summary: "List certificate authorities",
	}, func(context.Context, *struct{}) (*body[page[authority]], error) {
		found := a.Joining.Authorities()
		items := make([]authority, len(found))
		for i, x := range found {
			items[i] = authorityOf(x)
		}
		return lone(items), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "register-certificate-authority", Method: http.MethodPost, Path: path, DefaultStatus: http.StatusCreated,
		Tags: []string{"joining"}, Summary: "Let in the devices that an authority has given certificates", Errors: []int{409},
	}, func(ctx context.Context, in *body[newAuthority]) (*created[authority], error) {
		b := in.Body
		x, err := a.Joining.AddAuthority(ctx, join.AuthoritySpec{Name: b.Name, PEM: b.Certificate, Profile: b.Profile, JIT: b.JIT, Proof: join.Proof(b.Proof)})
		if err != nil {
			return nil, err
		}
		return &created[authority]{prefix + path + "/" + x.ID, authorityOf(x)}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-certificate-authority", Method: http.MethodGet, Path: path + "/{authority}", Tags: []string{"joining"},
		Summary: "Get a certificate authority", Errors: []int{404},
	}, func(_ context.Context, in *AuthorityPath) (*body[authority], error) {
		x, err := a.Joining.Authority(in.Authority)
		if err != nil {
			return nil, err
		}
		return &body[authority]{authorityOf(x)}, nil
	})
	a.verifyRoute(path + "/{authority}/verify")
	route(a, accounts.Admin, huma.Operation{
		OperationID: "change-certificate-authority", Method: http.MethodPatch, Path: path + "/{authority}", Tags: []string{"joining"},
		Summary: "Change an authority's name, profile, or whether it makes devices", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		AuthorityPath
		Body changedAuthority
	},
	) (*body[authority], error) {
		x, err := a.Joining.ChangeAuthority(ctx, in.Authority, join.AuthorityChange{Name: in.Body.Name, Profile: in.Body.Profile, JIT: in.Body.JIT})
		if err != nil {
			return nil, err
		}
		return &body[authority]{authorityOf(x)}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-certificate-authority", Method: http.MethodDelete, Path: path + "/{authority}", Tags: []string{"joining"},
		Summary: "Take an authority away; the connections that came in by it are cut", Errors: []int{404},
	}, func(ctx context.Context, in *AuthorityPath) (*struct{}, error) {
		return nil, a.Joining.DeleteAuthority(ctx, in.Authority)
	})
}

func (a *API) verifyRoute(path string) {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "verify-certificate-authority", Method: http.MethodPost, Path: path, Tags: []string{"joining"},
		Summary:     "Show that you have an authority's key",
		Description: "By a certificate that it has signed, whose common name is its verification_code.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		AuthorityPath
		Body struct {
			Certificate string `json:"certificate" minLength:"1" maxLength:"16384" doc:"One certificate in PEM"`
		}
	},
	) (*body[authority], error) {
		x, err := a.Joining.VerifyAuthority(ctx, in.Authority, in.Body.Certificate)
		if err != nil {
			return nil, err
		}
		return &body[authority]{authorityOf(x)}, nil
	})
}

// provisioning is how devices of a profile register themselves.
type provisioning struct {
	Strategy  string `json:"strategy" enum:"create,preprovisioned"`
	Key       string `json:"key" doc:"The profile's provisioning key"`
	Secret    string `json:"secret,omitempty" doc:"Shown this once, when it was made"`
	CreatedAt string `json:"created_at" format:"date-time"`
}

func provisioningOf(p join.Provisioning, secret string) *body[provisioning] {
	return &body[provisioning]{provisioning{Strategy: string(p.Strategy), Key: p.Key, Secret: secret, CreatedAt: stamp(p.Created)}}
}

type newProvisioning struct {
	Strategy string `json:"strategy" enum:"create,preprovisioned" doc:"create makes devices that do not exist; preprovisioned gives those that exist and have no credential theirs"`
	Key      string `json:"key,omitempty" maxLength:"128" doc:"What devices know already, 8 to 128 printable ASCII characters; made when absent"`
	Secret   string `json:"secret,omitempty" maxLength:"128" doc:"What devices know already, 16 to 128 printable ASCII characters; made when absent"`
	Keep     bool   `json:"keep,omitempty" doc:"Leave key and secret as they are"`
}

func (a *API) provisioningRoutes() {
	const path = "/profiles/{profile}/provisioning"
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-provisioning", Method: http.MethodGet, Path: path, Tags: []string{"joining"},
		Summary: "How devices of a profile register themselves", Errors: []int{404},
	}, func(_ context.Context, in *ProfilePath) (*body[provisioning], error) {
		p, err := a.Joining.Provisioning(in.Profile)
		if err != nil {
			return nil, err
		}
		return provisioningOf(p, ""), nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "put-provisioning", Method: http.MethodPut, Path: path, Tags: []string{"joining"},
		Summary: "Let devices of a profile register themselves", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ProfilePath
		Body newProvisioning
	},
	) (*body[provisioning], error) {
		b := in.Body
		spec := join.ProvisioningSpec{Strategy: join.Strategy(b.Strategy), Key: b.Key, Secret: b.Secret, Keep: b.Keep}
		p, secret, err := a.Joining.PutProvisioning(ctx, in.Profile, spec)
		if err != nil {
			return nil, err
		}
		return provisioningOf(p, secret), nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "delete-provisioning", Method: http.MethodDelete, Path: path, Tags: []string{"joining"},
		Summary: "Let devices of a profile register themselves no more", Errors: []int{404},
	}, func(ctx context.Context, in *ProfilePath) (*struct{}, error) {
		return nil, a.Joining.DeleteProvisioning(ctx, in.Profile)
	})
	route(a, public, huma.Operation{
		OperationID: "provision", Method: http.MethodPost, Path: "/provision", DefaultStatus: http.StatusCreated, Tags: []string{"joining"},
		Summary:     "Register a device by its profile's key and secret",
		Description: "What MQTT devices send at provision/request. Wrong secrets are limited by address and key.", Errors: []int{401, 404, 409},
	}, a.provision)
}

// provisionRequest is join.Request with its limits.
type provisionRequest struct {
	ProfileKey    string `json:"profile_key" maxLength:"128"`
	ProfileSecret string `json:"profile_secret" maxLength:"128"`
	ID            string `json:"id,omitempty" maxLength:"128" doc:"A device id; made when absent"`
	Name          string `json:"name,omitempty" maxLength:"200"`
	Credential    string `json:"credential,omitempty" enum:"token,secret,basic,x509" doc:"What follows from what is given; a token when nothing is"`
	Token         string `json:"token,omitempty" maxLength:"256"`
	Username      string `json:"username,omitempty" maxLength:"256"`
	Password      string `json:"password,omitempty" maxLength:"256"`
	ClientID      string `json:"client_id,omitempty" maxLength:"256"`
	Certificate   string `json:"certificate,omitempty" maxLength:"16384" doc:"PEM"`
	CSR           string `json:"csr,omitempty" maxLength:"16384" doc:"Refused: no certificates are signed here"`
}

type provisioned struct {
	Status     string `json:"status" enum:"ok"`
	ID         string `json:"id"`
	Profile    string `json:"profile"`
	Credential string `json:"credential" enum:"token,secret,basic,x509"`
	Token      string `json:"token,omitempty"`
	Username   string `json:"username"`
	Password   string `json:"password,omitempty"`
}

func (a *API) provision(ctx context.Context, in *body[provisionRequest]) (*body[provisioned], error) {
	peer := requestOf(ctx).from()
	r, err := a.Joining.Provision(ctx, peer, join.Request(in.Body))
	if err != nil {
		a.Logins.Unregistered(devices.Attempt{Username: join.ProvisionUser, Peer: peer, Listener: "http"}, muster.DeviceID(in.Body.ID), err)
		return nil, err
	}
	return &body[provisioned]{provisioned{
		Status: "ok", ID: string(r.ID), Profile: r.Profile, Credential: r.Credential, Token: r.Token, Username: r.Username, Password: r.Password,
	}}, nil
}

// defaultClaim is how long a claim code is good unless somebody says otherwise.
const defaultClaim = 7 * 24 * time.Hour

type claimCode struct {
	Code      string `json:"code" doc:"8 characters, shown this once"`
	URL       string `json:"url" doc:"Where whoever scans the picture goes"`
	ExpiresAt string `json:"expires_at" format:"date-time"`
	PNG       []byte `json:"png" doc:"QR code of the URL"`
	SVG       string `json:"svg" doc:"QR code of the URL"`
}

func (a *API) claimRoutes() {
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "create-claim-code", Method: http.MethodPost, Path: "/devices/{device}/claim-code", DefaultStatus: http.StatusCreated,
		Tags: []string{"joining"}, Summary: "Make the code by which a device can be claimed, once",
		Description: "The code before it is worth nothing any more.", Errors: []int{404, 409},
	}, a.newClaimCode)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "claim-device", Method: http.MethodPost, Path: "/claims", Tags: []string{"joining"},
		Summary:     "Claim a device by its code",
		Description: "The device's tag owner is your name then. Wrong codes are limited: 5 a minute for you and for your address, 20 for all.", Errors: []int{404},
	}, func(ctx context.Context, in *body[claim]) (*body[device], error) {
		r := requestOf(ctx)
		who := join.Claimer{ID: ownerOf(r).ID, Name: cmp.Or(r.who.Name, r.who.ID), Peer: r.from()}
		d, err := a.Joining.Claim(ctx, who, muster.DeviceID(in.Body.Device), in.Body.Code)
		if err != nil {
			return nil, err
		}
		return &body[device]{a.one(d)}, nil
	})
}

// claim is what shows that a device is one's own.
type claim struct {
	Code   string `json:"code" minLength:"1" maxLength:"256" doc:"Case, spaces and hyphens do not matter"`
	Device string `json:"device,omitempty" maxLength:"128" doc:"The device's id, with a secret that the device itself offered"`
}

// claimTime is the optional body of a request for a claim code.
type claimTime struct {
	ExpiresS int64 `json:"expires_s,omitempty" minimum:"0" maximum:"31622400" doc:"For how many seconds it is good; a week when absent or 0"`
}

func (a *API) newClaimCode(ctx context.Context, in *struct {
	DevicePath
	Body *claimTime
},
) (*created[claimCode], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	within := defaultClaim
	if in.Body != nil && in.Body.ExpiresS > 0 {
		within = time.Duration(in.Body.ExpiresS) * time.Second
	}
	code, expires, err := a.Joining.NewClaimCode(ctx, id, within)
	if err != nil {
		return nil, err
	}
	url := a.base(requestOf(ctx).Request) + "/claim/" + code
	png, svg, err := qrOf(url)
	if err != nil {
		return nil, err
	}
	c := claimCode{Code: code, URL: url, ExpiresAt: stamp(muster.MicrosOf(expires)), PNG: png, SVG: svg}
	return &created[claimCode]{prefix + "/devices/" + string(id), c}, nil
}

// base is how browsers reach Muster: as it is configured, else as r came.
func (a *API) base(r *http.Request) string {
	if a.PublicURL != nil {
		return a.PublicURL.Scheme + "://" + a.PublicURL.Host
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

package api

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
)

// FailedLogins knows which logins failed, and which registrations.
type FailedLogins interface {
	Device(id muster.DeviceID) []devices.FailedLogin
	Fleet() []devices.FailedLogin
	Unregistered(a devices.Attempt, id muster.DeviceID, err error)
}

type credential struct {
	ID         string  `json:"id"`
	Kind       string  `json:"kind" enum:"token,secret,x509,basic,adoption"`
	State      string  `json:"state" enum:"active,expired,revoked"`
	Label      string  `json:"label" doc:"For people"`
	KeySHA256  string  `json:"key_sha256,omitempty" doc:"Of x509: SHA-256 of the key's SubjectPublicKeyInfo in DER"`
	CA         string  `json:"ca,omitempty" doc:"Id of the certificate authority by whose certificate the key became the device's"`
	CreatedAt  string  `json:"created_at" format:"date-time"`
	ExpiresAt  *string `json:"expires_at" format:"date-time" doc:"Null for never"`
	LastUsedAt *string `json:"last_used_at" format:"date-time" doc:"When it last let a client in; null when it never did"`
	RevokedAt  *string `json:"revoked_at,omitempty" format:"date-time" doc:"Of a key that came by a CA: it stays until its certificate expires, so that it is not let in again"`
}

func credentialOf(c devices.Credential, at muster.Micros) credential {
	out := credential{
		ID: c.ID, Kind: string(c.Kind), State: "active", Label: c.Label, CA: c.CA, CreatedAt: stamp(c.Created), ExpiresAt: stampOrNull(c.Expires),
		LastUsedAt: stampOrNull(c.LastUsed), RevokedAt: stampOrNull(c.Revoked),
	}
	if c.Kind == devices.X509 {
		out.KeySHA256 = hex.EncodeToString(c.Hash[:])
	}
	switch {
	case c.Revoked != 0:
		out.State = "revoked"
	case c.Expires != 0 && at >= c.Expires:
		out.State = "expired"
	}
	return out
}

// issued is a credential that was just made. It is shown this once.
type issued struct {
	ID        string  `json:"id"`
	Kind      string  `json:"kind" enum:"token,secret,x509"`
	Token     string  `json:"token,omitempty" doc:"The MQTT user name, alone"`
	Username  string  `json:"username"`
	Password  string  `json:"password,omitempty"`
	ExpiresAt *string `json:"expires_at,omitempty" format:"date-time" doc:"Absent for never"`
}

func issuedOf(i devices.Issued) *issued {
	if i.ID == "" {
		return nil
	}
	return &issued{ID: i.ID, Kind: string(i.Kind), Token: i.Token, Username: i.Username, Password: i.Password, ExpiresAt: stampOrNull(i.Expires)}
}

type newCredential struct {
	Kind        string    `json:"kind,omitempty" enum:"token,secret,x509" doc:"What follows from what is given; a token when nothing is"`
	Token       string    `json:"token,omitempty" maxLength:"256" doc:"Your own instead of a made one, 20 to 256 printable ASCII characters"`
	Secret      string    `json:"secret,omitempty" maxLength:"256" doc:"Your own instead of a made one, 16 to 256 bytes"`
	Certificate string    `json:"certificate,omitempty" maxLength:"16384" doc:"One certificate in PEM, self-signed or not, whose key is pinned"`
	Label       string    `json:"label,omitempty" maxLength:"100" doc:"For people; a certificate's subject when absent"`
	ExpiresAt   time.Time `json:"expires_at,omitzero" required:"false" doc:"Never when absent; a certificate's is pinned no longer than it is valid"`
}

func (n *newCredential) grant() (devices.Grant, error) {
	g := devices.Grant{Label: n.Label, Expires: n.ExpiresAt}
	kind, given, err := wish(n.Kind, n.Token, n.Secret)
	switch {
	case n.Certificate == "" && n.Kind == string(devices.X509):
		return g, muster.InvalidAt("certificate", "a credential of kind x509 needs a certificate")
	case n.Certificate == "":
		g.Kind, g.Given = kind, given
		return g, err
	case n.Token != "" || n.Secret != "" || n.Kind != "" && n.Kind != string(devices.X509):
		return g, muster.At(muster.Errorf(muster.Invalid, "a certificate is a credential of kind x509 and of no other"), "certificate", "kind", "token", "secret")
	}
	var cert *x509.Certificate
	cert, err = devices.ParseCertificate(n.Certificate)
	g.Kind, g.Certificate = devices.X509, cert
	return g, err
}

type createdCredential struct {
	Credential *issued `json:"credential" doc:"Shown this once"`
}

type failedLogin struct {
	Reason   string `json:"reason" doc:"Why it was refused, for people; the client was not told"`
	Username string `json:"username,omitempty" doc:"Shortened when it may be a token"`
	ClientID string `json:"client_id,omitempty"`
	Subject  string `json:"subject,omitempty" doc:"Common name of the client's certificate"`
	Peer     string `json:"peer,omitempty" doc:"Address and port of the last; absent for a unix socket"`
	Listener string `json:"listener,omitempty"`
	FirstAt  string `json:"first_at" format:"date-time"`
	LastAt   string `json:"last_at" format:"date-time"`
	Count    int64  `json:"count" doc:"How often it failed just so"`
}

func failedLogins(list []devices.FailedLogin) *body[page[failedLogin]] {
	items := make([]failedLogin, len(list))
	for i, f := range list {
		items[i] = failedLogin{
			Reason: f.Reason, Username: f.Username, ClientID: f.ClientID, Subject: f.Subject, Peer: f.Peer, Listener: f.Listener,
			FirstAt: stamp(f.First), LastAt: stamp(f.Last), Count: f.Count,
		}
	}
	return lone(items)
}

// CredentialPath is the part of an input that names a credential.
type CredentialPath struct {
	DevicePath
	Credential string `path:"credential" maxLength:"64"`
}

func (a *API) identityRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-failed-logins", Method: http.MethodGet, Path: "/devices/{device}/logins", Tags: []string{"devices"},
		Summary:     "List the logins that failed in a device's name, newest first",
		Description: "Those that named it as user name, as common name of a certificate or as client id, and refused registrations of it: at most 20 kinds, in memory.", Errors: []int{404},
	}, func(_ context.Context, in *DevicePath) (*body[page[failedLogin]], error) {
		id, err := a.existing(*in)
		if err != nil {
			return nil, err
		}
		return failedLogins(a.Logins.Device(id)), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-unknown-logins", Method: http.MethodGet, Path: "/logins", Tags: []string{"devices"},
		Summary: "List the logins that failed and named no device, newest first",
	}, func(context.Context, *struct{}) (*body[page[failedLogin]], error) {
		return failedLogins(a.Logins.Fleet()), nil
	})
}

func (a *API) credentialRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-credentials", Method: http.MethodGet, Path: "/devices/{device}/credentials", Tags: []string{"devices"},
		Summary: "List a device's credentials, without the secrets", Errors: []int{404},
	}, func(_ context.Context, in *DevicePath) (*body[page[credential]], error) {
		id, err := a.existing(*in)
		if err != nil {
			return nil, err
		}
		cs, err := a.Registry.Credentials(id)
		if err != nil {
			return nil, err
		}
		items, at := make([]credential, len(cs)), muster.MicrosOf(a.Now())
		for i, c := range cs {
			items[i] = credentialOf(c, at)
		}
		return lone(items), nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "add-credential", Method: http.MethodPost, Path: "/devices/{device}/credentials", DefaultStatus: http.StatusCreated,
		Tags: []string{"devices"}, Summary: "Give a device one more credential", Errors: []int{404, 409},
	}, a.addCredential)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "rotate-credential", Method: http.MethodPost, Path: "/devices/{device}/credentials/{credential}/rotate",
		DefaultStatus: http.StatusCreated, Tags: []string{"devices"}, Summary: "Put a new credential in the place of one",
		Description: "The old one expires after the overlap, and the connections that came in by it are cut then.", Errors: []int{404, 409},
	}, a.rotateCredential)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "remove-credential", Method: http.MethodDelete, Path: "/devices/{device}/credentials/{credential}",
		Tags: []string{"devices"}, Summary: "Revoke a credential; the connections that came in by it are cut", Errors: []int{404, 409},
	}, func(ctx context.Context, in *CredentialPath) (*struct{}, error) {
		id, err := a.existing(in.DevicePath)
		if err != nil {
			return nil, err
		}
		return nil, a.Registry.RemoveCredential(ctx, id, in.Credential)
	})
}

func (a *API) addCredential(ctx context.Context, in *struct {
	DevicePath
	Body newCredential
},
) (*created[createdCredential], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	g, err := in.Body.grant()
	if err != nil {
		return nil, err
	}
	is, err := a.Registry.AddGrant(ctx, id, g)
	if err != nil {
		return nil, err
	}
	return createdOf(id, is), nil
}

func createdOf(id muster.DeviceID, is devices.Issued) *created[createdCredential] {
	at := prefix + "/devices/" + string(id) + "/credentials/" + is.ID
	return &created[createdCredential]{at, createdCredential{issuedOf(is)}}
}

// rotation is the optional body of a rotation.
type rotation struct {
	OverlapS    *int64    `json:"overlap_s,omitempty" minimum:"0" maximum:"7776000" nullable:"false" doc:"For how many seconds the old one stays good; 86400 when absent, 0 ends it at once"`
	Kind        string    `json:"kind,omitempty" enum:"token,secret,x509" doc:"The old one's when absent and nothing is given"`
	Token       string    `json:"token,omitempty" maxLength:"256"`
	Secret      string    `json:"secret,omitempty" maxLength:"256"`
	Certificate string    `json:"certificate,omitempty" maxLength:"16384" doc:"PEM; a certificate is followed by another one"`
	Label       string    `json:"label,omitempty" maxLength:"100" doc:"The old one's when absent"`
	ExpiresAt   time.Time `json:"expires_at,omitzero" required:"false" doc:"When the new one expires; never when absent"`
}

func (a *API) rotateCredential(ctx context.Context, in *struct {
	CredentialPath
	Body *rotation
},
) (*created[createdCredential], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	var b rotation
	if in.Body != nil {
		b = *in.Body
	}
	n := newCredential{Kind: b.Kind, Token: b.Token, Secret: b.Secret, Certificate: b.Certificate, Label: b.Label, ExpiresAt: b.ExpiresAt}
	g, err := n.grant()
	if err != nil {
		return nil, err
	}
	if b.Kind == "" && b.Token == "" && b.Secret == "" && b.Certificate == "" {
		g.Kind = ""
	}
	overlap := devices.DefaultOverlap
	if b.OverlapS != nil {
		overlap = time.Duration(*b.OverlapS) * time.Second
	}
	is, err := a.Registry.Rotate(ctx, id, in.Credential, overlap, g)
	if err != nil {
		return nil, err
	}
	return createdOf(id, is), nil
}

// lone is a list that has one page only.
func lone[T any](items []T) *body[page[T]] { return list(items, "") }

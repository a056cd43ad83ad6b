package join

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"io"
	"strings"

	"muster"
	"muster/devices"
)

// maxRequest is the longest provisioning request, in bytes.
const maxRequest = 32 << 10

// Request is what a device sends at provision/request, as JSON, to register itself.
type Request struct {
	ProfileKey    string `json:"profile_key"`
	ProfileSecret string `json:"profile_secret"`
	ID            string `json:"id,omitempty"` // a device id; empty lets Muster make one
	Name          string `json:"name,omitempty"`
	// Credential is what it wants: token (the default), secret, basic or x509. It follows
	// from what is given.
	Credential  string `json:"credential,omitempty"`
	Token       string `json:"token,omitempty"`       // its own; empty lets Muster make one
	Username    string `json:"username,omitempty"`    // of basic
	Password    string `json:"password,omitempty"`    // its own secret, or basic's password; empty lets Muster make one
	ClientID    string `json:"client_id,omitempty"`   // of basic; empty for any
	Certificate string `json:"certificate,omitempty"` // of x509: PEM, pinned by its key
	CSR         string `json:"csr,omitempty"`         // refused: Muster signs no certificates
}

// Response is the answer to a Request.
type Response struct {
	ID         muster.DeviceID `json:"id"`
	Profile    string          `json:"profile"`
	Credential string          `json:"credential"`
	Token      string          `json:"token,omitempty"`
	Username   string          `json:"username"`
	Password   string          `json:"password,omitempty"`
}

// String returns the device and the kind of its credential only, so that no secret
// reaches a log.
func (r Response) String() string { return string(r.ID) + " " + r.Credential }

// GoString is String, for %#v.
func (r Response) GoString() string { return r.String() }

// ParseRequest reads one JSON object. Unknown fields, and anything after it, are
// Invalid.
func ParseRequest(payload []byte) (Request, error) {
	if len(payload) > maxRequest {
		return Request{}, muster.Errorf(muster.TooLarge, "the request is longer than %d bytes", maxRequest)
	}
	var r *Request
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || r == nil { // its words may repeat a secret
		return Request{}, muster.Errorf(muster.Invalid, "the request is not a JSON object with the known fields")
	}
	if _, err := d.Token(); err != io.EOF {
		return Request{}, muster.Errorf(muster.Invalid, "something follows the request")
	}
	return *r, nil
}

// Answer writes the answer to a request as it goes out at provision/response:
// {"status":"ok",...}, or {"status":"error","code","detail"}.
func Answer(r Response, err error) []byte {
	var answer any = struct {
		Status string `json:"status"`
		Response
	}{"ok", r}
	if err != nil {
		answer = struct {
			Status string `json:"status"`
			Code   string `json:"code"`
			Detail string `json:"detail"`
		}{"error", muster.KindOf(err).String(), muster.Public(err)}
	}
	b, err := json.Marshal(answer)
	if err != nil { // strings always marshal
		return []byte(`{"status":"error","code":"internal","detail":"internal error"}`)
	}
	return b
}

// wish returns which device and which credential r asks for.
func (r *Request) wish() (muster.DeviceID, devices.Grant, error) {
	var g devices.Grant
	if r.CSR != "" {
		return "", g, muster.Errorf(muster.Invalid, "Muster has no authority's key and signs no certificate: send a certificate, or ask for a token")
	}
	id := muster.DeviceID("dev-" + strings.ToLower(rand.Text())[:20])
	if r.ID != "" {
		var err error
		if id, err = muster.ParseDeviceID(r.ID); err != nil {
			return "", g, err
		}
	}
	g.Kind = devices.CredentialKind(cmp.Or(r.Credential, r.kind()))
	g.Label = "registered itself"
	switch g.Kind {
	case devices.Token:
		g.Given = r.Token
	case devices.Secret:
		g.Given = r.Password
	case devices.Basic:
		g.Given, g.Username, g.ClientID = cmp.Or(r.Password, "mds_"+rand.Text()), r.Username, r.ClientID
	case devices.X509:
		cert, err := devices.ParseCertificate(r.Certificate)
		if err != nil {
			return "", g, err
		}
		g.Certificate = cert
	default:
		return "", g, muster.Errorf(muster.Invalid, "the credential asked for is none of token, secret, basic and x509")
	}
	if g.Kind == devices.Basic && g.ClientID == "" && g.Username == string(id) {
		g.Kind = devices.Secret // that is what it is
	}
	return id, g, r.tooMuch(g.Kind)
}

// kind is what credential r wants when it does not say.
func (r *Request) kind() string {
	switch {
	case r.Certificate != "":
		return string(devices.X509)
	case r.Username != "" || r.ClientID != "":
		return string(devices.Basic)
	case r.Password != "":
		return string(devices.Secret)
	default:
		return string(devices.Token)
	}
}

// tooMuch refuses what does not belong to the kind of credential asked for.
func (r *Request) tooMuch(kind devices.CredentialKind) error {
	whole := kind == devices.Basic || r.Credential != string(devices.Secret) && kind == devices.Secret
	if r.Token != "" && kind != devices.Token || r.Certificate != "" && kind != devices.X509 ||
		r.Password != "" && kind != devices.Secret && kind != devices.Basic || (r.Username != "" || r.ClientID != "") && !whole {
		return muster.Errorf(muster.Invalid, "what is given does not belong to a credential of kind %s", kind)
	}
	return nil
}

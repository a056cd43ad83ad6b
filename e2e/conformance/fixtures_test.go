package conformance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"time"

	"muster/server/servertest"
)

// fixture makes a thing that paths name, when it is not there.
type fixture struct {
	name         string // of the path parameter
	method, path string
	body         string
	id           string // it is known before; else
	field        string // where the answer has it
}

// fixtures brings what paths name into being. Things whose id the server makes are made
// again when the document's own requests took them away.
func (p *probe) fixtures() {
	if p.given == nil {
		p.given = map[string]string{}
	}
	p.given["session"] = "" // one request may have ended it
	if p.cookie != nil {
		p.given["session"] = p.otherSession()
	}
	p.signIn()
	for _, f := range p.things() {
		if (p.paths(f.name) || f.name == "provisioned") && (f.name == "job" || !p.exists(f)) { // a job is done but once
			p.create(f)
		}
	}
}

func (p *probe) things() []fixture {
	cert, _ := json.Marshal(certificate(p)) // a string marshals
	return []fixture{
		{name: "profile", method: "PUT", path: "/profiles/conforming", body: `{}`, id: "conforming"},
		{name: "group", method: "PUT", path: "/groups/conforming", body: `{}`, id: "conforming"},
		{name: "device", method: "POST", path: "/devices", body: `{"id":"conforming"}`, id: "conforming"},
		{name: "credential", method: "POST", path: "/devices/conforming/credentials", body: `{}`, field: "credential.id"},
		{name: "command", method: "POST", path: "/devices/conforming/commands", body: `{"method":"reboot"}`, field: "id"},
		{name: "key", method: "POST", path: "/api-keys", body: `{"name":"conforming","scopes":["devices:read"]}`, field: "api_key.id"},
		{name: "account", method: "POST", path: "/service-accounts", body: `{"name":"conforming"}`, field: "service_account.id"},
		{name: "authority", method: "POST", path: "/certificate-authorities", body: `{"name":"conforming","proof":"none","certificate":` + string(cert) + `}`, field: "id"},
		{name: "job", method: "POST", path: "/jobs", body: `{"q":"id:conforming","kind":"command","method":"reboot"}`, field: "job.id"},
		{name: "webhook", method: "POST", path: "/webhooks", body: `{"url":"https://192.0.2.1/","types":["*"]}`, field: "webhook.id"},
		{name: "task", method: "POST", path: "/tasks", body: `{"kind":"identicon","input":{"subject":"conforming"}}`, field: "id"},
		{name: "user", method: "POST", path: "/users", body: p.newUser("viewer"), field: "user.id"},
		{name: "seq", id: "1"},
		{name: "provisioned", method: "PUT", path: "/profiles/conforming/provisioning", body: `{"strategy":"create"}`, id: "conforming"},
	}
}

// paths says whether an operation has the path parameter.
func (p *probe) paths(name string) bool {
	for _, op := range p.ops {
		if strings.Contains(op.path, "{"+name+"}") {
			return true
		}
	}
	return false
}

func (p *probe) exists(f fixture) bool {
	id := p.given[f.name]
	if id == "" {
		return false
	}
	path := f.path + "/" + id
	if f.method == http.MethodPut {
		path = f.path
	}
	status, _ := p.ask(http.MethodGet, path, "")
	if status == http.StatusMethodNotAllowed { // it is listed only
		_, text := p.ask(http.MethodGet, f.path, "")
		return bytes.Contains(text, []byte(`"`+id+`"`))
	}
	return status == http.StatusOK
}

func (p *probe) create(f fixture) {
	if f.method == "" {
		p.given[f.name] = f.id
		return
	}
	if f.name == "job" && p.given["job"] != "" {
		p.ask(http.MethodPost, "/jobs/"+p.given["job"]+"/abort", "") // so many run at once, and no more
	}
	status, text := p.ask(f.method, f.path, f.body)
	if status >= 300 && status != http.StatusConflict {
		p.Fatalf("%s %s: %d %s", f.method, f.path, status, text)
	}
	if f.id != "" {
		p.given[f.name] = f.id
		return
	}
	var v object
	if err := json.Unmarshal(text, &v); err != nil {
		p.Fatal(err)
	}
	names := strings.Split(f.field, ".")
	id, ok := child(v, names[:len(names)-1]...)[names[len(names)-1]].(string)
	if !ok && p.given[f.name] == "" {
		p.Fatalf("%s %s: no %s in %d %s", f.method, f.path, f.field, status, text)
	}
	if ok {
		p.given[f.name] = id
	}
}

func (p *probe) ask(method, path, body string) (int, []byte) { return p.askAs(nil, method, path, body) }

// askAs asks with a session's cookie, or with the admin's key.
func (p *probe) askAs(session *http.Cookie, method, path, body string) (int, []byte) {
	req, err := http.NewRequestWithContext(p.Context(), method, p.base+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	if session == nil {
		req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	} else {
		req.AddCookie(session)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := p.client.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		p.Fatal(err)
	}
	return res.StatusCode, text
}

const password = "conforming-0123"

// newUser is the body that makes a user whom nobody has made before.
func (p *probe) newUser(role string) string {
	p.users++
	return fmt.Sprintf(`{"email":"conforming-%d@muster.example","role":%q,"password":%q}`, p.users, role, password)
}

// signIn gives the probe a session of a user, for what only users do, and another to end.
func (p *probe) signIn() {
	if status, _ := p.askAs(p.cookie, http.MethodGet, "/me", ""); p.cookie == nil || status != http.StatusOK {
		if status, text := p.ask(http.MethodPost, "/users", p.newUser("admin")); status != http.StatusCreated {
			p.Fatalf("make a user: %d %s", status, text)
		}
		p.user, p.cookie = p.users, nil
		p.cookie = p.newSession()
		p.given["session"] = p.otherSession()
	}
	for p.given["session"] == "" {
		p.newSession()
		p.given["session"] = p.otherSession()
	}
}

func (p *probe) newSession() *http.Cookie {
	body := fmt.Sprintf(`{"email":"conforming-%d@muster.example","password":%q}`, p.user, password)
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, p.base+"/api/v1/session", strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	// From another address: the tries of the probe's are used up by what it tries on purpose.
	away := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	res, err := (&http.Client{Transport: &http.Transport{DialContext: away.DialContext, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || len(res.Cookies()) != 1 {
		p.Fatalf("sign in: %d", res.StatusCode)
	}
	return res.Cookies()[0]
}

// otherSession returns the id of a session of the probe's user that is not the probe's.
func (p *probe) otherSession() string {
	status, text := p.askAs(p.cookie, http.MethodGet, "/sessions", "")
	if status != http.StatusOK { // the probe's has ended, too
		return ""
	}
	var page struct {
		Items []struct {
			ID      string
			Current bool
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		p.Fatal(err)
	}
	for _, s := range page.Items {
		if !s.Current {
			return s.ID
		}
	}
	return ""
}

// identify signs a request of an operation: by the user's session where a key can not.
func (p *probe) identify(op string, req *http.Request) {
	switch op {
	case "change-me", "change-my-email", "change-my-password", "begin-totp", "confirm-totp", "delete-totp", "request-confirmation", "end-sessions", "end-session":
		req.AddCookie(p.cookie)
	default:
		req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	}
}

// certificate returns one of an authority.
func certificate(p *probe) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		p.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Conforming CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(crand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		p.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// prelude brings what op is about into the state that it is for.
func (p *probe) prelude(op operation) {
	switch op.id {
	case "resume-job":
		p.ask(http.MethodPost, "/jobs/"+p.given["job"]+"/pause", "")
	case "reset-user-password":
		p.ask(http.MethodPatch, "/users/"+p.given["user"], `{"disabled":false}`)
	case "delete-profile":
		p.ask(http.MethodDelete, "/profiles/conforming/provisioning", "")
	}
}

// names are the errors that say which name they did not find. Names of groups, fields and scopes
// are no secrets, and a text without them would help nobody.
func names() []string {
	return []string{
		"there is no field ", "there is no group ", "there is no scope ", "there is no kind of task ", "there is no type of event ",
		`"rejected":[{"line":`,
	} // the report says whose each line was
}

// noMQTT is why operations on MQTT clients are not done here.
const noMQTT = "needs a client that connects over MQTT; server and e2e test it"

// unreached says why an operation is not answered but with errors here, empty when it must be.
func unreached(id string) string {
	return map[string]string{
		"adopt-candidate":     noMQTT,
		"get-candidate":       noMQTT,
		"refuse-candidate":    noMQTT,
		"unblock-client":      noMQTT,
		"kick-client":         noMQTT,
		"claim-device":        "needs a code that was made just before; server tests it",
		"delete-adoption-key": "has an id that is no path parameter of another operation; server tests it",
		"next-job":            "needs a job that waits between waves; e2e tests it",
		"sign-out":            "needs a session's cookie; api tests it",
		"provision":           "needs a profile's secret; server tests it with devices that register themselves",
		"accept-invitation":   "needs a link that was made for one; api tests it", "reset-password": "needs a link that was mailed; api tests it",
		"confirm-email":   "needs a link that was mailed; api tests it",
		"forgot-password": "is bounded for each address; api tests it", "set-up": "is for the one link of the first start; server tests it",
		"change-my-password": "needs the password; api tests it", "change-my-email": "needs the password; api tests it",
		"confirm-totp": "needs a code; api tests it", "delete-totp": "needs a code; api tests it",
		"cancel-task":                  "needs a task that runs; api tests it",
		"clear-user-totp":              "needs a user who has one; api tests it",
		"verify-certificate-authority": "needs a certificate with a code for its name; server tests it",
	}[id]
}

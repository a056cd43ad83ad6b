package conformance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"muster/accounts"
	"muster/firmware"
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
	p.given["stream"] = "0123456789abcdef"
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
	if p.paths("view") {
		p.view()
	}
	if status, _ := p.ask(http.MethodGet, "/rollouts/"+p.given["rollout"], ""); p.given["rollout"] == "" || status != http.StatusOK {
		p.rollout()
	}
	p.given["principal"] = p.given["user"]
	if status, _ := p.ask(http.MethodGet, "/notifications/"+p.given["notification"], ""); p.given["notification"] == "" || status != http.StatusOK {
		p.notify()
	}
}

// view has a saved list of the probe's user, one that is his now.
func (p *probe) view() {
	status, text := p.askAs(p.cookie, http.MethodPost, "/views", `{"name":"conforming"}`)
	if status == http.StatusConflict {
		_, text = p.askAs(p.cookie, http.MethodGet, "/views", "")
	}
	id := regexp.MustCompile(`"id":"(view_[a-z2-7]+)"`).FindSubmatch(text)
	if id == nil {
		p.Fatalf("have a view: %d %s", status, text)
	}
	p.given["view"] = string(id[1])
}

// rollout writes a draft of the release, of one that is made when that is gone.
func (p *probe) rollout() {
	if status, _ := p.ask(http.MethodGet, "/firmware/releases/"+p.given["release"], ""); status != http.StatusOK {
		p.draft()
	}
	status, text := p.ask(http.MethodPost, "/rollouts", `{"name":"conforming","release":"`+p.given["release"]+`","rollback":"`+p.given["release"]+`","q":"id:conforming"}`)
	var made struct{ ID string }
	if err := json.Unmarshal(text, &made); err != nil || status != http.StatusCreated {
		p.Fatalf("make a rollout: %d %s", status, text)
	}
	p.given["rollout"] = made.ID
}

// notify has a notification in the inbox of the probe's user. Too many in a row are refused:
// then the one before stays.
func (p *probe) notify() {
	topic := "/topics/" + p.given["topic"]
	p.ask(http.MethodPatch, topic, `{"status":"active"}`)
	p.askAs(p.cookie, http.MethodPut, topic+"/subscriptions/me", `{"channels":[{"channel":"email"}]}`)
	_, text := p.ask(http.MethodPost, "/notifications", `{"topic":"`+p.given["topic"]+`","title":"conforming"}`)
	var sent struct{ Notification struct{ ID string } }
	if err := json.Unmarshal(text, &sent); err == nil && sent.Notification.ID != "" {
		p.given["notification"] = sent.Notification.ID
		p.given["delivery"] = p.deliveryOf(sent.Notification.ID)
	}
}

// deliveryOf returns the mail that goes out about a notification, empty when the document's own
// requests took what it needs.
func (p *probe) deliveryOf(notification string) string {
	_, text := p.ask(http.MethodGet, "/deliveries?notification="+notification, "")
	var page struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(text, &page); err != nil {
		p.Fatal(err)
	}
	if len(page.Items) == 0 {
		return p.given["delivery"]
	}
	return page.Items[0].ID
}

// confirm confirms the address of the probe's user by the link that is mailed to him.
func (p *probe) confirm() {
	before := len(p.post.Mails())
	if status, text := p.askAs(p.cookie, http.MethodPost, "/me/confirmation", ""); status != http.StatusAccepted {
		p.Fatalf("ask for a confirmation: %d %s", status, text)
	}
	address := fmt.Sprintf("conforming-%d@muster.example", p.user)
	link := regexp.MustCompile(regexp.QuoteMeta(accounts.PathConfirm) + "([A-Z2-7]{26})")
	for n := before + 1; ; n++ {
		m := p.post.Wait(p.T, n)[n-1]
		found := link.FindStringSubmatch(m.Text)
		if found == nil || m.To[0] != address {
			continue
		}
		if status, text := p.ask(http.MethodPost, "/email/confirm", `{"token":"`+found[1]+`"}`); status != http.StatusNoContent {
			p.Fatalf("confirm the address: %d %s", status, text)
		}
		return
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
		{name: "topic", method: "POST", path: "/topics", body: `{"name":"conforming","if_absent":true}`, field: "id"},
		{name: "sha256", method: "POST", path: "/firmware/artifacts?filename=conforming.bin&sha256=" + digest("conforming"), body: "conforming", id: digest("conforming")},
		{name: "upload", method: "POST", path: "/firmware/uploads", body: `{"filename":"a","size":1000000,"sha256":"` + digest("never sent") + `"}`, field: "id"},
		{name: "release", method: "POST", path: "/firmware/releases", body: p.newRelease(), field: "id"},
		{name: "signing_key", method: "POST", path: "/firmware/keys", body: newSigningKey(p), field: "id"},
		{name: "subject", id: "me"},
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
		p.confirm()
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
	case "request-confirmation":
		if p.unsure != nil {
			req.AddCookie(p.unsure)
			return
		}
		req.AddCookie(p.cookie)
	case "change-me", "change-my-email", "change-my-password", "begin-totp", "confirm-totp", "delete-totp", "end-sessions", "end-session",
		"get-subscription", "put-subscription", "delete-subscription", "list-my-subscriptions", "send-notification", "ack-notification", "mark-notifications",
		"list-views", "create-view", "put-view", "delete-view", "list-inbox", "count-inbox", "read-inbox", "test-email", "test-inbox":
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
	case "delete-member":
		p.ask(http.MethodPut, "/topics/"+p.given["topic"]+"/members/"+p.given["principal"], `{"role":"publisher"}`)
	case "get-subscription", "delete-subscription", "send-notification":
		p.ask(http.MethodPatch, "/topics/"+p.given["topic"], `{"status":"active"}`)
		p.askAs(p.cookie, http.MethodPut, "/topics/"+p.given["topic"]+"/subscriptions/me", `{}`)
	case "ack-notification":
		p.notify()
	case "change-release", "delete-release", "publish-release":
		p.draft()
	case "deprecate-release", "revoke-release", "create-rollout":
		p.published()
	case "start-rollout":
		p.published()
		p.rollout()
	case "pause-rollout", "abort-rollout", "supersede-rollout", "get-rollout-device":
		p.started()
	case "resume-rollout":
		p.started()
		p.ask(http.MethodPost, "/rollouts/"+p.given["rollout"]+"/pause", "")
	case "request-confirmation":
		own := p.user
		p.ask(http.MethodPost, "/users", p.newUser("viewer"))
		p.user = p.users
		p.unsure, p.user = p.newSession(), own
	}
}

// digest is the SHA-256 of an image in hex.
func digest(image string) string {
	sum := sha256.Sum256([]byte(image))
	return hex.EncodeToString(sum[:])
}

// newRelease is the body that makes a release of a version that nobody has made before.
func (p *probe) newRelease() string {
	p.drafts++
	return fmt.Sprintf(`{"manifest":{"schema":1,"product":"conforming","version":"1.0.%d","security_version":0,"type":"app","created":"2026-03-01T08:30:00Z",`+
		`"artifacts":[{"filename":"a","format":"raw","sha256":%q,"size":9}]}}`, p.drafts, digest("releasing"))
}

// draft puts a draft in the place of the release, whose image is here.
func (p *probe) draft() {
	p.ask(http.MethodPost, "/firmware/artifacts?filename=a&sha256="+digest("releasing"), "releasing")
	status, text := p.ask(http.MethodPost, "/firmware/releases", p.newRelease())
	var made struct{ ID string }
	if err := json.Unmarshal(text, &made); err != nil || status != http.StatusCreated {
		p.Fatalf("make a release: %d %s", status, text)
	}
	p.given["release"] = made.ID
}

// published puts a release that is published in the place of the release.
func (p *probe) published() {
	p.draft()
	p.ask(http.MethodPost, "/firmware/releases/"+p.given["release"]+"/publish", "")
}

// started puts a rollout that runs in the place of the rollout. Those before it end, so that
// they are not looked after.
func (p *probe) started() {
	p.ask(http.MethodPost, "/rollouts/"+p.given["rollout"]+"/abort", `{"force":true}`)
	p.published()
	p.rollout()
	p.ask(http.MethodPost, "/rollouts/"+p.given["rollout"]+"/start", "")
}

// newSigningKey is the body that adds a key nobody has.
func newSigningKey(p *probe) string {
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		p.Fatal(err)
	}
	text, err := firmware.PublicPEM(pub)
	if err != nil {
		p.Fatal(err)
	}
	body, err := json.Marshal(object{"name": "conforming", "pem": string(text)})
	if err != nil {
		p.Fatal(err)
	}
	return string(body)
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
		"send-to-stream":      "needs a stream that stays open; dashboard/live and e2e test it",
		"sign-out":            "needs a session's cookie; api tests it",
		"provision":           "needs a profile's secret; server tests it with devices that register themselves",
		"accept-invitation":   "needs a link that was made for one; api tests it", "reset-password": "needs a link that was mailed; api tests it",
		"confirm-email":   "needs a link that was mailed; api tests it",
		"forgot-password": "is bounded for each address; api tests it", "set-up": "is for the one link of the first start; server tests it",
		"change-my-password": "needs the password; api tests it", "change-my-email": "needs the password; api tests it",
		"confirm-totp": "needs a code; api tests it", "delete-totp": "needs a code; api tests it",
		"sign-release":                 "needs a signature of a key that the server has; api tests it",
		"agree-to-rollout":             "needs a second person; api tests it",
		"approve-rollout":              "needs a phase that waits at its gate; api tests it",
		"cancel-task":                  "needs a task that runs; api tests it",
		"rollback-rollout":             "needs devices that got the release; api tests it",
		"clear-user-totp":              "needs a user who has one; api tests it",
		"verify-certificate-authority": "needs a certificate with a code for its name; server tests it",
	}[id]
}

package api_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"image/png"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/api"
	"muster/devices"
	"muster/devices/join"
)

// certificate is one with a key of its own, self-signed, in PEM.
func certificate(t testing.TB, name string, isCA bool) (*x509.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: isCA, BasicConstraintsValid: isCA,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func (a answer) object(t testing.TB, name string) object {
	t.Helper()
	o, ok := a.decode(t)[name].(object)
	if !ok {
		t.Fatalf("there is no %s in %s", name, a.body)
	}
	return o
}

func (a answer) items(t testing.TB) []any {
	t.Helper()
	l, ok := a.wantStatus(t, 200).decode(t)["items"].([]any)
	if !ok {
		t.Fatalf("it is no list: %s", a.body)
	}
	return l
}

func TestACredentialIsRotatedWithAnOverlap(t *testing.T) {
	r := newRig(t)
	r.device("a")
	const path = "/api/v1/devices/a/credentials"
	old := r.as("POST", path, object{"kind": "secret", "label": "line 3"}).wantStatus(t, 201).object(t, "credential")
	at := path + "/" + old["id"].(string) + "/rotate"
	a := r.as("POST", at, object{}).wantStatus(t, 201)
	fresh := a.object(t, "credential")
	if fresh["kind"] != "secret" || fresh["password"] == old["password"] || a.Header.Get("Location") != path+"/"+fresh["id"].(string) {
		t.Errorf("the new one is %v", fresh["kind"])
	}
	for _, c := range []object{old, fresh} {
		if _, _, err := r.registry.Authenticate("a", []byte(c["password"].(string))); err != nil {
			t.Errorf("during the overlap: %v", err)
		}
	}
	list := r.as("GET", path, nil).items(t)
	first, second := list[0].(object), list[1].(object)
	ends, err := time.Parse(time.RFC3339, first["expires_at"].(string))
	if left := time.Until(ends); err != nil || left > 24*time.Hour || left < 23*time.Hour || first["label"] != "line 3" || second["expires_at"] != nil || first["last_used_at"] == nil {
		t.Errorf("the list shows %v", list)
	}
	r.as("POST", path+"/"+fresh["id"].(string)+"/rotate", object{"overlap_s": 0, "kind": "token"}).wantStatus(t, 201)
	last := r.as("GET", path, nil).wantStatus(t, 200).decode(t)["items"].([]any)
	r.as("POST", path+"/"+last[len(last)-1].(object)["id"].(string)+"/rotate", nil).wantStatus(t, 201)
	if _, _, err := r.registry.Authenticate("a", []byte(fresh["password"].(string))); err == nil {
		t.Error("without an overlap the old one is good")
	}
	if s := r.as("GET", path, nil).items(t)[1].(object)["state"]; s != "expired" {
		t.Errorf("it is shown as %v", s)
	}
	for _, tt := range []struct {
		path   string
		body   any
		status int
		code   string
	}{
		{at, object{"overlap_s": -1}, 422, "invalid"},
		{at, object{"overlap_s": 1 << 40}, 422, "invalid"},
		{at, object{"kind": "basic"}, 422, "invalid"},
		{at, object{"kind": "x509"}, 422, "invalid"},
		{at, object{"expires_at": "2020-01-01T00:00:00Z"}, 422, "invalid"},
		{at, object{"certificate": "no", "token": "x"}, 422, "invalid"},
		{path + "/cred_x/rotate", object{}, 404, "not_found"},
		{"/api/v1/devices/nobody/credentials/cred_x/rotate", object{}, 404, "not_found"},
	} {
		r.as("POST", tt.path, tt.body).wantProblem(t, tt.status, tt.code)
	}
}

func TestACertificateIsPinnedToOneDevice(t *testing.T) {
	r := newRig(t)
	r.device("a")
	r.device("b")
	cert, text := certificate(t, "thing", false)
	c := r.as("POST", "/api/v1/devices/a/credentials", object{"certificate": text}).wantStatus(t, 201).object(t, "credential")
	if c["kind"] != "x509" || c["username"] != "a" || c["expires_at"] == nil {
		t.Errorf("it is %v", c)
	}
	hash, err := devices.KeyHash(cert)
	r.must(err)
	item := r.as("GET", "/api/v1/devices/a/credentials", nil).items(t)[0].(object)
	if item["key_sha256"] != fmt.Sprintf("%x", hash) || item["label"] != "CN=thing" {
		t.Errorf("it is shown as %v", item)
	}
	r.as("POST", "/api/v1/devices/b/credentials", object{"certificate": text}).wantProblem(t, 409, "conflict")
	for _, body := range []object{
		{"certificate": text, "kind": "token"},
		{"certificate": text, "secret": "0123456789abcdef"},
		{"certificate": "x"},
		{"kind": "x509"},
		{"certificate": text + text},
		{"kind": "adoption"},
	} {
		r.as("POST", "/api/v1/devices/b/credentials", body).wantProblem(t, 422, "invalid")
	}
}

func TestACertificateAuthorityIsRegisteredShownChangedAndDeleted(t *testing.T) {
	r := newRig(t)
	const path = "/api/v1/certificate-authorities"
	r.as("PUT", "/api/v1/profiles/meter", object{}).wantStatus(t, 200)
	cert, text := certificate(t, "Plant CA", true)
	a := r.as("POST", path, object{"name": "Plant", "certificate": text, "profile": "meter", "jit": true, "proof": "none"}).wantStatus(t, 201)
	made := a.decode(t)
	want := object{
		"id": made["id"], "name": "Plant", "subject": "CN=Plant CA", "fingerprint": fmt.Sprintf("%x", join.Fingerprint(cert)), "profile": "meter",
		"jit": true, "id_from": "cn", "created_at": made["created_at"], "not_before": cert.NotBefore.UTC().Format("2006-01-02T15:04:05.000000Z"),
		"proof": "none", "verified": true, "verified_at": made["created_at"], "not_after": cert.NotAfter.UTC().Format("2006-01-02T15:04:05.000000Z"),
	}
	at := a.Header.Get("Location")
	if d := cmp.Diff(want, made) + cmp.Diff(want, r.as("GET", at, nil).wantStatus(t, 200).decode(t)) + cmp.Diff([]any{want}, r.as("GET", path, nil).items(t)); d != "" {
		t.Error(d)
	}
	r.as("DELETE", "/api/v1/profiles/meter", nil).wantProblem(t, 409, "conflict")
	want["jit"], want["profile"], want["name"] = false, "default", "Old plant"
	changed := r.as("PATCH", at, object{"jit": false, "profile": "default", "name": "Old plant"}).wantStatus(t, 200).decode(t)
	if d := cmp.Diff(want, changed); d != "" {
		t.Error(d)
	}
	r.as("PATCH", at, object{"profile": "nothing"}).wantProblem(t, 422, "invalid")
	r.as("POST", path, object{"name": "again", "certificate": text}).wantProblem(t, 409, "conflict")
	_, leaf := certificate(t, "device", false)
	r.as("POST", path, object{"name": "x", "certificate": leaf}).wantProblem(t, 422, "invalid")
	r.as("POST", at+"/verify", object{"certificate": leaf}).wantProblem(t, 409, "conflict")
	r.as("DELETE", at, nil).wantStatus(t, 204)
	waits := r.as("POST", path, object{"name": "Plant", "certificate": text}).wantStatus(t, 201).decode(t)
	if code, _ := waits["verification_code"].(string); len(code) < 26 || waits["verified"] != false || waits["proof"] != "certificate" || waits["verified_at"] != nil {
		t.Errorf("it is shown as %v", waits)
	}
	at = path + "/" + waits["id"].(string)
	r.as("POST", at+"/verify", object{"certificate": leaf}).wantProblem(t, 422, "invalid")
	r.as("DELETE", at, nil).wantStatus(t, 204)
	r.as("POST", at+"/verify", object{"certificate": leaf}).wantProblem(t, 404, "not_found")
	r.as("POST", path, object{"name": "Plant", "certificate": text, "proof": "word"}).wantProblem(t, 422, "invalid")
	r.as("DELETE", at, nil).wantProblem(t, 404, "not_found")
	r.as("GET", at, nil).wantProblem(t, 404, "not_found")
}

func TestADeviceRegistersItselfOverHTTP(t *testing.T) {
	r := newRig(t)
	r.as("PUT", "/api/v1/profiles/meter", object{}).wantStatus(t, 200)
	const path = "/api/v1/profiles/meter/provisioning"
	r.as("GET", path, nil).wantProblem(t, 404, "not_found")
	p := r.as("PUT", path, object{"strategy": "create"}).wantStatus(t, 200).decode(t)
	secret, _ := p["secret"].(string)
	if shown := r.as("GET", path, nil).wantStatus(t, 200); secret == "" || strings.Contains(string(shown.body), secret) || shown.decode(t)["key"] != p["key"] {
		t.Errorf("it is shown as %s", shown.body)
	}
	ask := func(change object) answer {
		t.Helper()
		body := object{"profile_key": p["key"], "profile_secret": secret, "id": "m1"}
		maps.Copy(body, change)
		return r.do("POST", "/api/v1/provision", body)
	}
	made := ask(nil).wantStatus(t, 201).decode(t)
	if id, _, err := r.registry.Authenticate(made["token"].(string), nil); err != nil || id != "m1" || made["status"] != "ok" || made["profile"] != "meter" {
		t.Errorf("registered %v as %q, %v", made["id"], id, err)
	}
	ask(nil).wantProblem(t, 409, "conflict")
	ask(object{"id": "m2", "csr": "x"}).wantProblem(t, 422, "invalid")
	ask(object{"id": "m2", "colour": "red"}).wantProblem(t, 422, "invalid")
	ask(object{"id": "a/b"}).wantProblem(t, 422, "invalid")
	r.do("POST", "/api/v1/provision", object{"profile_key": "x", "profile_secret": "y"}, header("Sec-Fetch-Site", "cross-site")).wantProblem(t, 403, "forbidden")
	for range 10 {
		a := ask(object{"profile_secret": "wrong", "id": "m2"})
		p := a.wantProblem(t, 401, "unauthorized")
		if strings.Contains(fmt.Sprint(p), secret) {
			t.Error("the answer shows the secret")
		}
	}
	if a := ask(object{"profile_secret": "wrong", "id": "m2"}); a.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	} else {
		a.wantProblem(t, 429, "busy")
	}
	if n := r.registry.Count(); n != 1 {
		t.Errorf("%d devices", n)
	}
	for path, reason := range map[string]string{"/api/v1/devices/m1/logins": "is taken", "/api/v1/logins": "too many wrong tries"} {
		shown := r.as("GET", path, nil).wantStatus(t, 200).decode(t)["items"].([]any)[0].(object)
		if !strings.Contains(fmt.Sprint(shown["reason"]), reason) || shown["username"] != "provision" || shown["listener"] != "http" || shown["peer"] == "" {
			t.Errorf("%s shows %v", path, shown)
		}
	}
	r.as("PUT", path, object{"strategy": "maybe"}).wantProblem(t, 422, "invalid")
	r.as("PUT", "/api/v1/profiles/nothing/provisioning", object{"strategy": "create"}).wantProblem(t, 404, "not_found")
	r.as("DELETE", path, nil).wantStatus(t, 204)
	r.as("DELETE", path, nil).wantProblem(t, 404, "not_found")
	if strings.Contains(r.log.String(), secret) {
		t.Error("the log has the secret")
	}
}

func TestADeviceIsClaimedByTheCodeOnItsPicture(t *testing.T) {
	public, err := url.Parse("https://muster.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(d *api.Deps) { d.PublicURL = public })
	r.device("d")
	a := r.as("POST", "/api/v1/devices/d/claim-code", object{"expires_s": 60}).wantStatus(t, 201).decode(t)
	code := a["code"].(string)
	if a["url"] != "https://muster.example:8443/claim/"+code {
		t.Errorf("the URL is %v", a["url"])
	}
	raw, err := base64.StdEncoding.DecodeString(a["png"].(string))
	r.must(err)
	picture, err := png.Decode(bytes.NewReader(raw))
	r.must(err)
	svg := a["svg"].(string)
	if b := picture.Bounds(); b.Dx() != b.Dy() || b.Dx()%8 != 0 || !strings.HasPrefix(svg, "<svg") || !strings.HasSuffix(svg, "</svg>") {
		t.Errorf("the picture is %v", b)
	}
	samePicture(t, picture, svg)
	d := r.as("POST", "/api/v1/claims", object{"code": strings.ToLower(code)}).wantStatus(t, 200).decode(t)
	if d["id"] != "d" || d["tags"].(object)["owner"] != accounts.AdminKeyName {
		t.Errorf("claimed %v", d)
	}
	r.as("POST", "/api/v1/claims", object{"code": code}).wantProblem(t, 404, "not_found")
	r.as("POST", "/api/v1/devices/nobody/claim-code", nil).wantProblem(t, 404, "not_found")
	r.as("POST", "/api/v1/devices/d/claim-code", nil).wantStatus(t, 201)
	for range 4 {
		r.as("POST", "/api/v1/claims", object{"code": "WRONG"}).wantProblem(t, 404, "not_found")
	}
	over := r.as("POST", "/api/v1/claims", object{"code": "WRONG"})
	if s, err := strconv.Atoi(over.Header.Get("Retry-After")); err != nil || s < 30 || s > 60 {
		t.Errorf("Retry-After is %q, want about a minute", over.Header.Get("Retry-After"))
	}
	over.wantProblem(t, 429, "busy")
}

// TestWrongClaimCodesCountForAUserOverSessionsAndAddresses guesses in one session, and goes on in another.
func TestWrongClaimCodesCountForAUserOverSessionsAndAddresses(t *testing.T) {
	r := newRig(t)
	r.person("ann@example.com", accounts.Operator)
	one, two := r.enter("ann@example.com"), r.enter("ann@example.com")
	for range 5 {
		r.do("POST", "/api/v1/claims", object{"code": "WRONG"}, withCookie(one)).wantProblem(t, 404, "not_found")
	}
	far := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).DialContext}
	t.Cleanup(far.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+"/api/v1/claims", strings.NewReader(`{"code":"WRONG"}`))
	r.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.AddCookie(two)
	res, err := far.RoundTrip(req)
	r.must(err)
	if _ = res.Body.Close(); res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("the sixth is answered %d", res.StatusCode)
	}
}

func TestAnUnknownClientIsShownDecodedAndAdopted(t *testing.T) {
	r := newRig(t)
	made := r.as("POST", "/api/v1/adoption-keys", object{"name": "bench"}).wantStatus(t, 201).decode(t)
	secret := made["secret"].(string)
	if keys := r.as("GET", "/api/v1/adoption-keys", nil); !strings.Contains(string(keys.body), `"bench"`) || strings.Contains(string(keys.body), secret) {
		t.Errorf("the list is %s", keys.body)
	}
	come := func(clientID string) join.Guest {
		g, _, _, _, err := r.joining.Greet(join.Hello{ClientID: clientID, Username: "esp", Password: []byte(secret), Peer: "10.0.0.9:1", Listener: "tcp"})
		r.must(err)
		return g
	}
	g := come("plug/1")
	for _, s := range []struct{ topic, payload string }{
		{"tele/plug/SENSOR", `{"ts":1767225600000,"values":{"temp":21.5}}`}, {"stat/plug", "ON"}, {"raw", "\xff\x00"}, {"list", `[1,[2]]`}, {"long", strings.Repeat("7", 5000)},
	} {
		r.joining.Sample(g.Credential, s.topic, []byte(s.payload))
	}
	list := r.as("GET", "/api/v1/inbox", nil).items(t)
	first := list[0].(object)
	if len(list) != 1 || first["id"] != "plug-1" || first["client_id"] != "plug/1" || first["messages"] != 5.0 || first["adoption_key"] != "bench" || first["samples"] != nil {
		t.Errorf("the inbox has %v", list)
	}
	var shown []string
	for _, s := range r.as("GET", "/api/v1/inbox/plug-1", nil).wantStatus(t, 200).decode(t)["samples"].([]any) {
		o := s.(object)
		shown = append(shown, fmt.Sprint(o["topic"], " ", o["size"], " ", o["hex"], " ", o["json"], " ", o["decoded"], " ", o["rejected"]))
	}
	want := []string{
		"long 5000 <nil> <nil> [] [only the first 4096 bytes were kept to look at]",
		"list 7 <nil> [1 [2]] [] [an array must hold objects at byte 0]",
		"raw 2 ff00 <nil> [] [malformed JSON: not a value at byte 0]",
		"stat/plug 2 <nil> <nil> [] [malformed JSON: not a value at byte 0]",
		"tele/plug/SENSOR 43 <nil> <nil> [map[at:2026-01-01T00:00:00.000000Z values:map[temp:21.5]]] []",
	}
	if d := cmp.Diff(want, shown); d != "" {
		t.Error(d)
	}
	r.as("POST", "/api/v1/inbox/plug-1/adopt", object{"profile": "nothing"}).wantProblem(t, 422, "invalid")
	r.as("POST", "/api/v1/inbox/plug-1/adopt", object{"tags": object{"a b": "x"}}).wantProblem(t, 422, "invalid")
	a := r.as("POST", "/api/v1/inbox/plug-1/adopt", object{"name": "Plug", "tags": object{"hall": "3"}}).wantStatus(t, 201)
	token := a.object(t, "credential")["token"].(string)
	if id, _, err := r.registry.Authenticate(token, nil); err != nil || id != "plug-1" || a.object(t, "device")["name"] != "Plug" || a.Header.Get("Location") != "/api/v1/devices/plug-1" {
		t.Errorf("adopted as %q, %v", id, err)
	}
	kinds := map[any]bool{}
	for _, c := range r.as("GET", "/api/v1/devices/plug-1/credentials", nil).items(t) {
		kinds[c.(object)["kind"]] = true
	}
	if !kinds["adoption"] || !kinds["token"] {
		t.Errorf("its credentials are %v", kinds)
	}
	r.as("POST", "/api/v1/inbox/plug-1/adopt", nil).wantProblem(t, 404, "not_found")
	come("second")
	r.as("POST", "/api/v1/inbox/second/adopt", nil).wantStatus(t, 201)
	come("third")
	r.as("DELETE", "/api/v1/inbox/third", nil).wantStatus(t, 204)
	r.as("DELETE", "/api/v1/inbox/third", nil).wantProblem(t, 404, "not_found")
	block := r.as("GET", "/api/v1/inbox-blocks", nil).items(t)[0].(object)
	if block["candidate"] != "third" {
		t.Errorf("blocked is %v", block)
	}
	r.as("DELETE", "/api/v1/inbox-blocks/"+block["id"].(string), nil).wantStatus(t, 204)
	for _, id := range []any{block["id"], "xyz", strings.Repeat("0", 62)} {
		r.as("DELETE", "/api/v1/inbox-blocks/"+id.(string), nil).wantProblem(t, 404, "not_found")
	}
	at := "/api/v1/adoption-keys/" + made["adoption_key"].(object)["id"].(string)
	r.as("DELETE", at, nil).wantStatus(t, 204)
	r.as("DELETE", at, nil).wantProblem(t, 404, "not_found")
	if strings.Contains(r.log.String(), secret) {
		t.Error("the log has the key")
	}
}

func TestFailedLoginsAreShownOnTheirDeviceAndTheRestToAdmins(t *testing.T) {
	r := newRig(t)
	r.device("d")
	r.logins.Failed(devices.Attempt{Username: "d", ClientID: "c", Peer: "10.0.0.1:9", Listener: "tcp"}, devices.Deny("the password is none of the device's secrets"))
	r.logins.Failed(devices.Attempt{Username: "stranger"}, errors.New("a fault of ours"))
	item := r.as("GET", "/api/v1/devices/d/logins", nil).items(t)[0].(object)
	delete(item, "first_at")
	delete(item, "last_at")
	want := object{"reason": "the password is none of the device's secrets", "username": "d", "client_id": "c", "peer": "10.0.0.1:9", "listener": "tcp", "count": 1.0}
	if d := cmp.Diff(want, item); d != "" {
		t.Error(d)
	}
	fleet := r.as("GET", "/api/v1/logins", nil).items(t)
	if len(fleet) != 1 || fleet[0].(object)["username"] != "stranger" || fleet[0].(object)["reason"] != "internal error" {
		t.Errorf("the fleet's are %v", fleet)
	}
	r.as("GET", "/api/v1/devices/nobody/logins", nil).wantProblem(t, 404, "not_found")
}

// TestAViewerReadsAndChangesNothingAboutJoining tries every route as a signed-in viewer
// and with keys that have nearly the right scope.
func TestAViewerReadsAndChangesNothingAboutJoining(t *testing.T) {
	r := newRig(t)
	r.device("d1")
	viewer := r.key(accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead)
	signed := r.do("POST", "/api/v1/session", object{"key": viewer}).wantStatus(t, 200)
	cookie := signed.Cookies()[0]
	admins := map[string]bool{"/logins": true, "/certificate-authorities": true, "/certificate-authorities/{authority}": true, "/certificate-authorities/{authority}/verify": true, "/adoption-keys": true, "/adoption-keys/{key}": true}
	tried := 0
	for _, o := range operations(r) {
		path := strings.TrimPrefix(o.path, "/api/v1")
		joining := admins[path] || strings.HasPrefix(path, "/inbox") || path == "/claims" || strings.Contains(path, "credential") ||
			strings.HasSuffix(path, "/provisioning") || strings.HasSuffix(path, "/logins") || strings.HasSuffix(path, "/claim-code")
		if !joining {
			continue
		}
		tried++
		a := r.do(o.method, o.at(), nil, withCookie(cookie), header("Sec-Fetch-Site", "same-origin"))
		if o.method == http.MethodGet && !admins[path] {
			if a.StatusCode == http.StatusForbidden || a.StatusCode == http.StatusUnauthorized {
				t.Errorf("a viewer may not %s %s: %d", o.method, path, a.StatusCode)
			}
			continue
		}
		a.wantProblem(t, 403, "forbidden")
		r.do(o.method, o.at(), nil, bearer(r.key(accounts.DevicesRead, accounts.MQTT))).wantProblem(t, 403, "forbidden")
		if admins[path] {
			r.do(o.method, o.at(), nil, bearer(r.key(accounts.DevicesWrite, accounts.DevicesRead))).wantProblem(t, 403, "forbidden")
		}
		r.do(o.method, o.at(), nil, withCookie(cookie), header("Sec-Fetch-Site", "cross-site")).wantProblem(t, 403, "forbidden")
	}
	if tried < 20 {
		t.Errorf("only %d routes were tried", tried)
	}
	if cs, err := r.registry.Credentials("d1"); err != nil || len(cs) != 0 {
		t.Errorf("the device has %v, %v", cs, err)
	}
	if len(r.joining.AdoptionKeys())+len(r.joining.Authorities()) != 0 {
		t.Error("something was made")
	}
}

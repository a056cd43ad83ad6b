package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	root "muster"
	"muster/firmware"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/image"
	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
	"muster/store/control"
	"muster/store/sqlite"
)

// updates is a server with one release of version 2.0.0 for one device. A second connection to
// its store makes the rollout, and looks at the rows.
type updates struct {
	*testing.T
	url     string
	device  root.DeviceID
	token   string
	release string // its id
	store   *control.Control
	each    func() // is called again and again while comesTo waits; nil for nothing
}

// updateLimit is how long a client may take for a step, on a busy machine.
const updateLimit = 2 * time.Minute

// newUpdates starts a server whose release has an image, which it sends at a bandwidth; 0 for
// the default one.
func newUpdates(t *testing.T, filename string, img []byte, bandwidth int64) *updates {
	t.Helper()
	u := &updates{T: t, device: "dev-001"}
	var data string
	srv := servertest.Start(t, func(c *server.Config) {
		data = c.DataDir
		c.Downloads.Bandwidth = bandwidth
		c.DDI.Idle, c.DDI.Busy, c.DDI.Reboot = time.Second, time.Second, -1
	})
	u.url = "http://" + srv.HTTPAddr()
	h, err := sqlite.OpenControl(t.Context(), data)
	u.must(err)
	u.store, err = control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	u.must(err)
	t.Cleanup(func() { u.must(u.store.Close()) })
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	m := &muster{t: t, http: srv.HTTPAddr(), key: servertest.AdminKey}
	u.token = m.device(string(u.device), "token").Username
	u.publish(m, filename, img)
	return u
}

// publish uploads an image, and publishes a signed release of it.
func (u *updates) publish(m *muster, filename string, img []byte) {
	u.Helper()
	sum := sha256.Sum256(img)
	digest := hex.EncodeToString(sum[:])
	status, _, body := u.send(http.MethodPost, u.url+"/api/v1/firmware/artifacts?filename="+filename+"&sha256="+digest,
		map[string]string{"Authorization": "Bearer " + m.key, "Content-Type": "application/octet-stream"}, string(img))
	if status != http.StatusCreated {
		u.Fatalf("the image is answered %d %s", status, body)
	}
	public, secret, err := ed25519.GenerateKey(nil)
	u.must(err)
	pem, err := firmware.PublicPEM(public)
	u.must(err)
	m.ask(http.MethodPost, "/api/v1/firmware/keys", map[string]any{"name": "e2e", "pem": string(pem)}, http.StatusCreated, nil)
	info, err := image.Of(bytes.NewReader(img), int64(len(img)))
	u.must(err)
	manifest := &firmware.Manifest{
		Schema: firmware.Schema, Product: "pump", Version: "2.0.0", Type: "app", Created: time.Now().UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: filename, SHA256: digest, Size: int64(len(img)), Format: info.Format}},
	}
	sig, err := firmware.Sign(secret, manifest)
	u.must(err)
	var made struct{ ID string }
	m.ask(http.MethodPost, "/api/v1/firmware/releases", map[string]any{"manifest": manifest, "signatures": []firmware.Signature{sig}}, http.StatusCreated, &made)
	m.ask(http.MethodPost, "/api/v1/firmware/releases/"+made.ID+"/publish", nil, http.StatusOK, nil)
	u.release = made.ID
}

func (u *updates) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

// roll begins a rollout of the release to the device.
func (u *updates) roll() {
	u.Helper()
	r := &rollout.Rollout{
		ID: "r", Name: "e2e", Seed: "s", Release: u.release, Product: "pump", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1,
	}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Gate: rollout.Auto}}
	r.Plan.Soak = time.Second
	r.Upto, r.Counts = []uint64{0}, make([]rollout.Counts, 1)
	r.Counts[0].By[rollout.Queued] = 1
	u.must(u.store.InsertRollout(u.Context(), r, []rollout.Device{{Rollout: r.ID, ID: u.device, Rank: rollout.Rank(r.Seed, u.device)}}))
}

// pause is an operator's.
func (u *updates) pause() {
	u.Helper()
	u.must(u.store.Decide(u.Context(), "r", director.Fence{}, root.MicrosOf(time.Now()), director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		r.Status, r.Reason = rollout.Paused, rollout.ByOperator
		return nil, nil
	}))
}

// action returns the row of the device's newest action; false before it has one.
func (u *updates) action() (desk.Action, bool) {
	u.Helper()
	a, err := u.store.LastAction(u.Context(), u.device)
	if root.KindOf(err) == root.NotFound && err != nil {
		return a, false
	}
	u.must(err)
	return a, true
}

// comesTo waits until the row of the device is what is wanted.
func (u *updates) comesTo(what string, ok func(a *desk.Action) bool) desk.Action {
	u.Helper()
	var last desk.Action
	defer func() {
		if u.Failed() {
			u.Logf("the device was %s (%s: %s), its log %q", last.Device.State, last.Device.Reason, last.Device.Detail, u.log(last.Device.Action))
		}
	}()
	await(u.T, what, updateLimit, func() bool {
		if u.each != nil {
			u.each()
		}
		a, found := u.action()
		last = a
		return found && ok(&a)
	})
	return last
}

// served returns how many requests of devices the server answered, and bytes of images it sent, together.
func (u *updates) served() (sum float64) {
	u.Helper()
	status, _, body := u.send(http.MethodGet, u.url+"/metrics", nil, "")
	if status != http.StatusOK {
		u.Fatalf("the metrics are answered %d", status)
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "muster_ddi_requests_total{") || strings.HasPrefix(line, "muster_firmware_sent_bytes_total ") {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndex(line, " "):]), 64)
			u.must(err)
			sum += n
		}
	}
	return sum
}

func (u *updates) log(action int32) []string {
	u.Helper()
	list, err := u.store.ActionLog(u.Context(), u.device, action, 100)
	u.must(err)
	slices.Reverse(list)
	return list
}

// send sends what a client sent, and returns the status and the body that come back.
func (u *updates) send(method, path string, headers map[string]string, body string) (int, http.Header, string) {
	u.Helper()
	req, err := http.NewRequestWithContext(u.Context(), method, path, stringBody(body))
	u.must(err)
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(req)
	u.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		u.Fatalf("%s %s: %d %v %q: %v", method, path, res.StatusCode, res.Header, text, err)
	}
	return res.StatusCode, res.Header, string(text)
}

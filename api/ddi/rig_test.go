package ddi_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"muster"
	"muster/api/ddi"
	"muster/devices"
	"muster/firmware"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	dev     = muster.DeviceID("dev-001")
	other   = muster.DeviceID("dev-002")
	token   = "token-of-the-first-device"
	another = "token-of-the-second-device"
)

// clock is what the test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

// there is a fleet in which every device is there, and runs 1.0.0.
type there struct{ at func() time.Time }

func (f there) Facts(*rollout.Rollout, muster.DeviceID) rollout.Facts {
	return rollout.Facts{Hardware: true, Source: true, Signed: true, Reachable: true, Local: f.at()}
}
func (there) Is(_ *rollout.Rollout, version string) bool       { return version == "2.0.0" }
func (there) Version(*rollout.Rollout, muster.DeviceID) string { return "1.0.0" }
func (there) Knows(string) bool                                { return true }

func (there) Life(muster.DeviceID) rollout.Life { return rollout.Life{There: true} }

// shelf has one release, whose images are files of a directory. It sends them as net/http does.
type shelf struct {
	dir       string
	release   desk.Release
	withdrawn atomic.Bool
}

func (s *shelf) Release(_ context.Context, id string) (desk.Release, error) {
	r := s.release
	r.ID, r.Withdrawn = id, s.withdrawn.Load()
	return r, nil
}

func (s *shelf) Serve(w http.ResponseWriter, r *http.Request, _ muster.DeviceID, _ int32, digest string) {
	f, err := os.Open(filepath.Join(s.dir, digest))
	if err != nil {
		http.Error(w, "gone", http.StatusGone)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", `"`+digest+`"`)
	http.ServeContent(w, r, "", time.Time{}, f)
}

// put adds an image.
func (s *shelf) put(t *testing.T, name string, content []byte) {
	t.Helper()
	sum, old, older := sha256.Sum256(content), sha1.Sum(content), md5.Sum(content)
	digest := hex.EncodeToString(sum[:])
	if err := os.WriteFile(filepath.Join(s.dir, digest), content, 0o600); err != nil {
		t.Fatal(err)
	}
	s.release.Files = append(s.release.Files, desk.File{
		Filename: name, Size: int64(len(content)), SHA256: digest, SHA1: hex.EncodeToString(old[:]), MD5: hex.EncodeToString(older[:]),
	})
}

// told are the attributes that devices told.
type told struct {
	mu   sync.Mutex
	list []string
	err  error
}

func (a *told) Attributes(_ context.Context, device muster.DeviceID, mode ddi.Mode, values map[string]string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	text, err := json.Marshal(values)
	a.list = append(a.list, string(device)+" "+string(mode)+" "+string(text))
	return errors.Join(err, a.err)
}

// rig is the API over the real desk, director, registry and store, on a real socket.
type rig struct {
	*testing.T
	clock
	url        string
	shelf      shelf
	attributes told
	store      *control.Control
	registry   *devices.Registry
	director   *director.Director
	desk       *desk.Desk
	gather     *prometheus.Registry
	asked      chan muster.DeviceID
	asks       bool // people
	soon       bool
}

func newRig(t *testing.T, change ...func(*ddi.Config)) *rig {
	t.Helper()
	r := &rig{T: t, clock: clock{at: time.Unix(1_800_000_000, 0)}, gather: prometheus.NewRegistry(), asked: make(chan muster.DeviceID, 10_000)}
	r.shelf.dir = t.TempDir()
	r.shelf.release.Manifest = &firmware.Manifest{Product: "pump", Version: "2.0.0", Type: "app"}
	r.shelf.put(t, "pump-2.0.0.swu", bytes.Repeat([]byte("image "), 20_000))
	r.open(slog.New(slog.DiscardHandler))
	c := ddi.Config{
		Desk: r.desk, Devices: r.registry, Images: &r.shelf, Attributes: &r.attributes, Releases: &r.shelf, Past: r.store, Consents: r.store,
		Asked: func(_ context.Context, id muster.DeviceID) (bool, error) { r.asked <- id; return r.soon, nil }, Metrics: r.gather, Now: r.now, Log: slog.New(slog.DiscardHandler),
	}
	for _, f := range change {
		f(&c)
	}
	r.asks = c.AskPeople
	h, err := ddi.New(c)
	r.must(err)
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	r.url = s.URL
	return r
}

// asking is what the desk knows of people: where nobody asks them it does not wait.
type asking struct{ *rig }

func (a asking) Consent(ctx context.Context, device muster.DeviceID) (desk.Consent, error) {
	if !a.asks {
		return desk.Consent{Auto: true}, nil
	}
	return a.store.Consent(ctx, device)
}

// open opens the store with two devices, the desk and the director.
func (r *rig) open(log *slog.Logger) {
	r.Helper()
	dir := r.TempDir()
	controltest.Fill(r.T, dir)
	h, err := sqlite.OpenControl(r.Context(), dir)
	r.must(err)
	r.store, err = control.Open(r.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	r.must(err)
	r.Cleanup(func() { r.must(r.store.Close()) })
	r.registry = devices.NewRegistry(r.store, r.now, log, devices.Options{})
	r.must(r.registry.Load(r.Context()))
	r.must(r.registry.PutGroup(r.Context(), devices.Group{Name: "yard"}))
	for id, tok := range map[muster.DeviceID]string{dev: token, other: another} {
		spec := devices.Spec{ID: id, Credential: devices.Token, Given: tok}
		if id == dev {
			spec.Groups, err = devices.GroupsOf([]string{"yard"})
			r.must(err)
		}
		_, _, err = r.registry.Create(r.Context(), spec)
		r.must(err)
	}
	r.director = director.New(r.store, there{r.now}, r.now, director.Options{Owner: "n", Barred: func(*rollout.Rollout) bool { return r.shelf.withdrawn.Load() }})
	r.desk = desk.New(r.store, r.director, &r.shelf, nil, unheard{}, asking{r}, func(muster.DeviceID, string) time.Time { return r.now() })
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.desk.Run(ctx) }()
	r.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			r.Error(err)
		}
	})
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) tick() {
	r.Helper()
	r.must(r.director.Tick(r.Context()))
}

// roll offers the release to the first device, and returns the action.
func (r *rig) roll() int32 {
	r.Helper()
	return r.rollAs("r")
}

// rollAs is roll by a rollout with an id.
func (r *rig) rollAs(id string) int32 {
	r.Helper()
	ro := &rollout.Rollout{ID: id, Seed: "s", Release: "rel", Status: rollout.Running, Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1}
	ro.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Gate: rollout.Auto}}
	ro.Upto, ro.Counts = []uint64{0}, make([]rollout.Counts, 1)
	ro.Counts[0].By[rollout.Queued] = 1
	r.must(r.store.InsertRollout(r.Context(), ro, []rollout.Device{{Rollout: id, ID: dev, Rank: rollout.Rank("s", dev)}}))
	r.tick()
	a, err := r.store.LastAction(r.Context(), dev)
	r.must(err)
	return a.Device.Action
}

// device returns the row of the first device.
func (r *rig) device() rollout.Device {
	r.Helper()
	a, err := r.store.LastAction(r.Context(), dev)
	r.must(err)
	return a.Device
}

// is fails the test unless the first device is in a state.
func (r *rig) is(want rollout.State) {
	r.Helper()
	if d := r.device(); d.State != want {
		r.Errorf("the device is %s, want %s", d.State, want)
	}
}

// pause is an operator's: what has not begun to install is taken back.
func (r *rig) pause() {
	r.Helper()
	r.must(r.store.Decide(r.Context(), "r", director.Fence{}, muster.MicrosOf(r.now()), director.Select{}, func(ro *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
		ro.Status = rollout.Paused
		return nil, nil
	}))
	r.tick()
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// json reads a document.
func (a answer) json(t *testing.T) (out map[string]any) {
	t.Helper()
	if err := json.Unmarshal(a.body, &out); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	return out
}

// do sends a request with the first device's token, and headers "Name: value".
func (r *rig) do(method, path, body string, headers ...string) answer {
	r.Helper()
	if strings.HasPrefix(path, "/") {
		path = r.url + path
	}
	req, err := http.NewRequestWithContext(r.Context(), method, path, strings.NewReader(body))
	r.must(err)
	req.Header.Set("Authorization", "TargetToken "+token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	res, err := http.DefaultClient.Do(req)
	r.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	r.must(err)
	return answer{res.StatusCode, res.Header, text}
}

const home = "/default/controller/v1/" + string(dev)

// links polls, and returns the links that there are.
func (r *rig) links() map[string]string {
	r.Helper()
	a := r.do("GET", home, "")
	if a.status != http.StatusOK {
		r.Fatalf("the poll is %d %s", a.status, a.body)
	}
	var b struct {
		Links map[string]struct{ Href string } `json:"_links"`
	}
	r.must(json.Unmarshal(a.body, &b))
	out := map[string]string{}
	for name, l := range b.Links {
		out[name] = l.Href
	}
	return out
}

// says posts a feedback, and wants a status.
func (r *rig) says(want int, path, execution, finished, more string) {
	r.Helper()
	body := `{"id":"1","time":"20261123T030124","status":{"result":{"finished":"` + finished + `"},"execution":"` + execution + `"` + more + `}}`
	if a := r.do("POST", path, body); a.status != want || want == http.StatusOK && len(a.body) > 0 {
		r.Errorf("%s/%s is answered %d %s, want %d", execution, finished, a.status, a.body, want)
	}
}

func reportOf(f rollout.Fact) director.Report { return director.Report{Device: dev, Fact: f} }

// unheard keeps no versions.
type unheard struct{}

func (unheard) Say(_ context.Context, list []desk.Runs) []error { return make([]error, len(list)) }

package api_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/devices"
	"muster/devices/join"
	"muster/devices/trail"
	"muster/devices/twin"
	"muster/devices/views"
	"muster/ingest"
	"muster/once"
	"muster/store/control"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is the API over the real registry, accounts and stores, on a real socket.
type rig struct {
	*testing.T
	commandRig
	taskRig
	notifyRig
	firmwareRig
	rolloutRig
	url       string
	server    *httptest.Server
	api       *api.API
	routes    []string // of the muxes
	log       *logBuffer
	registry  *devices.Registry
	twins     *twin.Twins
	accounts  *accounts.Accounts
	telemetry *sqlite.Telemetry
	control   *control.Control
	live      *live
	joining   *join.Join
	logins    *devices.Logins
	mqtt      *mqttClients
	reasons   []api.Reason
	figures   figures
	gather    *prometheus.Registry
	admin     string // an admin API key
	setup     string // the token of the set-up link
	cursor    ingest.Cursor
	trail     api.Trail
	events    *trail.Events
	logs      *trail.Logs
	trace     *trail.Trace
	keys      map[string]string
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// live stands for ingest's memory.
type live struct {
	rows    map[muster.DeviceID]ingest.LatestRow
	ledgers map[muster.DeviceID]ingest.Ledger
}

func (l *live) Latest(id muster.DeviceID) (ingest.LatestRow, bool) { r, ok := l.rows[id]; return r, ok }
func (l *live) DeviceLedger(id muster.DeviceID) ingest.Ledger      { return l.ledgers[id] }

// talks has one stream of the channel page, and no channel to open.
type talks struct{}

const talkID = "0123456789abcdef"

func (talks) OpenChannel(accounts.Principal, api.ChannelAsk, func([]byte, int) error) (api.Channel, error) {
	return nil, muster.Errorf(muster.NotFound, "there is no such channel")
}

func (talks) Say(_ accounts.Principal, id string, commands []byte) error {
	if id != talkID || !json.Valid(commands) {
		return muster.Errorf(muster.NotFound, "there is no such stream")
	}
	return nil
}

const adminKey = "mst_admin-key-of-the-tests-000"

func newRig(t *testing.T, change ...func(*api.Deps)) *rig {
	t.Helper()
	return newRigOn(t, sqliteControl, change...)
}

// newRigOn has the control data where open says; telemetry is on SQLite.
func newRigOn(t *testing.T, open opener, change ...func(*api.Deps)) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, log: &logBuffer{}, gather: prometheus.NewRegistry(), admin: adminKey, keys: map[string]string{}}
	r.mqtt = &mqttClients{}
	r.live = &live{rows: map[muster.DeviceID]ingest.LatestRow{}, ledgers: map[muster.DeviceID]ingest.Ledger{}}
	log := slog.New(slog.NewTextHandler(r.log, nil))
	handles, dialect := open(t, dir)
	store, err := control.Open(t.Context(), handles, dialect)
	r.must(err)
	r.control = store
	r.telemetry, err = sqlite.Open(t.Context(), dir, log)
	r.must(err)
	r.registry = devices.NewRegistry(store, time.Now, log, devices.Options{OnDeleted: func(id muster.DeviceID) { r.joining.DeviceDeleted(id) }})
	r.must(r.registry.Load(t.Context()))
	r.twins = twin.New(store, r.registry, time.Now, log, twin.Options{})
	r.must(r.twins.Load(t.Context()))
	t.Cleanup(r.registry.Watch(r.twins.DevicesChanged))
	r.accounts = accounts.New(store, time.Now, log, accountsConfig())
	r.accounts.OnEnded(func(principal string) { r.api.Revoke(principal) })
	r.must(r.accounts.Load(t.Context()))
	r.setup, err = r.accounts.SetupToken(t.Context()) // before there is an admin
	r.must(err)
	r.must(r.accounts.EnsureAdminKey(t.Context(), adminKey))
	r.events = trail.NewEvents(trail.EventsConfig{Store: store, Now: time.Now, Logger: log})
	r.logs = trail.NewLogs(trail.LogsConfig{Store: store, Now: time.Now, Logger: log})
	r.trace = trail.NewTrace(time.Now)
	r.trail = api.Trail{Events: r.events, Logs: r.logs, Trace: r.trace}
	r.joining = join.New(r.registry, store, time.Now, log, join.Options{})
	r.must(r.joining.Load(t.Context()))
	r.logins = devices.NewLogins(time.Now, func(id muster.DeviceID) bool { _, err := r.registry.Get(id); return err == nil })
	r.startCommands(store, log)
	r.startTasks(store, dir, log)
	events := r.newFeed(store, log)
	r.startNotify(store, events, log)
	r.startFirmware(store, dir, log)
	d := api.Deps{
		Commands: r.commands, Messages: r.mqtt, Simulator: &simulated{},
		Tasks:  r.tasks,
		Audit:  store,
		Feed:   events,
		Notify: r.notify, Deliveries: store, ChannelTester: r.tester,
		Webhooks: r.newWebhooks(store), Channels: talks{},
		Firmware: r.firmware, Rollouts: r.newRollouts(store),
		OfferKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey),
		Limits:   api.Limits{Rate: 1e5, Burst: 1e5, SignIn: 1e5, Tests: 1e5, Nobody: 1e5},
		Once:     once.New(store, time.Now, log, once.Limits{}),
		Registry: r.registry, Accounts: r.accounts, Telemetry: r.telemetry, Live: r.live, Clients: r.mqtt, Fleet: &r.figures,
		Trail: r.trail, Twins: r.twins, Presence: r.registry, Logins: r.logins, Joining: r.joining, Views: views.New(store, time.Now),
		Ready:   func(context.Context) []api.Reason { return r.reasons },
		System:  []api.Section{func() (string, any) { return "part", map[string]int{"size": 3} }},
		Version: "1.2.3", Gatherer: r.gather, Registerer: r.gather, Now: time.Now, Log: log,
		Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }),
	}
	for _, c := range change {
		c(&d)
	}
	a, err := api.New(d)
	r.must(err)
	r.api = a
	s := httptest.NewServer(a)
	r.url, r.server, r.routes = s.URL, s, a.Routes()
	t.Cleanup(func() {
		s.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		r.stopTasks()
		r.stopCommands()
		r.must(r.telemetry.Close())
		r.must(store.Close())
	})
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// key returns an API key with scopes, the same one each time.
func (r *rig) key(scopes ...string) string {
	r.Helper()
	name := strings.Join(scopes, ",")
	if r.keys[name] == "" {
		_, secret, err := r.accounts.CreateKey(r.Context(), accounts.KeySpec{Name: "test", Scopes: scopes})
		r.must(err)
		r.keys[name] = secret
	}
	return r.keys[name]
}

type answer struct {
	*http.Response
	body []byte
}

type option func(*http.Request)

func header(name, value string) option {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func bearer(key string) option { return header("Authorization", "Bearer "+key) }

func withCookie(c *http.Cookie) option { return func(r *http.Request) { r.AddCookie(c) } }

// do sends a request without following redirects. body is sent as JSON, a string as it is.
func (r *rig) do(method, path string, body any, options ...option) answer {
	r.Helper()
	var send io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		send = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		r.must(err)
		send = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(r.Context(), method, r.url+path, send)
	r.must(err)
	if send != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, o := range options {
		o(req)
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	r.must(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	r.must(err)
	if res.Header.Get("X-Request-Id") == "" {
		r.Errorf("%s %s answers without a request id", method, path)
	}
	return answer{res, text}
}

// as does it with the admin key.
func (r *rig) as(method, path string, body any) answer {
	r.Helper()
	return r.do(method, path, body, bearer(r.admin))
}

func (a answer) decode(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%s is not JSON: %v: %s", a.Request.URL, err, a.body)
	}
	return v
}

func (a answer) wantStatus(t testing.TB, status int) answer {
	t.Helper()
	if a.StatusCode != status {
		t.Fatalf("%s %s gives %d %s, want %d", a.Request.Method, a.Request.URL, a.StatusCode, a.body, status)
	}
	return a
}

// wantProblem checks that a is problem+json with the status and code.
func (a answer) wantProblem(t testing.TB, status int, code string) map[string]any {
	t.Helper()
	a.wantStatus(t, status)
	if ct := a.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("%s %s: content type is %q", a.Request.Method, a.Request.URL, ct)
	}
	p := a.decode(t)
	if p["code"] != code || p["status"] != float64(status) || p["title"] != http.StatusText(status) || p["detail"] == "" {
		t.Errorf("%s %s: problem is %v, want code %s", a.Request.Method, a.Request.URL, p, code)
	}
	return p
}

func (r *rig) device(id muster.DeviceID) {
	r.Helper()
	_, _, err := r.registry.Create(r.Context(), devices.Spec{ID: id})
	r.must(err)
}

func (r *rig) store(readings []muster.Reading, rejected ...muster.Rejected) {
	r.Helper()
	to := ingest.Cursor{Incarnation: "test", Seq: r.cursor.Seq + 1}
	_, err := r.telemetry.Append(r.Context(), ingest.Batch{From: r.cursor, To: to, Readings: readings, Rejected: rejected})
	r.must(err)
	r.cursor = to
}

// numbers is a reading of numbers, at so many seconds after the start of 2026.
func numbers(id muster.DeviceID, second int, kv ...any) muster.Reading {
	var keys []muster.Key
	values := map[string]float64{}
	for i := 0; i < len(kv); i += 2 {
		name := kv[i].(string)
		keys = append(keys, muster.Key{Name: name})
		values[name] = kv[i+1].(float64)
	}
	l := muster.NewLayout(keys)
	at := muster.MicrosOf(time.Date(2026, 1, 1, 0, 0, second, 0, time.UTC))
	r := muster.Reading{Device: id, Time: at, Arrival: at, Layout: l}
	for _, k := range l.Keys {
		r.Numbers = append(r.Numbers, values[k.Name])
	}
	return r
}

func query(kv ...string) string {
	v := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		v.Set(kv[i], kv[i+1])
	}
	return "?" + v.Encode()
}

func stampAt(second int) string {
	return fmt.Sprintf("2026-01-01T00:%02d:%02d.000000Z", second/60, second%60)
}

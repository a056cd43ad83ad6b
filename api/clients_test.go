package api_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/api"
)

// mqttClients stands for the broker: sessions in a slice, and what was kicked.
type mqttClients struct {
	all    []api.Client
	asked  []api.ClientsQuery
	kicked []string

	mu        sync.Mutex
	published []string
}

func (m *mqttClients) Clients(_ context.Context, q api.ClientsQuery) ([]api.Client, bool, error) {
	m.asked = append(m.asked, q)
	var found []api.Client
	for _, c := range m.all {
		if q.DevicesOnly && c.Device == "" || q.Device != "" && c.Device != q.Device {
			continue
		}
		if strings.Contains(c.ClientID+" "+string(c.Device)+" "+c.Account, q.Search) {
			found = append(found, c)
		}
	}
	if q.Sort == "backlog" {
		slices.SortStableFunc(found, func(x, y api.Client) int { return cmp.Compare(y.Backlog, x.Backlog) })
	}
	from := min(q.Offset, len(found))
	to := min(from+q.Limit, len(found))
	return found[from:to], to < len(found), nil
}

func (m *mqttClients) KickClient(device muster.DeviceID, account, clientID, reason string) error {
	for _, c := range m.all {
		if c.Connected && c.Device == device && c.Account == account && c.ClientID == clientID {
			m.kicked = append(m.kicked, fmt.Sprintf("%s|%s|%s|%s", device, account, clientID, reason))
			return nil
		}
	}
	return muster.Errorf(muster.NotFound, "no such client is connected")
}

func (m *mqttClients) DeviceSessions(id muster.DeviceID) (sum api.DeviceSessions) {
	for _, c := range m.all {
		if c.Device == id {
			sum.Sessions++
			sum.Queued += c.Queued
			sum.Inflight += c.Inflight
			sum.Backlog += c.Backlog
			sum.Dropped += c.Dropped
		}
	}
	return sum
}

// withClients has 5 clients of devices, one away, and 3 of accounts between them.
func withClients(t *testing.T) *rig {
	r := newRig(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	for i, c := range []api.Client{
		{ClientID: "c1", Device: "d1"},
		{ClientID: "panel", Account: "grafana"},
		{ClientID: "c2", Device: "d1"},
		{ClientID: "c3", Device: "d2"},
		{ClientID: "d2", Account: "secret-account"},
		{ClientID: "grafana-lookalike", Device: "d3"},
		{ClientID: "c1", Account: "d1"},
		{ClientID: "away", Device: "d4"},
	} {
		c.Connected, c.Since, c.Backlog, c.Queued, c.Inflight, c.Dropped = c.ClientID != "away", at, 100*i, i, 1, uint64(10*i)
		r.mqtt.all = append(r.mqtt.all, c)
	}
	return r
}

// listed follows the pages of a list and returns what is in them.
func listed(t *testing.T, r *rig, key string, kv ...string) (names []string, pages int) {
	t.Helper()
	after := ""
	for {
		q := kv
		if after != "" {
			q = append(slices.Clone(kv), "after", after)
		}
		a := r.do("GET", "/api/v1/clients"+query(q...), nil, bearer(key)).wantStatus(t, 200).decode(t)
		pages++
		for _, i := range a["items"].([]any) {
			o := i.(object)
			names = append(names, fmt.Sprint(o["device"], o["account"], "/", o["client_id"]))
		}
		next, more := a["next"].(string)
		if !more {
			return names, pages
		}
		if next == after || pages > 20 {
			t.Fatalf("the list does not end: %v", names)
		}
		after = next
	}
}

func TestAnAdminSeesEveryClientWithAllThatIsKnownOfIt(t *testing.T) {
	r := withClients(t)
	r.mqtt.all = []api.Client{{
		ClientID: "c", Device: "d", Connected: true, Peer: "[::1]:4711", Listener: "tls", Protocol: 5, KeepAlive: 60,
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Subscriptions: 1, Queued: 2, Inflight: 3, Backlog: 4, Dropped: 5, Unacked: 6,
		Received: 7, Sent: 8, ReceivedBytes: 9, SentBytes: 10, ReceivedRate: 11.5, SentRate: 12.5,
	}}
	want := object{"next": nil, "items": []any{object{
		"client_id": "c", "device": "d", "connected": true, "peer": "[::1]:4711", "listener": "tls", "protocol": 5.0, "keepalive": 60.0,
		"since": "2026-01-02T03:04:05Z", "subscriptions": 1.0, "queued": 2.0, "inflight": 3.0, "backlog": 4.0, "dropped": 5.0, "unacked": 6.0,
		"received": 7.0, "sent": 8.0, "received_bytes": 9.0, "sent_bytes": 10.0, "received_rate": 11.5, "sent_rate": 12.5,
	}}}
	if d := gocmp.Diff(want, r.as("GET", "/api/v1/clients", nil).wantStatus(t, 200).decode(t)); d != "" {
		t.Error(d)
	}
	if d := gocmp.Diff([]api.ClientsQuery{{Sort: "id", Limit: 100}}, r.mqtt.asked); d != "" {
		t.Error(d)
	}
}

func TestClientsAreFilteredSearchedSortedAndPaged(t *testing.T) {
	r := withClients(t)
	all := []string{
		"d1<nil>/c1", "<nil>grafana/panel", "d1<nil>/c2", "d2<nil>/c3", "<nil>secret-account/d2", "d3<nil>/grafana-lookalike", "<nil>d1/c1", "d4<nil>/away",
	}
	backwards := slices.Clone(all)
	slices.Reverse(backwards)
	for _, tt := range []struct {
		name  string
		query []string
		want  []string
		pages int
	}{
		{"all on one page", nil, all, 1},
		{"all by threes", []string{"limit", "3"}, all, 3},
		{"all by fours, of which the last is full", []string{"limit", "4"}, all, 2},
		{"those of one device", []string{"device", "d1", "limit", "1"}, []string{"d1<nil>/c1", "d1<nil>/c2"}, 2},
		{"those of a device that has none", []string{"device", "nobody"}, nil, 1},
		{"a search", []string{"q", "grafana"}, []string{"<nil>grafana/panel", "d3<nil>/grafana-lookalike"}, 1},
		{"a search for what looks like a query is a plain one", []string{"q", "a>b"}, nil, 1},
		{"by backlog", []string{"sort", "backlog", "limit", "5"}, backwards, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, pages := listed(t, r, r.admin, tt.query...)
			if d := gocmp.Diff(tt.want, got); d != "" || pages != tt.pages {
				t.Errorf("%d pages, want %d: %s", pages, tt.pages, d)
			}
		})
	}
}

func TestWhoIsNoAdminLearnsNothingOfTheClientsOfAccounts(t *testing.T) {
	r := withClients(t)
	reader := r.key(accounts.DevicesRead)
	devicesOnly := []string{"d1<nil>/c1", "d1<nil>/c2", "d2<nil>/c3", "d3<nil>/grafana-lookalike", "d4<nil>/away"}
	for _, limit := range []string{"1", "2", "100"} {
		if got, _ := listed(t, r, reader, "limit", limit); !slices.Equal(got, devicesOnly) {
			t.Errorf("by %s: %v", limit, got)
		}
	}
	for _, q := range []string{"grafana/panel", "panel", "secret"} {
		if got, _ := listed(t, r, reader, "q", q); len(got) > 0 {
			t.Errorf("a search for %q finds %v", q, got)
		}
	}
	// One device's client looks like the account's. Neither next nor what is in a
	// cursor tells that the search matches more than is shown.
	a := r.do("GET", "/api/v1/clients?q=grafana&limit=1", nil, bearer(reader)).wantStatus(t, 200).decode(t)
	if a["next"] != nil || len(a["items"].([]any)) != 1 {
		t.Errorf("the page tells of more: %v", a)
	}
	a = r.do("GET", "/api/v1/clients?limit=2", nil, bearer(reader)).wantStatus(t, 200).decode(t)
	text, err := base64.RawURLEncoding.DecodeString(a["next"].(string))
	r.must(err)
	if string(text) != `{"o":2,"s":"id"}` {
		t.Errorf("the cursor is %s", text)
	}
	// An admin's cursor in other hands gives what those hands may see.
	admins := r.as("GET", "/api/v1/clients?limit=1", nil).decode(t)["next"].(string)
	a = r.do("GET", "/api/v1/clients"+query("after", admins), nil, bearer(reader)).wantStatus(t, 200).decode(t)
	if s := fmt.Sprint(a); strings.Contains(s, "grafana ") || strings.Contains(s, "secret-account") || strings.Contains(s, "panel") {
		t.Errorf("an admin's cursor shows %v", a)
	}
	whole := slices.DeleteFunc(slices.Clone(r.mqtt.asked), func(q api.ClientsQuery) bool { return q.DevicesOnly })
	if d := gocmp.Diff([]api.ClientsQuery{{Sort: "id", Limit: 1}}, whole); d != "" {
		t.Errorf("beside the admin's one question, the broker was asked for all clients: %s", d)
	}
	viewer := withCookie(signIn(r, r.key(accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead)))
	if text := string(r.do("GET", "/api/v1/clients", nil, viewer).wantStatus(t, 200).body); strings.Contains(text, "secret-account") {
		t.Errorf("a viewer's browser sees %s", text)
	}
}

func TestCursorsAndQueriesThatAreNotOfTheListAreRefused(t *testing.T) {
	r := withClients(t)
	next := r.as("GET", "/api/v1/clients?limit=1&q=c&sort=queued", nil).decode(t)["next"].(string)
	r.as("GET", "/api/v1/clients"+query("q", "c", "sort", "queued", "after", next), nil).wantStatus(t, 200)
	crafted := func(v any) string {
		b, err := json.Marshal(v)
		r.must(err)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	for _, q := range [][]string{
		{"after", next},
		{"after", next, "q", "c"},
		{"after", next, "q", "c", "sort", "backlog"},
		{"after", next, "q", "c", "sort", "queued", "device", "d1"},
		{"after", "!"},
		{"after", "e30"},
		{"after", crafted(object{"o": 0, "s": "id"})},
		{"after", crafted(object{"o": -1, "s": "id"})},
		{"after", crafted(object{"o": 1e300, "s": "id"})},
		{"after", crafted(object{"o": 100_000_000, "s": "id"})},
		{"after", crafted(object{"o": 1, "s": "id", "x": 1})},
		{"after", base64.RawURLEncoding.EncodeToString([]byte(`{"o":1,"s":"id"}{}`))},
		{"after", strings.Repeat("x", 4097)},
		{"sort", "client_id"},
		{"sort", "-backlog"},
		{"limit", "0"},
		{"limit", "1001"},
		{"device", "a b"},
		{"device", "me"},
		{"q", strings.Repeat("x", 201)},
		{"account", "grafana"},
	} {
		r.as("GET", "/api/v1/clients"+query(q...), nil).wantProblem(t, 422, "invalid")
	}
}

func TestAClientIsKickedByWhoMayWriteDevicesAndAnAccountsByAnAdmin(t *testing.T) {
	r := withClients(t)
	writer := r.key(accounts.DevicesWrite)
	operator := withCookie(signIn(r, r.key(
		accounts.DevicesRead, accounts.TelemetryRead, accounts.FirmwareRead, accounts.TopicsRead, accounts.AlertsRead, accounts.DevicesWrite,
		accounts.TelemetryWrite, accounts.CommandsSend, accounts.FirmwareWrite, accounts.TopicsWrite, accounts.NotifySend, accounts.AlertsWrite)))
	crossSite := func(q *http.Request) { operator(q); header("Sec-Fetch-Site", "cross-site")(q) }
	ofDevice, ofAccount := object{"device": "d1", "client_id": "c1"}, object{"account": "d1", "client_id": "c1"}
	for _, tt := range []struct {
		name   string
		who    option
		body   any
		status int
		code   string
		kicked string
	}{
		{"a stranger kicks nobody", header("X", "y"), ofDevice, 401, "unauthorized", ""},
		{"a reader kicks nobody", bearer(r.key(accounts.DevicesRead)), ofDevice, 403, "forbidden", ""},
		{"a key that sends commands kicks nobody", bearer(r.key(accounts.CommandsSend, accounts.MQTT)), ofDevice, 403, "forbidden", ""},
		{"a page of another site kicks nobody", crossSite, ofDevice, 403, "forbidden", ""},
		{"a writer kicks a device's client, not the account's of the same names", bearer(writer), ofDevice, 204, "", "d1||c1|cut by an operator"},
		{"an operator's browser does", operator, object{"device": "d2", "client_id": "c3", "reason": " swap the battery "}, 204, "", "d2||c3|swap the battery"},
		{"a writer kicks no account's client", bearer(writer), ofAccount, 403, "forbidden", ""},
		{"nor learns whether there is one", bearer(writer), object{"account": "nobody", "client_id": "x"}, 403, "forbidden", ""},
		{"an operator's browser neither", operator, ofAccount, 403, "forbidden", ""},
		{"a device beside it helps nothing", bearer(writer), object{"device": "d1", "account": "d1", "client_id": "c1"}, 403, "forbidden", ""},
		{"an account that is null is none", bearer(writer), `{"account":null,"client_id":"panel"}`, 422, "invalid", ""},
		{"an admin kicks an account's", bearer(r.admin), ofAccount, 204, "", "|d1|c1|cut by an operator"},
		{"a device and an account are one too many", bearer(r.admin), object{"device": "d1", "account": "d1", "client_id": "c1"}, 422, "invalid", ""},
		{"neither is too few", bearer(r.admin), object{"client_id": "c1"}, 422, "invalid", ""},
		{"without a client id", bearer(r.admin), object{"device": "d1"}, 422, "invalid", ""},
		{"an empty client id", bearer(r.admin), object{"device": "d1", "client_id": ""}, 422, "invalid", ""},
		{"a client id of 300 bytes", bearer(r.admin), object{"device": "d1", "client_id": strings.Repeat("é", 150)}, 422, "invalid", ""},
		{"a device that cannot be", bearer(r.admin), object{"device": "a/b", "client_id": "c1"}, 422, "invalid", ""},
		{"a reason of two lines", bearer(r.admin), object{"device": "d1", "client_id": "c1", "reason": "a\nb"}, 422, "invalid", ""},
		{"a reason of 201 bytes", bearer(r.admin), object{"device": "d1", "client_id": "c1", "reason": "x" + strings.Repeat("é", 100)}, 422, "invalid", ""},
		{"one that is away", bearer(r.admin), object{"device": "d4", "client_id": "away"}, 404, "not_found", ""},
		{"one that is not there", bearer(r.admin), object{"device": "d1", "client_id": "c9"}, 404, "not_found", ""},
		{"something unknown beside", bearer(r.admin), object{"device": "d1", "client_id": "c1", "all": true}, 422, "invalid", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r.mqtt.kicked = nil
			a := r.do("POST", "/api/v1/clients:kick", tt.body, tt.who)
			if tt.code == "" {
				a.wantStatus(t, tt.status)
			} else {
				a.wantProblem(t, tt.status, tt.code)
			}
			if got := strings.Join(r.mqtt.kicked, ","); got != tt.kicked {
				t.Errorf("kicked %q, want %q", got, tt.kicked)
			}
		})
	}
	r.as("GET", "/api/v1/clients:kick", nil).wantProblem(t, 405, "method_not_allowed")
	r.as("DELETE", "/api/v1/clients", nil).wantProblem(t, 405, "method_not_allowed")
	if strings.Contains(r.log.String(), "swap the battery") {
		t.Error("the log has the reason")
	}
}

func TestADeviceShowsWhatItsSessionsHoldAndHaveLostAndAListDoesNot(t *testing.T) {
	r := withClients(t)
	r.device("d1")
	r.device("idle")
	for id, want := range map[string]object{
		"d1":   {"sessions": 2.0, "queued": 2.0, "inflight": 2.0, "backlog": 200.0, "dropped": 20.0},
		"idle": {"sessions": 0.0, "queued": 0.0, "inflight": 0.0, "backlog": 0.0, "dropped": 0.0},
	} {
		got := r.do("GET", "/api/v1/devices/"+id, nil, bearer(r.key(accounts.DevicesRead))).wantStatus(t, 200).decode(t)
		if d := gocmp.Diff(want, got["mqtt"]); d != "" {
			t.Errorf("%s: %s", id, d)
		}
	}
	if l := r.as("GET", "/api/v1/devices", nil).wantStatus(t, 200).body; strings.Contains(string(l), `"mqtt"`) {
		t.Errorf("the list is %s", l)
	}
}

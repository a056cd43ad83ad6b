package ui

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// object is a JSON object.
type object = map[string]any

// fakeServer serves the page with a scripted fleet behind the HTTP API and the
// live protocol. It says only what a test has put in it.
type fakeServer struct {
	t  *testing.T
	mu sync.Mutex

	signedOut bool
	refuse    bool // the live gateway refuses connections
	role      string
	devices   map[string]object // by id, as device:<id> shows them
	fleet     object
	history   map[string][]object // by id, newest first
	rejected  map[string][]object
	sessions  map[string]object // by id; none when it is missing
	about     map[string]object // by id: what GET /devices/{id} says besides
	simulated int               // devices
	viewers   []object          // who is at every device
	conns     map[*fakeConn]bool
	subs      []object        // every sub command
	charts    []time.Duration // how much time each chart that was asked for shows
	posts     []string        // bodies of POST requests
	setUp     bool            // the session is that of the set-up link
	hidden    []bool          // what the tab said of being shown
	version   string
	user      object                      // of the session; nil for a key's, which has no inbox
	onAck     func(c *fakeConn, m object) // answers an ack; the caller holds mu
	done      sync.WaitGroup
	extra     map[string]http.HandlerFunc     // more routes, by pattern
	wrap      func(http.Handler) http.Handler // around all of it, if there is one
	dots      fakeDots
	events    []object       // of the feed, the oldest first; their numbers begin at 1
	items     map[string]any // of further channels: an object, or a list
}

// fakeConn is one browser's socket.
type fakeConn struct {
	ws  *websocket.Conn
	mu  sync.Mutex
	seq map[string]int // by channel; missing when it is not subscribed
}

func newFake(t *testing.T) *fakeServer {
	return &fakeServer{
		t: t, role: "admin", version: "test-1", devices: map[string]object{}, history: map[string][]object{},
		rejected: map[string][]object{}, sessions: map[string]object{}, conns: map[*fakeConn]bool{}, items: map[string]any{},
	}
}

func (f *fakeServer) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", Handler("test-1"))
	mux.HandleFunc("GET /api/v1/me", f.guarded(func(w http.ResponseWriter, _ *http.Request) {
		me := object{"name": "Ada Kern", "role": f.role, "scopes": []string{}}
		if f.user != nil {
			me["user"] = f.user
		}
		if f.setUp {
			me["setup"] = true
		}
		writeJSON(w, 200, me)
	}))
	mux.HandleFunc("POST /api/v1/session", f.signIn)
	mux.HandleFunc("GET /api/v1/session/methods", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"mail": true, "provider": nil})
	})
	mux.HandleFunc("POST /api/v1/devices", f.guarded(f.create))
	mux.HandleFunc("GET /api/v1/devices/{id}", f.guarded(f.device))
	mux.HandleFunc("GET /api/v1/devices/{id}/telemetry", f.guarded(f.telemetry))
	mux.HandleFunc("GET /api/v1/devices/{id}/rejected", f.guarded(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		writeJSON(w, 200, object{"items": f.rejected[r.PathValue("id")]})
	}))
	if f.extra["GET /api/v1/devices:explain"] == nil { // without a test's own, it says nothing of the parts
		mux.HandleFunc("GET /api/v1/devices:explain", f.guarded(func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"total": 0, "parts": []object{}, "plan": object{"index": "scan", "scanned": 0}})
		}))
	}
	f.deviceRoutes(mux)
	mux.HandleFunc("GET /api/v1/live", f.guarded(f.live))
	if f.extra["GET /api/v1/stream"] == nil {
		mux.HandleFunc("GET /api/v1/stream", func(w http.ResponseWriter, _ *http.Request) { problem(w, 503, "unavailable", "not now") })
	}
	for pattern, h := range f.extra {
		mux.HandleFunc(pattern, h)
	}
	for pattern, answer := range calm() {
		if _, ok := f.extra[pattern]; !ok {
			mux.HandleFunc(pattern, f.guarded(func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, 200, answer) }))
		}
	}
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a browser that has gone needs no answer
}

func problem(w http.ResponseWriter, status int, code, detail string) {
	writeJSON(w, status, object{"status": status, "title": http.StatusText(status), "code": code, "detail": detail})
}

func (f *fakeServer) guarded(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		out := f.signedOut
		f.mu.Unlock()
		if out {
			problem(w, 401, "unauthorized", "sign in first")
			return
		}
		h(w, r)
	}
}

func (f *fakeServer) signIn(w http.ResponseWriter, r *http.Request) {
	var in struct{ Key string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Key != "mst_right" {
		problem(w, 403, "forbidden", "this key is not known")
		return
	}
	f.mu.Lock()
	f.signedOut = false
	f.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (f *fakeServer) create(w http.ResponseWriter, r *http.Request) {
	var in struct{ ID, Name, Credential string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		problem(w, 400, "invalid", err.Error())
		return
	}
	f.mu.Lock()
	_, taken := f.devices[in.ID]
	f.posts = append(f.posts, fmt.Sprintf("%s %s %s", in.ID, in.Name, in.Credential))
	f.mu.Unlock()
	if taken {
		problem(w, 409, "conflict", "there is a device "+in.ID+" already")
		return
	}
	f.put(in.ID, in.Name, "never", nil)
	writeJSON(w, 201, object{
		"device":     object{"id": in.ID, "name": in.Name},
		"credential": object{"id": "cred_1", "kind": "token", "token": "tok_9fQ2xLw7", "username": "tok_9fQ2xLw7"},
	})
}

func (f *fakeServer) device(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	mqtt, ok := f.sessions[r.PathValue("id")]
	if !ok {
		mqtt = object{"sessions": 1, "queued": 0, "inflight": 0, "backlog": 0, "dropped": 0}
	}
	out := object{"id": r.PathValue("id"), "mqtt": mqtt, "groups": []string{}, "tags": object{}}
	maps.Copy(out, f.about[r.PathValue("id")])
	writeJSON(w, 200, out)
}

func (f *fakeServer) telemetry(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.history[r.PathValue("id")]
	q := r.URL.Query()
	start := 0
	if c := q.Get("cursor"); c != "" {
		if _, err := fmt.Sscanf(c, "at-%d", &start); err != nil {
			problem(w, 400, "invalid", "bad cursor")
			return
		}
	}
	from, err := time.Parse(time.RFC3339Nano, q.Get("from"))
	if err != nil || q.Get("order") != "desc" {
		problem(w, 400, "invalid", "the page asked "+r.URL.RawQuery)
		return
	}
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		problem(w, 400, "invalid", "the page asked "+r.URL.RawQuery)
		return
	}
	items := []object{}
	next := ""
	for i := start; i < len(all); i++ {
		at, err := time.Parse(time.RFC3339Nano, all[i]["time"].(string))
		if err != nil || at.Before(from) {
			break
		}
		if len(items) == limit {
			next = fmt.Sprintf("at-%d", i)
			break
		}
		items = append(items, all[i])
	}
	writeJSON(w, 200, object{"items": items, "next": next})
}

func (f *fakeServer) live(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	refuse := f.refuse
	f.mu.Unlock()
	if refuse {
		problem(w, 503, "unavailable", "not now")
		return
	}
	up := websocket.Upgrader{Subprotocols: []string{"muster.v1"}}
	ws, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	c := &fakeConn{ws: ws, seq: map[string]int{}}
	f.mu.Lock()
	f.conns[c] = true
	f.done.Add(1)
	f.mu.Unlock()
	defer f.done.Done()
	defer f.forget(c)
	for {
		var m object
		if err := ws.ReadJSON(&m); err != nil {
			return
		}
		f.command(c, m)
	}
}

func (f *fakeServer) forget(c *fakeConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.ws.Close() // it is over either way
}

func (c *fakeConn) send(v any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.ws.WriteJSON(v) // the reader ends the connection when it is broken
}

func (f *fakeServer) command(c *fakeConn, m object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch m["t"] {
	case "hello":
		c.send(object{
			"t": "welcome", "re": m["id"], "sid": "s1", "proto": 1, "ping": 25, "time": time.Now().UnixMilli(),
			"version": f.version, "mqtt_port": 1883, "user": object{"name": "Ada Kern", "role": f.role},
		})
	case "ack":
		f.onAck(c, m)
	case "dots":
		f.nameDots(c, m)
	case "ping":
		c.send(object{"t": "pong", "re": m["id"], "ts": m["ts"]})
	case "sub":
		f.subs = append(f.subs, m)
		f.snapshot(c, m)
	case "vis":
		f.hidden = append(f.hidden, m["on"] == false)
		if m["on"] == true {
			for ch := range c.seq {
				f.snapshot(c, object{"ch": ch, "limit": 50.0})
			}
		}
	case "unsub":
		delete(c.seq, m["ch"].(string))
	}
}

// snapshot answers a sub command. The caller holds mu.
func (f *fakeServer) snapshot(c *fakeConn, m object) {
	ch := m["ch"].(string)
	out := object{"t": "snapshot", "re": m["id"], "ch": ch, "seq": 7}
	switch ch {
	case "fleet":
		out["item"] = f.fleet
	case "dots":
		defer f.sendStates(c)
		f.arrange(m, out)
	case "events":
		f.tell(c, m)
		return
	case "inbox":
		out["epoch"], out["unread"], out["open"], out["items"] = "E", 1, 1, []object{}
	case "devices":
		if q, _ := m["q"].(string); strings.HasPrefix(q, "stauts") {
			c.send(object{"t": "error", "re": m["id"], "code": "invalid", "detail": `the query is not understood, column 1: there is no field "stauts"; did you mean status?`, "retry": false})
			return
		}
		out["items"], out["total"], out["next"] = f.list(m)
	default:
		if strings.HasPrefix(ch, "here:") {
			out["item"] = object{"viewers": f.viewers, "more": 0}
			break
		}
		if item, ok := f.items[ch]; ok {
			name := "item"
			if _, list := item.([]object); list {
				name = "items"
			}
			out[name] = item
			break
		}
		d, ok := f.devices[strings.TrimPrefix(ch, "device:")]
		if !ok {
			c.send(object{"t": "error", "re": m["id"], "code": "not_found", "detail": "there is no such device", "retry": false})
			return
		}
		out["item"] = d
	}
	c.seq[ch] = 7
	c.send(out)
}

// list gives a page of the devices. The caller holds mu.
func (f *fakeServer) list(m object) (items []object, total int, next string) {
	ids := slices.Sorted(maps.Keys(f.devices))
	if m["sort"] == "-seen" {
		slices.SortStableFunc(ids, func(a, b string) int {
			return int(f.devices[b]["last_seen"].(int64) - f.devices[a]["last_seen"].(int64))
		})
	}
	q, _ := m["q"].(string)
	ids = slices.DeleteFunc(ids, func(id string) bool { return !strings.Contains(id, q) })
	items = []object{}
	after, _ := m["after"].(string)
	for _, id := range ids {
		if id <= after {
			continue
		}
		if len(items) == int(m["limit"].(float64)) {
			return items, len(ids), items[len(items)-1]["id"].(string)
		}
		items = append(items, listItem(f.devices[id]))
	}
	return items, len(ids), ""
}

func listItem(d object) object {
	values := object{}
	for k, v := range d["values"].(object) {
		values[k] = []any{v.(object)["v"], v.(object)["time"]}
	}
	return object{
		"id": d["id"], "name": d["name"], "state": d["state"], "since": d["since"],
		"last_seen": d["last_seen"], "reason": d["reason"], "values": values,
	}
}

// put adds a device in the given state.
func (f *fakeServer) put(id, name, state string, values object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now().UnixMilli()
	d := object{
		"id": id, "name": name, "created_at": now - 86_400_000, "state": state, "since": now - 7_560_000,
		"last_seen": now, "reason": "", "connection": nil, "values": object{},
		"ledger": object{"received": 0, "recovered": 0, "stored": 0, "duplicate": 0, "replaced": 0, "rejected": 0, "dropped": 0, "queued": 0},
	}
	switch state {
	case "online":
		d["connection"] = object{
			"peer": "10.31.7.44:51120", "client_id": id + "-client", "protocol": 5, "transport": "tcp",
			"keep_alive_s": 60, "since": now - 7_560_000,
		}
	case "offline":
		d["reason"], d["last_seen"] = "keepalive", now-7_600_000
	case "never":
		d["last_seen"], d["since"] = int64(0), 0
	}
	for k, v := range values {
		d["values"].(object)[k] = object{"v": v, "time": d["last_seen"], "arrival": d["last_seen"]}
	}
	f.devices[id] = d
}

// delta sends a change on ch to whoever shows it; skip leaves a gap in the
// sequence.
func (f *fakeServer) delta(ch string, body object, skip int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		seq, ok := c.seq[ch]
		if !ok {
			continue
		}
		c.seq[ch] = seq + 1 + skip
		out := object{"t": "delta", "ch": ch, "seq": c.seq[ch]}
		maps.Copy(out, body)
		c.send([]object{out}) // a batch of one
	}
}

// say sends v to every connection as it is.
func (f *fakeServer) say(v object) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.conns {
		c.send(v)
	}
}

// report makes a device send values now.
func (f *fakeServer) report(id string, values object) {
	now := time.Now().UnixMilli()
	short, long := object{}, object{}
	f.mu.Lock()
	d := f.devices[id]
	d["state"], d["last_seen"] = "online", now
	for k, v := range values {
		short[k] = []any{v, now}
		long[k] = object{"v": v, "time": now, "arrival": now}
		d["values"].(object)[k] = long[k]
	}
	f.mu.Unlock()
	f.delta("devices", object{"set": object{id: object{"state": "online", "last_seen": now, "values": short}}}, 0)
	f.delta("device:"+id, object{"set": object{"state": "online", "last_seen": now, "values": long}}, 0)
}

// tally makes the fleet's counters from the devices there are.
func (f *fakeServer) tally(received float64) {
	f.mu.Lock()
	counts := map[string]int{"online": 0, "offline": 0, "never": 0, "unknown": 0, "quiet": 0}
	for _, d := range f.devices {
		counts[d["state"].(string)]++
	}
	f.fleet = object{
		"total": len(f.devices), "counts": counts, "rates": object{"received": received, "stored": max(0, received-0.4)},
		"queued": 12, "log_bytes": 48_123, "store": "ok",
		"storing": object{"batches": 40, "p99_ms": 86.2}, "commands": object{"ended": 250, "acked": 248},
	}
	item := f.fleet
	f.mu.Unlock()
	f.delta("fleet", object{"set": item}, 0)
}

// cut ends every connection, and refuses new ones when refuse is set.
func (f *fakeServer) cut(refuse bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
	for c := range f.conns {
		_ = c.ws.Close() // its reader forgets it
	}
}

// seen counts the sub commands on ch that have the given field.
func (f *fakeServer) seen(ch, field string, value any) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, m := range f.subs {
		if m["ch"] == ch && (field == "" || m[field] == value) {
			n++
		}
	}
	return n
}

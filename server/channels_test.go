package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"muster/dashboard/live"
	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
)

// channelTime is how long a test waits that is going to fail.
const channelTime = 20 * time.Second

type frame = map[string]any

// socket is a client of the live gateway.
type socket struct {
	conn    *websocket.Conn
	waiting []frame
	read    int // messages
	wrote   int
}

func openSocket(s *server.Server, key string) (*socket, error) {
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, HandshakeTimeout: channelTime}
	conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", nil)
	if err != nil {
		return nil, err
	}
	_ = res.Body.Close()
	k := &socket{conn: conn}
	if err := k.say(fmt.Sprintf(`{"t":"hello","id":1,"token":%q}`, key)); err != nil {
		return nil, err
	}
	_, err = k.until(func(f frame) bool { return f["t"] == "welcome" })
	return k, err
}

func mustSocket(t *testing.T, s *server.Server, key string) *socket {
	t.Helper()
	k, err := openSocket(s, key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.conn.Close() })
	return k
}

func (k *socket) say(text string) error {
	k.wrote++
	return k.conn.WriteMessage(websocket.TextMessage, []byte(text))
}

// until reads frames until one is wanted, and returns it.
func (k *socket) until(wanted func(frame) bool) (frame, error) {
	for {
		for len(k.waiting) > 0 {
			f := k.waiting[0]
			k.waiting = k.waiting[1:]
			if wanted(f) {
				return f, nil
			}
		}
		_ = k.conn.SetReadDeadline(time.Now().Add(channelTime))
		_, data, err := k.conn.ReadMessage()
		if err != nil {
			return nil, err
		}
		k.read++
		if data[0] != '[' {
			data = append(append([]byte{'['}, data...), ']')
		}
		if err := json.Unmarshal(data, &k.waiting); err != nil {
			return nil, err
		}
	}
}

// ask subscribes, and returns the answer.
func (k *socket) ask(t *testing.T, channel, more string) frame {
	t.Helper()
	if err := k.say(fmt.Sprintf(`{"t":"sub","id":7,"ch":%q%s}`, channel, more)); err != nil {
		t.Fatal(err)
	}
	f, err := k.until(func(f frame) bool { return f["re"] == 7.0 })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// outcome is snapshot, or the code of the error.
func outcome(f frame) string {
	if f["t"] == "error" {
		return f["code"].(string)
	}
	return f["t"].(string)
}

// sseStream is a stream of a channel.
type sseStream struct {
	res   *http.Response
	lines *bufio.Scanner
	read  int // events with data
}

func openStream(ctx context.Context, s *server.Server, key, query string, last ...string) (*sseStream, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.HTTPAddr()+"/api/v1/stream?"+query, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+key)
	for _, l := range last {
		r.Header.Set("Last-Event-ID", l)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	st := &sseStream{res: res, lines: bufio.NewScanner(res.Body)}
	st.lines.Buffer(nil, 1<<20)
	return st, nil
}

func mustStream(t *testing.T, s *server.Server, key, query string, last ...string) *sseStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), channelTime)
	st, err := openStream(ctx, s, key, query, last...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = st.res.Body.Close() })
	if st.res.StatusCode != http.StatusOK {
		t.Fatalf("the stream %s gives %s", query, st.res.Status)
	}
	return st
}

// until reads events until one is wanted; id is of the last event that had one.
func (st *sseStream) until(wanted func(frame) bool) (f frame, id string, err error) {
	for st.lines.Scan() {
		name, value, _ := strings.Cut(st.lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			st.read++
			f = nil
			if err := json.Unmarshal([]byte(value), &f); err != nil {
				return nil, id, fmt.Errorf("%s: %w", value, err)
			}
			if wanted(f) {
				return f, id, nil
			}
		}
	}
	return nil, id, fmt.Errorf("the stream has ended: %w", st.lines.Err())
}

func scoped(t *testing.T, s *server.Server, scopes, selector string) (id, secret string) {
	t.Helper()
	id, secret, err := s.CreateKeyForTest(t.Context(), strings.Fields(scopes), selector)
	if err != nil {
		t.Fatal(err)
	}
	return id, secret
}

func TestWhoMayOpenWhichChannel(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	create(t, s, "outside")
	var drawn struct{ ID string }
	call(t, s, http.MethodPost, "/api/v1/tasks", map[string]any{"kind": "identicon", "input": map[string]any{"subject": "devices/d"}}, &drawn)
	mine := "task:" + drawn.ID
	channels := []string{"fleet", "devices", "device:d", "device:outside", "events", "system", "tasks", mine, "nothing"}
	all := map[string]string{
		"fleet": "snapshot", "devices": "snapshot", "device:d": "snapshot", "device:outside": "snapshot", "events": "snapshot",
		"system": "snapshot", "tasks": "snapshot", mine: "not_found", "nothing": "unknown_channel",
	}
	admin := map[string]string{mine: "snapshot"}
	bound := map[string]string{"fleet": "forbidden", "device:outside": "not_found", "system": "forbidden", "tasks": "forbidden", mine: "forbidden"}
	status := map[string]int{"snapshot": 200, "forbidden": 403, "not_found": 404, "unknown_channel": 404}
	for name, c := range map[string]struct {
		scopes, selector string
		differs          map[string]string
	}{
		"an admin":              {"admin", "", admin},
		"who reads and writes":  {"devices:read devices:write telemetry:read", "", nil},
		"who reads":             {"devices:read telemetry:read", "", nil},
		"a key with a selector": {"devices:read telemetry:read", "id:d", bound},
	} {
		_, key := scoped(t, s, c.scopes, c.selector)
		k := mustSocket(t, s, key)
		for _, ch := range channels {
			want := all[ch]
			if d := c.differs[ch]; d != "" {
				want = d
			}
			if got := outcome(k.ask(t, ch, "")); got != want {
				t.Errorf("%s: %s gives %s, want %s", name, ch, got, want)
			}
			ctx, cancel := context.WithCancel(t.Context())
			st, err := openStream(ctx, s, key, "channel="+url.QueryEscape(ch))
			if err != nil {
				t.Fatal(err)
			}
			if st.res.StatusCode != status[want] {
				t.Errorf("%s: a stream of %s gives %s, want %d", name, ch, st.res.Status, status[want])
			}
			cancel()
			_ = st.res.Body.Close()
		}
	}
	// All of them need both scopes, by either door.
	for scopes, want := range map[string][2]int{"devices:read": {403, 403}, "telemetry:read": {403, 403}} {
		_, key := scoped(t, s, scopes, "")
		if _, err := openSocket(s, key); !websocket.IsCloseError(err, 4503) {
			t.Errorf("a socket with %s alone: %v", scopes, err)
		}
		for i, ch := range []string{"devices", "events"} {
			ctx, cancel := context.WithCancel(t.Context())
			st, err := openStream(ctx, s, key, "channel="+ch)
			if err != nil {
				t.Fatal(err)
			}
			if st.res.StatusCode != want[i] {
				t.Errorf("a stream of %s with %s alone gives %s", ch, scopes, st.res.Status)
			}
			cancel()
			_ = st.res.Body.Close()
		}
	}
}

func TestARevokedKeyLosesItsChannelsWithinASecond(t *testing.T) {
	s := servertest.Start(t)
	id, key := scoped(t, s, "devices:read telemetry:read", "")
	k := mustSocket(t, s, key)
	streams := map[string]*sseStream{}
	for _, ch := range []string{"events", "system", "tasks", "devices"} {
		if got := outcome(k.ask(t, ch, "")); got != "snapshot" {
			t.Fatalf("%s: %s", ch, got)
		}
		streams[ch] = mustStream(t, s, key, "channel="+ch)
	}
	since := time.Now()
	call(t, s, http.MethodDelete, "/api/v1/api-keys/"+id, nil, nil)
	if _, err := k.until(func(frame) bool { return false }); !websocket.IsCloseError(err, 4009) {
		t.Errorf("the socket ends with %v", err)
	}
	for ch, st := range streams {
		for st.lines.Scan() { // until the server ends it
			continue
		}
		if err := st.lines.Err(); err != nil {
			t.Errorf("%s ends with %v", ch, err)
		}
	}
	if took := time.Since(since); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestATaskIsFollowedByWhoMaySeeItOverBothDoors(t *testing.T) {
	s := servertest.Start(t)
	_, key := scoped(t, s, "devices:read devices:write telemetry:read", "")
	_, other := scoped(t, s, "devices:read telemetry:read", "")
	mine, admin, stranger := mustSocket(t, s, key), mustSocket(t, s, servertest.AdminKey), mustSocket(t, s, other)
	for _, k := range []*socket{mine, admin, stranger} {
		if f := k.ask(t, "tasks", ""); len(f["items"].([]any)) != 0 {
			t.Fatalf("%v", f)
		}
	}
	st := mustStream(t, s, key, "channel=tasks")
	status, answer := as(t, s, key, http.MethodPost, "/api/v1/tasks",
		map[string]any{"kind": "identicon", "input": map[string]any{"subject": "devices/x", "size": 512, "oversample": 8}})
	var task struct{ ID string }
	if err := json.Unmarshal(answer, &task); err != nil || status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	var last float64
	ended := func(f frame) bool {
		set, _ := f["set"].(map[string]any)
		v, _ := set[task.ID].(map[string]any)
		if v == nil {
			return false
		}
		if done := v["done"].(float64); done < last {
			t.Errorf("%v done after %v", done, last)
		} else {
			last = done
		}
		return v["state"] == "succeeded"
	}
	seen := make([]any, 0, 3)
	for _, k := range []*socket{mine, admin} {
		last = 0
		f, err := k.until(ended)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, f["set"].(map[string]any)[task.ID])
	}
	last = 0
	if _, _, err := st.until(func(f frame) bool { // its snapshot may be of before or after
		if items, _ := f["items"].([]any); len(items) == 1 && items[0].(map[string]any)["state"] == "succeeded" {
			seen = append(seen, items[0])
			return true
		}
		if !ended(f) {
			return false
		}
		seen = append(seen, f["set"].(map[string]any)[task.ID])
		return true
	}); err != nil {
		t.Fatal(err)
	}
	var want any
	call(t, s, http.MethodGet, "/api/v1/tasks/"+task.ID, nil, &want)
	for i := range seen {
		if d := cmp.Diff(want, seen[i]); d != "" {
			t.Errorf("channel %d is not as the API: %s", i, d)
		}
	}
	if f := mine.ask(t, "task:"+task.ID, ""); cmp.Diff(want, f["item"]) != "" {
		t.Errorf("the task's own channel: %v", f)
	}
	if f := stranger.ask(t, "tasks", ""); len(f["items"].([]any)) != 0 {
		t.Errorf("a stranger sees %v", f)
	}
}

// startOnce starts a server that the test stops.
func startOnce(t *testing.T, dir string) *server.Server {
	t.Helper()
	s, err := server.New(t.Context(), server.Config{
		DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable,
		LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, AdminKey: servertest.AdminKey, Version: "test",
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// eventSeqs reads events until the last is of a device.
func eventSeqs(t *testing.T, k *socket, last string) (seen []string, seq float64) {
	t.Helper()
	_, err := k.until(func(f frame) bool {
		ev, _ := f["ev"].(map[string]any)
		if ev == nil {
			return false
		}
		device := ev["data"].(map[string]any)["device"].(string)
		seen, seq = append(seen, fmt.Sprint(ev["type"], " ", device)), f["seq"].(float64)
		return device == last
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen, seq
}

func TestEventsGoOnExactlyWhereTheirReaderWasOverARestart(t *testing.T) {
	dir := t.TempDir()
	inDir := func(c *server.Config) { c.DataDir = dir }
	s := startOnce(t, dir)
	k := mustSocket(t, s, servertest.AdminKey)
	begin := k.ask(t, "events", `,"types":"device.created"`)
	create(t, s, "a")
	create(t, s, "b")
	seen, seq := eventSeqs(t, k, "b")
	if d := cmp.Diff([]string{"device.created a", "device.created b"}, seen); d != "" {
		t.Error(d)
	}
	_ = k.conn.Close()
	create(t, s, "c") // nobody reads
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = servertest.Start(t, inDir)
	place := fmt.Sprintf("%s-%.0f", begin["epoch"], seq)
	k = mustSocket(t, s, servertest.AdminKey)
	if f := k.ask(t, "events", fmt.Sprintf(`,"types":"device.created","after":%q`, place)); f["epoch"] != begin["epoch"] || f["seq"] != seq {
		t.Errorf("%v, want %s", f, place)
	}
	st := mustStream(t, s, servertest.AdminKey, "types=device.created", place)
	create(t, s, "d")
	seen, _ = eventSeqs(t, k, "d")
	if d := cmp.Diff([]string{"device.created c", "device.created d"}, seen); d != "" {
		t.Error(d)
	}
	for _, want := range []string{"c", "d"} {
		f, _, err := st.until(func(frame) bool { return true })
		if err != nil || f["data"].(map[string]any)["device"] != want {
			t.Errorf("the stream tells %v, %v; want %s", f, err, want)
		}
	}
	_, bound := scoped(t, s, "devices:read telemetry:read", "id:c")
	k = mustSocket(t, s, bound)
	k.ask(t, "events", fmt.Sprintf(`,"types":"device.*","after":"%s-%.0f"`, begin["epoch"], begin["seq"]))
	if seen, _ = eventSeqs(t, k, "c"); len(seen) != 1 {
		t.Errorf("a key for c is told %v", seen)
	}
	// A place that is not known.
	k = mustSocket(t, s, servertest.AdminKey)
	k.ask(t, "events", `,"after":"SOMEWHERE-1"`)
	if f, err := k.until(func(f frame) bool { return f["t"] == "reset" }); err != nil || f["reason"] == "" {
		t.Errorf("%v %v", f, err)
	}
}

// party is one key in the test of the counters.
type party struct {
	id, key string

	mu             sync.Mutex
	received, sent uint64    // of the server
	open           []*socket // that stay open: one that nobody holds is closed when it is collected
}

func (p *party) did(received, sent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.received += uint64(received)
	p.sent += uint64(sent)
}

// work connects by every door, says and hears something, and leaves.
func (p *party) work(s *server.Server, name string, stay bool) error {
	o := mqtt.NewClientOptions().AddBroker("tcp://" + s.MQTTAddr()).SetClientID(name).SetUsername(p.key).SetAutoReconnect(false)
	c := mqtt.NewClient(o)
	if tok := c.Connect(); !tok.WaitTimeout(channelTime) || tok.Error() != nil {
		return fmt.Errorf("connect: %w", tok.Error())
	}
	defer c.Disconnect(100)
	const n = 20
	heard := make(chan struct{}, n)
	if tok := c.Subscribe("free/"+name, 1, func(mqtt.Client, mqtt.Message) { heard <- struct{}{} }); !tok.WaitTimeout(channelTime) || tok.Error() != nil {
		return fmt.Errorf("subscribe: %w", tok.Error())
	}
	for range n {
		if tok := c.Publish("free/"+name, 1, false, "x"); !tok.WaitTimeout(channelTime) || tok.Error() != nil {
			return fmt.Errorf("publish: %w", tok.Error())
		}
		select {
		case <-heard:
		case <-time.After(channelTime):
			return fmt.Errorf("%s hears nothing", name)
		}
	}
	p.did(n, n)
	k, err := openSocket(s, p.key)
	if err != nil {
		return err
	}
	for i := range 5 {
		if err := k.say(fmt.Sprintf(`{"t":"ping","id":%d}`, 100+i)); err != nil {
			return err
		}
		if _, err := k.until(func(f frame) bool { return f["re"] == float64(100+i) }); err != nil {
			return err
		}
	}
	p.did(k.wrote, k.read)
	if !stay {
		return k.conn.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = append(p.open, k)
	return nil
}

func TestCountersAreExactWhenManyComeSayAndLeaveAtOnceAndAWatcherSeesTheLast(t *testing.T) {
	s := servertest.Start(t)
	watch := mustSocket(t, s, servertest.AdminKey)
	watch.ask(t, "system", "")
	st := mustStream(t, s, servertest.AdminKey, "channel=system")
	token := create(t, s, "d")
	device := connect(t, s, token)
	parties := make([]*party, 4)
	for i := range parties {
		id, key := scoped(t, s, "devices:read telemetry:read mqtt admin", "")
		parties[i] = &party{id: id, key: key}
	}
	const each = 5
	var wg sync.WaitGroup
	for i, p := range parties {
		for j := range each {
			wg.Go(func() {
				if err := p.work(s, fmt.Sprintf("c%d-%d", i, j), j == 0); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for range 30 {
		if tok := device.Publish("devices/me/telemetry", 1, false, `{"v":1}`); !tok.WaitTimeout(channelTime) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	wg.Wait()
	want := map[string]string{}
	for _, p := range parties {
		want[p.id] = fmt.Sprint(p.received, " ", p.sent, " ", len(p.open))
	}
	seen := map[string]string{}
	all := func(f frame) bool {
		for _, part := range []string{"item", "set"} {
			item, _ := f[part].(map[string]any)
			rows, _ := item["accounts"].([]any)
			for _, r := range rows {
				row := r.(map[string]any)
				m := row["messages"].(map[string]any)
				if id := row["id"].(string); want[id] != "" {
					seen[id] = fmt.Sprint(m["received"], " ", m["sent"], " ", row["connections"].(map[string]any)["total"])
				}
			}
		}
		return cmp.Equal(want, seen)
	}
	if _, err := watch.until(all); err != nil {
		t.Fatalf("over the socket: %v\n%s", err, cmp.Diff(want, seen))
	}
	clear(seen)
	if _, _, err := st.until(all); err != nil {
		t.Fatalf("over the stream: %v\n%s", err, cmp.Diff(want, seen))
	}
	wantSums(t, s, parties, 30)
	for _, p := range parties {
		for _, k := range p.open {
			_ = k.conn.Close()
		}
	}
}

// wantSums checks that the counters are what was done, per account and in total, and that
// the sum of all is the total.
func wantSums(t *testing.T, s *server.Server, parties []*party, device uint64) {
	t.Helper()
	c := s.Counters()
	var received, sent uint64
	var open int64
	rows := append([]server.AccountCounters{c.Devices, c.Others}, c.Accounts...)
	for _, r := range rows {
		received += r.Messages.Received
		sent += r.Messages.Sent
		open += r.Connections.Total
	}
	if received != c.Total.Messages.Received || sent != c.Total.Messages.Sent || open != c.Total.Connections.Total {
		t.Errorf("the sum of all is %d, %d, %d; the total is %+v", received, sent, open, c.Total)
	}
	if c.Devices.Messages.Received != device || c.Devices.Connections.Total != 1 {
		t.Errorf("of devices: %+v", c.Devices)
	}
	var of uint64
	for _, p := range parties {
		of += p.received
	}
	admin := c.Total.Messages.Received - of - device // the watcher's own
	if admin != 2 {
		t.Errorf("%d messages are of nobody", admin-2)
	}
	var sys struct {
		Sections struct {
			Counters server.Counters `json:"counters"`
		} `json:"sections"`
	}
	call(t, s, http.MethodGet, "/api/v1/system", nil, &sys)
	if got := sys.Sections.Counters; got.Devices.Messages != c.Devices.Messages || len(got.Accounts) != len(c.Accounts) {
		t.Errorf("the System page has %+v", got)
	}
	_, metrics := as(t, s, servertest.AdminKey, http.MethodGet, "/metrics", nil)
	line := fmt.Sprintf("muster_messages_received_total{transport=\"mqtt\"} %d\n", device+uint64(len(parties)*5*20))
	if !strings.Contains(string(metrics), line) {
		t.Errorf("/metrics has no %s", line)
	}
}

func TestWhoMaySeeWhoIsAtAThing(t *testing.T) {
	s := servertest.Start(t)
	people := map[string]*person{}
	for _, role := range []string{"admin", "operator", "viewer"} {
		people[role] = newPerson(t, s, role, role)
	}
	people["admin"].must(http.MethodPut, "/groups/cold", map[string]any{})
	topic, _ := people["operator"].must(http.MethodPost, "/topics", map[string]any{"name": "quiet", "visibility": "private"})["id"].(string)
	for role, want := range map[string]map[string]string{
		"admin":    {"topics/" + topic: "snapshot", "webhooks/whk_none": "not_found"},
		"operator": {"topics/" + topic: "snapshot", "webhooks/whk_none": "forbidden"},
		"viewer":   {"topics/" + topic: "not_found", "webhooks/whk_none": "forbidden"},
	} {
		want["groups/cold"], want["groups/none"], want["gates/none"] = "snapshot", "not_found", "not_found"
		want["firmware/rel_none"], want["rollouts/rol_none"] = "not_found", "not_found"
		for thing, outcomeWanted := range want {
			k, _ := people[role].socket("")
			if err := k.say(`{"t":"sub","id":3,"ch":"here:` + thing + `"}`); err != nil {
				t.Fatal(err)
			}
			f := people[role].until(k, func(f frame) bool { return f["re"] == 3.0 })
			if got := outcome(f); got != outcomeWanted {
				t.Errorf("%s: here:%s gives %s, want %s", role, thing, got, outcomeWanted)
			}
			_ = k.conn.Close()
		}
	}
	_, key := scoped(t, s, "admin", "")
	k := mustSocket(t, s, key)
	if got := outcome(k.ask(t, "here:groups/cold", "")); got != "forbidden" {
		t.Errorf("a key, which is nobody, gets %s", got)
	}
}

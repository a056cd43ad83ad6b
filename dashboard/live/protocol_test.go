package live_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"

	"muster"
	"muster/dashboard/live"
)

func number(key string, v float64) muster.Value {
	return muster.Value{Key: muster.Key{Name: key, Kind: muster.Number}, Num: v}
}

func TestHello(t *testing.T) {
	s := open(t, newWorld(1), live.Config{HelloTimeout: 300 * time.Millisecond, Origins: []string{"https://ops.example"}})
	bearer := http.Header{}
	tests := []struct {
		name   string
		header http.Header
		hello  string
		user   string // welcomed as
		code   int    // or said bye with
	}{
		{"a cookie session is welcomed", s.browserHeader("ann"), `{"t":"hello","id":1}`, "ann", 0},
		{"a token is welcomed without an Origin", bearer, `{"t":"hello","id":1,"token":"mst_good"}`, "script", 0},
		{"a token is welcomed from a listed Origin", http.Header{"Origin": {"https://ops.example"}}, `{"t":"hello","id":1,"token":"mst_good"}`, "script", 0},
		{"a hello may come in a batch", bearer, `[{"t":"hello","id":1,"token":"mst_good"}]`, "script", 0},
		{"a cookie without an Origin does not let in", http.Header{"Cookie": {"session=ann"}}, `{"t":"hello","id":1}`, "", 4501},
		{"nobody is refused", bearer, `{"t":"hello","id":1}`, "", 4501},
		{"a wrong token is refused", bearer, `{"t":"hello","id":1,"token":"mst_bad"}`, "", 4501},
		{"a wrong token is refused beside a good cookie", s.browserHeader("ann"), `{"t":"hello","id":1,"token":"mst_bad"}`, "", 4501},
		{"a key without the right is told so", bearer, `{"t":"hello","id":1,"token":"mst_other"}`, "", 4503},
		{"a fault of ours may be tried again", bearer, `{"t":"hello","id":1,"token":"mst_later"}`, "", 4003},
		{"another first command is refused", s.browserHeader("ann"), `{"t":"sub","id":1,"ch":"fleet"}`, "", 4500},
		{"bad JSON first is refused", s.browserHeader("ann"), `{"t":`, "", 4500},
		{"an empty batch first is refused by time", s.browserHeader("ann"), `[]`, "", 4002},
		{"silence is refused by time", s.browserHeader("ann"), ``, "", 4002},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := s.connect(tt.header)
			if tt.hello != "" {
				p.send(tt.hello)
			}
			if tt.code != 0 {
				bye, code := p.closed()
				if bye["t"] != "bye" || bye["code"] != float64(tt.code) || code != tt.code {
					t.Fatalf("got %v and close %d, want bye %d", bye, code, tt.code)
				}
				if _, ok := bye["retry_ms"]; ok != (tt.code < 4500) {
					t.Fatalf("retry_ms is wrong in %v", bye)
				}
				return
			}
			got := p.next()
			if sid, ok := got["sid"].(string); !ok || len(sid) != 16 {
				t.Fatalf("no session id in %v", got)
			}
			delete(got, "sid")
			role := map[string]string{"ann": "operator", "script": "viewer"}[tt.user]
			want := plain(map[string]any{
				"t": "welcome", "re": 1, "proto": 1, "ping": 25, "time": s.w.now().UnixMilli(),
				"version": "1.2.3", "mqtt_port": 1883, "user": map[string]any{"name": tt.user, "role": role},
			})
			if d := cmp.Diff(want, got); d != "" {
				t.Fatal(d)
			}
			_ = p.conn.Close()
		})
	}
}

func TestUpgradeIsRefused(t *testing.T) {
	s := open(t, newWorld(1), live.Config{Origins: []string{"ops.example"}, MaxConns: 4})
	tests := []struct {
		name   string
		header http.Header
		status int
	}{
		{"from another site", http.Header{"Origin": {"https://evil.example"}}, 403},
		{"from an Origin that is no URL", http.Header{"Origin": {"null"}}, 403},
		{"from a name that ends like ours", http.Header{"Origin": {"https://xops.example"}}, 403},
		{"from a name that ends like the host", http.Header{"Origin": {"http://evil-" + strings.TrimPrefix(s.http.URL, "http://")}}, 403},
		{"from two Origins", http.Header{"Origin": {s.http.URL, "https://evil.example"}}, 403},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, res, err := s.dial(tt.header)
			if err == nil || res == nil || res.StatusCode != tt.status {
				t.Fatalf("got %v, want status %d", res, tt.status)
			}
			_ = res.Body.Close()
			if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Fatalf("content type is %q", ct)
			}
		})
	}
	t.Run("with another subprotocol", func(t *testing.T) {
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
		_, res, err := d.Dial(s.url(), nil)
		if err == nil || res.StatusCode != http.StatusBadRequest {
			t.Fatalf("got %v %v", res, err)
		}
		_ = res.Body.Close()
	})
	t.Run("when there are too many, those with a session last", func(t *testing.T) {
		waiting := s.connect(http.Header{}) // a quarter of four
		_, res, err := s.dial(http.Header{})
		if err == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Fatalf("got %v %v", res, err)
		}
		_ = res.Body.Close()
		for i := range 3 {
			p := s.browser(fmt.Sprint("u", i))
			t.Cleanup(func() { _ = p.conn.Close() })
		}
		if _, res, err = s.dial(s.browserHeader("u9")); err == nil || res.StatusCode != http.StatusServiceUnavailable {
			t.Fatalf("got %v %v", res, err)
		}
		_ = res.Body.Close()
		_ = waiting.conn.Close()
	})
}

func TestCommandsAreAnsweredWithErrorsNotCloses(t *testing.T) {
	s := open(t, newWorld(3), live.Config{CommandBurst: 1000})
	p := s.browser("ann")
	defer p.conn.Close()
	many := "[" + strings.Repeat(`{"t":"ping"},`, 128) + `{"t":"ping"}]`
	tests := []struct {
		name, frame, code string
		re                float64 // 0 for none
		detail            string
	}{
		{"an unknown type", `{"t":"dance","id":7}`, "unknown_type", 7, "dance"},
		{"no type", `{"id":7}`, "unknown_type", 7, ""},
		{"a second hello", `{"t":"hello","id":7}`, "conflict", 7, ""},
		{"bad JSON", `{"t":"sub"`, "bad_json", 0, ""},
		{"two objects without an array", `{"t":"ping"}{"t":"ping"}`, "bad_json", 0, ""},
		{"nothing", ` `, "bad_json", 0, ""},
		{"a number", `17`, "invalid", 0, "object"},
		{"null", `null`, "invalid", 0, "object"},
		{"a batch of numbers", `[17]`, "invalid", 0, "object"},
		{"a batch that is too long", many, "bad_json", 0, "128"},
		{"a field of the wrong type keeps its id", `{"t":"sub","id":7,"ch":"devices","limit":"many"}`, "invalid", 7, "limit"},
		{"an unknown channel", `{"t":"sub","id":7,"ch":"weather"}`, "unknown_channel", 7, ""},
		{"no channel", `{"t":"sub","id":7}`, "unknown_channel", 7, ""},
		{"an unsub of an unknown channel", `{"t":"unsub","id":7,"ch":"weather"}`, "unknown_channel", 7, ""},
		{"an unknown query term", `{"t":"sub","id":7,"ch":"devices","q":"colour:red"}`, "invalid", 7, "unknown term at 1"},
		{"an unknown order", `{"t":"sub","id":7,"ch":"devices","sort":"colour"}`, "invalid", 7, "sort"},
		{"a limit over 200", `{"t":"sub","id":7,"ch":"devices","limit":201}`, "invalid", 7, "limit"},
		{"a limit of 0", `{"t":"sub","id":7,"ch":"devices","limit":0}`, "invalid", 7, "limit"},
		{"a wrong cursor", `{"t":"sub","id":7,"ch":"devices","after":"x"}`, "invalid", 7, "cursor"},
		{"a query that is too long", `{"t":"sub","id":7,"ch":"devices","q":"` + strings.Repeat("a", 4097) + `"}`, "invalid", 7, "4096"},
		{"a device that is not there", `{"t":"sub","id":7,"ch":"device:ghost"}`, "not_found", 7, "ghost"},
		{"a device id that cannot be", `{"t":"sub","id":7,"ch":"device:a/b"}`, "invalid", 7, ""},
		{"vis without on", `{"t":"vis","id":7}`, "invalid", 7, "on"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p.send(tt.frame)
			got := p.expect("error")
			re, _ := got["re"].(float64)
			if got["code"] != tt.code || re != tt.re || !strings.Contains(fmt.Sprint(got["detail"]), tt.detail) || got["retry"] != false {
				t.Fatalf("got %v", got)
			}
		})
	}
	t.Run("a binary frame", func(t *testing.T) {
		if err := p.conn.WriteMessage(websocket.BinaryMessage, []byte("x")); err != nil {
			t.Fatal(err)
		}
		if got := p.expect("error"); got["code"] != "bad_json" {
			t.Fatalf("got %v", got)
		}
	})
	t.Run("and the connection still works", func(t *testing.T) {
		p.send(`{"t":"ping","id":9,"ts":77,"unknown":true}`)
		if d := cmp.Diff(map[string]any{"t": "pong", "re": 9.0, "ts": 77.0}, p.next()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestFleetChannel(t *testing.T) {
	s := open(t, newWorld(3), live.Config{})
	ann, bob := s.browser("ann"), s.browser("bob")
	defer ann.conn.Close()
	defer bob.conn.Close()
	for _, p := range []*peer{ann, bob} {
		p.send(`{"t":"sub","id":2,"ch":"fleet"}`)
		want := map[string]any{"t": "snapshot", "re": 2.0, "ch": "fleet", "seq": 1.0, "item": s.w.wantFleet()}
		if d := cmp.Diff(want, p.next()); d != "" {
			t.Fatal(d)
		}
	}
	s.tick(11)
	for _, p := range []*peer{ann, bob} {
		if got := p.sync(); len(got) != 0 {
			t.Fatalf("without a change came %v", got)
		}
	}
	s.w.mu.Lock()
	s.w.extra, s.w.stats = 99, 0
	s.w.mu.Unlock()
	for _, p := range []*peer{ann, bob} {
		got := p.news()
		want := []map[string]any{{"t": "delta", "ch": "fleet", "seq": 2.0, "set": s.w.wantFleet()}}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	}
	s.w.mu.Lock()
	s.w.stats = 0
	s.w.mu.Unlock()
	s.tick(51)
	ann.sync()
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if s.w.stats < 10 || s.w.stats > 11 {
		t.Fatalf("the item was computed %d times in ten seconds, for two viewers", s.w.stats)
	}
}

func TestDevicesChannel(t *testing.T) {
	s := open(t, newWorld(5), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	s.w.setState("dev-001", muster.PresenceOnline)
	s.w.say("dev-001", number("temp", 21.5))
	p.send(`{"t":"sub","id":3,"ch":"devices","limit":3}`)
	want := map[string]any{
		"t": "snapshot", "re": 3.0, "ch": "devices", "seq": 1.0, "total": 5.0, "next": "3",
		"items": []any{s.w.wantRow("dev-000"), s.w.wantRow("dev-001"), s.w.wantRow("dev-002")},
	}
	if d := cmp.Diff(want, p.next()); d != "" {
		t.Fatal(d)
	}

	t.Run("a hundred changes are one delta with what changed", func(t *testing.T) {
		s.w.say("dev-001", number("hum", 40))
		s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
		for i := range 100 {
			s.observe("dev-001", number("temp", float64(i)))
			s.observe("dev-004", number("temp", float64(i))) // not visible
		}
		row := s.w.wantRow("dev-001")
		want := []map[string]any{{"t": "delta", "ch": "devices", "seq": 2.0, "set": map[string]any{
			"dev-001": map[string]any{"last_seen": row["last_seen"], "values": row["values"]},
		}}}
		if d := cmp.Diff(want, p.news()); d != "" {
			t.Fatal(d)
		}
		s.observe("dev-001", number("temp", 7))
		row = s.w.wantRow("dev-001")
		temp := row["values"].(map[string]any)["temp"]
		want = []map[string]any{{"t": "delta", "ch": "devices", "seq": 3.0, "set": map[string]any{
			"dev-001": map[string]any{"last_seen": row["last_seen"], "values": map[string]any{"temp": temp}},
		}}}
		if d := cmp.Diff(want, p.news()); d != "" {
			t.Fatal(d)
		}
	})
	t.Run("a removed device is a del, new ones are only counted", func(t *testing.T) {
		s.w.remove("dev-002")
		for _, id := range []muster.DeviceID{"dev-000a", "dev-005", "dev-006"} {
			s.w.add(id)
		}
		s.g.DevicesChanged([]muster.DeviceID{"dev-002", "dev-000a", "dev-005", "dev-006"})
		got := map[string]any{}
		for got["drift"] == nil { // counted once a second
			for _, f := range p.news() {
				maps.Copy(got, f)
			}
		}
		if d := cmp.Diff([]any{"dev-002"}, got["del"]); d != "" {
			t.Fatal(d)
		}
		if d := cmp.Diff(map[string]any{"new": 2.0, "total": 7.0}, got["drift"]); d != "" {
			t.Fatal(d)
		}
		if _, ok := got["set"]; ok {
			t.Fatalf("a row came by itself: %v", got)
		}
	})
	t.Run("a removed device that is made again does not come back by itself", func(t *testing.T) {
		s.w.add("dev-002")
		s.g.DevicesChanged([]muster.DeviceID{"dev-002"})
		s.tick(12)
		for _, f := range p.sync() {
			if f["drift"] == nil || f["set"] != nil {
				t.Fatalf("got %v", f)
			}
		}
	})
}

func TestDevicesChannelIsReplacedChosenAndLeft(t *testing.T) {
	s := open(t, newWorld(7), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	s.w.say("dev-004", number("temp", 1))
	s.w.say("dev-001", number("hum", 2))
	p.send(`{"t":"sub","id":3,"ch":"devices","limit":3}`)
	p.expect("snapshot")

	t.Run("a second sub replaces the view", func(t *testing.T) {
		p.send(`{"t":"sub","id":4,"ch":"devices","limit":1,"sort":"-seen"}`)
		got := p.expect("snapshot")
		if d := cmp.Diff([]any{s.w.wantRow("dev-001")}, got["items"]); d != "" { // heard last
			t.Fatal(d)
		}
		p.sync() // the old view goes when the new one has been written
		if s.g.Stats().Rows != 1 {
			t.Fatalf("%d rows are watched", s.g.Stats().Rows)
		}
	})
	t.Run("cols choose the keys", func(t *testing.T) {
		p.send(`{"t":"sub","id":5,"ch":"devices","cols":["hum"]}`)
		items := p.expect("snapshot")["items"].([]any)
		values := items[1].(map[string]any)["values"].(map[string]any)
		if len(values) != 1 || values["hum"] == nil {
			t.Fatalf("got %v", items[1])
		}
		s.observe("dev-001", number("temp", 8))
		s.observe("dev-001", number("hum", 41))
		set := p.news()[0]["set"].(map[string]any)["dev-001"].(map[string]any)
		if v := set["values"].(map[string]any); len(v) != 1 || v["hum"] == nil {
			t.Fatalf("got %v", set)
		}
	})
	t.Run("a device made anew between two ticks is sent whole", func(t *testing.T) {
		p.send(`{"t":"sub","ch":"devices","limit":3}`)
		p.expect("snapshot")
		s.w.remove("dev-001")
		s.w.add("dev-001")
		s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
		got := p.news()[0]
		if d := cmp.Diff([]any{s.w.wantRow("dev-000"), s.w.wantRow("dev-001"), s.w.wantRow("dev-002")}, got["items"]); d != "" || got["re"] != nil {
			t.Fatal(got["t"], d)
		}
	})
	t.Run("after unsub nothing comes and nothing is kept", func(t *testing.T) {
		p.send(`{"t":"unsub","id":6,"ch":"devices"}`)
		if d := cmp.Diff(map[string]any{"t": "ok", "re": 6.0}, p.next()); d != "" {
			t.Fatal(d)
		}
		s.observe("dev-001", number("temp", 9))
		s.tick(6)
		if got := p.sync(); len(got) != 0 || s.g.Stats().Rows != 0 {
			t.Fatalf("got %v, %d rows", got, s.g.Stats().Rows)
		}
	})
}

func TestDeviceChannel(t *testing.T) {
	s := open(t, newWorld(2), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	s.w.setState("dev-001", muster.PresenceOnline)
	for _, v := range []muster.Value{
		number("temp", 21.5), number("hole", math.NaN()), number("tiny", 1e-9), number("huge", 1e300),
		{Key: muster.Key{Name: "on", Kind: muster.Bool}, Num: 1},
		{Key: muster.Key{Name: "off", Kind: muster.Bool}, Num: 0},
		{Key: muster.Key{Name: "doc", Kind: muster.JSON}, Text: `{"a":[1,"x"]}`},
		{Key: muster.Key{Name: `qu"ote é`, Kind: muster.JSON}, Text: `"text"`},
	} {
		s.w.say("dev-001", v)
	}
	p.send(`{"t":"sub","id":4,"ch":"device:dev-001"}`)
	want := map[string]any{"t": "snapshot", "re": 4.0, "ch": "device:dev-001", "seq": 1.0, "item": s.w.wantPage("dev-001")}
	if d := cmp.Diff(want, p.next()); d != "" {
		t.Fatal(d)
	}
	t.Run("a change of presence carries the connection", func(t *testing.T) {
		s.w.setState("dev-001", muster.PresenceOffline)
		s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
		set := p.news()[0]["set"].(map[string]any)
		if set["state"] != "offline" || set["reason"] != "keepalive" || len(set) != 6 {
			t.Fatalf("got %v", set)
		}
		if c, ok := set["connection"]; !ok || c != nil {
			t.Fatalf("got %v", set)
		}
	})
	t.Run("a rejected message shows in the ledger within a second, without Observe", func(t *testing.T) {
		s.w.reject("dev-001")
		want := map[string]any{"ledger": s.w.wantPage("dev-001")["ledger"]}
		if d := cmp.Diff(want, p.news()[0]["set"]); d != "" {
			t.Fatal(d)
		}
	})
	t.Run("a long text is cut", func(t *testing.T) {
		s.observe("dev-001", muster.Value{Key: muster.Key{Name: "doc", Kind: muster.JSON}, Text: `"` + strings.Repeat("é", 9000) + `"`})
		set := p.news()[0]["set"].(map[string]any)
		v := set["values"].(map[string]any)["doc"].(map[string]any)["v"].(string)
		if len(v) > 4200 || !strings.HasSuffix(v, "é…") {
			t.Fatalf("%d bytes ending in %q", len(v), v[len(v)-8:])
		}
	})
	t.Run("a device made anew between two ticks is a snapshot", func(t *testing.T) {
		for range 2 { // the second has no keys that go
			s.w.remove("dev-001")
			s.w.add("dev-001")
			s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
			got := p.news()[0]
			if d := cmp.Diff(s.w.wantPage("dev-001"), got["item"]); d != "" || got["t"] != "snapshot" {
				t.Fatal(got["t"], d)
			}
		}
	})
	t.Run("a removed device is a del, one made anew a snapshot", func(t *testing.T) {
		s.w.remove("dev-001")
		s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
		if d := cmp.Diff([]any{"dev-001"}, p.news()[0]["del"]); d != "" {
			t.Fatal(d)
		}
		s.w.add("dev-001")
		s.g.DevicesChanged([]muster.DeviceID{"dev-001"})
		got := p.news()[0]
		if d := cmp.Diff(s.w.wantPage("dev-001"), got["item"]); d != "" || got["t"] != "snapshot" {
			t.Fatal(got["t"], d)
		}
	})
}

func TestHiddenTabIsSentNothingAndFreshSnapshotsOnReturn(t *testing.T) {
	s := open(t, newWorld(3), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	p.send(`[{"t":"sub","id":2,"ch":"fleet"},{"t":"sub","id":3,"ch":"devices"},{"t":"sub","id":4,"ch":"device:dev-002"}]`)
	p.sync()
	p.send(`{"t":"vis","id":5,"on":false}`)
	p.sync()
	for i := range 20 {
		s.observe("dev-001", number("temp", float64(i)))
		s.w.setState("dev-002", muster.PresenceOnline)
		s.g.DevicesChanged([]muster.DeviceID{"dev-002"})
		s.tick(1)
	}
	p.send(`{"t":"sub","id":6,"ch":"device:dev-001"}`)
	if got := p.sync(); len(got) != 0 || s.g.Stats().Rows != 0 {
		t.Fatalf("a hidden tab got %v, and %d rows are watched", got, s.g.Stats().Rows)
	}
	s.w.remove("dev-002")
	p.send(`{"t":"vis","id":7,"on":true}`)
	got := map[string]map[string]any{}
	for _, f := range p.sync() {
		got[fmt.Sprint(f["ch"])] = f
	}
	if f := got["devices"]; f["t"] != "snapshot" || f["total"] != 2.0 || f["re"] != nil {
		t.Fatalf("got %v", f)
	}
	if f := got["fleet"]; f["t"] != "snapshot" || cmp.Diff(s.w.wantFleet(), f["item"]) != "" {
		t.Fatalf("got %v", f)
	}
	if f := got["device:dev-001"]; f["t"] != "snapshot" || f["re"] != 6.0 {
		t.Fatalf("got %v", f)
	}
	if f := got["device:dev-002"]; f["t"] != "error" || f["code"] != "not_found" {
		t.Fatalf("got %v", f)
	}
}

func TestStopSaysByeToEveryClientWithSpreadTimes(t *testing.T) {
	s := newSite(t, newWorld(1), live.Config{})
	var peers []*peer
	for i := range 20 {
		peers = append(peers, s.browser(fmt.Sprint("u", i)))
	}
	stopped := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitLong)
		defer cancel()
		stopped <- s.g.Stop(ctx)
	}()
	times := map[any]bool{}
	for _, p := range peers {
		bye, code := p.closed()
		if bye["code"] != 4001.0 || code != 4001 {
			t.Fatalf("got %v, close %d", bye, code)
		}
		retry := bye["retry_ms"].(float64)
		if retry < 0 || retry > 30_000 {
			t.Fatalf("retry_ms is %v", retry)
		}
		times[retry] = true
	}
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if len(times) < 10 {
		t.Fatalf("20 clients come back at %d times", len(times))
	}
	if _, res, err := s.dial(s.browserHeader("ann")); err == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Fatalf("after the stop: %v %v", res, err)
	} else {
		_ = res.Body.Close()
	}
	s.close()
}

func TestStopDoesNotWaitForClientsThatDoNotAnswer(t *testing.T) {
	s := newSite(t, newWorld(1), live.Config{})
	deaf, mute := s.browser("ann"), s.connect(http.Header{})
	defer deaf.conn.Close()
	defer mute.conn.Close()
	s.stop() // fails after waitLong
	if n := s.g.Stats().Connections; n != 0 {
		t.Fatalf("%d connections", n)
	}
}

func TestStopCutsWhenItsTimeIsUp(t *testing.T) {
	s := newSite(t, newWorld(1), live.Config{})
	deaf := s.browser("ann")
	defer deaf.conn.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.g.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if n := s.g.Stats().Connections; n != 0 {
		t.Fatalf("%d connections", n)
	}
	s.close()
}

func TestRightsEnd(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	t.Run("revoked principals are said bye, others not", func(t *testing.T) {
		ann, bob := s.browser("ann"), s.browser("bob")
		defer bob.conn.Close()
		s.g.Revoke("u-ann")
		if bye, code := ann.closed(); code != 4009 || bye["code"] != 4009.0 {
			t.Fatalf("got %v %d", bye, code)
		}
		bob.sync()
	})
	t.Run("an expired session is said bye within a turn of the wheel", func(t *testing.T) {
		p := s.connect(http.Header{})
		p.send(`{"t":"hello","id":1,"token":"mst_short"}`)
		p.expect("welcome")
		s.w.advance(2 * time.Minute)
		s.tick(126)
		if bye, code := p.closed(); code != 4009 || bye["code"] != 4009.0 {
			t.Fatalf("got %v %d", bye, code)
		}
	})
}

func TestEveryConnectionIsPingedOncePerTurnOfTheWheel(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	pings := 0
	p.conn.SetPingHandler(func(string) error { pings++; return nil })
	s.tick(126)
	p.sync()
	if pings != 1 {
		t.Fatalf("%d pings in 25 seconds", pings)
	}
	pong := make(chan string, 1)
	p.conn.SetPongHandler(func(s string) error { pong <- s; return nil })
	if err := p.conn.WriteControl(websocket.PingMessage, []byte("mine"), time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	p.sync()
	p.sync()
	select {
	case got := <-pong:
		if got != "mine" {
			t.Fatalf("pong %q", got)
		}
	default:
		t.Fatal("a client's control ping is not answered")
	}
}

package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster/accounts"
	"muster/server"
	"muster/server/servertest"
)

// streamed is a request whose body goes on for ever, or whose answer does.
type streamed struct {
	ended  chan time.Time
	status chan int
	text   chan string
	heard  chan string // lines of the answer
}

// watchStream opens /api/v1/stream with a key and waits for its first line.
func watchStream(t *testing.T, s *server.Server, key string) *streamed {
	t.Helper()
	st := &streamed{ended: make(chan time.Time, 1), heard: make(chan string, 1000)}
	res := request(t, s, http.MethodGet, "/api/v1/stream?channel=events", key, "")
	if res.StatusCode != http.StatusOK {
		t.Fatalf("the stream gives %s", res.Status)
	}
	go func() {
		lines := bufio.NewScanner(res.Body)
		for lines.Scan() {
			if lines.Text() != "" {
				st.heard <- lines.Text()
			}
		}
		st.ended <- time.Now()
	}()
	<-st.heard
	return st
}

// writeForEver writes telemetry of d as NDJSON until the server ends it, a line each 10 ms.
func writeForEver(t *testing.T, s *server.Server, key string) *streamed {
	t.Helper()
	st := &streamed{ended: make(chan time.Time, 1), status: make(chan int, 1), text: make(chan string, 1)}
	body, lines := io.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1/telemetry", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/x-ndjson")
	started := make(chan struct{}, 1)
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			if _, err := fmt.Fprintf(lines, `{"device":"d","written":%d}`+"\n", n); err != nil {
				return
			}
			if n == 50 {
				started <- struct{}{}
			}
			<-tick.C
		}
	}()
	go func() {
		res, err := http.DefaultClient.Do(req)
		st.ended <- time.Now()
		_ = body.CloseWithError(io.ErrClosedPipe)
		if err != nil {
			st.status <- 0
			st.text <- err.Error()
			return
		}
		defer func() { _ = res.Body.Close() }()
		text, _ := io.ReadAll(res.Body)
		st.status <- res.StatusCode
		st.text <- string(text)
	}()
	<-started
	return st
}

// startImport starts a task that has much to do, and returns its path once it is under way.
func startImport(t *testing.T, s *server.Server, key string) string {
	t.Helper()
	var list strings.Builder
	list.WriteString("id,credential\n")
	for i := range 40_000 {
		fmt.Fprintf(&list, "many-%05d,token\n", i)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1/devices:import", strings.NewReader(list.String()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "text/csv")
	req.Header.Set("Prefer", "respond-async")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	at := res.Header.Get("Location")
	until(t, "the import to be under way", func() bool { return taskAt(t, s, at).State == "running" })
	return at
}

type taskState struct {
	State   string
	Done    int64
	EndedAt *time.Time `json:"ended_at"`
}

func taskAt(t *testing.T, s *server.Server, at string) (got taskState) {
	t.Helper()
	call(t, s, http.MethodGet, at, nil, &got)
	return got
}

// within a second of a moment.
func wantSoon(t *testing.T, what string, since, at time.Time) {
	t.Helper()
	if took := at.Sub(since); took > time.Second {
		t.Errorf("%s ended after %s, want a second at most", what, took)
	}
}

// TestWhatGoesOnByARevokedKeyEndsWithinASecond has one key used in every way that lasts, and
// deletes it: a kept HTTP connection, a stream of events, the live gateway, MQTT, a bulk write
// that goes on, and a task.
func TestWhatGoesOnByARevokedKeyEndsWithinASecond(t *testing.T) {
	s := servertest.Start(t)
	create(t, s, "d")
	scopes := slices.DeleteFunc(accounts.Scopes(), func(s string) bool { return s == accounts.Admin })
	id, key, err := s.CreateKeyForTest(t.Context(), scopes, "")
	if err != nil {
		t.Fatal(err)
	}
	w := &within{id: id, secret: key}
	d := websocket.Dialer{Subprotocols: []string{"muster.v1"}}
	conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	w.live = conn
	w.tell(t, `{"t":"hello","id":1,"token":"`+key+`"}`, "welcome")
	w.tell(t, `{"t":"sub","id":2,"ch":"device:d"}`, `"snapshot"`)
	onMQTT := dial(t, s, "by-key", key, "")
	events := watchStream(t, s, key)
	bulk := writeForEver(t, s, key)
	task := startImport(t, s, key)
	if r := request(t, s, http.MethodGet, "/api/v1/devices/d", key, ""); r.StatusCode != http.StatusOK {
		t.Fatalf("before: %s", r.Status)
	}

	call(t, s, http.MethodDelete, "/api/v1/api-keys/"+id, nil, nil)
	since := time.Now()
	begun := taskAt(t, s, task).Done
	if r := request(t, s, http.MethodGet, "/api/v1/devices/d", key, ""); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("over HTTP it gives %s", r.Status)
	}
	wantSoon(t, "the stream", since, <-events.ended)
	onMQTT.wantCut(t, since)
	_ = conn.SetReadDeadline(since.Add(time.Second))
	for err = nil; err == nil; {
		_, _, err = conn.ReadMessage()
	}
	if !websocket.IsCloseError(err, 4009) {
		t.Errorf("the live connection ends with %v", err)
	}
	wantSoon(t, "the bulk write", since.Add(200*time.Millisecond), <-bulk.ended) // asked again each second, then answered when all is durable
	var told struct{ Accepted int64 }
	if status, text := <-bulk.status, <-bulk.text; status != http.StatusUnauthorized || json.Unmarshal([]byte(text), &told) != nil || told.Accepted < 50 {
		t.Errorf("the bulk write is answered %d %s", status, text)
	}
	var ended taskState
	until(t, "the end of the task", func() bool { ended = taskAt(t, s, task); return ended.EndedAt != nil })
	if ended.State != "cancelled" || ended.Done > begun+importStep { // the step under way ends: what it writes is kept whole
		t.Errorf("the task is %+v", ended)
	}
	var page struct {
		Items []struct{ Values map[string]int64 }
	}
	until(t, "what was accepted in the store", func() bool {
		call(t, s, http.MethodGet, "/api/v1/devices/d/telemetry?limit=1&order=desc", nil, &page)
		return len(page.Items) == 1 && page.Items[0].Values["written"] >= told.Accepted-1
	})
	if n := page.Items[0].Values["written"]; n != told.Accepted-1 {
		t.Errorf("line %d is stored, %d were accepted", n, told.Accepted)
	}
}

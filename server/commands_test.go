package server_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
)

// sentCommand is what the API shows of a command.
type sentCommand struct {
	ID, State string
	Attempts  int
	Result    json.RawMessage
	Late      *struct{ Status string }
}

func command(t *testing.T, s *server.Server, want int, method, path string, body any) (c sentCommand) {
	t.Helper()
	status, answer := as(t, s, servertest.AdminKey, method, path, body)
	if err := json.Unmarshal(answer, &c); err != nil || status != want {
		t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return c
}

// answering subscribes to filter and answers each message at the topic that reply
// makes of its own.
func answering(t *testing.T, c mqtt.Client, filter string, reply func(topic string) string, payload string) *received {
	t.Helper()
	r := &received{}
	tok := c.Subscribe(filter, 1, func(c mqtt.Client, m mqtt.Message) {
		r.add(m.Topic(), string(m.Payload()))
		if payload != "" {
			c.Publish(reply(m.Topic()), 1, false, payload)
		}
	})
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatalf("subscribe to %s: %v", filter, tok.Error())
	}
	return r
}

// received is what a client got.
type received struct {
	mu   sync.Mutex
	list [][2]string
}

func (r *received) add(topic, payload string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, [2]string{topic, payload})
}

func (r *received) topics() (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.list {
		out = append(out, m[0])
	}
	return out
}

func TestACommandMakesTheRoundTripOverMQTT(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	const path = "/api/v1/devices/d/commands"
	one := command(t, s, 201, http.MethodPost, path, map[string]any{"method": "first", "params": map[string]int{"a": 1}})
	two := command(t, s, 201, http.MethodPost, path, map[string]any{"method": "second"})
	off := command(t, s, 201, http.MethodPost, path, map[string]any{"method": "called off"[:6]})
	command(t, s, 200, http.MethodPost, path+"/"+off.ID+"/cancel", nil)

	c := dial(t, s, "c", token, "")
	got := answering(t, c, "devices/me/commands/+", func(topic string) string { return topic + "/result" }, `{"status":"ok","result":{"done":true}}`)
	three := command(t, s, 201, http.MethodPost, path+"?wait=10s", map[string]any{"method": "third"})
	if three.State != "succeeded" || string(three.Result) != `{"done":true}` || three.Attempts != 1 {
		t.Errorf("the third is %+v", three)
	}
	want := []string{"devices/me/commands/" + one.ID, "devices/me/commands/" + two.ID, "devices/me/commands/" + three.ID}
	if d := cmp.Diff(want, got.topics()); d != "" {
		t.Error(d)
	}
	got.mu.Lock()
	first := got.list[0][1]
	got.mu.Unlock()
	if !strings.HasPrefix(first, `{"method":"first","params":{"a":1},"expires_at":"20`) {
		t.Errorf("the message is %s", first)
	}
	for _, x := range []sentCommand{one, two} {
		if got := command(t, s, 200, http.MethodGet, path+"/"+x.ID, nil); got.State != "succeeded" {
			t.Errorf("it is %+v", got)
		}
	}
	if tok := c.Publish("devices/me/commands/"+off.ID+"/result", 1, false, `{"status":"ok"}`); !tok.WaitTimeout(10 * time.Second) {
		t.Error("a late result is not acknowledged")
	}
	if late := command(t, s, 200, http.MethodGet, path+"/"+off.ID, nil); late.State != "cancelled" || late.Late == nil || late.Late.Status != "ok" {
		t.Errorf("what was called off is %+v", late)
	}
}

func TestACommandMakesTheRoundTripOverThingsBoardsRPC(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	c := dial(t, s, "c", token, "")
	got := answering(t, c, "v1/devices/me/rpc/request/+", func(topic string) string { return strings.Replace(topic, "request", "response", 1) }, `{"t":21}`)
	m := command(t, s, 201, http.MethodPost, "/api/v1/devices/d/commands?wait=10s", map[string]any{"method": "getTemp"})
	if m.State != "succeeded" || string(m.Result) != `{"t":21}` {
		t.Errorf("it is %+v", m)
	}
	if d := cmp.Diff([]string{"v1/devices/me/rpc/request/" + m.ID}, got.topics()); d != "" {
		t.Error(d)
	}
}

func TestAServerThatStopsKeepsNobodyWaitingForACommand(t *testing.T) {
	s, err := server.New(t.Context(), server.Config{
		DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 64 << 20,
		MaxPacket: 256 << 10, AdminKey: servertest.AdminKey, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err == nil {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "d")
	ended := make(chan int, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.HTTPAddr()+"/api/v1/devices/d/commands?wait=60s", strings.NewReader(`{"method":"m"}`))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			ended <- 0
			return
		}
		_ = resp.Body.Close()
		ended <- resp.StatusCode
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; n == 0; <-tick.C { // until it is stored
		_, answer := as(t, s, servertest.AdminKey, http.MethodGet, "/api/v1/devices/d/commands", nil)
		n = strings.Count(string(answer), `"queued"`)
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
	if status := <-ended; status != http.StatusCreated || time.Since(begun) > 10*time.Second {
		t.Errorf("the caller is answered %d after %s", status, time.Since(begun))
	}
}

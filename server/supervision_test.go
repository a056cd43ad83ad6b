package server_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"

	"muster/dashboard/live"
	"muster/server"
	"muster/server/servertest"
)

// loopStatus is a loop on the System page.
type loopStatus struct {
	Name      string    `json:"name"`
	Running   bool      `json:"running"`
	Restarts  int       `json:"restarts"`
	LastError string    `json:"last_error"`
	Restarted time.Time `json:"last_restart_at"`
}

func services(t *testing.T, s *server.Server) map[string]loopStatus {
	t.Helper()
	var page struct {
		Sections struct{ Services []loopStatus } `json:"sections"`
	}
	call(t, s, http.MethodGet, "/api/v1/system", nil, &page)
	out := map[string]loopStatus{}
	for _, l := range page.Sections.Services {
		if _, twice := out[l.Name]; twice {
			t.Errorf("two loops are called %s", l.Name)
		}
		out[l.Name] = l
	}
	return out
}

// endsWithItsSocket says why a loop is not made to fail: it ends when its listening socket
// is closed, and not before, and a server that cannot accept says so by Failed.
func endsWithItsSocket(name string) bool {
	return name == "http" || strings.HasPrefix(name, "mqtt-tcp-")
}

// until waits for what nothing announces.
func until(t *testing.T, what string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !come(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// alive is a device, a watcher of it and an operator, which go on whatever fails.
type alive struct {
	t        *testing.T
	s        *server.Server
	device   client
	commands chan mqtt.Message
	live     *websocket.Conn
	n        int
}

func bringUp(t *testing.T, s *server.Server) *alive {
	t.Helper()
	a := &alive{t: t, s: s, commands: make(chan mqtt.Message, 100)}
	a.device = dial(t, s, "d", create(t, s, "d"), "")
	tok := a.device.Subscribe("devices/me/commands/+", 1, func(_ mqtt.Client, m mqtt.Message) { a.commands <- m })
	if !tok.WaitTimeout(10*time.Second) || tok.Error() != nil {
		t.Fatal(tok.Error())
	}
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}}
	conn, res, err := d.Dial("ws://"+s.HTTPAddr()+"/api/v1/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	t.Cleanup(func() { _ = conn.Close() })
	a.live = conn
	for _, frame := range []string{`{"t":"hello","id":1,"token":"` + servertest.AdminKey + `"}`, `{"t":"sub","id":2,"ch":"device:d"}`} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
			t.Fatal(err)
		}
	}
	a.sees(`"snapshot"`)
	return a
}

func (a *alive) sees(what string) {
	a.t.Helper()
	_ = a.live.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		_, data, err := a.live.ReadMessage()
		if err != nil {
			a.t.Fatalf("no %s: %v", what, err)
		}
		if strings.Contains(string(data), what) {
			return
		}
	}
}

// goesOn sends a value through MQTT, log, store, API and live gateway, and a command with
// its answer.
func (a *alive) goesOn() {
	a.t.Helper()
	a.n++
	tok := a.device.Publish("devices/me/telemetry", 1, false, fmt.Sprintf(`{"n":%d}`, a.n))
	if !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
		a.t.Fatalf("telemetry is not acknowledged: %v", tok.Error())
	}
	a.sees(fmt.Sprintf(`"v":%d`, a.n))
	until(a.t, "the value in the store", func() bool {
		var page struct {
			Items []struct{ Values map[string]int }
		}
		call(a.t, a.s, http.MethodGet, "/api/v1/devices/d/telemetry?limit=1&order=desc", nil, &page)
		return len(page.Items) == 1 && page.Items[0].Values["n"] == a.n
	})
	var sent struct{ ID string }
	until(a.t, "the command to be taken", func() bool { // none is while their own loop begins again
		status, answer := reply(a.t, a.s, http.MethodPost, "/api/v1/devices/d/commands", map[string]any{"method": "do", "params": a.n})
		if status == http.StatusServiceUnavailable {
			return false
		}
		if status/100 != 2 {
			a.t.Fatalf("the command: %d %s", status, answer)
		}
		read(a.t, answer, &sent)
		return true
	})
	select {
	case m := <-a.commands:
		if !strings.HasSuffix(m.Topic(), "/"+sent.ID) {
			a.t.Errorf("command %s comes at %s", sent.ID, m.Topic())
		}
	case <-time.After(20 * time.Second):
		a.t.Fatal("the command does not come")
	}
	tok = a.device.Publish("devices/me/commands/"+sent.ID+"/result", 1, false, `{"status":"ok"}`)
	if !tok.WaitTimeout(20*time.Second) || tok.Error() != nil {
		a.t.Fatalf("the result is not acknowledged: %v", tok.Error())
	}
	until(a.t, "the end of the command", func() bool {
		var c struct{ State string }
		call(a.t, a.s, http.MethodGet, "/api/v1/devices/d/commands/"+sent.ID, nil, &c)
		return c.State == "succeeded"
	})
}

func TestEachLoopIsStartedAgainWhenItFailsAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	a := bringUp(t, s)
	a.goesOn()
	before := services(t, s)
	for name, was := range before {
		if endsWithItsSocket(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if !was.Running {
				t.Fatalf("it does not run: %+v", was)
			}
			if !s.FailLoop(name) {
				t.Fatal("there is no such loop")
			}
			now := *a
			now.t = t
			now.goesOn()
			a.n = now.n
			until(t, "the loop", func() bool {
				l := services(t, s)[name]
				return l.Running && l.Restarts == was.Restarts+1 && l.LastError == "panic: failed on purpose" && !l.Restarted.IsZero()
			})
		})
	}
	a.goesOn()
	after := services(t, s)
	for name, l := range after {
		if !l.Running || l.Restarts > before[name].Restarts+1 {
			t.Errorf("%+v", l)
		}
	}
	a.device.wantLive(t)
}

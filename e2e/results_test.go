package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestAckedReportsAndResultsAreKept kills the server right after the PUBACK of what a
// device reports and of its answer to a command.
func TestAckedReportsAndResultsAreKept(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			token := m.device("d", "token").Token
			for i := range kills(4) {
				c := m.orders("d", fmt.Sprintf("round-%d", i), 3600, "")
				w := m.listens(t, token)
				if got := w.publication(t); got.topic != "devices/me/commands/"+c.ID {
					t.Fatalf("round %d: heard %+v, want command %s", i, got, c.ID)
				}
				w.acked(t, 7, "devices/me/reported", fmt.Sprintf(`{"round":%d}`, i))
				w.acked(t, 8, "devices/me/commands/"+c.ID+"/result", fmt.Sprintf(`{"status":"ok","result":%d}`, i))
				m.kill()
				w.Close()
				m.start()
				m.ready()
				if got := m.sent("d", c.ID); got.State != "succeeded" || string(got.Result) != fmt.Sprint(i) {
					t.Errorf("round %d: the command is %s with %s", i, got.State, got.Result)
				}
				var twin struct {
					Reported struct{ State map[string]json.Number }
				}
				m.ask(http.MethodGet, "/api/v1/devices/d/twin", nil, http.StatusOK, &twin)
				if got := twin.Reported.State["round"]; got != json.Number(fmt.Sprint(i)) {
					t.Errorf("round %d: reported is %v", i, twin.Reported.State)
				}
			}
			m.stop()
		})
	}
}

// TestCommandsOfAnAbsentDeviceComeInOrderWithoutTheExpiredAndTheCancelled restarts the
// server between sending them and the device's coming.
func TestCommandsOfAnAbsentDeviceComeInOrderWithoutTheExpiredAndTheCancelled(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			token := m.device("d", "token").Token
			var want []string
			for i := range 20 {
				want = append(want, m.orders("d", fmt.Sprintf("m%d", i), 3600, fmt.Sprintf("key-%d", i)).ID)
			}
			off, short := m.orders("d", "off", 3600, ""), m.orders("d", "short", 1, "")
			m.ask(http.MethodPost, "/api/v1/devices/d/commands/"+off.ID+"/cancel", nil, http.StatusOK, nil)
			m.kill()
			m.start()
			m.ready()
			if again := m.orders("d", "m7", 3600, "key-7"); again.ID != want[7] {
				t.Errorf("the key makes command %s after the restart, want %s", again.ID, want[7])
			}
			m.await("the short command to expire", clientLimit, func() bool { return m.sent("d", short.ID).State == "expired" })
			want = append(want, m.orders("d", "last", 3600, "").ID)
			w := m.listens(t, token)
			defer w.Close()
			for _, id := range want {
				if got := w.publication(t); got.topic != "devices/me/commands/"+id {
					t.Fatalf("heard %s, want command %s", got.topic, id)
				}
			}
			if got := m.sent("d", off.ID); got.State != "cancelled" {
				t.Errorf("what was called off is %s", got.State)
			}
			m.stop()
		})
	}
}

// sent is a command as the API shows it.
type sent struct {
	ID, State string
	Result    json.RawMessage
}

func (m *muster) sent(device, id string) (c sent) {
	m.t.Helper()
	m.ask(http.MethodGet, "/api/v1/devices/"+device+"/commands/"+id, nil, http.StatusOK, &c)
	return c
}

func (m *muster) orders(device, method string, seconds int, key string) (c sent) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), requestLimit)
	defer cancel()
	text := fmt.Sprintf(`{"method":%q,"ttl_s":%d}`, method, seconds)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+"/api/v1/devices/"+device+"/commands", strings.NewReader(text))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		m.t.Fatalf("send %s: %v", method, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&c); err != nil || c.ID == "" {
		m.t.Fatalf("send %s: %d %v", method, resp.StatusCode, err)
	}
	return c
}

// listens connects a device that subscribes to its commands.
func (m *muster) listens(t *testing.T, token string) *wire {
	t.Helper()
	w, err := dialWire(t.Context(), m.mqtt, 4)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.connect("d", token, false); err != nil {
		t.Fatal(err)
	}
	if err := w.SetDeadline(time.Now().Add(2 * clientLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(w.subscribePacket(1, "devices/me/commands/+", 1)); err != nil {
		t.Fatal(err)
	}
	return w
}

// publication is the next PUBLISH, which it acknowledges.
func (w *wire) publication(t *testing.T) publication {
	t.Helper()
	for {
		head, body, err := w.packet()
		if err != nil {
			t.Fatalf("no command comes: %v", err)
		}
		if head>>4 != 3 {
			continue
		}
		p, err := w.parsePublish(head, body)
		if err == nil {
			_, err = w.Write(ack(pubackPacket, p.id))
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// acked publishes and waits for that PUBACK.
func (w *wire) acked(t *testing.T, id uint16, topic, payload string) {
	t.Helper()
	if _, err := w.Write(w.publishPacket(id, topic, payload, 1, false, false)); err != nil {
		t.Fatal(err)
	}
	for {
		head, body, err := w.packet()
		if err != nil {
			t.Fatalf("%s is not acknowledged: %v", topic, err)
		}
		if head == pubackPacket && body[0] == byte(id>>8) && body[1] == byte(id) {
			return
		}
	}
}

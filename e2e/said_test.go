package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// said returns one field of all that the API lists of a device's events or logs.
func (m *muster) said(id, what, field string) map[string]int {
	m.t.Helper()
	out := map[string]int{}
	cursor := ""
	for {
		var page struct {
			Items []map[string]any `json:"items"`
			Next  *string          `json:"next"`
		}
		m.ask("GET", "/api/v1/devices/"+id+"/"+what+"?limit=1000"+cursor, nil, 200, &page)
		for _, i := range page.Items {
			out[fmt.Sprint(i[field])]++
		}
		if page.Next == nil {
			return out
		}
		cursor = "&cursor=" + *page.Next
	}
}

// TestAckedEventsAndLogsAreKept has mosquitto_pub publish an event or a log line with
// QoS 1, which ends when it has its PUBACK, and kills the server that moment.
func TestAckedEventsAndLogsAreKept(t *testing.T) {
	t.Parallel()
	needs(t, "mosquitto_pub")
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			c := m.device("d", "token")
			rounds := kills(5)
			for i := range rounds {
				for what, payload := range map[string]string{"events/door": fmt.Sprintf(`{"round":%d}`, i), "logs": fmt.Sprintf(`{"level":"warn","msg":"round %d"}`, i)} {
					if r := m.mosquitto("mosquitto_pub", "-u", c.Token, "-q", "1", "-t", "devices/me/"+what, "-m", payload); r.code != 0 {
						t.Fatalf("mosquitto_pub: %s", r)
					}
				}
				m.kill()
				m.start()
				m.ready()
			}
			events, lines := m.said("d", "events", "payload"), m.said("d", "logs", "text")
			for i := range rounds {
				if n := events[fmt.Sprintf("map[round:%d]", i)]; n != 1 {
					t.Errorf("event %d is there %d times", i, n)
				}
				if n := lines[fmt.Sprintf("round %d", i)]; n != 1 {
					t.Errorf("line %d is there %d times", i, n)
				}
			}
			m.stop()
		})
	}
}

// TestAckedEventsSurviveAKillUnderLoad has 30 devices publish events as fast as they
// may, and kills the server among them: what was acked is there, and once.
func TestAckedEventsSurviveAKillUnderLoad(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			dice := seeded(t)
			args, _ := e.prepare(t)
			m := serve(t, args...)
			acked := 0
			for round := range kills(3) {
				var devices []*speaker
				for i := range 30 {
					id := fmt.Sprintf("r%d-%d", round, i)
					devices = append(devices, &speaker{id: id, token: m.device(id, "token").Token, count: 100})
				}
				var wg sync.WaitGroup
				for _, s := range devices {
					wg.Go(func() { s.speak(m.mqtt) })
				}
				m.await("the first ack", workLimit, func() bool { // else a machine that is busy has none before the kill
					return slices.ContainsFunc(devices, func(s *speaker) bool { return s.heard.Load() > 0 })
				})
				pause(t.Context(), time.Duration(dice.IntN(120))*time.Millisecond)
				m.kill()
				wg.Wait()
				m.start()
				m.ready()
				for _, s := range devices {
					have := m.said(s.id, "events", "payload")
					for _, n := range s.acked {
						if have[fmt.Sprint(n)] != 1 {
							t.Errorf("event %d of %s was acked and is there %d times", n, s.id, have[fmt.Sprint(n)])
						}
					}
					acked += len(s.acked)
				}
			}
			m.stop()
			if t.Logf("%d events were acked", acked); acked == 0 {
				t.Error("nothing was acked")
			}
		})
	}
}

// goneLimit is how long a speaker whose server is killed waits to publish.
const goneLimit = 5 * time.Second

// speaker is a device that publishes some events at once; 100 it may.
type speaker struct {
	id, token string
	count     int
	acked     []int
	heard     atomic.Int64 // acks, while it speaks
}

func (s *speaker) speak(addr string) {
	c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID(s.id).SetUsername(s.token).SetAutoReconnect(false).
		SetWriteTimeout(goneLimit)) // else Publish waits for 30 s when the connection is lost under it
	if tok := c.Connect(); !tok.WaitTimeout(clientLimit) || tok.Error() != nil {
		return
	}
	defer c.Disconnect(0)
	var tokens []paho3.Token
	for i := range s.count {
		tokens = append(tokens, c.Publish("devices/me/events/count", 1, false, fmt.Sprint(i)))
	}
	for i, tok := range tokens {
		if tok.WaitTimeout(clientLimit) && tok.Error() == nil {
			s.acked = append(s.acked, i)
			s.heard.Add(1)
		}
	}
}

// TestEventsOverTheRateAreSeenByTheOperator publishes 130 events at once.
func TestEventsOverTheRateAreSeenByTheOperator(t *testing.T) {
	t.Parallel()
	m := serve(t)
	s := &speaker{id: "d", token: m.device("d", "token").Token, count: 130}
	s.speak(m.mqtt)
	if len(s.acked) != s.count {
		t.Errorf("%d of %d are acked: 3.1.1 clients are not to send them again", len(s.acked), s.count)
	}
	kept := len(m.said("d", "events", "payload"))
	refused := m.awaitRejected("d", s.count-kept)
	if kept < 100 || kept+len(refused) != s.count {
		t.Errorf("%d events are kept and %d rejected", kept, len(refused))
	}
	for _, r := range refused {
		if r.Code != "rate" || r.Topic != "devices/d/events/count" || !strings.Contains(r.Reason, "10 events a second") {
			t.Errorf("rejected: %+v", r)
		}
	}
	m.stop()
}

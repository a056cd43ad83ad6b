//go:build linux

package bench

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const (
	viewers     = 500
	viewerRows  = 50
	viewerPairs = 5
	viewersFor  = 8 * time.Second
	viewersEach = 20                  // that one key may have open
	viewerStep  = fleetSize / viewers // devices from one viewer's page to the next one's
)

// BenchmarkTelemetryBesideViewers measures what 500 open dashboards cost those who send: the
// server's processor time for each message of 20,000 a second from 100,000 devices, and from
// PUBLISH to PUBACK, without and with viewers of 50 rows and of the fleet's figures, in turns.
// Clients, viewers and server share the cores.
func BenchmarkTelemetryBesideViewers(b *testing.B) {
	s, _ := startMuster(b, "", 0)
	logins, _ := s.importFleet()
	outlooks := s.outlooks()
	s.beside(logins, nil) // all that is made once
	for range b.N {
		fmt.Printf("\ntelemetry beside viewers: %d messages/s at QoS 1 of %d devices through %d gateways, %d viewers of %d rows, %d pairs of %s\n",
			readMessages, fleetSize, fleetGateways, viewers, viewerRows, viewerPairs, viewersFor)
		fmt.Printf("  %-12s %12s %12s %8s %12s %12s %8s %12s %9s\n", "", "us a message", "with viewers", "ratio", "PUBACK p99", "with viewers", "ratio", "messages/s", "rows/s")
		var costs, waits []float64
		for i := range viewerPairs {
			var without, with besideFigures
			if i%2 == 0 {
				without = s.beside(logins, nil)
			}
			with = s.beside(logins, outlooks)
			if i%2 == 1 {
				without = s.beside(logins, nil)
			}
			costs, waits = append(costs, with.cpu/without.cpu), append(waits, with.p99/without.p99)
			fmt.Printf("  %-12s %12.1f %12.1f %8.2f %12.2f %12.2f %8.2f %12.0f %9.0f\n", fmt.Sprint("pair ", i+1),
				without.cpu, with.cpu, with.cpu/without.cpu, without.p99, with.p99, with.p99/without.p99, with.frames, with.rows)
		}
		fmt.Printf("  %-58s %8.2f   %s\n", "processor for a message, with viewers of without, median", median(costs), atMost(median(costs), 1.10))
		fmt.Printf("  %-58s %8.2f   %s\n", "PUBACK p99, with viewers of without, median", median(waits), atMost(median(waits), 1.25))
		b.ReportMetric(median(costs), "cpu-ratio")
		b.ReportMetric(median(waits), "ack-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// besideFigures are microseconds of the server's processors for a message, p99 from PUBLISH to
// PUBACK in ms, and messages and changed rows a second to all viewers.
type besideFigures struct{ cpu, p99, frames, rows float64 }

// outlook is what a viewer comes with: a key, and the page of the list that he looks at.
type outlook struct{ key, after string }

// outlooks makes keys for all viewers, and finds a page for each.
func (s *server) outlooks() []outlook {
	s.b.Helper()
	all := make([]outlook, viewers)
	after := ""
	for i := range all {
		if all[i].after = after; i%viewersEach == 0 {
			var made struct{ Secret string }
			scopes := []string{"devices:read", "telemetry:read"}
			if err := s.must(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": fmt.Sprint("viewers ", i), "scopes": scopes}, &made, http.StatusCreated); err != nil {
				s.b.Fatal(err)
			}
			all[i].key = made.Secret
		} else {
			all[i].key = all[i-1].key
		}
		var page struct{ Next string }
		if err := s.must(http.MethodGet, fmt.Sprintf("/api/v1/devices?limit=%d&cursor=%s", viewerStep, url.QueryEscape(after)), nil, &page, http.StatusOK); err != nil {
			s.b.Fatal(err)
		}
		after = page.Next
	}
	return all
}

// beside has the gateways publish for a while with a viewer open on each of the outlooks.
func (s *server) beside(logins []login, outlooks []outlook) besideFigures {
	s.b.Helper()
	s.await("the viewers before to be gone", settleLimit, func() bool { return s.metric("muster_live_connections") == 0 })
	v := s.watch(outlooks)
	defer v.close()
	h := s.herd(logins)
	defer h.stop()
	s.await("the load to be steady", settleLimit, func() bool { return h.since() > viewersFor/4 })
	cpu, acked, frames, rows, began := s.cpu(), h.load.total(), v.frames.Load(), v.rows.Load(), time.Now()
	s.await("some seconds to pass", settleLimit, func() bool { return time.Since(began) > viewersFor })
	n, took := h.load.total()-acked, time.Since(began).Seconds()
	out := besideFigures{
		cpu: float64((s.cpu() - cpu).Microseconds()) / float64(n), frames: float64(v.frames.Load()-frames) / took, rows: float64(v.rows.Load()-rows) / took,
	}
	if n := s.metric("muster_ingest_rejected_total"); n > 0 {
		s.b.Fatalf("%d messages were rejected", n)
	}
	h.stop()
	out.p99 = ms(h.load.quantiles(0.99)[0])
	if n := v.lost.Load(); n > 0 {
		s.b.Errorf("%d viewers were lost", n)
	}
	return out
}

// onlookers is viewers, each read by a goroutine that close waits for.
type onlookers struct {
	conns  []*websocket.Conn
	frames atomic.Int64
	rows   atomic.Int64 // changes of rows that came in them
	over   atomic.Bool
	lost   atomic.Int64
	wg     sync.WaitGroup
}

// watch opens viewers, each of a page of its own.
func (s *server) watch(outlooks []outlook) *onlookers {
	s.b.Helper()
	a := &onlookers{conns: make([]*websocket.Conn, len(outlooks))}
	together(s.b, len(outlooks), func(i int) (err error) {
		a.conns[i], err = s.view(outlooks[i])
		return err
	})
	for _, c := range a.conns {
		a.wg.Go(func() { a.read(c) })
	}
	return a
}

func (s *server) view(at outlook) (*websocket.Conn, error) {
	d := websocket.Dialer{Subprotocols: []string{"muster.v1"}, HandshakeTimeout: helloLimit, ReadBufferSize: socketBuffer, WriteBufferSize: 512, EnableCompression: true} // as browsers do
	conn, res, err := d.Dial("ws://"+s.http+"/api/v1/live", nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	_ = res.Body.Close()
	hello := fmt.Sprintf(`[{"t":"hello","id":1,"token":%q},{"t":"sub","id":2,"ch":"fleet"},{"t":"sub","id":3,"ch":"devices","limit":%d,"after":%q}]`, at.key, viewerRows, at.after)
	if err := conn.WriteMessage(websocket.TextMessage, []byte(hello)); err != nil {
		return nil, fmt.Errorf("say hello: %w", err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(helloLimit)) // an error shows in the read
	for {
		_, data, err := conn.ReadMessage()
		switch {
		case err != nil:
			return nil, fmt.Errorf("wait for the devices: %w", err)
		case bytes.Contains(data, []byte(`"t":"error"`)):
			return nil, fmt.Errorf("the devices are refused: %.200s", data)
		case bytes.Contains(data, []byte(`"ch":"devices"`)):
			err := conn.SetReadDeadline(time.Time{})
			return conn, err
		}
	}
}

func (a *onlookers) read(c *websocket.Conn) {
	for {
		_, data, err := c.ReadMessage()
		if err != nil {
			if !a.over.Load() {
				a.lost.Add(1)
			}
			return
		}
		a.frames.Add(1)
		a.rows.Add(int64(bytes.Count(data, []byte(`"last_seen":`))))
	}
}

func (a *onlookers) close() {
	a.over.Store(true)
	for _, c := range a.conns {
		_ = c.Close() // what counts is that its reader ends
	}
	a.wg.Wait()
}

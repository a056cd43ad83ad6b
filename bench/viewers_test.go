//go:build linux

package bench

import (
	"bytes"
	"fmt"
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
)

// BenchmarkTelemetryBesideViewers measures what 500 open dashboards cost those who send: the
// server's processor time for each message of 20,000 a second from 100,000 devices, and from
// PUBLISH to PUBACK, without and with viewers of 50 rows and of the fleet's figures, in turns.
// Clients, viewers and server share the cores.
func BenchmarkTelemetryBesideViewers(b *testing.B) {
	s, _ := startMuster(b, "", 0)
	logins, _ := s.importFleet()
	s.beside(logins, 0) // all that is made once
	for range b.N {
		fmt.Printf("\ntelemetry beside viewers: %d messages/s at QoS 1 of %d devices through %d gateways, %d viewers of %d rows, %d pairs of %s\n",
			readMessages, fleetSize, fleetGateways, viewers, viewerRows, viewerPairs, viewersFor)
		fmt.Printf("  %-12s %12s %12s %8s %12s %12s %8s %14s\n", "", "us a message", "with viewers", "ratio", "PUBACK p99", "with viewers", "ratio", "frames/s")
		var costs, waits []float64
		for i := range viewerPairs {
			var without, with besideFigures
			if i%2 == 0 {
				without = s.beside(logins, 0)
			}
			with = s.beside(logins, viewers)
			if i%2 == 1 {
				without = s.beside(logins, 0)
			}
			costs, waits = append(costs, with.cpu/without.cpu), append(waits, with.p99/without.p99)
			fmt.Printf("  %-12s %12.1f %12.1f %8.2f %12.2f %12.2f %8.2f %14.0f\n", fmt.Sprint("pair ", i+1),
				without.cpu, with.cpu, with.cpu/without.cpu, without.p99, with.p99, with.p99/without.p99, with.frames)
		}
		fmt.Printf("  %-12s %34.2f %34.2f   goals <= 1.10 and <= 1.25\n", "medians", median(costs), median(waits))
		b.ReportMetric(median(costs), "cpu-ratio")
		b.ReportMetric(median(waits), "ack-ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// besideFigures are microseconds of the server's processors for a message, p99 from PUBLISH to
// PUBACK in ms, and frames a second to all viewers.
type besideFigures struct{ cpu, p99, frames float64 }

// beside has the gateways publish for a while with so many viewers open.
func (s *server) beside(logins []login, watchers int) besideFigures {
	s.b.Helper()
	v := s.watch(watchers)
	defer v.close()
	h := s.herd(logins)
	defer h.stop()
	s.await("the load to be steady", settleLimit, func() bool { return h.since() > viewersFor/4 })
	cpu, acked, frames, began := s.cpu(), h.load.total(), v.frames.Load(), time.Now()
	s.await("some seconds to pass", settleLimit, func() bool { return time.Since(began) > viewersFor })
	n, took := h.load.total()-acked, time.Since(began).Seconds()
	out := besideFigures{
		cpu: float64((s.cpu() - cpu).Microseconds()) / float64(n), frames: float64(v.frames.Load()-frames) / took,
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
	over   atomic.Bool
	lost   atomic.Int64
	wg     sync.WaitGroup
}

// watch opens so many viewers, each of a page of its own.
func (s *server) watch(n int) *onlookers {
	s.b.Helper()
	a := &onlookers{conns: make([]*websocket.Conn, n)}
	together(s.b, n, func(i int) (err error) {
		a.conns[i], err = s.view(i)
		return err
	})
	for _, c := range a.conns {
		a.wg.Go(func() { a.read(c) })
	}
	return a
}

func (s *server) view(i int) (*websocket.Conn, error) {
	d := websocket.Dialer{Subprotocols: []string{"muster.v1"}, HandshakeTimeout: helloLimit, ReadBufferSize: socketBuffer, WriteBufferSize: 512}
	conn, res, err := d.Dial("ws://"+s.http+"/api/v1/live", nil)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	_ = res.Body.Close()
	after := fmt.Sprintf("dev-%06d", i*(fleetSize-viewerRows-1)/viewers)
	hello := fmt.Sprintf(`[{"t":"hello","id":1,"token":%q},{"t":"sub","id":2,"ch":"fleet"},{"t":"sub","id":3,"ch":"devices","limit":%d,"after":%q}]`, s.key, viewerRows, after)
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
		if _, _, err := c.ReadMessage(); err != nil {
			if !a.over.Load() {
				a.lost.Add(1)
			}
			return
		}
		a.frames.Add(1)
	}
}

func (a *onlookers) close() {
	a.over.Store(true)
	for _, c := range a.conns {
		_ = c.Close() // what counts is that its reader ends
	}
	a.wg.Wait()
}

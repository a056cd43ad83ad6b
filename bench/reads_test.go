//go:build linux

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	readMessages = 20_000 // telemetry messages a second that come in meanwhile
	readBatch    = 8      // that a gateway sends at once, for as many of its devices
	readWindow   = 1000   // unacked messages of a gateway
	readRate     = 200    // requests a second, of each kind
	readWorkers  = 16     // requests at once
	readFor      = 20 * time.Second
	readWarm     = 5 * time.Second // of load before the first request

	// Which of its devices a gateway speaks for, one after the other: neighbours by id at other times.
	childStep, childShift = 101, 37
)

// BenchmarkReads measures how long GET /api/v1/devices/{id} and the latest values of a
// device take while 20,000 messages a second come in at QoS 1, for 100,000 devices behind
// 250 gateways. A request's time counts from when it was due, whether or not the ones
// before had been answered.
func BenchmarkReads(b *testing.B) {
	if _, err := program(); err != nil { // says what machine this is
		b.Fatal(err)
	}
	for range b.N {
		fmt.Printf("\nreads under load: %d devices, %d messages/s at QoS 1 through %d gateways, %d requests/s of each kind for %s\n",
			fleetSize, readMessages, fleetGateways, readRate, readFor)
		fmt.Printf("  %-44s %9s %9s %9s %9s   %s\n", "ms from when it was due", "p50", "p90", "p99", "max", "messages/s")
		onBoth(b, reads)
	}
	b.ReportMetric(0, "ns/op")
}

func reads(b *testing.B, name, database string) {
	b.Helper()
	s, _ := startMuster(b, database, 0)
	logins, _ := s.importFleet()
	first := s.gateways(logins)
	s.sayOnce(first)
	s.await("all devices to have values", settleLimit, func() bool {
		return s.metric("muster_ingest_received_total") == fleetSize && s.metric("muster_ingest_queued") == 0
	})
	for _, c := range first {
		c.Close()
	}
	s.timed(name+", at rest", readFor/4, nil)
	h := s.herd(logins)
	s.await("the load to be steady", settleLimit, func() bool { return h.since() > readWarm })
	cpu, own, waited := s.cpu(), ownCPU(b), s.waited()
	s.timed(name+", under load", readFor, h)
	fmt.Printf("  %-44s %9.2f processors, and its threads wait for one %.2f s a second; load and requests take %.2f; %d messages wait for the store\n", name+": the server takes",
		(s.cpu()-cpu).Seconds()/readFor.Seconds(), (s.waited()-waited).Seconds()/readFor.Seconds(), (ownCPU(b)-own).Seconds()/readFor.Seconds(),
		s.metric("muster_ingest_queued"))
	h.stop()
	ack := h.load.quantiles(0.5, 0.9, 0.99, 1)
	fmt.Printf("  %-44s %9.2f %9.2f %9.2f %9.2f\n", name+": from PUBLISH to PUBACK", ms(ack[0]), ms(ack[1]), ms(ack[2]), ms(ack[3]))
}

// waited returns for how long the server's threads could have run and had no processor, all
// together (proc(5), task/*/schedstat, second field, ns): on a machine that others use this
// is theirs.
func (s *server) waited() (sum time.Duration) {
	s.b.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", s.cmd.Process.Pid))
	if err != nil {
		s.b.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			sum += time.Duration(waited)
		}
	}
	return sum
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// herd is gateways that publish for their devices until stop.
type herd struct {
	load  *load
	began time.Time
	stop  func()
}

func (h *herd) since() time.Duration { return time.Since(h.began) }

// herd connects the gateways and has them publish.
func (s *server) herd(logins []login) *herd {
	s.b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &herd{load: &load{
		addr: s.mqtt, logins: logins, window: readWindow, payload: `{"temperature":77.77,"humidity":77.77}`,
		period: time.Second * fleetGateways / readMessages, acked: make([]counter, len(logins)), latency: make([][]int32, len(logins)),
	}}
	errs := make([]error, len(logins))
	conns := make([]*conn, len(logins))
	for i, who := range logins {
		c, err := h.load.connect(ctx, i, who)
		if err != nil {
			s.b.Fatalf("gateway %s: %v", who.id, err)
		}
		conns[i] = c
	}
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			defer c.Close()
			if err := c.speakForAll(ctx); err != nil && ctx.Err() == nil {
				errs[i] = fmt.Errorf("gateway %s: %w", logins[i].id, err)
			}
		})
	}
	h.began = time.Now()
	h.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			s.b.Error(err)
		}
	})
	s.b.Cleanup(h.stop)
	return h
}

// speakForAll publishes for one of the gateway's devices after the other, readBatch at a
// time, and reads acks as they come.
func (c *conn) speakForAll(ctx context.Context) error {
	end := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer end()
	if err := c.SetDeadline(time.Now().Add(2 * ackLimit)); err != nil {
		return err
	}
	const child = "dev-000000"
	c.prepare(child)
	digits := bytes.Index(c.packet, []byte(child)) + len("dev-")
	every := c.load.period * readBatch
	due := time.Now().Add(every * time.Duration(c.index) / fleetGateways)
	for ctx.Err() == nil {
		now := time.Now()
		for !due.After(now) && c.room() >= readBatch {
			for range readBatch {
				c.sent[(c.head+c.flying)%len(c.sent)] = now
				device := c.index + (c.made*childStep+c.index*childShift)%(fleetSize/fleetGateways)*fleetGateways
				c.add()
				copy(c.out[len(c.out)-len(c.packet)+digits:], fmt.Sprintf("%06d", device))
			}
			due = due.Add(every)
		}
		if err := c.flush(); err != nil {
			return err
		}
		if err := c.SetReadDeadline(due); err != nil {
			return err
		}
		if err := c.take(now); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
	return nil
}

// timed asks for devices and latest values at readRate each for a while, and prints how
// long the answers take. h is nil when nothing comes in meanwhile.
func (s *server) timed(what string, long time.Duration, h *herd) {
	s.b.Helper()
	kinds := []struct{ name, path string }{{"GET devices/{id}", "/api/v1/devices/dev-%06d"}, {"GET .../telemetry/latest", "/api/v1/devices/dev-%06d/telemetry/latest"}}
	n := int(long.Seconds()*readRate) * len(kinds)
	took := make([]time.Duration, n)
	errs := make([]error, readWorkers)
	web := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: readWorkers}}
	defer web.CloseIdleConnections()
	asked := make(chan int)
	var wg sync.WaitGroup
	began := time.Now()
	before := int64(0)
	if h != nil {
		before = h.load.total()
	}
	due := func(i int) time.Time { return began.Add(long * time.Duration(i) / time.Duration(n)) }
	for w := range readWorkers {
		wg.Go(func() {
			for i := range asked {
				at := fmt.Sprintf(kinds[i%len(kinds)].path, rand.IntN(fleetSize))
				if err := s.fetch(web, at); err != nil {
					errs[w] = err
				}
				took[i] = time.Since(due(i))
			}
		})
	}
	for i := range n {
		pause := time.NewTimer(time.Until(due(i)))
		<-pause.C
		asked <- i
	}
	close(asked)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.b.Fatal(err)
	}
	rate := "none"
	if h != nil {
		rate = strconv.FormatInt(int64(float64(h.load.total()-before)/time.Since(began).Seconds()), 10)
	}
	for k, kind := range kinds {
		var own []time.Duration
		for i := k; i < n; i += len(kinds) {
			own = append(own, took[i])
		}
		slices.Sort(own)
		at := func(q float64) float64 { return ms(own[min(int(q*float64(len(own))), len(own)-1)]) }
		fmt.Printf("  %-44s %9.2f %9.2f %9.2f %9.2f   %s\n", what+", "+kind.name, at(0.5), at(0.9), at(0.99), at(1), rate)
	}
}

// fetch asks for a path and wants 200.
func (s *server) fetch(web *http.Client, path string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+s.http+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s gives %d %.200s", path, res.StatusCode, text)
	}
	return err
}

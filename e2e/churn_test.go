package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	churners    = 40
	churnIDs    = 60 // fewer than what comes and goes: takeovers
	churnUsual  = 10 * time.Second
	churnSoak   = 10 * time.Minute
	settleLimit = 90 * time.Second
)

// churnTime is how long the churn lasts: MUSTER_CHURN, or ten minutes in a soak.
func churnTime(t *testing.T) time.Duration {
	t.Helper()
	if text := os.Getenv("MUSTER_CHURN"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("MUSTER_CHURN: %v", err)
		}
		return d
	}
	if os.Getenv("MUSTER_SOAK") == "1" {
		return churnSoak
	}
	return churnUsual
}

// TestChurnLeavesNothingBehind has clients come and go in every way there is. When
// they are gone, so are their goroutines, descriptors and memory.
func TestChurnLeavesNothingBehind(t *testing.T) {
	t.Parallel() // it waits most of the time for ids that were fought over
	m := serveWatched(t, roadArgs(t)...)
	var tlsRoad *road
	for _, r := range roads(t, m) {
		if r.tls != nil {
			tlsRoad = &r
		}
	}
	ch := &churn{m: m, secure: tlsRoad, done: make([]atomic.Int64, len(acts()))}
	ch.run(t.Context(), 2*time.Second) // caches and pools fill once
	ch.clean(t)
	before := m.weigh()
	lasts := churnTime(t)
	ch.run(t.Context(), lasts)
	ch.clean(t)
	t.Logf("%s of %s", lasts, ch)
	t.Logf("before: %+v", before)
	var after weight
	defer func() { t.Logf("after:  %+v", after) }()
	await(t, "goroutines, descriptors and heap to be as before", settleLimit, func() bool {
		after = m.weigh()
		return after.goroutines <= before.goroutines+10 && after.descriptors <= before.descriptors+10 &&
			after.heap <= before.heap+before.heap/2+16<<20 && after.connections == 0
	})
	for i, a := range acts() {
		if ch.done[i].Load() == 0 && (!a.secure || tlsRoad != nil) {
			t.Errorf("nobody has ever %s", a.what)
		}
	}
}

// weight is what a server holds.
type weight struct{ goroutines, descriptors, heap, connections int64 }

func (m *muster) weigh() weight {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	status, body, err := get(ctx, "http://"+m.http+"/metrics", "")
	if err != nil || status != 200 {
		m.t.Fatalf("/metrics: status %d, %v", status, err)
	}
	var w weight
	want := map[string]*int64{
		"go_goroutines": &w.goroutines, "process_open_fds": &w.descriptors,
		"go_memstats_heap_alloc_bytes": &w.heap, "muster_mqtt_connections": &w.connections,
	}
	for line := range strings.Lines(string(body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		labelled, _, _ := strings.Cut(name, "{")
		into, ok := want[labelled]
		if !ok {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			m.t.Fatalf("metric %s: %v", name, err)
		}
		*into += int64(f)
		delete(want, name) // one with labels is a sum
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !strings.Contains(string(body), "\n"+name+"{") {
			m.t.Fatalf("/metrics has no %s", name)
		}
	}
	return w
}

// churn is clients that come and go.
type churn struct {
	m      *muster
	secure *road
	done   []atomic.Int64 // by act
}

func (c *churn) String() string {
	var b strings.Builder
	for i, a := range acts() {
		fmt.Fprintf(&b, "%d %s, ", c.done[i].Load(), a.what)
	}
	return strings.TrimSuffix(b.String(), ", ")
}

// run lets many act at random until the time is over.
func (c *churn) run(ctx context.Context, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, lasts)
	defer cancel()
	var wg sync.WaitGroup
	all := acts()
	for range churners {
		wg.Go(func() {
			for pause(ctx, rand.N(20*time.Millisecond)) {
				i := rand.IntN(len(all))
				if all[i].secure && c.secure == nil {
					continue
				}
				if err := all[i].do(ctx, c); err == nil {
					c.done[i].Add(1)
				}
			}
		})
	}
	wg.Wait()
}

// clean ends every session that the churn may have left.
func (c *churn) clean(t *testing.T) {
	t.Helper()
	for i := range churnIDs {
		// An id that was fought over a moment ago has to wait up to 30 s.
		await(t, "a clean session of "+churnID(i), settleLimit, func() bool {
			w, err := dialWire(t.Context(), c.m.mqtt, 4)
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if _, err := w.connect(churnID(i), c.m.key, false); err != nil {
				return false
			}
			_, err = w.Write([]byte{disconnectPacket, 0})
			return err == nil
		})
	}
}

func churnID(i int) string { return "churn-" + strconv.Itoa(i) }

// act is one way to come and go.
type act struct {
	what   string
	secure bool // needs TLS
	do     func(ctx context.Context, c *churn) error
}

func acts() []act {
	return []act{
		{"published and left", false, func(ctx context.Context, c *churn) error { return c.visit(ctx, true) }},
		{"vanished with messages on their way", false, func(ctx context.Context, c *churn) error { return c.visit(ctx, false) }},
		{"connected and said nothing", false, halfOpen},
		{"sent half a CONNECT", false, halfConnect},
		{"sent what is no MQTT", false, nonsense},
		{"logged in wrongly", false, wrongLogin},
		{"came over WebSocket", false, overWS},
		{"came over TLS", true, overTLS},
		{"left in the middle of a TLS handshake", true, halfTLS},
	}
}

// visit connects under an id that another may hold, subscribes, publishes at every
// QoS, reads some of what comes, and leaves or vanishes.
func (c *churn) visit(ctx context.Context, politely bool) error {
	w, err := dialWire(ctx, c.m.mqtt, byte(4+rand.IntN(2)))
	if err != nil {
		return err
	}
	defer w.Close()
	return c.talk(w, politely)
}

func (c *churn) talk(w *wire, politely bool) error {
	if _, err := w.connect(churnID(rand.IntN(churnIDs)), c.m.key, rand.IntN(2) == 0); err != nil {
		return err
	}
	out := w.subscribePacket(1, "churn/"+strconv.Itoa(rand.IntN(10))+"/+", byte(rand.IntN(3)))
	for i := range 10 {
		qos := byte(rand.IntN(3))
		out = append(out, w.publishPacket(uint16(i+2), fmt.Sprintf("churn/%d/x", rand.IntN(10)), "a message of the churn", qos, false, rand.IntN(10) == 0)...)
	}
	if _, err := w.Write(out); err != nil {
		return err
	}
	if err := w.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	for range 1 + rand.IntN(20) {
		head, body, err := w.packet()
		if err != nil {
			return err
		}
		if head == pubrecPacket && rand.IntN(2) == 0 {
			if _, err := w.Write(ack(pubrelPacket, uint16(body[0])<<8|uint16(body[1]))); err != nil {
				return err
			}
		}
	}
	if !politely {
		if tcp, ok := w.Conn.(*net.TCPConn); ok && rand.IntN(2) == 0 {
			return tcp.SetLinger(0) // a reset
		}
		return nil
	}
	_, err := w.Write([]byte{disconnectPacket, 0})
	return err
}

// raw connects, writes some bytes and waits a moment for the answer, if any.
func (c *churn) raw(ctx context.Context, addr string, b []byte) error {
	w, err := dialWire(ctx, addr, 4)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := w.SetDeadline(time.Now().Add(rand.N(500 * time.Millisecond))); err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	_, _, _ = w.packet() // whether it answers, hangs up or waits is its affair
	return nil
}

func halfOpen(ctx context.Context, c *churn) error { return c.raw(ctx, c.m.mqtt, nil) }

func halfConnect(ctx context.Context, c *churn) error {
	return c.raw(ctx, c.m.mqtt, []byte{0x10, 40, 0, 4, 'M', 'Q'})
}

func nonsense(ctx context.Context, c *churn) error {
	return c.raw(ctx, c.m.mqtt, []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
}

func wrongLogin(ctx context.Context, c *churn) error {
	w, err := dialWire(ctx, c.m.mqtt, 5)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err = w.connect("churn-nobody", "no-such-token-at-all-here", false); !errors.Is(err, errRefused) {
		return fmt.Errorf("not refused: %w", err)
	}
	return nil
}

func overWS(_ context.Context, c *churn) error {
	for _, r := range roads(c.m.t, c.m) {
		if r.name == "WebSocket" {
			return c.over(r)
		}
	}
	return errors.New("no road")
}

func overTLS(_ context.Context, c *churn) error { return c.over(*c.secure) }

func (c *churn) over(r road) error {
	conn, err := r.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	return c.talk(newWire(conn, 4), rand.IntN(2) == 0)
}

func halfTLS(ctx context.Context, c *churn) error {
	return c.raw(ctx, c.secure.address, []byte{22, 3, 1, 0, 200, 1, 0, byte(tls.VersionTLS12 & 0xff)})
}

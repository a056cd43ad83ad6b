//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

const (
	genericTopic = "bench/deliveries"
	small        = `{"ts":1700000000000000,"v":77.77,"what":"64 bytes for everyone"}` // 64 bytes

	fanSubscribers = 1000
	fanWindow      = 10 // messages under way to all subscribers
	floodClients   = 100
	floodEach      = 4000
	silenceLimit   = 3 * time.Second
)

// BenchmarkOneSubscriber measures what reaches one subscriber of what 100
// publishers send.
func BenchmarkOneSubscriber(b *testing.B) {
	const clients = 100
	muster, _ := startMuster(b, "", 0)
	mosquitto, _ := startMosquitto(b, 0)
	for range b.N {
		fmt.Printf("\n%d publishers x window 20, 64 B, one topic, to one subscriber, median of %d rounds of %s\n", clients, rounds, measured)
		fmt.Printf("%-8s %14s %14s %8s   %s\n", "", "muster", "mosquitto", "ratio", "delivered of what was acked or written: muster, mosquitto")
		for qos := range byte(2) {
			var ours, theirs, share, others []float64
			for range rounds {
				rate, part := through(b, muster, clients, qos)
				ours, share = append(ours, rate), append(share, part)
				rate, part = through(b, mosquitto, clients, qos)
				theirs, others = append(theirs, rate), append(others, part)
			}
			ratio := median(ours) / median(theirs)
			fmt.Printf("QoS %d    %14.0f %14.0f %8.2f   %.1f %%, %.1f %%\n", qos, median(ours), median(theirs), ratio, median(share), median(others))
			b.ReportMetric(ratio, fmt.Sprintf("ratio-qos%d", qos))
		}
		fmt.Println("goal: ratio >= 1.0")
	}
	b.ReportMetric(0, "ns/op")
}

// through floods one subscriber and returns deliveries a second, once warm, and
// what per cent had been delivered when nothing more came.
func through(b *testing.B, s *server, clients int, qos byte) (rate, share float64) {
	b.Helper()
	sub := s.subscribers(1, qos)
	defer sub.end()
	l := load{addr: s.mqtt, window: 20, payload: small, topic: genericTopic, qos0: qos == 0, logins: s.publishers(clients)}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var before, after int64
	var lasted time.Duration
	err := l.run(ctx, func() {
		go func() { // ends with ctx, and run waits for ctx
			defer cancel()
			wait(ctx, warmUp)
			began := time.Now()
			before = sub.deliveries.Load()
			wait(ctx, measured)
			after, lasted = sub.deliveries.Load(), time.Since(began)
		}()
	})
	if err != nil {
		b.Errorf("%s: %v", s.name, err)
		return 0, 0
	}
	<-ctx.Done()
	sub.settle(l.total())
	return float64(after-before) / lasted.Seconds(), 100 * float64(sub.deliveries.Load()) / float64(max(l.total(), 1))
}

// publishers returns logins of the administrator under different client ids.
func (s *server) publishers(n int) []login {
	logins := make([]login, n)
	for i := range logins {
		logins[i] = s.admin
		logins[i].id = fmt.Sprintf("publisher-%03d", i)
	}
	return logins
}

// audience is a crowd of subscribers that runs on a goroutine of its own.
type audience struct {
	*crowd
	b     *testing.B
	over  atomic.Bool
	ended chan error
}

// subscribers connects n subscribers of the generic topic.
func (s *server) subscribers(n int, qos byte) *audience {
	s.b.Helper()
	all := make([]*member, n)
	for i := range all {
		all[i] = &member{login: s.admin, version: 4, clean: true, filters: []string{genericTopic}, qos: qos, keepAlive: 300}
		all[i].id = fmt.Sprintf("subscriber-%04d", i)
	}
	a := &audience{crowd: newCrowd(s.b, s.mqtt, all), b: s.b, ended: make(chan error, 1)}
	a.keep = true
	a.connectAll()
	if err := a.run(connectLimit, a.all); err != nil {
		s.b.Fatalf("%s: %v", s.name, err)
	}
	a.keep = false
	go func() { a.ended <- a.run(time.Hour, a.over.Load) }() // end waits for it
	return a
}

// settle waits until so many deliveries have come, or none comes any more.
func (a *audience) settle(want int64) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	last, since := a.deliveries.Load(), time.Now()
	for last < want && time.Since(since) < silenceLimit {
		<-tick.C
		if now := a.deliveries.Load(); now != last {
			last, since = now, time.Now()
		}
	}
}

// end disconnects the audience.
func (a *audience) end() {
	a.b.Helper()
	a.over.Store(true)
	if err := <-a.ended; err != nil {
		a.b.Errorf("subscribers: %v", err)
	}
	if n := a.lost.Load(); n > 0 {
		fmt.Printf("  %d of %d subscribers were cut off\n", n, len(a.members))
	}
	for _, m := range a.members {
		if m.fd >= 0 {
			a.write(m, []byte{0xe0, 0})
		}
	}
	a.closeAll()
}

// BenchmarkFanOut measures deliveries of one topic to 1,000 subscribers. The
// publisher keeps 10 messages under way to all of them, so that neither server
// comes to drop any.
func BenchmarkFanOut(b *testing.B) {
	muster, _ := startMuster(b, "", 0)
	mosquitto, _ := startMosquitto(b, 0)
	for range b.N {
		fmt.Printf("\none topic, 64 B, to %d subscribers, %d messages under way, median of %d rounds of %s\n", fanSubscribers, fanWindow, rounds, measured)
		fmt.Printf("%-8s %14s %14s %8s\n", "", "muster", "mosquitto", "ratio")
		for qos := range byte(2) {
			var ours, theirs []float64
			for range rounds {
				ours = append(ours, fanOut(b, muster, qos))
				theirs = append(theirs, fanOut(b, mosquitto, qos))
			}
			ratio := median(ours) / median(theirs)
			fmt.Printf("QoS %d    %14.0f %14.0f %8.2f\n", qos, median(ours), median(theirs), ratio)
			b.ReportMetric(ratio, fmt.Sprintf("ratio-qos%d", qos))
		}
		fmt.Println("goal: ratio >= 1.0, deliveries/s")
	}
	b.ReportMetric(0, "ns/op")
}

// fanOut returns deliveries a second.
func fanOut(b *testing.B, s *server, qos byte) float64 {
	b.Helper()
	sub := s.subscribers(fanSubscribers, qos)
	defer sub.end()
	l := &load{addr: s.mqtt, window: 2 * fanWindow, payload: small, topic: genericTopic, qos0: qos == 0}
	c, err := l.connect(b.Context(), 0, s.publishers(1)[0])
	if err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	defer c.Close()
	l.acked = make([]counter, 1)
	began := time.Now()
	var from time.Time
	var before int64
	progress, seen := began, int64(0)
	for time.Since(began) < warmUp+measured {
		if from.IsZero() && time.Since(began) > warmUp {
			from, before = time.Now(), sub.deliveries.Load()
		}
		got := sub.deliveries.Load()
		if got != seen {
			progress, seen = time.Now(), got
		}
		if time.Since(progress) > silenceLimit {
			b.Errorf("%s: of %d messages to %d subscribers at QoS %d, %d deliveries came and then none", s.name, c.made, fanSubscribers, qos, got)
			break
		}
		room := fanWindow - (c.made - int(got/fanSubscribers))
		if qos == 1 {
			room = min(room, c.room())
		}
		for range room {
			c.add()
		}
		if err := errors.Join(c.flush(), c.pollAcks()); err != nil {
			b.Fatalf("%s: %v", s.name, err)
		}
	}
	return float64(sub.deliveries.Load()-before) / time.Since(from).Seconds()
}

// pollAcks takes the acks that are there, and waits a moment for them.
func (c *conn) pollAcks() error {
	const moment = 200 * time.Microsecond
	if err := c.SetReadDeadline(time.Now().Add(moment)); err != nil {
		return err
	}
	err := c.take(time.Time{})
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return nil
	}
	return err
}

// BenchmarkFlood sends a fixed number of messages at QoS 0, as fast as the server
// reads, to one reader that keeps up: what the server accepted must arrive.
func BenchmarkFlood(b *testing.B) {
	muster, _ := startMuster(b, "", 0)
	mosquitto, _ := startMosquitto(b, 0)
	for range b.N {
		fmt.Printf("\nQoS 0 flood: %d publishers x %d messages of 64 B to one reader\n", floodClients, floodEach)
		share := flood(b, muster)
		flood(b, mosquitto)
		fmt.Println("goal: 100 % of what was accepted")
		b.ReportMetric(share, "%-of-accepted")
	}
	b.ReportMetric(0, "ns/op")
}

// flood returns what per cent of the accepted messages arrived; Mosquitto says
// nothing of what it accepted, so that what was written stands for it.
func flood(b *testing.B, s *server) float64 {
	b.Helper()
	const received = `muster_mqtt_messages_received_total{qos="0"}`
	sub := s.subscribers(1, 0)
	defer sub.end()
	sent := int64(floodClients * floodEach)
	accepted := sent
	var before int64
	if s.http != "" {
		before = s.metric(received)
	}
	l := load{addr: s.mqtt, window: 20, limit: floodEach, payload: small, topic: genericTopic, qos0: true, logins: s.publishers(floodClients)}
	var began time.Time
	l.after = func() { sub.settle(sent) }
	if err := l.run(b.Context(), func() { began = time.Now() }); err != nil {
		b.Errorf("%s: %v", s.name, err)
	}
	got := sub.deliveries.Load()
	took := time.Since(began)
	if s.http != "" {
		accepted = s.metric(received) - before
	}
	share := 100 * float64(got) / float64(max(accepted, 1))
	fmt.Printf("%-10s sent %d, accepted %d, delivered %d: %.2f %% of what was accepted, in %.1f s\n", s.name, sent, accepted, got, share, took.Seconds())
	return share
}

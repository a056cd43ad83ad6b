//go:build linux

package bench

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const (
	defaultConnections = 15_000 // descriptors end at 20,000 on many machines
	storms             = 3
	connectLimit       = 3 * time.Minute
	drained            = 10_000 // connections that a stop is measured with
	shuttingDown       = 0x8b   // MQTT 5: server shutting down
)

// BenchmarkConnections holds many authenticated, subscribed, persistent connections
// and measures how fast they come, what they cost while they are idle, how they
// come back after a crash, and how they are sent away.
func BenchmarkConnections(b *testing.B) {
	n := connections(b)
	for range b.N {
		muster, logins := startMuster(b, "", n)
		mosquitto, others := startMosquitto(b, n)
		fmt.Printf("\n%d connections: own credentials each, clean session off, three subscriptions, keep-alive 300 s, %d storms\n", n, storms)
		muster.again() // what it took to make the devices is not the connections'
		ours := idle(b, muster, logins)
		theirs := idle(b, mosquitto, others)
		fmt.Printf("%-40s %12s %12s %8s\n", "", "muster", "mosquitto", "ratio")
		compareLine := func(what string, a, t float64) {
			fmt.Printf("%-40s %12.0f %12.0f %8.2f\n", what, a, t, a/t)
		}
		compareLine("first connects, to SUBACK, a second", ours.rates[0], theirs.rates[0])
		compareLine("storms, to SUBACK, a second (median)", median(ours.rates[1:]), median(theirs.rates[1:]))
		compareLine("bytes a connection after 5 s", ours.each, theirs.each)
		compareLine("bytes a connection after 60 s", ours.settled, theirs.settled)
		fmt.Println("goals: connects >= 0.5 of mosquitto's; 8192 bytes")
		b.ReportMetric(ours.each, "B/connection")
		b.ReportMetric(median(ours.rates[1:])/median(theirs.rates[1:]), "ratio-connects")
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAccept measures connections a second up to CONNACK, one client after
// another until all are there, without subscriptions.
func BenchmarkAccept(b *testing.B) {
	const clients = 5000
	muster, logins := startMuster(b, "", clients)
	mosquitto, others := startMosquitto(b, clients)
	for range b.N {
		fmt.Printf("\nconnections/s to CONNACK, %d clients, authenticated, clean sessions, median of %d rounds\n", clients, rounds)
		var ours, theirs []float64
		for range rounds {
			ours = append(ours, arrivals(b, muster, logins))
			theirs = append(theirs, arrivals(b, mosquitto, others))
		}
		ratio := median(ours) / median(theirs)
		fmt.Printf("muster %.0f, mosquitto %.0f, ratio %.2f\ngoal: ratio >= 0.5\n", median(ours), median(theirs), ratio)
		b.ReportMetric(ratio, "ratio")
	}
	b.ReportMetric(0, "ns/op")
}

// arrivals connects a crowd and returns its connections a second.
func arrivals(b *testing.B, s *server, logins []login) float64 {
	b.Helper()
	c := newCrowd(b, s.mqtt, clients(logins, 4, nil))
	c.keep = true
	rate := c.assemble(b, s.name)
	for _, m := range c.members { // politely, else the next round takes over what is about to be noticed
		c.write(m, []byte{0xe0, 0})
	}
	c.closeAll()
	return rate
}

// assemble has the whole crowd connect and returns how many did in a second.
func (c *crowd) assemble(b *testing.B, name string) float64 {
	b.Helper()
	began := time.Now()
	lost, refused := c.lost.Load(), c.refused.Load()
	c.connectAll()
	if err := c.run(connectLimit, c.all); err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	if l, r := c.lost.Load()-lost, c.refused.Load()-refused; l+r > 0 {
		fmt.Printf("  %s: %d connections were cut and %d refused before all were there\n", name, l, r)
	}
	return float64(len(c.members)) / time.Since(began).Seconds()
}

// clients makes the members of a crowd; with own topics their sessions are kept.
func clients(logins []login, version byte, own []string) []*member {
	all := make([]*member, len(logins))
	for i, l := range logins {
		m := &member{login: l, version: version, clean: own == nil, qos: 1, keepAlive: 300}
		for _, topic := range own {
			m.filters = append(m.filters, "devices/"+l.id+"/"+topic)
		}
		all[i] = m
	}
	return all
}

// ownTopics are what a device subscribes to.
func ownTopics() []string { return []string{"desired", "commands/+", "errors"} }

type idleFigures struct {
	rates         []float64 // connects a second: the first, then each storm
	each, settled float64   // bytes a connection
}

// idle fills a server with connections, lets all come again in storms, and weighs
// it when they are quiet.
func idle(b *testing.B, s *server, logins []login) idleFigures {
	b.Helper()
	c := newCrowd(b, s.mqtt, clients(logins, 4, ownTopics()))
	c.keep = true
	before := s.quiet(c, 5*time.Second)
	var f idleFigures
	f.rates = append(f.rates, c.assemble(b, s.name))
	s.say("first fill", c, before)
	for range storms {
		c.closeAll()
		f.rates = append(f.rates, c.assemble(b, s.name))
	}
	f.each = float64(s.quiet(c, 5*time.Second)-before) / float64(len(logins))
	s.say("after the storms", c, before)
	f.settled = float64(s.quiet(c, 55*time.Second)-before) / float64(len(logins))
	s.say("a minute later", c, before)
	if !c.all() {
		b.Errorf("%s: only %d of %d connections are still there", s.name, c.ready.Load(), len(c.members))
	}
	c.closeAll()
	return f
}

// quiet drives the crowd for some time without doing anything, and weighs the server.
func (s *server) quiet(c *crowd, d time.Duration) int64 {
	s.b.Helper()
	end := time.Now().Add(d)
	if err := c.run(2*d, func() bool { return !time.Now().Before(end) }); err != nil {
		s.b.Fatalf("%s: %v", s.name, err)
	}
	return s.memory()
}

// say prints what a server holds.
func (s *server) say(when string, c *crowd, before int64) {
	s.b.Helper()
	per := func(bytes int64) float64 { return float64(bytes) / 1024 / float64(len(c.members)) }
	now := s.memory()
	fmt.Printf("  %-10s %-17s RSS %4d MB, of which before %4d; %6.2f KB a connection", s.name, when, now>>20, before>>20, per(now-before))
	if s.http != "" {
		fmt.Printf("; heap in use %.2f, idle %.2f, stacks %.2f KB a connection; %d goroutines, %d connections",
			per(s.metric("go_memstats_heap_inuse_bytes")),
			per(s.metric("go_memstats_heap_idle_bytes")-s.metric("go_memstats_heap_released_bytes")),
			per(s.metric("go_memstats_stack_inuse_bytes")), s.metric("go_goroutines"), s.metric("muster_mqtt_connections"))
	}
	fmt.Println()
}

// again stops a server politely and starts it.
func (s *server) again() {
	s.b.Helper()
	s.stop()
	s.start()
}

// connections is how many a benchmark holds: MUSTER_BENCH_CONNECTIONS, or 15,000,
// and never more than there are descriptors for.
func connections(b *testing.B) int {
	b.Helper()
	n := defaultConnections
	if text := os.Getenv("MUSTER_BENCH_CONNECTIONS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			b.Fatalf("MUSTER_BENCH_CONNECTIONS is %q", text)
		}
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatalf("read the limit of descriptors: %v", err)
	}
	return min(n, int(limit.Cur)*4/5)
}

// BenchmarkStorm kills the server under all its connections, starts it and measures
// how long it takes until they are back.
func BenchmarkStorm(b *testing.B) {
	n := connections(b)
	muster, logins := startMuster(b, "", n)
	mosquitto, others := startMosquitto(b, n)
	for range b.N {
		fmt.Printf("\n%d clients after kill -9 and a start, each trying again at once and then every 100 to 500 ms\n", n)
		ours := storm(b, muster, logins)
		theirs := storm(b, mosquitto, others)
		fmt.Printf("ratio of rates %.2f\n", theirs.Seconds()/ours.Seconds())
		b.ReportMetric(ours.Seconds(), "s-to-99%")
	}
	b.ReportMetric(0, "ns/op")
}

// storm returns how long it takes from the moment a server listens again until 99 %
// of its clients are connected and subscribed.
func storm(b *testing.B, s *server, logins []login) time.Duration {
	b.Helper()
	c := newCrowd(b, s.mqtt, clients(logins, 4, ownTopics()))
	c.keep = true
	c.assemble(b, s.name)
	s.kill()
	if err := c.run(connectLimit, func() bool { return c.ready.Load() == 0 }); err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	down := time.Now()
	lost, refused := c.lost.Load(), c.refused.Load()
	started := make(chan time.Time, 1)
	go func() { s.start(); started <- time.Now() }() // received from below
	var up time.Time
	most := func() bool { return c.ready.Load() >= int64(len(logins)*99/100) }
	if err := c.run(connectLimit, func() bool {
		select {
		case up = <-started:
		default:
		}
		return !up.IsZero() && most()
	}); err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	took := time.Since(up)
	sinceKill := time.Since(down)
	fmt.Printf("%-10s ready %.1f s after the kill; 99 %% back %.1f s after that; %.1f s in all; %d connections cut, %d refused on the way\n",
		s.name, up.Sub(down).Seconds(), took.Seconds(), sinceKill.Seconds(), c.lost.Load()-lost, c.refused.Load()-refused)
	c.keep = false
	c.closeAll()
	return sinceKill
}

// BenchmarkDrain stops the server politely under 10,000 connections, half of them
// of MQTT 5, and measures how long it takes and who is told why.
func BenchmarkDrain(b *testing.B) {
	n := min(drained, connections(b))
	for range b.N {
		fmt.Printf("\nSIGTERM with %d connections, half of them MQTT 5\n", n)
		muster, logins := startMuster(b, "", n)
		b.ReportMetric(drain(b, muster, logins).Seconds(), "s-drain")
		mosquitto, others := startMosquitto(b, n)
		drain(b, mosquitto, others)
	}
	b.ReportMetric(0, "ns/op")
}

func drain(b *testing.B, s *server, logins []login) time.Duration {
	b.Helper()
	all := clients(logins, 4, ownTopics())
	for _, m := range all[len(all)/2:] {
		m.version = 5
	}
	c := newCrowd(b, s.mqtt, all)
	c.keep = true
	c.assemble(b, s.name)
	c.keep = false
	before := c.lost.Load()
	began := time.Now()
	stopped := make(chan time.Time, 1)
	go func() { s.stop(); stopped <- time.Now() }() // received from below
	var end time.Time
	if err := c.run(stopLimit, func() bool {
		select {
		case end = <-stopped:
		default:
		}
		return !end.IsZero() && c.ready.Load() == 0
	}); err != nil {
		b.Fatalf("%s: %v", s.name, err)
	}
	var other int64
	for code := range c.byes {
		if code != shuttingDown {
			other += c.byes[code].Load()
		}
	}
	fmt.Printf("%-10s gone after %.2f s; %d of %d MQTT 5 clients were told 0x8b, %d something else; %d connections closed\n",
		s.name, end.Sub(began).Seconds(), c.byes[shuttingDown].Load(), len(all)-len(all)/2, other, c.lost.Load()-before)
	return end.Sub(began)
}

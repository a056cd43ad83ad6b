package live_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster"
	"muster/dashboard/live"
	"muster/notify"
)

func BenchmarkObserveNobodyWatches(b *testing.B) {
	s := newSite(b, newWorld(1), live.Config{})
	defer s.close()
	rs := s.w.say("dev-000", number("temp", 1))
	b.ReportAllocs()
	for b.Loop() {
		s.g.Observe(rs)
	}
}

func BenchmarkObserveWatched(b *testing.B) {
	s := newSite(b, newWorld(50), live.Config{})
	defer s.close()
	p := s.browser("ann")
	defer p.conn.Close()
	p.send(`{"t":"sub","id":2,"ch":"devices"}`)
	p.expect("snapshot")
	var rs []muster.Reading
	for i := range 50 {
		rs = append(rs, s.w.say(deviceName(i), number("temp", 1))...)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.g.Observe(rs)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rs)), "ns/reading")
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const (
	benchViewers = 100
	benchRows    = 50
	benchRate    = 1000 // updates a second
)

// BenchmarkConflation compares the processor time of a second of 1,000 updates to
// 50 rows, each watched by 100 viewers, with that of a frame for each update and
// viewer over the same kind of sockets (whose readers are in it on both sides).
func BenchmarkConflation(b *testing.B) {
	s := newSite(b, newWorld(benchRows), live.Config{MaxPerUser: benchViewers})
	defer s.close()
	var readers sync.WaitGroup
	var conns []*websocket.Conn
	for i := range benchViewers {
		p := s.browser(fmt.Sprint("u", i))
		p.send(`{"t":"sub","id":2,"ch":"devices"}`)
		p.expect("snapshot")
		conns = append(conns, p.conn)
		readers.Go(func() { _, _ = io.Copy(io.Discard, p.conn.NetConn()) })
	}
	naive := newNaive(b, benchViewers)
	var ours, theirs time.Duration
	for b.Loop() {
		start := cpuTime()
		s.updatesForOneSecond()
		middle := cpuTime()
		for i := range benchRate {
			naive.publish(s.w.say(deviceName(i%benchRows), number("temp", float64(i))))
		}
		ours, theirs = ours+middle-start, theirs+cpuTime()-middle
	}
	b.Logf("%-58s %8.3f   %s", fmt.Sprintf("processor for %d updates/s to %d viewers, of a frame for each", benchRate, benchViewers),
		float64(ours)/float64(theirs), atMost(float64(ours)/float64(theirs), 1.0/20))
	b.ReportMetric(float64(ours.Microseconds())/float64(b.N*benchRate), "cpu-us/update")
	b.ReportMetric(float64(theirs.Microseconds())/float64(b.N*benchRate), "cpu-us/update-unconflated")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(float64(s.g.Stats().Messages-2*benchViewers)/float64(b.N*benchViewers), "frames/s/viewer")
	for _, c := range conns {
		_ = c.Close()
	}
	naive.close()
	readers.Wait()
}

// updatesForOneSecond makes benchRate updates in real time, with five ticks.
func (s *site) updatesForOneSecond() {
	clock := time.NewTicker(time.Second / 100)
	defer clock.Stop()
	for i := range 100 {
		<-clock.C
		for u := range benchRate / 100 {
			n := i*benchRate/100 + u
			s.observe(deviceName(n%benchRows), number("temp", float64(n)))
		}
		if i%20 == 19 {
			s.tick(1)
		}
	}
}

// naive is a server that sends a frame for each update, encoded once.
type naive struct {
	b       *testing.B
	server  *site
	conns   []*websocket.Conn
	clients []*websocket.Conn
	readers sync.WaitGroup
}

func newNaive(b *testing.B, viewers int) *naive {
	n := &naive{b: b}
	up := websocket.Upgrader{ReadBufferSize: 512, WriteBufferPool: &sync.Pool{}}
	made := make(chan *websocket.Conn)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			b.Error(err)
		}
		made <- c
	})
	n.server = newSite(b, newWorld(0), live.Config{})
	n.server.http.Config.Handler = mux
	for range viewers {
		c, res, err := websocket.DefaultDialer.Dial(n.server.url(), nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = res.Body.Close()
		n.clients = append(n.clients, c)
		n.conns = append(n.conns, <-made)
		n.readers.Go(func() { _, _ = io.Copy(io.Discard, c.NetConn()) })
	}
	return n
}

func (n *naive) publish(rs []muster.Reading) {
	for i := range rs {
		values := map[string]any{}
		rs[i].Values(func(v muster.Value) bool { values[v.Key.Name] = []any{v.Num, millis(rs[i].Time)}; return true })
		frame, err := json.Marshal(map[string]any{
			"t": "delta", "ch": "devices", "seq": i,
			"set": map[muster.DeviceID]any{rs[i].Device: map[string]any{"last_seen": millis(rs[i].Arrival), "values": values}},
		})
		if err != nil {
			n.b.Fatal(err)
		}
		pm, err := websocket.NewPreparedMessage(websocket.TextMessage, frame)
		if err != nil {
			n.b.Fatal(err)
		}
		for _, c := range n.conns {
			if err := c.WritePreparedMessage(pm); err != nil {
				n.b.Fatal(err)
			}
		}
	}
}

func (n *naive) close() {
	for i := range n.conns {
		_ = n.conns[i].Close()
		_ = n.clients[i].Close()
	}
	n.readers.Wait()
	n.server.close()
}

const idleClientsEnv = "MUSTER_LIVE_IDLE_CLIENTS"

// idleClients is the other process of BenchmarkIdleSocket: it opens sockets, says
// each hello and the command given, and holds them until its input ends.
func idleClients() int {
	var n int
	var url, origin, sub string
	if _, err := fmt.Sscanf(os.Getenv(idleClientsEnv), "%d %s %s %s", &n, &url, &origin, &sub); err != nil {
		return 2
	}
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, EnableCompression: true}
	held := make([]*websocket.Conn, 0, n) // a socket that is collected is closed
	for i := range n {
		h := http.Header{"Origin": {origin}, "Cookie": {"session=u" + strconv.Itoa(i)}}
		c, _, err := d.Dial(url, h)
		if err != nil {
			return 1
		}
		held = append(held, c)
		if err := c.WriteMessage(websocket.TextMessage, []byte(`[{"t":"hello","id":1},`+sub+`]`)); err != nil {
			return 1
		}
		for {
			_, data, err := c.ReadMessage()
			if err != nil {
				return 1
			}
			if bytes.Contains(data, []byte(`"re":2`)) {
				break
			}
		}
	}
	if _, err := os.Stdout.WriteString("open\n"); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	for _, c := range held {
		_ = c.Close()
	}
	return 0
}

// BenchmarkSocketMemory reports the resident memory of the server per socket that
// is connected and idle, and per viewer of 50 rows.
func BenchmarkSocketMemory(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
		sub  string
		goal float64 // KB, 0 for none
	}{
		{"idle", 4000, `{"t":"ping","id":2}`, 7},
		{"idle with its inbox", 4000, inboxCommand, 0},
		{"viewer of 50 rows", 1000, `{"t":"sub","id":2,"ch":"devices"}`, 40},
	} {
		b.Run(c.name, func(b *testing.B) {
			kb := socketMemory(b, c.n, c.sub)
			verdict := "beside them"
			if c.goal > 0 {
				verdict = atMost(kb, c.goal)
			}
			b.Logf("%-58s %8.1f   %s", "KB resident of the server for each socket: "+c.name, kb, verdict)
		})
	}
}

// atMost returns a goal that a figure is not to exceed, and whether it does.
func atMost(got, goal float64) string {
	if got <= goal {
		return fmt.Sprintf("goal <= %g: met", goal)
	}
	return fmt.Sprintf("goal <= %g: NOT MET", goal)
}

// others has another process open n sockets with a command each, until end is called.
func (s *site) others(b *testing.B, n int, sub string) (end func()) {
	b.Helper()
	cmd := exec.CommandContext(context.Background(), os.Args[0])
	cmd.Env = append(os.Environ(), idleClientsEnv+"="+fmt.Sprintf("%d %s %s %s", n, s.url(), s.http.URL, sub))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "open\n" {
		b.Fatalf("clients: %q %v", line, err)
	}
	return func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	}
}

// socketMemory returns the KB that each of n sockets with a command takes.
func socketMemory(b *testing.B, n int, sub string) (kb float64) {
	for b.Loop() {
		w := newWorld(benchRows)
		if sub == inboxCommand {
			w.post = newPost(b)
		}
		s := newSite(b, w, live.Config{})
		before := resident()
		end := s.others(b, n, sub)
		if sub == `{"t":"sub","id":2,"ch":"devices"}` { // some life, as a viewer has it
			for i := range 20 {
				for d := range benchRows {
					s.observe(deviceName(d), number("temp", float64(i)))
				}
				s.tick(1)
			}
		}
		after := resident()
		kb = float64(after-before) / float64(n) / 1024
		b.ReportMetric(kb, "KB/socket")
		b.ReportMetric(float64(runtime.NumGoroutine())/float64(n), "goroutines/socket")
		end()
		s.close()
		if w.post != nil {
			w.post.close()
		}
	}
	return kb
}

const inboxCommand = `{"t":"sub","id":2,"ch":"inbox"}`

// BenchmarkNotificationToSockets is BenchmarkNotificationToFollowers with 5,000 real sockets.
func BenchmarkNotificationToSockets(b *testing.B) {
	const sockets = 5000
	p := newPost(b)
	defer p.close()
	for i := range sockets {
		if err := p.store.PutSubscription(b.Context(), notify.Subscription{Topic: p.topic.ID, Subject: subjectOf(fmt.Sprint("u", i)), Version: 1}); err != nil {
			b.Fatal(err)
		}
	}
	w := newWorld(1)
	w.post = p
	s := newSite(b, w, live.Config{})
	defer s.close()
	end := s.others(b, sockets, inboxCommand)
	defer end()
	var send, all time.Duration
	most := 0
	for b.Loop() {
		before := s.g.Stats().Messages
		began := time.Now()
		p.tell("to all")
		send += time.Since(began)
		for s.g.Stats().Messages < before+sockets {
			most = max(most, runtime.NumGoroutine())
			runtime.Gosched()
		}
		all += time.Since(began)
		b.StopTimer()
		p.quiet(sockets)
		b.StartTimer()
	}
	b.ReportMetric(float64(send.Milliseconds())/float64(b.N), "ms/accepted")
	b.ReportMetric(float64(all.Milliseconds())/float64(b.N), "ms/all-written")
	b.ReportMetric(float64(most-sockets), "goroutines-more")
}

// resident returns the bytes of memory that the process holds after a collection.
func resident() int64 {
	for range 3 {
		debug.FreeOSMemory()
	}
	data, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		panic(err)
	}
	return pages * int64(os.Getpagesize())
}

// BenchmarkNotificationToFollowers reports how long one notification takes from the call
// of Send until it is written to 10,000 streams of as many people, whose sockets cost
// nothing, how long Send takes of it, and what the gateway allocates for each.
func BenchmarkNotificationToFollowers(b *testing.B) {
	const followers = 10_000
	p := newPost(b)
	defer p.close()
	w := newWorld(1)
	w.post = p
	p.item = func(b []byte, it *notify.Item) []byte { // about as long as the server's, which writes a notification once
		b = append(append(b, `{"notification":{"id":"`...), it.Notification.ID...)
		b = append(append(b, `","title":"`...), it.Notification.Title...)
		b = append(append(b, bytes.Repeat([]byte("x"), 500)...), `"},"receipt":`...)
		return append(append(b, raw(it.Receipt)...), '}')
	}
	s := newSite(b, w, live.Config{})
	defer s.close()
	var written atomic.Int64
	done := make(chan struct{}, 1)
	var streams []*streamed
	for i := range followers {
		u := fmt.Sprint("u", i)
		if err := p.store.PutSubscription(b.Context(), notify.Subscription{Topic: p.topic.ID, Subject: subjectOf(u), Version: 1}); err != nil {
			b.Fatal(err)
		}
		o := &streamed{done: make(chan struct{})}
		var err error
		o.st, err = s.g.Attach(live.Principal{ID: u, Who: whoOf(u)}, live.Ask{Channel: "inbox"}, func(_ []byte, frames int) error {
			if frames > 0 && written.Add(1) == followers {
				done <- struct{}{}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		o.cancel = cancel
		go func() { defer close(o.done); o.st.Run(ctx); o.st.Close() }()
		streams = append(streams, o)
	}
	<-done
	var send, all time.Duration
	var allocs uint64
	for b.Loop() {
		written.Store(0)
		var before, after runtime.MemStats
		began := time.Now()
		p.tell("to all")
		runtime.ReadMemStats(&before)
		send += time.Since(began)
		<-done
		all += time.Since(began)
		runtime.ReadMemStats(&after)
		allocs += after.Mallocs - before.Mallocs
		b.StopTimer()
		p.quiet(followers)
		b.StartTimer()
	}
	b.ReportMetric(float64(send.Milliseconds())/float64(b.N), "ms/accepted")
	b.ReportMetric(float64(all.Milliseconds())/float64(b.N), "ms/all-written")
	b.ReportMetric(float64(allocs)/float64(b.N*followers), "allocs/follower")
	for _, o := range streams {
		o.end()
	}
}

package live_test

import (
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster"
	"muster/dashboard/live"
)

// narrow connects a browser whose kernel takes in little while it does not read.
func (s *site) narrow(user string) *peer {
	s.t.Helper()
	d := websocket.Dialer{Subprotocols: []string{live.Subprotocol}, NetDial: func(network, addr string) (net.Conn, error) {
		c, err := net.Dial(network, addr)
		if err == nil {
			err = c.(*net.TCPConn).SetReadBuffer(32 << 10)
		}
		return c, err
	}}
	conn, res, err := d.Dial(s.url(), s.browserHeader(user))
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	_ = res.Body.Close()
	p := &peer{t: s.t, s: s, conn: conn}
	p.send(`{"t":"hello","id":1}`)
	p.expect("welcome")
	return p
}

// widen lets a narrow peer read fast again.
func (p *peer) widen() {
	p.t.Helper()
	if err := p.conn.NetConn().(*net.TCPConn).SetReadBuffer(1 << 20); err != nil {
		p.t.Fatalf("widen: %v", err)
	}
}

func longText(i int) muster.Value {
	return muster.Value{Key: muster.Key{Name: "note", Kind: muster.JSON}, Text: fmt.Sprintf(`"%d %s"`, i, strings.Repeat("x", 450))}
}

// churn changes all rows of a view once and ticks; bob reads what comes of it.
func (s *site) churn(i int, bob *peer) []map[string]any {
	for d := range 50 {
		s.observe(deviceName(d), longText(i))
	}
	return bob.news()
}

func TestStalledReaderIsSteppedDownAndOthersAreNot(t *testing.T) {
	s := open(t, newWorld(50), live.Config{WriteTimeout: time.Minute})
	ann, bob := s.narrow("ann"), s.browser("bob")
	defer ann.conn.Close()
	defer bob.conn.Close()
	view := newPage(ann)
	view.subs["devices"] = `{"t":"sub","id":2,"ch":"devices"}`
	for _, p := range []*peer{bob, ann} {
		p.send(view.subs["devices"])
		f := p.expect("snapshot")
		if p == ann {
			view.take(f)
		}
	}
	i := 0
	for ; s.g.Stats().Slowed < 2; i++ {
		if i > 2000 {
			t.Fatal("a reader that reads nothing is not stepped down")
		}
		if got := s.churn(i, bob); len(got) != 1 || len(got[0]["set"].(map[string]any)) != 50 {
			t.Fatalf("bob got %d frames", len(got))
		}
	}
	before := heap()
	for range 200 {
		s.churn(i, bob)
		i++
	}
	if grown := heap() - before; grown > 1<<20 {
		t.Fatalf("200 rounds took %d bytes of heap for a reader that reads nothing", grown)
	}
	if n := s.g.Stats().Slowed; n != 2 || len(bob.rates) != 0 {
		t.Fatalf("%d steps down for one slow reader, bob was told %v", n, bob.rates)
	}

	s.observe("dev-007", number("once", 42)) // bob is told in this tick, ann much later
	s.churn(i, bob)
	ann.widen()
	for range 200 { // reading again, it comes back up
		i++
		for _, f := range s.churn(i, ann) {
			view.take(f)
		}
		bob.sync()
		if len(ann.rates) == 4 {
			break
		}
	}
	if fmt.Sprint(ann.rates) != "[2 1 2 5]" {
		t.Fatalf("rates told: %v", ann.rates)
	}
	s.tick(6)
	for _, f := range ann.sync() {
		view.take(f)
	}
	if why := view.differs(s.w); why != "" {
		t.Fatal(why)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what lay in pools is gone with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestReaderThatNeverReadsIsEnded(t *testing.T) {
	s := open(t, newWorld(50), live.Config{WriteTimeout: 100 * time.Millisecond})
	ann, bob := s.narrow("ann"), s.browser("bob")
	defer ann.conn.Close()
	defer bob.conn.Close()
	for _, p := range []*peer{ann, bob} {
		p.send(`{"t":"sub","id":2,"ch":"devices"}`)
		p.expect("snapshot")
	}
	deadline := time.Now().Add(waitLong)
	for i := 0; s.g.Stats().Connections > 1; i++ {
		if time.Now().After(deadline) {
			t.Fatal("the connection is still open")
		}
		s.churn(i, bob)
	}
	if st := s.g.Stats(); st.Failed != 1 || st.Rows != 50 {
		t.Fatalf("stats are %+v", st)
	}
}

func TestFloodOfCommandsIsRefusedThenEnded(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p, bob := s.browser("ann"), s.browser("bob")
	defer bob.conn.Close()
	for i := range 131 {
		p.send(fmt.Sprintf(`{"t":"ping","id":%d,"ts":1}`, i))
	}
	for i := range 30 {
		if f := p.expect("pong"); f["re"] != float64(i) {
			t.Fatalf("got %v", f)
		}
	}
	for i := range 100 {
		if f := p.expect("error"); f["code"] != "busy" || f["retry"] != true || f["re"] != float64(30+i) {
			t.Fatalf("got %v", f)
		}
	}
	if f := p.expect("bye"); f["code"] != 4505.0 {
		t.Fatalf("got %v", f)
	}
	if _, code := p.closed(); code != 4505 {
		t.Fatalf("close code %d", code)
	}
	bob.sync()
}

func TestTheBucketFillsAgainInTenSeconds(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	p := s.browser("ann")
	defer p.conn.Close()
	for range 2 {
		for range 30 {
			p.send(`{"t":"ping","ts":1}`)
			p.expect("pong")
		}
		p.send(`{"t":"ping","ts":1}`)
		p.expect("error")
		s.w.advance(11 * time.Second)
	}
}

func TestAnswersThatAreNotReadEndTheConnection(t *testing.T) {
	s := open(t, newWorld(1), live.Config{CommandBurst: 1 << 30, WriteTimeout: time.Minute})
	p := s.overflown()
	p.widen()
	if bye, code := p.closed(); code != 4008 || bye["code"] != 4008.0 || bye["retry_ms"] == nil {
		t.Fatalf("got %v, close %d", bye, code)
	}
}

// overflown returns a peer that asked for more answers than wait for who does not read. A kernel that drops the
// acknowledgements of so narrow a socket stalls what it sends too, now and then: then another one does it.
func (s *site) overflown() *peer {
	s.t.Helper()
	frame := []byte("[" + strings.Repeat(`{"t":"`+strings.Repeat("x", 150)+`"},`, 100) + `{"t":"ping"}]`)
	for try := 1; ; try++ {
		p := s.narrow("ann")
		var err error
		for i := 0; err == nil && s.g.Stats().Overflows == 0; i++ {
			if i > 20_000 {
				s.t.Fatalf("answers pile up without a bound")
			}
			_ = p.conn.SetWriteDeadline(time.Now().Add(waitLong)) // it only notes the time
			err = p.conn.WriteMessage(websocket.TextMessage, frame)
		}
		if err == nil {
			return p
		}
		if try == 3 {
			s.t.Fatalf("send: %v", err)
		}
		_ = p.conn.Close()
	}
}

func TestOverlongFrameIsRefusedUnread(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	for _, size := range []int{64<<10 + 1, 4 << 20} {
		p := s.browser("ann")
		_ = p.conn.WriteMessage(websocket.TextMessage, []byte(strings.Repeat("x", size))) // the server may close in the middle
		if _, code := p.closed(); code != websocket.CloseMessageTooBig {
			t.Fatalf("a frame of %d bytes: close code %d", size, code)
		}
	}
	p := s.browser("ann")
	defer p.conn.Close()
	p.send(`{"t":"ping","ts":1,"pad":"` + strings.Repeat("x", 64<<10-30) + `"}`)
	p.expect("pong")
}

func TestLimits(t *testing.T) {
	s := open(t, newWorld(130), live.Config{MaxPerUser: 2, CommandBurst: 1000})
	t.Run("connections of one user", func(t *testing.T) {
		a, b := s.browser("ann"), s.browser("ann")
		c := s.connect(s.browserHeader("ann"))
		c.send(`{"t":"hello","id":1}`)
		if bye, code := c.closed(); code != 4505 || bye["code"] != 4505.0 {
			t.Fatalf("got %v %d", bye, code)
		}
		_ = a.conn.Close()
		for s.g.Stats().Connections > 1 {
			b.sync()
		}
		_ = s.browser("ann").conn.Close()
		_ = b.conn.Close()
	})
	t.Run("channels of one connection", func(t *testing.T) {
		p := s.browser("bob")
		defer p.conn.Close()
		for i := range 129 {
			p.send(fmt.Sprintf(`{"t":"sub","id":%d,"ch":"device:%s"}`, i, deviceName(i)))
			if f := p.next(); i < 128 && f["t"] != "snapshot" || i == 128 && f["code"] != "busy" {
				t.Fatalf("sub %d got %v", i, f)
			}
		}
		p.send(`{"t":"sub","id":500,"ch":"device:dev-000"}`) // again is no further one
		p.expect("snapshot")
	})
}

func TestPanicOfASourceEndsOneConnectionOnly(t *testing.T) {
	s := open(t, newWorld(3), live.Config{})
	ann, bob := s.browser("ann"), s.browser("bob")
	defer ann.conn.Close()
	ann.send(`{"t":"sub","id":2,"ch":"devices","limit":2}`)
	ann.expect("snapshot")
	s.w.mu.Lock()
	s.w.panicOn = "dev-002"
	s.w.mu.Unlock()
	bob.send(`{"t":"sub","id":2,"ch":"device:dev-002"}`)
	if _, err := bob.read(); err == nil {
		t.Fatal("the connection goes on")
	}
	_ = bob.conn.Close()
	s.w.mu.Lock()
	s.w.panicOn = "dev-000"
	s.w.mu.Unlock()
	for i := range 3 {
		s.observe("dev-000", number("temp", float64(i)))
		s.observe("dev-001", number("temp", float64(i)))
		if set := ann.news()[0]["set"].(map[string]any); set["dev-001"] == nil || len(set) != 1 {
			t.Fatalf("got %v", set)
		}
	}
	s.w.mu.Lock()
	s.w.panicOn = ""
	s.w.mu.Unlock()
	s.observe("dev-000", number("temp", 9))
	if set := ann.news()[0]["set"].(map[string]any); set["dev-000"] == nil {
		t.Fatalf("got %v", set)
	}
	for s.g.Stats().Connections > 1 {
		ann.sync()
	}
	if st := s.g.Stats(); st.Panics != 4 || st.Rows != 2 {
		t.Fatalf("stats are %+v", st)
	}
}

func TestClientThatGoesWithoutAWordLeavesNothing(t *testing.T) {
	s := open(t, newWorld(3), live.Config{})
	bob := s.browser("bob")
	defer bob.conn.Close()
	for range 5 {
		p := s.browser("ann")
		p.send(`[{"t":"sub","id":2,"ch":"fleet"},{"t":"sub","id":3,"ch":"devices"},{"t":"sub","id":4,"ch":"device:dev-002"}]`)
		p.sync()
		if err := p.conn.NetConn().Close(); err != nil {
			t.Fatal(err)
		}
	}
	for s.g.Stats().Connections > 1 {
		bob.sync()
	}
	if st := s.g.Stats(); st.Rows != 0 {
		t.Fatalf("stats are %+v", st)
	}
}

func TestNotAWebSocketIsAProblem(t *testing.T) {
	s := open(t, newWorld(1), live.Config{})
	res, err := http.Get(s.http.URL + "/api/v1/live")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusBadRequest || res.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("got %v", res)
	}
	if st := s.g.Stats(); st.Connections != 0 {
		t.Fatalf("stats are %+v", st)
	}
}

func TestPeerThatIsSilentIsCutAndOneThatAnswersPingsIsNot(t *testing.T) {
	s := open(t, newWorld(1), live.Config{SilenceTimeout: 25*time.Second + 500*time.Millisecond})
	dead, alive := s.browser("ann"), s.browser("bob")
	defer alive.conn.Close()
	dead.conn.SetPingHandler(func(string) error { return nil })
	listener := s.browser("cyd") // answers pings and says nothing else
	ended := make(chan string, 2)
	for _, p := range []*peer{dead, listener} {
		go func() {
			_, _, err := p.conn.ReadMessage()
			ended <- fmt.Sprint(p == dead, err == nil)
		}()
	}
	for start := time.Now(); time.Since(start) < 2*time.Second || s.g.Stats().Connections > 2; {
		if time.Since(start) > waitLong {
			t.Fatal("a peer that does not answer pings is not cut")
		}
		s.tick(126)
		alive.sync()
	}
	if got := <-ended; got != "true false" || len(ended) > 0 || s.g.Stats().Connections != 2 {
		t.Fatalf("ended: %s and %d more", got, len(ended))
	}
	_ = dead.conn.Close()
	_ = listener.conn.Close()
	<-ended
}

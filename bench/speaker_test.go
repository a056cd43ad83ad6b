//go:build linux

package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// speaker publishes readings of devices through their gateways, at QoS 0, until close.
type speaker struct {
	s                  *server
	conns              []*conn
	rows, dots, others atomic.Int64 // messages a second
	quit               chan struct{}
	done               sync.WaitGroup
}

func (s *server) speaker(conns []*conn) *speaker {
	sp := &speaker{s: s, conns: conns, quit: make(chan struct{})}
	sp.done.Go(sp.run)
	return sp
}

// rate sets how many readings a second the devices on the first page send, how many devices a second
// come or go, and how many readings a second all others send.
func (sp *speaker) rate(rows, dots, others int) {
	sp.rows.Store(int64(rows))
	sp.dots.Store(int64(dots))
	sp.others.Store(int64(others))
}

func (sp *speaker) close() {
	close(sp.quit)
	sp.done.Wait()
}

func (sp *speaker) run() {
	tick := time.NewTicker(pageTick)
	defer tick.Stop()
	ticks := int64(time.Second / pageTick)
	flips := 0
	for n := 0; ; n++ {
		select {
		case <-sp.quit:
			return
		case <-tick.C:
		}
		for i := range sp.rows.Load() / ticks {
			sp.say((n*int(pageRate/ticks) + int(i)) % onThePage)
		}
		for range sp.dots.Load() / ticks {
			sp.flip(flips)
			flips++
		}
		for i := range sp.others.Load() / ticks {
			sp.say(onThePage + (n*101+int(i)*997)%(fleetSize-onThePage))
		}
		if err := sp.flush(); err != nil {
			sp.s.b.Errorf("publish: %v", err)
			return
		}
	}
}

func (sp *speaker) say(device int) {
	c := sp.conns[device%fleetGateways]
	c.out = appendPublish(c.out, fmt.Sprintf("devices/dev-%06d/telemetry", device),
		fmt.Appendf(nil, `{"temperature":%d.%d,"humidity":%d.%02d,"battery":%d.%d,"voltage":3.%03d}`,
			10+rand.IntN(30), rand.IntN(10), rand.IntN(90), rand.IntN(100), rand.IntN(100), rand.IntN(10), rand.IntN(1000)))
}

// flip has a gateway say that a device behind it went, and in the next round that it came: in a round each
// of a tenth of the fleet has its turn.
func (sp *speaker) flip(n int) {
	const round = fleetSize / 10
	device, verb := onThePage+n%round*9, "disconnect"
	if n/round%2 == 1 {
		verb = "connect"
	}
	c := sp.conns[device%fleetGateways]
	c.out = appendPublish(c.out, "v1/gateway/"+verb, fmt.Appendf(nil, `{"device":"dev-%06d"}`, device))
}

func (sp *speaker) flush() error {
	for _, c := range sp.conns {
		if len(c.out) == 0 {
			continue
		}
		if err := c.SetDeadline(time.Now().Add(ackLimit)); err != nil {
			return err
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	return nil
}

// counted returns the address of a relay to the server's HTTP listener, which adds up the bytes that the
// server sends.
func (s *server) counted(bytes *atomic.Int64) string {
	s.b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.b.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			conns.Go(func() { relay(c, s.http, bytes) })
		}
	})
	s.b.Cleanup(func() {
		_ = l.Close()
		conns.Wait() // the browser and the server have closed theirs
	})
	return l.Addr().String()
}

// relay passes on what both sides send until either ends.
func relay(in net.Conn, to string, bytes *atomic.Int64) {
	defer in.Close()
	out, err := net.DialTimeout("tcp", to, ackLimit)
	if err != nil {
		return // the browser sees a connection that ends
	}
	defer out.Close()
	var up sync.WaitGroup
	up.Go(func() {
		_, _ = io.Copy(out, in) // however it ends, so does the other way
		_ = out.Close()
	})
	_, _ = io.Copy(in, sized{out, bytes})
	_ = in.Close()
	up.Wait()
}

// sized is a reader whose bytes are added up.
type sized struct {
	io.Reader
	bytes *atomic.Int64
}

func (r sized) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.bytes.Add(int64(n))
	return n, err
}

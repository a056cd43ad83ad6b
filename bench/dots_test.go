//go:build linux

package bench

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"muster"
	"muster/dashboard/live"
	"muster/devices"
)

const (
	dotDevices = 100_000
	dotRate    = 10_000 // changes of presence a second
	dotsFor    = 8 * time.Second
)

// dotStore has devices behind 250 gateways in 40 groups, and keeps nothing.
type dotStore struct{ devices.Store }

func (dotStore) LoadProfiles(context.Context, func(devices.Profile) error) error { return nil }

func (dotStore) LoadGroups(_ context.Context, each func(devices.Group) error) error {
	for g := range 40 {
		if err := each(devices.Group{Name: fmt.Sprintf("group-%02d", g)}); err != nil {
			return err
		}
	}
	return nil
}

func (dotStore) LoadDevices(_ context.Context, each func(devices.Device) error) error {
	for i := range dotDevices {
		d := devices.Device{ID: dotID(i), Created: 1, Profile: devices.DefaultProfile, Firmware: fmt.Sprint("2.", i%5)}
		if i >= 250 {
			d.Parent = dotID(i % 250)
		}
		var err error
		if d.Groups, err = devices.GroupsOf([]string{fmt.Sprintf("group-%02d", i%40)}); err != nil {
			return err
		}
		if err := each(d); err != nil {
			return err
		}
	}
	return nil
}

func dotID(i int) muster.DeviceID { return muster.DeviceID(fmt.Sprintf("device-%06d", i)) }

func (dotStore) LoadCredentials(context.Context, func(devices.Credential) error) error { return nil }

func (dotStore) LoadErasures(context.Context, func(devices.Erasure) error) error { return nil }

func (dotStore) LoadPresence(context.Context, func(devices.PresenceRow) error) error { return nil }

func (dotStore) LoadHistory(context.Context, func(devices.HistoryRow) error) error { return nil }

func (dotStore) LoadAlive(context.Context) (muster.Micros, error) { return 0, nil }

// dotSite is the live gateway on a registry, and what is neither answers nothing.
type dotSite struct {
	live.Tasks
	live.Events
	live.Fleet
	live.Devices
	registry *devices.Registry
	gateway  *live.Gateway
	http     *httptest.Server
	looks    sync.WaitGroup
}

func (*dotSite) Authenticate(*http.Request) (live.Principal, error) {
	return live.Principal{}, muster.Errorf(muster.Unauthorized, "no session")
}

func (*dotSite) AuthenticateToken(string) (live.Principal, error) {
	return live.Principal{ID: "bench"}, nil
}

func (*dotSite) Watch() func()                     { return func() {} }
func (*dotSite) Version() uint64                   { return 0 }
func (*dotSite) Item(live.Principal) []live.Member { return nil }
func (*dotSite) Changes() uint64                   { return 0 }
func (s *dotSite) Shape() uint64                   { return s.registry.Shape() }
func (s *dotSite) Statuses(a *devices.Arrangement, at []uint32, into []muster.Status) {
	s.registry.Statuses(a, at, into)
}

func (s *dotSite) Arrange(by devices.Arranging, _ string) (*devices.Arrangement, error) {
	return s.registry.Arrange(by, nil)
}

func newDotSite(b *testing.B) *dotSite {
	b.Helper()
	s := &dotSite{}
	log := slog.New(slog.DiscardHandler)
	s.registry = devices.NewRegistry(dotStore{}, time.Now, log, devices.Options{})
	if err := s.registry.Load(b.Context()); err != nil {
		b.Fatal(err)
	}
	s.gateway = live.New(live.Config{MaxPerUser: 1000}, live.Deps{
		Auth: s, Fleet: s, Devices: s, System: s, Tasks: s, Events: s, Dots: s, Log: log, Now: time.Now,
	})
	if err := s.gateway.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	s.registry.Watch(s.gateway.DevicesChanged)
	s.http = httptest.NewServer(s.gateway)
	return s
}

// dotViewers are sockets that said hello; what they are sent is read and dropped.
func (s *dotSite) dotViewers(b *testing.B, n int) []*websocket.Conn {
	b.Helper()
	conns := make([]*websocket.Conn, n)
	for i := range conns {
		c, res, err := (&websocket.Dialer{Subprotocols: []string{live.Subprotocol}, ReadBufferSize: 512, WriteBufferSize: 512}).Dial("ws"+strings.TrimPrefix(s.http.URL, "http"), nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = res.Body.Close()
		conns[i] = c
		s.say(b, c, `{"t":"hello","token":"x"}`)
		s.looks.Go(func() { _, _ = io.Copy(io.Discard, c.NetConn()) })
	}
	return conns
}

func (s *dotSite) say(b *testing.B, c *websocket.Conn, frame string) {
	b.Helper()
	if err := c.WriteMessage(websocket.TextMessage, []byte(frame)); err != nil {
		b.Fatal(err)
	}
}

func (s *dotSite) close(b *testing.B, conns []*websocket.Conn) {
	b.Helper()
	for _, c := range conns {
		_ = c.Close()
	}
	s.looks.Wait()
	if err := s.gateway.Stop(context.Background()); err != nil {
		b.Fatal(err)
	}
	s.http.Close()
}

// flood has dotRate devices a second change their presence, each hundredth of a second some.
func (s *dotSite) flood(ctx context.Context) {
	clock := time.NewTicker(time.Second / 100)
	defer clock.Stop()
	session := uint64(0)
	for ctx.Err() == nil {
		at := <-clock.C
		for range dotRate / 100 {
			session++
			c := devices.Connection{Device: dotID(int(session*7919) % dotDevices), Session: session, At: at}
			s.registry.Connected(c)
			s.registry.Disconnected(c, "disconnected", at)
		}
	}
}

// BenchmarkDots shows 100,000 devices as dots to 100 and to 500 viewers while 10,000 a second
// change. It enters at the seam of presence: registry and gateway are real, in one process with
// the viewers, whose reading is in the processor's time, as are the changes: the first line, without viewers,
// has those alone. The memory is what the channel takes beside a socket that is open already:
// of each viewer, and of the layout that they share.
func BenchmarkDots(b *testing.B) {
	for _, viewers := range []int{0, 100, 500} {
		b.Run(fmt.Sprint(viewers, " viewers"), func(b *testing.B) {
			for b.Loop() {
				showDots(b, viewers)
			}
		})
	}
}

// subscribe has sockets shown the dots, and waits until so many messages were sent in all.
func (s *dotSite) subscribe(b *testing.B, conns []*websocket.Conn, messages int) {
	b.Helper()
	for _, c := range conns {
		s.say(b, c, `{"t":"sub","id":2,"ch":"dots"}`)
	}
	if len(conns) > 0 {
		await(b, "the snapshots", func() bool { return s.gateway.Stats().Messages >= uint64(messages) })
	}
}

func showDots(b *testing.B, viewers int) {
	s := newDotSite(b)
	conns := s.dotViewers(b, viewers)
	await(b, "the sockets", func() bool { return s.gateway.Stats().Messages >= uint64(viewers) })
	none := heapInUse()
	s.subscribe(b, conns[:min(1, viewers)], viewers+2) // has the layout made, which all share
	before := heapInUse()
	s.subscribe(b, conns[min(1, viewers):], 3*viewers)
	after := heapInUse()

	ctx, end := context.WithTimeout(b.Context(), dotsFor)
	defer end()
	events := make(chan struct{})
	go func() { defer close(events); _ = s.registry.RunEvents(ctx) }()
	from, cpu := s.gateway.Stats(), ownTime()
	s.flood(ctx)
	<-events
	took, to := ownTime()-cpu, s.gateway.Stats()
	b.ReportMetric(took.Seconds()/dotsFor.Seconds(), "cpu-s/s")
	if viewers > 0 {
		b.ReportMetric(float64(to.Bytes-from.Bytes)/float64(viewers)/dotsFor.Seconds()/1024, "KiB/s/viewer")
		b.ReportMetric(float64(to.Messages-from.Messages)/float64(viewers)/dotsFor.Seconds(), "messages/s/viewer")
		b.ReportMetric(float64(after-before)/float64(viewers-1)/1024, "KiB/viewer")
		b.ReportMetric(float64(before-none)/1024, "KiB/layout")
		b.ReportMetric(float64(to.Slowed-from.Slowed), "slowed")
	}
	s.close(b, conns)
}

func await(b *testing.B, what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			b.Fatalf("waited in vain for %s", what)
		}
	}
}

// heapInUse is what is reachable, in bytes.
func heapInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// ownTime is the processor time of this process.
func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

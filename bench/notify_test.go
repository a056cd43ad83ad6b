//go:build linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	audienceSize  = 10_000 // people who are subscribed
	seatedPeople  = 1000   // of them who have sockets
	seatsEach     = 10
	announcements = 5

	bells     = 20 // devices that publish notifications
	ringFor   = 20 * time.Second
	ringEvery = time.Second // of each; fewer in all than a sender may send at once
)

// BenchmarkNotifications measures how a notification reaches people: 10,000 subscribers
// with 10,000 sockets; a device's, while 20,000 telemetry messages a second come in; and an
// urgent one while a million deliveries wait.
func BenchmarkNotifications(b *testing.B) {
	if _, err := program(); err != nil { // says what machine this is
		b.Fatal(err)
	}
	for range b.N {
		onBoth(b, notifications)
	}
	b.ReportMetric(0, "ns/op")
}

func notifications(b *testing.B, name, database string) {
	b.Helper()
	post := startSlowPost(b)
	s, _ := startMuster(b, database, 0)
	s.kill()
	s.args = append(s.args, "--api-rate", "100000", "--api-burst", "100000", "--sign-in-rate", "100000",
		"--public-url", "http://"+s.http, "--smtp", post.url())
	s.start()
	fmt.Printf("\n%s: notifications\n", name)
	people := s.people(audienceSize)
	s.signIn(people[:seatedPeople])
	s.announce(people)
	s.urgent(people[:seatedPeople], post)
	s.ring(people[0])
}

// announce sends to everybody.
func (s *server) announce(people []person) {
	s.b.Helper()
	s.topic(map[string]any{"name": "all-hands"}, people)
	each := min(seatsEach, connections(s.b)/seatedPeople)
	before, _ := s.memoryAtRest()
	g := s.sit(people[:seatedPeople], each, nil)
	_, most := s.memoryAtRest()
	perSocket := float64(most-before) / float64(len(g.seats)) / 1024
	var accepted, told []float64
	for i := range announcements {
		want := g.events.Load() + int64(len(g.seats))
		began := time.Now()
		if err := s.must(http.MethodPost, "/api/v1/notifications", map[string]any{"topic": "all-hands", "title": fmt.Sprintf("Announcement %d", i)}, nil, http.StatusAccepted); err != nil {
			s.b.Fatal(err)
		}
		accepted = append(accepted, time.Since(began).Seconds())
		s.await("all sockets to have it", time.Minute, func() bool { return g.events.Load() >= want })
		told = append(told, time.Since(began).Seconds())
		settled := time.Now().Add(2 * time.Second) // that they were delivered is written
		s.await("the rest", time.Minute, func() bool { return time.Now().After(settled) })
	}
	if n := g.lost.Load(); n > 0 {
		s.b.Errorf("%d sockets were lost", n)
	}
	fmt.Printf("  to %d subscribers: %-26s %8.2f s   worst of %d, median %.2f; goal < 1\n", len(people), "accepted", slices.Max(accepted), announcements, median(accepted))
	fmt.Printf("  to %d subscribers: on %-6d sockets          %8.2f s   worst of %d, median %.2f; goal < 2\n", len(people), len(g.seats), slices.Max(told), announcements, median(told))
	fmt.Printf("  %-46s %8.1f KB  resident at rest, each with its inbox; goal <= 7\n", "a socket", perSocket)
	g.close()
}

// ring has devices publish notifications while the fleet's telemetry comes in.
func (s *server) ring(who person) {
	s.b.Helper()
	logins, _ := s.importFleet()
	s.topic(map[string]any{"name": "bells", "devices": "id:bench-*"}, []person{who})
	ringers := s.devices(bells)
	h := s.herd(logins)
	s.await("the load to be steady", settleLimit, func() bool { return h.since() > readWarm })
	var mu sync.Mutex
	var took []time.Duration
	sentAt := regexp.MustCompile(`"title":"rung at (\d+)"`)
	g := s.sit([]person{who}, 1, func(frame []byte, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		for _, m := range sentAt.FindAllSubmatch(frame, -1) {
			if ns, err := strconv.ParseInt(string(m[1]), 10, 64); err == nil {
				took = append(took, at.Sub(time.Unix(0, ns)))
			}
		}
	})
	before, began := h.load.total(), time.Now()
	if err := s.ringAll(ringers); err != nil {
		s.b.Fatal(err)
	}
	rate := float64(h.load.total()-before) / time.Since(began).Seconds()
	want := bells * int(ringFor/ringEvery)
	s.await("all of them to come", time.Minute, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(took) >= want
	})
	h.stop()
	g.close()
	slices.Sort(took)
	at := func(q float64) float64 { return ms(took[min(int(q*float64(len(took))), len(took)-1)]) }
	fmt.Printf("  from a device's PUBLISH to a socket             %8.1f ms  p99 of %d, p50 %.1f, max %.1f, at %.0f telemetry messages/s; goal < 250\n",
		at(0.99), len(took), at(0.5), at(1), rate)
}

// ringAll has each device publish ringFor long.
func (s *server) ringAll(ringers []login) error {
	errs := make([]error, len(ringers))
	var wg sync.WaitGroup
	for i, who := range ringers {
		wg.Go(func() { errs[i] = s.ringOne(i, who) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *server) ringOne(index int, who login) error {
	l := &load{addr: s.mqtt, window: 1}
	c, err := l.connect(context.Background(), index, who)
	if err != nil {
		return fmt.Errorf("device %s: %w", who.id, err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(ringFor + ackLimit)); err != nil {
		return err
	}
	due := time.Now().Add(ringEvery * time.Duration(index) / bells)
	for range int(ringFor / ringEvery) {
		pause := time.NewTimer(time.Until(due))
		<-pause.C
		c.out = appendPublish(c.out, "devices/me/notify/bells", fmt.Appendf(nil, `{"title":"rung at %d"}`, time.Now().UnixNano()))
		if err := c.flush(); err != nil {
			return err
		}
		due = due.Add(ringEvery)
	}
	return nil
}

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

const sharedRounds = 5

// TestTwoServersShareTheOutboxOfOneDatabase starts two servers, each with a data directory
// of its own, on one database. Both accept notifications and both send what either
// accepted: while none is killed each mail and each webhook goes out once. Then they are
// killed in turn, again and again: nothing is lost, and nothing goes out more often than it
// was leased.
func TestTwoServersShareTheOutboxOfOneDatabase(t *testing.T) {
	t.Parallel()
	s := newStorm(t, "postgres")
	// A device hears one server only: what the other one leases for it waits until it comes.
	s.m.ask(http.MethodDelete, "/api/v1/topics/pumps/subscriptions/device:panel-1", nil, http.StatusNoContent, nil)
	other := newWatched(t)
	other.key = s.m.key
	other.args = []string{"--public-url", "http://" + s.m.http, "--smtp", s.post.URL("muster@example.org"), "--webhook-allow", "127.0.0.0/8", "--database", s.dsn}
	key, err := os.ReadFile(filepath.Join(s.m.data, "secret.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(other.data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other.data, "secret.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	other.start()
	other.ready()
	both := []*muster{s.m, other}

	s.sendBy(both, 10)
	s.await("what both accepted to be sent", 90*time.Second, s.whole)
	s.shared(both, true)

	for range inSoak(50, sharedRounds) {
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			s.sendBy(both, 5)
		}()
		<-time.After(time.Duration(s.dice.IntN(400)) * time.Millisecond)
		victim := both[s.dice.IntN(2)]
		victim.kill()
		<-sent
		victim.start()
		victim.ready()
		s.kills++
	}
	for _, m := range both {
		m.kill()
	}
	s.age() // the leases of those that were killed
	for _, m := range both {
		m.start()
	}
	for _, m := range both {
		m.ready()
	}
	s.devices()
	s.await("all to be sent", 90*time.Second, s.whole)
	s.shared(both, false)
	if _, accepted := s.promised(); accepted < 100 {
		t.Errorf("%d were accepted", accepted)
	}
	other.stop()
}

func (s *storm) await(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	s.m.await(what, limit, ok)
}

// whole says whether all that is stored has its webhook's delivery, and all have ended.
func (s *storm) whole() bool {
	s.t.Helper()
	notes, hooked := pages[stormNote](s, "/api/v1/notifications?topic=pumps"), pages[stormDelivery](s, "/api/v1/deliveries?channel=webhook")
	return len(hooked) >= len(notes) && s.open() == 0
}

// sendBy has every server accept n letters of each of four senders.
func (s *storm) sendBy(by []*muster, n int) {
	var wg sync.WaitGroup
	for _, m := range by {
		for i := range s.keys {
			list := make([]*letter, n)
			for j := range list {
				list[j] = s.plainLetter()
			}
			wg.Go(func() {
				for _, l := range list {
					s.offerTo(m, l, s.keys[i])
				}
			})
		}
	}
	wg.Wait()
}

// plainLetter has no key of any kind.
func (s *storm) plainLetter() *letter {
	l := &letter{title: fmt.Sprintf("letter %d", len(s.letters)), ids: map[string]bool{}}
	l.body = map[string]any{"topic": "pumps", "title": l.title, "severity": "major"}
	s.letters = append(s.letters, l)
	return l
}

// shared holds the deliveries to being shared: taken no more often than leased, and once
// when nobody was killed.
func (s *storm) shared(by []*muster, once bool) {
	s.t.Helper()
	mails := map[string]int{}
	for _, m := range s.post.Mails() {
		mails[m.Header.Get("Message-Id")]++
	}
	s.hook.mu.Lock()
	defer s.hook.mu.Unlock()
	count, twice := 0, 0
	for _, n := range pages[stormNote](s, "/api/v1/notifications?topic=pumps") {
		for _, d := range pages[stormDelivery](s, "/api/v1/deliveries?notification="+n.ID) {
			got := mails[d.Reference]
			if d.Channel == "webhook" {
				got = s.hook.took[d.Reference]
			}
			count++
			if got > 1 {
				twice++
			}
			if got < 1 || got > d.Attempts || once && (got != 1 || d.Attempts != 1) {
				s.t.Errorf("%s: came %d times: %+v", n.Title, got, d)
			}
		}
	}
	var share []int64
	for _, m := range by {
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		_, text, err := get(ctx, "http://"+m.http+"/metrics", "")
		cancel()
		if err != nil {
			s.t.Fatal(err)
		}
		n := int64(0)
		for _, found := range regexp.MustCompile(`(?m)^muster_delivery_attempts_total\{.*\} (\d+)$`).FindAllSubmatch(text, -1) {
			more, err := strconv.ParseInt(string(found[1]), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			n += more
		}
		share = append(share, n)
	}
	s.t.Logf("%d mails and webhooks, %d of them came more than once; attempts by server since its start: %v", count, twice, share)
	if once && (share[0] == 0 || share[1] == 0) {
		s.t.Error("only one of them sends")
	}
}

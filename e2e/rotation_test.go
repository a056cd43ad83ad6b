package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	overlapS  = 3               // seconds, long enough for a client on a busy machine
	cutWithin = 5 * time.Second // what is revoked or has ended must be cut; a second is promised
)

// held is a credential as the API lists it.
type held struct {
	ID, State string
	ExpiresAt *time.Time `json:"expires_at"`
}

// issued is a credential as the API gives it.
type issued struct{ Credential struct{ ID, Token string } }

// steady is a device that publishes all the time, one message after the other was
// acked. It changes over to another token when it is told one.
type steady struct {
	m     *muster
	open  opener
	id    string
	token chan string // to change over to

	acked    atomic.Int64 // messages 0 to acked-1
	resent   int          // that were sent again, for want of a PUBACK
	refusals []error      // of its logins
}

// run publishes until ctx ends.
func (s *steady) run(ctx context.Context, token string) {
	k, err := s.open(s.m, login{clientID: s.id, user: token})
	if err != nil {
		s.refusals = append(s.refusals, err)
		return
	}
	for pause(ctx, 4*time.Millisecond) {
		select {
		case token = <-s.token:
			old := k
			if k, err = s.open(s.m, login{clientID: s.id, user: token}); err != nil { // which takes the old connection over
				s.refusals = append(s.refusals, err)
				k = old
			}
		default:
		}
		for k.publish("devices/me/telemetry", fmt.Sprintf(`{"seq":%d}`, s.acked.Load())) != nil {
			s.resent++
			if k, err = s.open(s.m, login{clientID: s.id, user: token}); err != nil {
				s.refusals = append(s.refusals, err)
				return
			}
		}
		s.acked.Add(1)
	}
	k.leave()
}

// prober signs in with a token again and again and remembers when that was refused.
type prober struct {
	tries  int
	failed []span
	good   []span
}

type span struct {
	from, to time.Time
	err      error
}

func (p *prober) run(ctx context.Context, m *muster, l login) {
	for n := 0; pause(ctx, 30*time.Millisecond); n++ {
		s := span{from: time.Now()}
		k, err := openers()[n%2](m, l)
		s.to, s.err = time.Now(), err
		p.tries++
		if err != nil {
			p.failed = append(p.failed, s)
			continue
		}
		p.good = append(p.good, s)
		k.leave()
	}
}

// TestACredentialIsRotatedWithoutAGap has a device of either library publish all the
// time while its token is rotated with an overlap, and at the end revoked.
func TestACredentialIsRotatedWithoutAGap(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, read := e.prepare(t)
			m := serve(t, args...)
			for i, open := range openers() {
				m.rotation(&steady{m: m, open: open, id: fmt.Sprint("rotated-", i), token: make(chan string, 1)}, read)
			}
		})
	}
}

func (m *muster) rotation(s *steady, read func(*muster) *rows) {
	t := m.t
	old := m.device(s.id, "token").Token
	credentials := "/api/v1/devices/" + s.id + "/credentials"
	var list struct{ Items []held }
	m.ask(http.MethodGet, credentials, nil, http.StatusOK, &list)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.run(ctx, old) })
	stays, err := s.open(m, login{clientID: "stays", user: old}) // the one that does not change over
	if err != nil {
		t.Fatal(err)
	}
	m.goesOn(s, 50)

	var fresh issued
	m.ask(http.MethodPost, credentials+"/"+list.Items[0].ID+"/rotate", map[string]int{"overlap_s": overlapS}, http.StatusCreated, &fresh)
	var byOld, byNew prober
	wg.Go(func() { byOld.run(ctx, m, login{clientID: "probe-old", user: old}) })
	wg.Go(func() { byNew.run(ctx, m, login{clientID: "probe-new", user: fresh.Credential.Token}) })
	m.ask(http.MethodGet, credentials, nil, http.StatusOK, &list)
	if len(list.Items) != 2 || list.Items[0].State != "active" || list.Items[1].State != "active" || list.Items[0].ExpiresAt == nil {
		t.Fatalf("while they overlap the credentials are %+v", list.Items)
	}
	ends := *list.Items[0].ExpiresAt
	m.goesOn(s, 20) // by the old one, rotated as it is
	s.token <- fresh.Credential.Token
	m.goesOn(s, 20)
	if !time.Now().Before(ends) {
		t.Log("the machine was too busy to change over within the overlap")
	}
	m.wantCut(stays, ends, "the old credential's end")
	m.goesOn(s, 50)
	m.await("the old credential to be refused", cutWithin, func() bool { _, err := s.open(m, login{clientID: "late", user: old}); return err != nil })
	if shown := m.logins(s.id); len(shown) == 0 || !strings.Contains(shown[0].Reason, "expired at") {
		t.Errorf("the failed logins are %+v", shown)
	}
	m.ask(http.MethodGet, credentials, nil, http.StatusOK, &list)
	if list.Items[0].State != "expired" || list.Items[1].State != "active" {
		t.Errorf("after the overlap the credentials are %+v", list.Items)
	}
	cancel()
	wg.Wait()
	byOld.check(t, "the old credential", &ends)
	byNew.check(t, "the new credential", nil)
	if len(s.refusals) > 0 || s.resent > 0 {
		t.Errorf("the device was refused %v, and sent %d messages again", s.refusals, s.resent)
	}
	t.Logf("%s: %d messages acked, %d logins by the old and %d by the new credential", s.id, s.acked.Load(), byOld.tries, byNew.tries)
	m.revocation(s, fresh)
	m.drained(drainLimit)
	m.stop()
	have := read(m).of[s.id]
	for seq := range int(s.acked.Load()) {
		if have[seq] != 1 {
			t.Errorf("message %d was acked and is there %d times", seq, have[seq])
		}
	}
	m.start()
	m.ready()
}

// revocation takes the new credential away from two connections that publish.
func (m *muster) revocation(s *steady, c issued) {
	t := m.t
	var live []link
	for i, open := range openers() {
		k, err := open(m, login{clientID: fmt.Sprint("live-", i), user: c.Credential.Token})
		if err != nil {
			t.Fatal(err)
		}
		if err := k.publish("devices/me/events/here", "{}"); err != nil {
			t.Fatal(err)
		}
		live = append(live, k)
	}
	since := time.Now()
	m.ask(http.MethodDelete, "/api/v1/devices/"+s.id+"/credentials/"+c.Credential.ID, nil, http.StatusNoContent, nil)
	for _, k := range live {
		m.wantCut(k, since, "the revocation")
	}
	for _, open := range openers() {
		if _, err := open(m, login{clientID: "revoked", user: c.Credential.Token}); err == nil {
			t.Error("a revoked credential lets a client in")
		}
	}
	if shown := m.logins(""); len(shown) == 0 || shown[0].ClientID != "revoked" {
		t.Errorf("the failed logins are %+v", shown)
	}
}

// goesOn waits until n more messages are acked.
func (m *muster) goesOn(s *steady, n int64) {
	m.t.Helper()
	goal := s.acked.Load() + n
	m.await(fmt.Sprintf("%d more acks of %s", n, s.id), clientLimit, func() bool { return s.acked.Load() >= goal })
}

// wantCut checks that a connection ends soon after since, and not before.
func (m *muster) wantCut(k link, since time.Time, why string) {
	m.t.Helper()
	select {
	case <-k.cut():
	case <-time.After(time.Until(since) + clientLimit):
		m.t.Fatalf("a connection lives on after %s", why)
	}
	took := time.Since(since)
	m.t.Logf("cut %s after %s", took.Round(time.Millisecond), why)
	if took < 0 || took > cutWithin {
		m.t.Errorf("a connection was cut %s after %s, want within %s", took, why, cutWithin)
	}
}

// check holds the logins to when the credential was good: until ends, or always.
func (p *prober) check(t *testing.T, what string, ends *time.Time) {
	t.Helper()
	for _, s := range p.failed {
		if ends == nil || s.to.Before(*ends) {
			t.Errorf("%s was refused from %s to %s while it was good: %v", what, s.from, s.to, s.err)
		}
	}
	for _, s := range p.good {
		if ends != nil && s.from.After(ends.Add(cutWithin)) {
			t.Errorf("%s let a client in at %s, after its end at %s", what, s.from, ends)
		}
	}
	if len(p.good) == 0 || ends != nil && len(p.failed) == 0 {
		t.Errorf("%s: of %d logins %d are refused", what, p.tries, len(p.failed))
	}
}

package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/notify/email/mailtest"
	"muster/store/control/controltest"
)

const (
	stormSteps = 140
	stormSoak  = 1500
	stormTries = 12 // starts after the faults are mended, until nothing is under way any more
)

// TestNoAcceptedNotificationIsLostWhateverFails sends at random by the API and by a device,
// while the mail server and the webhook's endpoint fail in every way, people and a device
// ack, and the server is killed again and again. When all works again every notification
// that was accepted is once in each inbox, and was taken by each channel's receiver or is
// dead for all to see; what was acked is acked, and no key made two.
func TestNoAcceptedNotificationIsLostWhateverFails(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			s := newStorm(t, engine)
			for range inSoak(stormSoak, stormSteps) {
				s.step()
			}
			s.mend()
			s.verdict()
		})
	}
}

// letter is one that was sent, maybe.
type letter struct {
	title, key, dedup string
	body              map[string]any
	ids               map[string]bool // that were answered with 202
	accepted          bool            // by 202 or PUBACK
}

// storm is a server and all who use it.
type storm struct {
	t           *testing.T
	m           *muster
	dice        *rand.Rand
	post        *mailtest.Server
	hook        *hookPlace
	hookID      string
	ann, bea    *caretaker
	keys        []string
	pump, panel *session3
	tokens      map[string]string
	driver, dsn string
	letters     []*letter
	acked       map[string]bool
	panelHeard  map[string]bool
	kills, aged int
	faults      int
}

func newStorm(t *testing.T, engine string) *storm {
	t.Helper()
	s := &storm{t: t, dice: seeded(t), acked: map[string]bool{}, panelHeard: map[string]bool{}, tokens: map[string]string{}}
	s.post, s.hook = mailtest.Start(t, mailtest.Config{}), newHookPlace(t, s.dice)
	m := newWatched(t)
	s.m = m
	m.args = []string{"--public-url", "http://" + m.http, "--smtp", s.post.URL("muster@example.org"), "--webhook-allow", "127.0.0.0/8"}
	s.driver, s.dsn = "sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(m.data, "control.db")}).String()
	if engine == "postgres" {
		s.driver, s.dsn = "pgx", controltest.Database(t, timescale(t))
		m.args = append(m.args, "--database", s.dsn)
	}
	m.start()
	m.ready()
	s.ann, s.bea = caretakers(t, m, s.post)
	for i := range 4 {
		var made struct{ Secret string }
		m.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": fmt.Sprint("sender ", i), "scopes": []string{"admin"}}, http.StatusCreated, &made)
		s.keys = append(s.keys, made.Secret)
	}
	for _, id := range []string{"pump-1", "panel-1"} {
		s.tokens[id] = m.device(id, "token").Token
	}
	m.ask(http.MethodPost, "/api/v1/topics", map[string]any{"name": "pumps", "devices": "pump-1"}, http.StatusCreated, nil)
	for _, p := range []*caretaker{s.ann, s.bea} {
		m.ask(http.MethodPut, "/api/v1/topics/pumps/subscriptions/"+p.id, map[string]any{"channels": []any{map[string]any{"channel": "email"}}}, http.StatusOK, nil)
	}
	m.ask(http.MethodPut, "/api/v1/topics/pumps/subscriptions/device:panel-1", map[string]any{"channels": []any{map[string]any{"channel": "mqtt"}}}, http.StatusOK, nil)
	var made struct {
		Webhook struct{ ID string }
		Secret  string
	}
	m.ask(http.MethodPost, "/api/v1/webhooks", map[string]any{"url": s.hook.URL, "types": []string{"notification.created"}}, http.StatusCreated, &made)
	s.hookID, s.hook.secret = made.Webhook.ID, made.Secret
	s.devices()
	return s
}

// devices connects both.
func (s *storm) devices() {
	s.t.Helper()
	s.pump = talk(s.t, s.m, "pump-1", s.tokens["pump-1"], "", false)
	s.panel = talk(s.t, s.m, "panel-1", s.tokens["panel-1"], "", false)
	s.panel.subscribe("devices/me/notifications", 1)
}

// heard notes what the panel has got.
func (s *storm) heard() {
	for {
		select {
		case msg := <-s.panel.heard:
			var n struct{ ID string }
			if err := json.Unmarshal([]byte(msg.payload), &n); err != nil || n.ID == "" {
				s.t.Errorf("the panel gets %s: %v", msg.payload, err)
			}
			s.panelHeard[n.ID] = true
		default:
			return
		}
	}
}

func (s *storm) step() {
	s.t.Helper()
	s.heard()
	switch n := s.dice.IntN(100); {
	case n < 40:
		s.offer(s.letter(), s.keys[s.dice.IntN(len(s.keys))])
	case n < 50:
		s.publish()
	case n < 58:
		s.again()
	case n < 68:
		s.mailFault()
	case n < 78:
		s.faults++
		s.hook.behave(hookFault(s.dice.IntN(int(hookFaults))))
	case n < 90:
		s.ack()
	default:
		s.kill()
	}
}

// letter makes the next one: a third has a dedup key, half an idempotency key.
func (s *storm) letter() *letter {
	l := &letter{title: fmt.Sprintf("letter %d", len(s.letters)), ids: map[string]bool{}}
	l.body = map[string]any{"topic": "pumps", "title": l.title, "severity": []string{"info", "major", "critical"}[s.dice.IntN(3)]}
	if s.dice.IntN(3) == 0 {
		l.dedup = fmt.Sprintf("dedup %d", s.dice.IntN(3))
		l.body["dedup_key"] = l.dedup
	}
	if s.dice.IntN(2) == 0 {
		l.key = fmt.Sprintf("key-%d", len(s.letters))
	}
	s.letters = append(s.letters, l)
	return l
}

// offer sends l; what came of it is in l.
func (s *storm) offer(l *letter, key string) {
	if l.key != "" {
		key = s.keys[0] // idempotency is of one who sends
	}
	s.offerTo(s.m, l, key)
}

func (s *storm) offerTo(m *muster, l *letter, key string) {
	id, err := post202(m, l, key)
	if err != nil || id == "" {
		return // the server was killed, or it was too much: nothing was promised
	}
	l.ids[id], l.accepted = true, true
}

// post202 returns the id that was answered with 202, empty for another answer.
func post202(m *muster, l *letter, key string) (string, error) {
	raw, err := json.Marshal(l.body)
	if err != nil {
		return "", fmt.Errorf("write a letter: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+"/api/v1/notifications", bytes.NewReader(raw))
	if err != nil {
		return "", fmt.Errorf("make a request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+key)
	if l.key != "" {
		req.Header.Set("Idempotency-Key", l.key)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return "", fmt.Errorf("send a letter: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusAccepted {
		return "", err
	}
	return acceptedID(body), nil
}

// publish sends one by the device: its PUBACK is the promise.
func (s *storm) publish() {
	l := s.letter()
	delete(l.body, "topic")
	l.key = ""
	s.deviceOffer(l)
}

func (s *storm) deviceOffer(l *letter) {
	raw, err := json.Marshal(l.body)
	if err != nil {
		s.t.Error(err)
		return
	}
	l.body = nil // it is not sent again: the device does not resend
	token := s.pump.c.Publish("devices/me/notify/pumps", 1, false, raw)
	l.accepted = token.WaitTimeout(clientLimit) && token.Error() == nil
}

// again sends one once more whose key says that it is the same.
func (s *storm) again() {
	var with []*letter
	for _, l := range s.letters {
		if l.key != "" && l.body != nil {
			with = append(with, l)
		}
	}
	if len(with) > 0 {
		s.offer(with[s.dice.IntN(len(with))], s.keys[0])
	}
}

func (s *storm) mailFault() {
	s.faults++
	steps := []mailtest.Step{mailtest.To, mailtest.Content, mailtest.From, mailtest.Kept}
	for _, step := range steps {
		s.post.Fail(step, mailtest.Fault{})
	}
	switch s.dice.IntN(8) {
	case 0:
		s.post.Fail(mailtest.To, mailtest.Fault{Code: 451, Text: "later"})
	case 1:
		s.post.Fail(mailtest.Content, mailtest.Fault{Code: 550, Text: "never"})
	case 2:
		s.post.Fail(mailtest.Content, mailtest.Fault{Silence: true})
	case 3:
		s.post.Fail(mailtest.Kept, mailtest.Fault{Silence: true})
	case 4:
		s.post.Fail(mailtest.Kept, mailtest.Fault{HangUp: true})
	case 5:
		s.post.Fail(mailtest.From, mailtest.Fault{HangUp: true})
	}
}

// ack has a person, or the panel, take care of one.
func (s *storm) ack() {
	var ids []string
	for _, l := range s.letters {
		for id := range l.ids {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	slices.Sort(ids)
	id := ids[s.dice.IntN(len(ids))]
	if s.dice.IntN(3) == 0 {
		token := s.panel.c.Publish("devices/me/notifications/"+id+"/ack", 1, false, "")
		if token.WaitTimeout(clientLimit) && token.Error() == nil {
			s.acked[id] = true
		}
		return
	}
	[]*caretaker{s.ann, s.bea}[s.dice.IntN(2)].ask(http.MethodPost, "/api/v1/notifications/"+id+"/ack", map[string]any{}, http.StatusOK)
	s.acked[id] = true
}

// kill ends the server while some are sent, and starts it again; sometimes a long time
// later, when what waits and what was under way is due.
func (s *storm) kill() {
	s.t.Helper()
	s.kills++
	var wg sync.WaitGroup
	for i := range 3 {
		l := s.letter()
		wg.Go(func() { s.offer(l, s.keys[1+i]) })
	}
	l := s.letter()
	delete(l.body, "topic")
	l.key = ""
	wg.Go(func() { s.deviceOffer(l) })
	<-time.After(time.Duration(s.dice.IntN(40_000)) * time.Microsecond)
	s.m.kill()
	wg.Wait()
	s.heard()
	if s.dice.IntN(2) == 0 {
		s.age()
	}
	s.start()
}

func (s *storm) start() {
	s.t.Helper()
	s.m.start()
	s.m.ready()
	s.devices()
}

// age lets time pass for the outbox of a server that does not run: leases have ended, and
// what waits for its next attempt is due. It is what hours would do.
func (s *storm) age() {
	s.t.Helper()
	s.aged++
	db, err := sql.Open(s.driver, s.dsn)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), workLimit)
	defer cancel()
	_, err = db.ExecContext(ctx, "UPDATE delivery SET due = created WHERE state IN ('queued', 'sending')")
	if err != nil {
		s.t.Fatalf("let time pass: %v", err)
	}
	if err := db.Close(); err != nil {
		s.t.Error(err)
	}
}

// mend ends all faults, and lets so much time pass that nothing is under way any more.
func (s *storm) mend() {
	s.t.Helper()
	s.hook.behave(hookTakes)
	for _, step := range []mailtest.Step{mailtest.To, mailtest.Content, mailtest.From, mailtest.Kept} {
		s.post.Fail(step, mailtest.Fault{})
	}
	for range stormTries {
		s.m.kill()
		s.heard()
		s.age()
		s.start()
		end := time.Now().Add(5 * time.Second)
		for time.Now().Before(end) {
			if s.open() == 0 {
				return
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	s.t.Errorf("%d deliveries are still under way", s.open())
}

// open returns how many deliveries have not ended.
func (s *storm) open() (n int) {
	s.t.Helper()
	for _, state := range []string{"queued", "sending"} {
		var page struct{ Items []json.RawMessage }
		s.m.ask(http.MethodGet, "/api/v1/deliveries?limit=1000&state="+state, nil, http.StatusOK, &page)
		n += len(page.Items)
	}
	return n
}

func (s *storm) String() string {
	return strings.Join([]string{
		fmt.Sprint(len(s.letters), " letters"), fmt.Sprint(s.kills, " kills"), fmt.Sprint(s.aged, " long pauses"), fmt.Sprint(s.faults, " changes of faults"),
		fmt.Sprint(len(s.acked), " acked"),
	}, ", ")
}

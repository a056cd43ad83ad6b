package hooks_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/feed"
	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sealer is one whose sealed texts are not the plain ones, and belong to what they are
// bound to.
type sealer struct{}

func (sealer) Seal(plain []byte, bind string) ([]byte, error) {
	out := append([]byte(bind+"\x00"), plain...)
	for i := range out {
		out[i] ^= 0x5a
	}
	return out, nil
}

func (sealer) Open(sealed []byte, bind string) ([]byte, error) {
	out := slices.Clone(sealed)
	for i := range out {
		out[i] ^= 0x5a
	}
	plain, ok := strings.CutPrefix(string(out), bind+"\x00")
	if !ok {
		return nil, errors.New("it belongs to something else")
	}
	return []byte(plain), nil
}

// sent is a Sender that remembers, and answers as it is told.
type sent struct {
	mu      sync.Mutex
	targets []hooks.Target
	last    hooks.Message
	answer  outbox.Attempt
	hold    chan struct{}
}

func (s *sent) Deliver(_ context.Context, t hooks.Target, m hooks.Message) outbox.Attempt {
	s.mu.Lock()
	s.targets, s.last = append(s.targets, t), m
	hold, answer := s.hold, s.answer
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return answer
}

// rig is webhooks over the real store and registry.
type rig struct {
	*hooks.Webhooks
	store    *control.Control
	db       *sql.DB
	registry *devices.Registry
	sent     *sent
	clock    time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	store, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	r := &rig{store: store, db: h.Read, sent: &sent{}, clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	log := slog.New(slog.DiscardHandler)
	r.registry = devices.NewRegistry(store, time.Now, log, devices.Options{})
	must(t, r.registry.Load(t.Context()))
	r.Webhooks = r.again(t)
	return r
}

// again returns the webhooks as they are after a restart.
func (r *rig) again(t *testing.T) *hooks.Webhooks {
	t.Helper()
	w := hooks.New(r.store, hooks.Options{
		Devices: r.registry, Sealer: sealer{}, Sender: r.sent, Now: func() time.Time { return r.clock },
	})
	must(t, w.Load(t.Context()))
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantKind(t testing.TB, err error, k muster.Kind) {
	t.Helper()
	if err == nil || muster.KindOf(err) != k {
		t.Fatalf("%v, want %v", err, k)
	}
}

func spec() hooks.Spec {
	return hooks.Spec{URL: "https://hooks.example.com/T0/hush?x=1", Types: []string{"device.*", "command.failed"}, Description: "To the shop", Owner: "ada"}
}

func (r *rig) make(t testing.TB, s hooks.Spec) (hooks.Webhook, string) {
	t.Helper()
	h, secret, err := r.Create(t.Context(), s)
	must(t, err)
	return h, secret
}

func TestAWebhookIsKeptOverARestart(t *testing.T) {
	r := newRig(t)
	h, secret := r.make(t, spec())
	if !strings.HasPrefix(h.ID, "whk_") || h.Version != 1 || h.Owner != "ada" || h.Disabled || !slices.Equal(h.Types, []string{"command.failed", "device.*"}) {
		t.Errorf("%+v", h)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) != 32 {
		t.Fatalf("the secret has %d bytes: %v", len(key), err)
	}
	w := r.again(t)
	got, err := w.Get(h.ID)
	must(t, err)
	if d := cmp.Diff(h, got); d != "" {
		t.Error(d)
	}
	keys, err := w.Keys(got)
	must(t, err)
	if d := cmp.Diff([][]byte{key}, keys); d != "" {
		t.Error("the secret is another one after a restart")
	}
	must(t, w.Delete(t.Context(), h.ID, nil))
	wantKind(t, w.Delete(t.Context(), h.ID, nil), muster.NotFound)
	if left := r.again(t).List(); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

func TestWhatCanBeNoWebhookIsRefused(t *testing.T) {
	r := newRig(t)
	h, _ := r.make(t, spec())
	tests := map[string]func(*hooks.Spec){
		"no URL":                           func(s *hooks.Spec) { s.URL = "" },
		"a path only":                      func(s *hooks.Spec) { s.URL = "/x" },
		"another scheme":                   func(s *hooks.Spec) { s.URL = "ftp://x.example/" },
		"no host":                          func(s *hooks.Spec) { s.URL = "https:///x" },
		"a user":                           func(s *hooks.Spec) { s.URL = "https://a:b@x.example/" },
		"a fragment":                       func(s *hooks.Spec) { s.URL = "https://x.example/#a" },
		"an empty fragment":                func(s *hooks.Spec) { s.URL = "https://x.example/#" },
		"a line break":                     func(s *hooks.Spec) { s.URL = "https://x.example/\r\nX: y" },
		"a space":                          func(s *hooks.Spec) { s.URL = "https://x.example/a b" },
		"port 0":                           func(s *hooks.Spec) { s.URL = "https://x.example:0/" },
		"a port that is none":              func(s *hooks.Spec) { s.URL = "https://x.example:99999/" },
		"a colon and no port":              func(s *hooks.Spec) { s.URL = "https://x.example:/" },
		"a long URL":                       func(s *hooks.Spec) { s.URL = "https://x.example/" + strings.Repeat("a", 2048) },
		"no type":                          func(s *hooks.Spec) { s.Types = nil },
		"a type that is none":              func(s *hooks.Spec) { s.Types = []string{"device.created", "device.exploded"} },
		"a family that is none":            func(s *hooks.Spec) { s.Types = []string{"nothing.*"} },
		"part of a word with a star":       func(s *hooks.Spec) { s.Types = []string{"dev*"} },
		"too many types":                   func(s *hooks.Spec) { s.Types = slices.Repeat([]string{"device.created"}, 51) },
		"a query that is not understood":   func(s *hooks.Spec) { s.Query = "v.>" },
		"a group that does not exist":      func(s *hooks.Spec) { s.Query = "group:nowhere" },
		"a description with control codes": func(s *hooks.Spec) { s.Description = "a\x1bb" },
		"a long description":               func(s *hooks.Spec) { s.Description = strings.Repeat("d", 501) },
	}
	for name, spoil := range tests {
		t.Run(name, func(t *testing.T) {
			s := spec()
			spoil(&s)
			_, _, err := r.Create(t.Context(), s)
			wantKind(t, err, muster.Invalid)
			if s.Types == nil {
				s.Types = []string{}
			}
			_, err = r.Update(t.Context(), h.ID, hooks.Change{URL: &s.URL, Types: s.Types, Query: &s.Query, Description: &s.Description})
			wantKind(t, err, muster.Invalid)
		})
	}
	if got := r.List(); len(got) != 1 || !cmp.Equal(got[0], h) {
		t.Errorf("%v", got)
	}
}

func TestAChangeKeepsWhatItDoesNotName(t *testing.T) {
	r := newRig(t)
	h, _ := r.make(t, spec())
	r.clock = r.clock.Add(time.Minute)
	url, off := "http://other.example/", true
	got, err := r.Update(t.Context(), h.ID, hooks.Change{URL: &url, Disabled: &off})
	must(t, err)
	want := h
	want.URL, want.Disabled, want.Version, want.Updated = url, true, 2, muster.MicrosOf(r.clock)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	same, err := r.Update(t.Context(), h.ID, hooks.Change{URL: &url})
	must(t, err)
	if d := cmp.Diff(got, same); d != "" {
		t.Errorf("a change of nothing made a new version: %s", d)
	}
	_, err = r.Update(t.Context(), h.ID, hooks.Change{URL: &h.URL, If: func(now hooks.Webhook) error {
		if now.Version != 1 {
			return muster.Errorf(muster.Stale, "it is version %d", now.Version)
		}
		return nil
	}})
	wantKind(t, err, muster.Stale)
	_, err = r.Update(t.Context(), "whk_x", hooks.Change{URL: &url})
	wantKind(t, err, muster.NotFound)
	if after, err := r.again(t).Get(h.ID); err != nil || !cmp.Equal(after, got) {
		t.Errorf("%v %v", after, err)
	}
}

func TestTheNumberOfWebhooksHasABound(t *testing.T) {
	r := newRig(t)
	for i := range hooks.MaxWebhooks {
		must(t, r.store.PutWebhook(t.Context(), hooks.Webhook{ID: fmt.Sprintf("whk_%04d", i), URL: "https://x.example/", Types: []string{"*"}}))
	}
	w := r.again(t)
	_, _, err := w.Create(t.Context(), spec())
	wantKind(t, err, muster.Conflict)
	must(t, w.Delete(t.Context(), "whk_0007", nil))
	if _, _, err := w.Create(t.Context(), spec()); err != nil {
		t.Error(err)
	}
}

func TestTwoSecretsSignWhileOneReplacesTheOther(t *testing.T) {
	r := newRig(t)
	h, first := r.make(t, spec())
	texts := func(h hooks.Webhook) (out []string) {
		keys, err := r.Keys(h)
		must(t, err)
		for _, k := range keys {
			out = append(out, "whsec_"+base64.StdEncoding.EncodeToString(k))
		}
		return out
	}
	same := func(want ...string) {
		t.Helper()
		now, err := r.Get(h.ID)
		must(t, err)
		if d := cmp.Diff(want, texts(now)); d != "" {
			t.Errorf("other secrets sign than should: %s", d)
		}
	}
	_, second, err := r.RotateSecret(t.Context(), h.ID, time.Hour)
	must(t, err)
	same(second, first)
	r.clock = r.clock.Add(59 * time.Minute)
	same(second, first)
	r.clock = r.clock.Add(time.Minute)
	same(second)
	_, third, err := r.RotateSecret(t.Context(), h.ID, time.Hour)
	must(t, err)
	got, fourth, err := r.RotateSecret(t.Context(), h.ID, time.Hour) // the second ends at once
	must(t, err)
	same(fourth, third)
	if got.Version != 4 || len(got.Secrets) != 2 {
		t.Errorf("%+v", got)
	}
	_, fifth, err := r.RotateSecret(t.Context(), h.ID, 0)
	must(t, err)
	same(fifth)
	for _, d := range []time.Duration{-1, hooks.MaxOverlap + 1} {
		_, _, err := r.RotateSecret(t.Context(), h.ID, d)
		wantKind(t, err, muster.Invalid)
	}
	same(fifth)
	_, _, err = r.RotateSecret(t.Context(), "whk_x", 0)
	wantKind(t, err, muster.NotFound)
}

func TestSecretsAreSealedAndBelongToTheirWebhook(t *testing.T) {
	r := newRig(t)
	a, text := r.make(t, spec())
	b, _ := r.make(t, spec())
	rows, err := r.store.Webhooks(t.Context())
	must(t, err)
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
	must(t, err)
	for _, row := range rows {
		if strings.Contains(string(row.Secrets[0].Sealed), string(key)) {
			t.Error("the secret is stored in clear text")
		}
	}
	b.Secrets = a.Secrets
	if _, err := r.Keys(b); muster.KindOf(err) != muster.Internal || err == nil {
		t.Errorf("a secret opens for another webhook: %v", err)
	}
}

func TestChangesAreNotedWithoutSecrets(t *testing.T) {
	r := newRig(t)
	do := func(fn func(ctx context.Context) error) {
		t.Helper()
		ctx := audit.With(t.Context(), audit.Actor{Kind: audit.System}, time.Now)
		must(t, fn(ctx))
		if !audit.Of(ctx).Noted() || audit.Of(ctx).Pending() {
			t.Error("nothing was noted, or it was not written")
		}
	}
	var h hooks.Webhook
	var secrets []string
	do(func(ctx context.Context) error {
		var secret string
		var err error
		h, secret, err = r.Create(ctx, spec())
		secrets = append(secrets, secret)
		return err
	})
	off := true
	do(func(ctx context.Context) error {
		_, err := r.Update(ctx, h.ID, hooks.Change{Disabled: &off})
		return err
	})
	do(func(ctx context.Context) error {
		_, secret, err := r.RotateSecret(ctx, h.ID, time.Hour)
		secrets = append(secrets, secret)
		return err
	})
	on := false
	do(func(ctx context.Context) error {
		_, err := r.Update(ctx, h.ID, hooks.Change{Disabled: &on})
		return err
	})
	do(func(ctx context.Context) error { _, err := r.Disable(ctx, h.ID, "410"); return err })
	do(func(ctx context.Context) error { return r.Delete(ctx, h.ID, nil) })
	all := records(t, r.db)
	actions := make([]string, len(all))
	for i, rec := range all {
		actions[i] = rec.Action
		if rec.Object != "webhooks/"+h.ID {
			t.Errorf("object is %s", rec.Object)
		}
		text := string(rec.Before) + string(rec.After)
		for _, s := range append(secrets, "hush", base64.StdEncoding.EncodeToString(h.Secrets[0].Sealed)) {
			if strings.Contains(text, strings.TrimPrefix(s, "whsec_")) {
				t.Errorf("%s holds a secret: %s", rec.Action, text)
			}
		}
	}
	want := []string{"webhook.create", "webhook.update", "webhook.rotate", "webhook.update", "webhook.disable", "webhook.delete"}
	if d := cmp.Diff(want, actions); d != "" {
		t.Error(d)
	}
}

// records reads the audit log.
func records(t *testing.T, db *sql.DB) (out []audit.Record) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT action, object, before, after FROM audit ORDER BY seq")
	must(t, err)
	defer rows.Close()
	for rows.Next() {
		var r audit.Record
		var before, after string
		must(t, rows.Scan(&r.Action, &r.Object, &before, &after))
		r.Before, r.After = json.RawMessage(before), json.RawMessage(after)
		out = append(out, r)
	}
	must(t, rows.Err())
	return out
}

func TestEventsGoToThoseWhoWantThem(t *testing.T) {
	r := newRig(t)
	for _, id := range []muster.DeviceID{"cold-1", "warm-1"} {
		tags, err := devices.TagsOf(map[string]string{"zone": strings.Split(string(id), "-")[0]})
		must(t, err)
		_, _, err = r.registry.Create(t.Context(), devices.Spec{ID: id, Tags: tags})
		must(t, err)
	}
	register := func(query string, types ...string) string {
		s := spec()
		s.Types, s.Query = types, query
		h, _ := r.make(t, s)
		return h.ID
	}
	all := register("", "*")
	exact := register("", feed.DeviceCreated)
	family := register("", "device.*")
	cold := register("tag:zone=cold", "*")
	off := register("", "*")
	yes := true
	_, err := r.Update(t.Context(), off, hooks.Change{Disabled: &yes})
	must(t, err)
	tests := []struct {
		kind   string
		device muster.DeviceID
		want   []string
	}{
		{feed.DeviceCreated, "cold-1", []string{all, exact, family, cold}},
		{feed.DeviceCreated, "warm-1", []string{all, exact, family}},
		{feed.DeviceUpdated, "cold-1", []string{all, family, cold}},
		{feed.PresenceOffline, "cold-1", []string{all, cold}},
		{feed.DeviceDeleted, "gone-1", []string{all, family}},
		{feed.JobStarted, "", []string{all}},
		{"no.such", "cold-1", nil},
	}
	check := func(w *hooks.Webhooks) {
		t.Helper()
		for _, tt := range tests {
			var got []string
			for _, h := range w.Matching(feed.Event{Type: tt.kind, Device: tt.device}) {
				got = append(got, h.ID)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("%s of %q: %s", tt.kind, tt.device, d)
			}
		}
	}
	check(r.Webhooks)
	check(r.again(t))
}

func TestAQueryFollowsItsGroup(t *testing.T) {
	r := newRig(t)
	_, _, err := r.registry.Create(t.Context(), devices.Spec{ID: "d1"})
	must(t, err)
	must(t, r.registry.PutGroup(t.Context(), devices.Group{Name: "g", Query: "id:d*"}))
	s := spec()
	s.Query, s.Types = "group:g", []string{"*"}
	h, _ := r.make(t, s)
	e := feed.Event{Type: feed.DeviceUpdated, Device: "d1"}
	if len(r.Matching(e)) != 1 || r.Problem(h) != "" {
		t.Error("the group is not looked at")
	}
	must(t, r.registry.PutGroup(t.Context(), devices.Group{Name: "g", Query: "id:x*"}))
	r.clock = r.clock.Add(10 * time.Second)
	if len(r.Matching(e)) != 0 {
		t.Error("the group's query of before is used")
	}
	must(t, r.registry.DeleteGroup(t.Context(), "g"))
	r.clock = r.clock.Add(10 * time.Second)
	if len(r.Matching(e)) != 0 || !strings.Contains(r.Problem(h), "group") {
		t.Errorf("problem is %q", r.Problem(h))
	}
}

func TestTheTestButtonSendsAnEvent(t *testing.T) {
	r := newRig(t)
	h, _ := r.make(t, spec())
	r.sent.answer = outbox.Attempt{Verdict: outbox.Delivered, Status: 200}
	a, err := r.Test(t.Context(), h.ID)
	must(t, err)
	if a != r.sent.answer {
		t.Errorf("%+v", a)
	}
	var got map[string]any
	must(t, json.Unmarshal(r.sent.last.Body, &got))
	want := map[string]any{"type": "webhook.test", "timestamp": "2026-01-02T03:04:05.000000Z", "data": map[string]any{"webhook": h.ID}}
	if d := cmp.Diff(want, got); d != "" || !strings.HasPrefix(r.sent.last.ID, "evt_") {
		t.Errorf("%s %s", r.sent.last.ID, d)
	}
	keys, err := r.Keys(h)
	must(t, err)
	if d := cmp.Diff(hooks.Target{URL: h.URL, Keys: keys}, r.sent.targets[0]); d != "" {
		t.Error("it was signed with something else")
	}
	_, err = r.Test(t.Context(), "whk_x")
	wantKind(t, err, muster.NotFound)
}

func TestAnAnswerOfGoneDisables(t *testing.T) {
	r := newRig(t)
	h, _ := r.make(t, spec())
	r.sent.answer = outbox.Attempt{Verdict: outbox.Gone, Status: 410}
	_, err := r.Test(t.Context(), h.ID)
	must(t, err)
	got, err := r.again(t).Get(h.ID)
	must(t, err)
	if !got.Disabled || got.Reason != "it answered 410 Gone" || got.Version != 2 {
		t.Errorf("%+v", got)
	}
	on := false
	got, err = r.Update(t.Context(), h.ID, hooks.Change{Disabled: &on})
	must(t, err)
	if got.Disabled || got.Reason != "" {
		t.Errorf("%+v", got)
	}
}

func TestOnlyTenTestsRunAtOnce(t *testing.T) {
	r := newRig(t)
	h, _ := r.make(t, spec())
	r.sent.hold = make(chan struct{})
	answers := make(chan error, 20)
	for range 20 {
		go func() { _, err := r.Test(t.Context(), h.ID); answers <- err }()
	}
	for range 10 { // those beyond ten come back at once
		wantKind(t, <-answers, muster.Busy)
	}
	close(r.sent.hold)
	for range 10 {
		must(t, <-answers)
	}
	r.sent.hold = nil
	if _, err := r.Test(t.Context(), h.ID); err != nil {
		t.Error(err)
	}
}

func TestALongEventIsSentThin(t *testing.T) {
	short := feed.NewEvent(feed.DeviceCreated, "d1", 5, map[string]string{"device": "d1"})
	short.Seq = 7
	if m := hooks.MessageOf(short); m.ID != "evt_7" || !bytes.Equal(m.Body, short.Envelope()) {
		t.Errorf("%s %s", m.ID, m.Body)
	}
	long := feed.NewEvent(feed.CommandFailed, "d1", 5, map[string]string{"device": "d1", "error": strings.Repeat("x", hooks.MaxEvent)})
	m := hooks.MessageOf(long)
	var got struct {
		Type string
		Data struct {
			Device    string
			Truncated bool
			Bytes     int
		}
	}
	must(t, json.Unmarshal(m.Body, &got))
	if len(m.Body) > hooks.MaxEvent || got.Type != feed.CommandFailed || got.Data.Device != "d1" || !got.Data.Truncated || got.Data.Bytes != len(long.Data) {
		t.Errorf("%d bytes: %+v", len(m.Body), got)
	}
}

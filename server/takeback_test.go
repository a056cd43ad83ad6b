package server_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
)

// asks has an admin's key call the API about rollouts, and reads what is answered into an answer.
func (u *updating) asks(method, rest, body string, want int, into any) {
	u.t.Helper()
	status, _, text := ddiCall(u.t, method, "http://"+u.HTTPAddr()+"/api/v1/rollouts"+rest, "Bearer "+servertest.AdminKey, body)
	if status != want {
		u.t.Fatalf("%s %s is answered %d %s, want %d", method, rest, status, text, want)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(text), into); err != nil {
			u.t.Fatal(err)
		}
	}
}

func TestADeviceThatInstallsWhileItsRollbackBeginsIsTakenBackOnceItHasTheRelease(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for _, engine := range []string{"sqlite", "MUSTER_TEST_POSTGRES"} {
		t.Run(strings.ToLower(strings.TrimPrefix(engine, "MUSTER_TEST_")), func(t *testing.T) {
			url := ""
			if engine != "sqlite" {
				url, _ = database(t, engine)
			}
			u := &updating{t: t, image: imageOf(5_000), ids: []string{"d1"}}
			u.Server = servertest.Start(t, func(c *server.Config) { c.PresenceGrace, c.DatabaseURL = -1, url })
			u.publish("app", "1.0.0")
			old := u.release
			u.publish("app", "2.0.0")
			c := u.client5("d1", u.create()["d1"])
			if code := c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`); code > 0x10 {
				t.Fatalf("reported: %#x", code)
			}
			var bad, back struct {
				ID        string
				Downgrade bool
			}
			u.asks(http.MethodPost, "", `{"name":"bad","release":"`+u.release+`","rollback":"`+old+`","q":"id:*","start":true,"plan":{"soak_s":0,"phases":[{"percent":100,"success":50}]}}`, http.StatusCreated, &bad)
			o := c.offer(u.OfferKeyForTest())
			c.reports(&o, 1, "installing", "")
			u.asks(http.MethodPost, "/"+bad.ID+"/pause", "", http.StatusOK, nil)
			u.asks(http.MethodPost, "/"+bad.ID+"/rollback", `{"start":true}`, http.StatusCreated, &back)
			if bad.Downgrade || !back.Downgrade {
				t.Errorf("a downgrade is the rollout %t, the rollback %t", bad.Downgrade, back.Downgrade)
			}
			u.rollout = back.ID
			u.waits(func() bool { d := u.row("d1"); return d.Due == operator.Never || d.State != rollout.Queued }, "the rollback does not look at it")
			var why struct{ Held, Words string }
			u.asks(http.MethodGet, "/"+back.ID+"/devices/d1/why", "", http.StatusOK, &why)
			if u.is("d1", rollout.Queued); why.Held != "no_other_rollout" {
				t.Fatalf("it is held by %q: %s", why.Held, why.Words)
			}
			if code := c.reports(&o, 2, "running", `,"version":"2.0.0"`); code != 0 {
				t.Fatalf("running: %#x", code)
			}
			p := c.offer(u.OfferKeyForTest())
			if p.Action == o.Action {
				t.Fatalf("offered again: %+v", p)
			}
			if d := u.row("d1"); d.From != "2.0.0" {
				t.Errorf("it is offered the old one as what had %q", d.From)
			}
			c.reports(&p, 1, "installing", "")
			c.reports(&p, 2, "running", `,"version":"1.0.0"`)
			u.becomes("d1", rollout.Confirmed)
		})
	}
}

// TestWhoLeavesARolloutIsLookedAtByThoseThatWaitForIt: at once, not with the upkeep.
func TestWhoLeavesARolloutIsLookedAtByThoseThatWaitForIt(t *testing.T) {
	s, err := server.New(t.Context(), server.Config{ // not started: nobody takes what is noted
		DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 256 << 20, MaxPacket: 256 << 10,
		Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := s.ComingForTest([]rollout.Change{
		{Device: "confirmed", From: rollout.Rebooting, To: rollout.Confirmed},
		{Device: "gone on late", From: rollout.Rebooting, To: rollout.Canceled, Late: rollout.LateInstalled},
		{Device: "tries again", From: rollout.Installing, To: rollout.Queued},
		{Device: "goes on", From: rollout.Offered, To: rollout.Downloading},
		{Device: "was not offered it", From: rollout.Queued, To: rollout.Skipped},
	})
	slices.Sort(got)
	if want := []muster.DeviceID{"confirmed", "gone on late", "tries again"}; !slices.Equal(got, want) {
		t.Errorf("looked at are %v, want %v", got, want)
	}
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func TestARolloutWhoseReleaseIsDeprecatedBeforeItsTimeIsPausedAtIt(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, _ := startUpdating(t, "app", 5_000, "d1")
	if _, err := u.CatalogForTest().Deprecate(t.Context(), u.release, "usr_ann"); err != nil {
		t.Fatal(err)
	}
	r := &rollout.Rollout{
		ID: u.rollout, Name: "all", Seed: "s", Status: rollout.Scheduled, StartAt: muster.MicrosOf(time.Now()), Membership: rollout.Snapshot, Plan: rollout.DefaultPlan(), Version: 1,
		Release: u.release, Product: "pump", Counts: make([]rollout.Counts, 1), Upto: []uint64{0},
	}
	r.Plan.Phases = []rollout.Phase{{Name: "all", Percent: 100, Success: 50, Gate: rollout.Auto}}
	r.Counts[0].By[rollout.Queued] = 1
	if err := u.ControlForTest().InsertRollout(t.Context(), r, []rollout.Device{{Rollout: r.ID, ID: "d1", Rank: rollout.Rank("s", "d1")}}); err != nil {
		t.Fatal(err)
	}
	var x struct {
		Progress struct{ Status, Reason string }
	}
	u.waits(func() bool {
		u.asks(http.MethodGet, "/"+r.ID, "", http.StatusOK, &x)
		return x.Progress.Status != "scheduled"
	}, "it waits on")
	if x.Progress.Status != "paused" || x.Progress.Reason != "release_deprecated" {
		t.Errorf("it is %+v", x.Progress)
	}
	var refused struct{ Detail string }
	u.asks(http.MethodPost, "/"+r.ID+"/resume", "{}", http.StatusConflict, &refused)
	if !strings.Contains(refused.Detail, "deprecated") {
		t.Errorf("it is not said why: %s", refused.Detail)
	}
	u.is("d1", rollout.Queued)
}

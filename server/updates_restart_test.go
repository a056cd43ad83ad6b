package server_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/ingest"
	"muster/server"
	"muster/server/servertest"
)

// startsAgain has a server on one data directory that is started, stopped, and started again.
func startsAgain(t *testing.T, ids ...string) (u *updating, start func() (stop func())) {
	cfg := server.Config{
		DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable,
		LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, AdminKey: servertest.AdminKey, Version: "test",
		Logger: slog.New(slog.DiscardHandler), Now: time.Now, PresenceGrace: -1,
	}
	cfg.DDI.Idle, cfg.DDI.Busy, cfg.DDI.Reboot = time.Second, time.Second, time.Second
	u = &updating{t: t, image: imageOf(5_000), ids: ids, rollout: "r1", soak: time.Hour, retry: time.Hour}
	return u, func() (stop func()) {
		t.Helper()
		s, err := server.New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		u.Server = s
		return func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), soon)
			defer cancel()
			if err := s.Stop(ctx); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestAVersionThatIsReportedBeforeTheFirstRoundAfterAStartIsNoRollBack has a server end while
// one device restarts into the release and another one soaks: both come back to the next one.
func TestAVersionThatIsReportedBeforeTheFirstRoundAfterAStartIsNoRollBack(t *testing.T) {
	t.Parallel()
	u, start := startsAgain(t, "d1", "d2")
	stop := start()
	tokens := u.fill("app")
	u.begin()
	for _, id := range u.ids {
		c := u.client3(id, tokens[id])
		o := c.offer(u.OfferKeyForTest())
		c.reports(&o, 1, "rebooting", "")
		u.becomes(id, rollout.Rebooting)
		c.leave()
	}
	err := u.ControlForTest().Decide(t.Context(), u.rollout, director.Fence{}, 1, director.Select{IDs: []muster.DeviceID{"d2"}}, func(_ *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
		list[0].Soaking, list[0].Deadline = true, 1 // it was over while nobody was there
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	stop()

	defer start()()
	c := u.client3("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"2.0.0"}}`)
	u.waits(func() bool { return u.row("d1").Soaking }, "its version is not taken for the release's")
	u.is("d1", rollout.Rebooting)
	u.is("d2", rollout.Rebooting)
	u.client3("d2", tokens["d2"])
	u.becomes("d2", rollout.Confirmed)
}

// What goes on is read at the start: nobody has to report first.
func TestWhoUpdatesIsKnownAfterARestart(t *testing.T) {
	u, start := startsAgain(t, "d1")
	stop := start()
	token := u.fill("app")["d1"]
	c := u.client5("d1", token)
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	c.reports(&o, 1, "installing", "")
	u.becomes("d1", rollout.Installing)
	c.leave()
	stop()
	stop = start()
	defer stop()
	c = u.client5("d1", token)
	defer c.leave()
	u.everywhere("updating", "after the restart")
}

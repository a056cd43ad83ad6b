// Package servertest starts the whole server, every room of it, on free ports of
// the loopback address for tests. It is imported by tests only.
package servertest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"muster/ingest"
	"muster/server"
	"muster/store/control/controltest"
)

// AdminKey is an admin API key of every server that Start starts.
const AdminKey = "mst_servertest-admin-key-0001"

// stopGrace bounds the stop at the end of a test.
const stopGrace = 20 * time.Second

// Start starts a server on a fresh data directory, changed by the given
// functions, and stops it when the test ends. Where it is on SQLite, its control data
// is migrated beforehand.
func Start(t testing.TB, change ...func(*server.Config)) *server.Server {
	t.Helper()
	cfg := server.Config{
		DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable,
		LogMaxBytes: 256 << 20, MaxPacket: 256 << 10, AdminKey: AdminKey, Version: "test",
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
	for _, c := range change {
		c(&cfg)
	}
	if cfg.DatabaseURL == "" {
		controltest.Fill(t, cfg.DataDir)
	}
	s, err := server.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), stopGrace)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s
}

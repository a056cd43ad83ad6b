package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster"
	"muster/server"
	"muster/server/servertest"
)

func TestAnAdminOfTheEnvironmentEndsTheSetUpLink(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"at the first start", "at the next"} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t, func(c *server.Config) {
				c.DataDir, c.AdminEmail, c.AdminPassword = dir, "root@example.com", "correct horse battery"
			})
			if s.SetupLink() != "" {
				t.Error("there is a set-up link besides")
			}
			if i, err := os.Stat(filepath.Join(dir, "secret.key")); err != nil || i.Mode().Perm() != 0o600 {
				t.Errorf("the key of the data directory: %v", err)
			}
		})
	}
}

func TestWhatAnAdminOfTheEnvironmentMustBe(t *testing.T) {
	for name, change := range map[string]func(*server.Config){
		"no password":      func(c *server.Config) { c.AdminEmail = "root@example.com" },
		"no e-mail":        func(c *server.Config) { c.AdminPassword = "correct horse battery" },
		"a bad e-mail":     func(c *server.Config) { c.AdminEmail, c.AdminPassword = "root", "correct horse battery" },
		"a short password": func(c *server.Config) { c.AdminEmail, c.AdminPassword = "root@example.com", "short" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := server.Config{
				DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", LogMaxBytes: 256 << 20, MaxPacket: 256 << 10,
				Logger: slog.New(slog.DiscardHandler), Now: time.Now,
			}
			change(&cfg)
			if _, err := server.New(t.Context(), cfg); err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("it gives %v", err)
			}
			if left, err := os.ReadDir(cfg.DataDir); err != nil || len(left) != 0 {
				t.Errorf("the data directory was used: %v, %v", left, err)
			}
		})
	}
}

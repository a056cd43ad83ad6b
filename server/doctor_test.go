package server_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/ingest"
	"muster/server"
)

const doctorsKey = "mst_the-key-of-the-doctor-0"

func wrong(t *testing.T, dir string) (names []string, all map[string]string) {
	t.Helper()
	all = map[string]string{}
	server.Doctor(t.Context(), dir, "", time.Now(), server.Images{}, func(c server.Check) {
		all[c.Name] = c.Detail
		if !c.OK {
			names = append(names, c.Name)
		}
	})
	return names, all
}

func TestTheDoctorFindsWhatWasTamperedWithAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s, err := server.New(t.Context(), server.Config{
		DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 256 << 20,
		MaxPacket: 256 << 10, AdminKey: doctorsKey, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"d1", "d2", "d3"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"/api/v1/devices", strings.NewReader(`{"id":"`+id+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+doctorsKey)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusCreated {
			t.Fatalf("making %s gives %d", id, resp.StatusCode)
		}
	}
	if found, all := wrong(t, dir); len(found) != 0 || all["server"] != "running" {
		t.Errorf("beside a running server it finds %v: %v", found, all)
	}
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	found, all := wrong(t, dir)
	if len(found) != 0 || all["server"] != "stopped" || !strings.HasSuffix(all["audit log"], "0 wait for the next seal") {
		t.Errorf("after a stop it finds %v: %v", found, all)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE audit SET actor = 'key_x' WHERE seq = 2"); err != nil {
		t.Fatal(err)
	}
	if found, all := wrong(t, dir); len(slices.Compact(found)) != 1 || found[0] != "audit log" {
		t.Errorf("of a changed record it finds %v: %v", found, all)
	}
	if _, err := db.ExecContext(t.Context(), "UPDATE muster_control_schema SET version_id = 9999 WHERE version_id = (SELECT max(version_id) FROM muster_control_schema)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "secret.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if found, all := wrong(t, dir); len(found) != 2 || found[0] != "data directory" || found[1] != "database" {
		t.Errorf("of an open key and a newer schema it finds %v: %v", found, all)
	}
	if found, _ := wrong(t, filepath.Join(dir, "nothing")); len(found) != 1 {
		t.Errorf("where nothing is it finds %v", found)
	}
}

// TestWhatAServerMetInItsAuditLogIsFoundForEver does what a holder of the database alone can
// do, and has a server go on with it.
func TestWhatAServerMetInItsAuditLogIsFoundForEver(t *testing.T) {
	for _, tt := range []struct {
		name, what string
		do         []string
	}{
		{"the newest cut off", "cut short or put back", []string{
			"DELETE FROM audit WHERE seq > 2", "DELETE FROM audit_seal", "UPDATE counter SET value = 2 WHERE name = 'audit'",
		}},
		{"a record put in", "was not written by Muster", []string{
			`INSERT INTO audit (seq, at, actor_kind, actor, actor_name, address, request, action, object, before, after)
			SELECT max(seq) + 1, max(at), 'user', 'usr_1', 'Ana', '', '', 'device.delete', 'devices/d1', 'null', 'null' FROM audit`,
			"UPDATE counter SET value = value + 1 WHERE name = 'audit'",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			var log safeBuffer
			serve := func(ids ...string) (metrics, system string) {
				s, err := server.New(t.Context(), server.Config{
					DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 256 << 20,
					MaxPacket: 256 << 10, AdminKey: doctorsKey, Version: "test", Logger: slog.New(slog.NewTextHandler(&log, nil)), Now: time.Now,
				})
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				for _, id := range ids {
					doctorAsks(t, s, http.MethodPost, "/api/v1/devices", `{"id":"`+id+`"}`)
				}
				doctorAsks(t, s, http.MethodGet, "/readyz", "")
				metrics, system = doctorAsks(t, s, http.MethodGet, "/metrics", ""), doctorAsks(t, s, http.MethodGet, "/api/v1/system", "")
				if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
					t.Fatal(err)
				}
				return metrics, system
			}
			serve("d1", "d2", "d3")
			db, err := sql.Open("sqlite", filepath.Join(dir, "control.db"))
			if err != nil {
				t.Fatal(err)
			}
			for _, text := range tt.do {
				if _, err := db.ExecContext(t.Context(), text); err != nil {
					t.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			serve("e1", "e2", "e3", "e4")
			metrics, system := serve("f1")
			if _, all := wrong(t, dir); !strings.Contains(all["audit log"], tt.what) {
				t.Errorf("it finds %q", all["audit log"])
			}
			if !strings.Contains(metrics, "muster_audit_broken 1\n") || !strings.Contains(system, `"broken":1`) || !strings.Contains(system, tt.what) {
				t.Errorf("the metrics or the System page do not show it: %s", system)
			}
			if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), tt.what) {
				t.Errorf("the log does not say it: %s", log.String())
			}
		})
	}
}

func doctorAsks(t *testing.T, s *server.Server, method, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+doctorsKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if _ = resp.Body.Close(); err != nil || resp.StatusCode >= 300 {
		t.Fatalf("%s %s gives %d: %s, %v", method, path, resp.StatusCode, text, err)
	}
	return string(text)
}

// TestTheDoctorHoldsFirmwareAgainstTheAuditLog does so by the whole server; each column is store/control's.
func TestTheDoctorHoldsFirmwareAgainstTheAuditLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	s, err := server.New(t.Context(), server.Config{
		DataDir: dir, HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", AckLevel: ingest.LevelDurable, LogMaxBytes: 256 << 20,
		MaxPacket: 256 << 10, AdminKey: doctorsKey, Version: "test", Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	doctorAsks(t, s, http.MethodPut, "/api/v1/firmware/policy", `{"threshold":2}`)
	if found, all := wrong(t, dir); len(found) != 0 {
		t.Errorf("beside a running server it finds %v: %v", found, all)
	}
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "control.db"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(t.Context(), "UPDATE firmware_policy SET threshold = 1")
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	found, all := wrong(t, dir)
	if !slices.Equal(found, []string{"firmware"}) || !strings.HasPrefix(all["firmware"], "firmware/policy: threshold: not as the audit log's record ") {
		t.Errorf("it finds %v: %v", found, all)
	}
}

package server_test

import (
	"context"
	"database/sql"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
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
	server.Doctor(t.Context(), dir, "", time.Now(), func(c server.Check) {
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
	if found, all := wrong(t, dir); len(found) != 1 || found[0] != "audit log" {
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

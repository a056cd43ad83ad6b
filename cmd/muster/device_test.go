package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"muster/server/servertest"
)

func TestDevicesAndKeysByCommand(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	do := func(want int, args ...string) (out, failed string) {
		t.Helper()
		var o, e bytes.Buffer
		args = append(args, "--server", "http://"+s.HTTPAddr(), "--key", servertest.AdminKey)
		if code := run(t.Context(), args, &console{&o, &e}); code != want {
			t.Fatalf("muster %v: exit code %d, %s%s", args[:3], code, o.String(), e.String())
		}
		return o.String(), e.String()
	}
	has := func(out string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(out, w) {
				t.Errorf("no %q in %s", w, out)
			}
		}
	}
	out, _ := do(0, "device", "create", "pump-7", "--name", "Pump 7", "--tags", "site=berlin")
	has(out, "ID", "pump-7", "TOKEN")
	_, failed := do(1, "device", "create", "pump-7")
	has(failed, "muster: ")
	out, _ = do(0, "device", "list", "tag:site=berlin")
	has(out, "ID", "STATE", "pump-7", "never")
	if got := shown("a\x1b[2J\nb\u009b"); got != "a [2J b " {
		t.Errorf("what moves the terminal's cursor is shown as %q", got)
	}
	out, _ = do(0, "device", "list", "--json")
	var listed []map[string]any
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 1 || listed[0]["id"] != "pump-7" {
		t.Errorf("%v: %s", err, out)
	}
	out, _ = do(0, "device", "send", "pump-7", "reboot", `{"delay_s":5}`, "--ttl", "10m")
	has(out, "queued")
	_, failed = do(1, "device", "send", "pump-7", "reboot", "{")
	has(failed, "not JSON")
	out, _ = do(0, "device", "get", "pump-7")
	has(out, "PROFILE", "default")
	do(0, "device", "delete", "pump-7", "--data", "keep")
	_, failed = do(1, "device", "get", "pump-7")
	has(failed, "muster: ", "no")

	for _, ended := range []string{"0s", "-5h"} {
		var o, e bytes.Buffer
		if code := run(t.Context(), []string{"key", "create", "ended", "--scopes", "devices:read", "--expires=" + ended}, &console{&o, &e}); code == 0 || !strings.Contains(e.String(), "--expires") {
			t.Errorf("a key that expires after %s: %d %s%s", ended, code, o.String(), e.String())
		}
	}
	out, _ = do(0, "key", "create", "reports", "--scopes", "devices:read,telemetry:read", "--expires", "24h")
	secret := strings.TrimSpace(out)
	if !strings.HasPrefix(secret, "mst_") {
		t.Fatalf("the key is %q", out)
	}
	out, _ = do(0, "key", "list", "--json")
	var keys []struct{ ID, Name string }
	if err := json.Unmarshal([]byte(out), &keys); err != nil {
		t.Fatal(err)
	}
	id := ""
	for _, k := range keys {
		if k.Name == "reports" {
			id = k.ID
		}
	}
	out, _ = do(0, "key", "delete", id)
	has(out, "revoked "+id)
	var o, e bytes.Buffer
	if code := run(t.Context(), []string{"device", "list", "--server", "http://" + s.HTTPAddr(), "--key", secret}, &console{&o, &e}); code != 1 || !strings.Contains(e.String(), "MUSTER_KEY") {
		t.Errorf("with a revoked key: %d %s%s", code, o.String(), e.String())
	}
	if code := run(t.Context(), []string{"device", "list", "--server", "http://127.0.0.1:1", "--key", secret}, &console{&o, &e}); code != 1 || !strings.Contains(e.String(), "no answer from") {
		t.Errorf("without a server: %d %s", code, e.String())
	}
}

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"
)

// zoneAsk names a zone that the test's binary, started once more, is to load.
const zoneAsk = "MUSTER_TEST_ZONE"

func TestMain(m *testing.M) {
	if zone := os.Getenv(zoneAsk); zone != "" {
		at, err := time.LoadLocation(zone)
		if err != nil {
			os.Exit(3)
		}
		_, offset := time.Date(2026, 7, 1, 12, 0, 0, 0, at).Zone()
		if json.NewEncoder(os.Stdout).Encode(offset) != nil {
			os.Exit(4)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestZonesComeWithTheBinary starts a binary of what main imports with ZONEINFO at an empty
// directory. What the system has besides is read too: that it is not needed is seen in
// the binary itself, in which the zones lie as they are.
func TestZonesComeWithTheBinary(t *testing.T) {
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for zone, want := range map[string]int{"Europe/Berlin": 7200, "America/New_York": -14400, "Asia/Kolkata": 19800} {
		if !bytes.Contains(binary, []byte(zone+"TZif2")) { // as the archive has it: the name, and then the zone
			t.Errorf("the binary does not have %s", zone)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = []string{zoneAsk + "=" + zone, "ZONEINFO=" + t.TempDir(), "GOROOT=" + t.TempDir()}
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			t.Errorf("%s does not load: %v", zone, err)
			continue
		}
		var offset int
		if err := json.Unmarshal(out.Bytes(), &offset); err != nil || offset != want {
			t.Errorf("%s is %d s before UTC in summer, want %d: %v", zone, offset, want, err)
		}
	}
}

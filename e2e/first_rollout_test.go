package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// section is what is written below a heading of a page, down to the next one of the same level.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", path, heading)
	}
	text, _, _ := strings.Cut(rest, "\n## ")
	return text
}

// blocks are the shell commands of a section, as they are written there.
func blocks(text string) (out []string) {
	for {
		_, rest, ok := strings.Cut(text, "```sh\n")
		if !ok {
			return out
		}
		block, after, _ := strings.Cut(rest, "\n```")
		out, text = append(out, block), after
	}
}

// TestTheFirstRolloutInFiveMinutesRunsAsItIsWritten pastes the commands of docs/firmware.md into a shell on a machine without
// a server. The ports alone are others, by the environment: the commands are as they are.
func TestTheFirstRolloutInFiveMinutesRunsAsItIsWritten(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "awk", "grep"} {
		needs(t, tool)
	}
	written := blocks(section(t, "../docs/firmware.md", "A first rollout in five minutes"))
	if len(written) != 6 {
		t.Fatalf("there are %d blocks of commands", len(written))
	}
	dir, path := t.TempDir(), t.TempDir()
	if err := os.Symlink(program, filepath.Join(path, "muster")); err != nil {
		t.Fatal(err)
	}
	http, mqtt := freeAddr(t), freeAddr(t)
	const before = "sim= server=\ntrap 'kill $sim $server 2>/dev/null || true; wait' EXIT\n" // also when a command fails
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", before+strings.Join(written, "\n"))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "no_proxy=127.0.0.1", "MUSTER_HTTP="+http, "MUSTER_MQTT="+mqtt, "MUSTER_SERVER=http://"+http)
	out, err := cmd.CombinedOutput()
	said := string(out)
	if err != nil {
		for _, name := range []string{"server.log", "sim.log"} {
			t.Log(tail(filepath.Join(dir, "first-rollout", name), 4<<10))
		}
		t.Fatalf("%v:\n%s", err, said)
	}
	for _, want := range []string{"completed", "confirmed 2\n", "confirmed 10\n", "The device has the release", "paused: failure_threshold", "vouches for"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not in what it prints:\n%s", want, said)
		}
	}
	if strings.Contains(said, "WRONG") {
		t.Errorf("the doctor finds something:\n%s", said)
	}
}

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// freshLimit is for what a clone compiles anew: all of Muster, its modules are in the cache.
const freshLimit = 8 * time.Minute

// TestAFreshCloneIsALiveDashboardWithoutNodeAndWithoutNetwork does what the README says: clone, and
// one command. It has Go and nothing else in its PATH, and no network but a loopback of its own.
func TestAFreshCloneIsALiveDashboardWithoutNodeAndWithoutNetwork(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		missing(t, "only root may take the network away from a program")
	}
	golang, git, ip, nsenter, unshare := needs(t, "go"), needs(t, "git"), needs(t, "ip"), needs(t, "nsenter"), needs(t, "unshare")
	dir := t.TempDir()
	clone, bin := filepath.Join(dir, "muster"), filepath.Join(dir, "bin")
	if r := command(t, git, "clone", "-q", "..", clone); r.code != 0 {
		t.Fatalf("clone: %s", r)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(golang, filepath.Join(bin, "go")); err != nil {
		t.Fatal(err)
	}
	m := &muster{t: t, http: "localhost:8080", outPath: filepath.Join(dir, "stdout"), errPath: filepath.Join(dir, "stderr")}
	pid := m.runFresh(clone, bin, fmt.Sprintf("%s link set lo up && exec go run ./cmd/muster", ip), unshare)
	m.await("the set-up link", freshLimit, func() bool {
		out, err := os.ReadFile(m.outPath)
		return err == nil && setupAddress.Match(out)
	})

	browser := filepath.Join(dir, "chromium")
	if err := os.WriteFile(browser, fmt.Appendf(nil, "#!/bin/sh\nexec %s -t %d -n %s \"$@\"\n", nsenter, pid, chromium(t)), 0o700); err != nil {
		t.Fatal(err)
	}
	b := openTabBy(t, browser, m.http)
	b.do(chromedp.Navigate(m.setupLink()))
	b.wait("the empty page", `document.querySelector("#connect-title")?.textContent.includes("Connect the first device")`)
	b.wait("the live connection", `document.querySelector(".live")?.textContent.includes("Live")`)
}

// runFresh runs a line of the shell in a network of its own until the test ends, and returns its pid.
func (m *muster) runFresh(dir, path, line, unshare string) int {
	m.t.Helper()
	stdout, stderr := appendTo(m.t, m.outPath), appendTo(m.t, m.errPath)
	defer stdout.Close()
	defer stderr.Close()
	c := exec.Command(unshare, "-n", "/bin/sh", "-c", line)
	c.Dir, c.Stdout, c.Stderr = dir, stdout, stderr
	c.Env = []string{"PATH=" + path, "HOME=" + os.Getenv("HOME"), "GOPROXY=off", "GOTOOLCHAIN=local", "GOFLAGS=-mod=readonly -trimpath"} // without its path a clone is what was compiled already
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "TMPDIR", "GOTMPDIR"} {
		if v := os.Getenv(name); v != "" {
			c.Env = append(c.Env, name+"="+v)
		}
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		m.t.Fatalf("run it: %v", err)
	}
	m.t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // go run and what it runs
		_ = c.Wait()                                      // killed, it fails
		if m.t.Failed() {
			m.t.Logf("it printed:\n%s\n%s", tail(m.outPath, 4<<10), tail(m.errPath, 4<<10))
		}
	})
	return c.Process.Pid
}

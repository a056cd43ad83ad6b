package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/store/control/controltest"
)

const (
	startLimit = 60 * time.Second // a start with the race detector on a busy machine
	stopLimit  = 40 * time.Second
	lookEvery  = 10 * time.Millisecond
)

// muster is one data directory and the process that serves it, over all its
// restarts. Its methods are for the test's own goroutine, but for the addresses.
type muster struct {
	t          *testing.T
	program    string // the binary, program or watched
	http, mqtt string // host:port, the same over restarts
	data       string
	key        string // admin API key
	args       []string
	env        []string // beside the test's own
	outPath    string   // what all its processes printed, stdout
	errPath    string   // and stderr
	cmd        *exec.Cmd
	exited     chan error // yields how the process ended, once
}

// newMuster prepares a server; start starts it. When the test fails its log is shown.
func newMuster(t *testing.T, args ...string) *muster {
	t.Helper()
	dir := t.TempDir()
	m := &muster{
		t: t, program: program, http: freeAddr(t), mqtt: freeAddr(t), data: filepath.Join(dir, "data"), key: "mst_" + rand.Text(),
		args: args, outPath: filepath.Join(dir, "stdout"), errPath: filepath.Join(dir, "stderr"),
	}
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the server printed:\n%s", tail(m.outPath, 4<<10))
			t.Logf("the server's log:\n%s", tail(m.errPath, 12<<10))
		}
	})
	return m
}

// newWatched is newMuster with the watched binary. What the race detector finds fails the test, however
// the server ends.
func newWatched(t *testing.T, args ...string) *muster {
	t.Helper()
	m := newMuster(t, args...)
	m.program = watched
	t.Cleanup(func() { // before newMuster's own
		m.kill()
		said, err := os.ReadFile(m.errPath)
		if _, race, found := bytes.Cut(said, []byte("WARNING: DATA RACE")); err == nil && found {
			t.Errorf("the race detector says:\n%s", upTo(race, 12<<10))
		}
	})
	return m
}

func upTo(b []byte, n int) []byte { return b[:min(n, len(b))] }

// serve starts a server and waits until it is ready.
func serve(t *testing.T, args ...string) *muster {
	t.Helper()
	return newMuster(t, args...).serving()
}

// serveWatched is serve with the watched binary.
func serveWatched(t *testing.T, args ...string) *muster {
	t.Helper()
	return newWatched(t, args...).serving()
}

func (m *muster) serving() *muster {
	m.t.Helper()
	m.start()
	m.ready()
	return m
}

// start starts the process without waiting for it. What it finds at its first start on
// SQLite is control data that is migrated and empty; a demo begins with nothing.
func (m *muster) start() {
	m.t.Helper()
	if !slices.Contains(m.args, "--database") && !slices.Contains(m.args, "--demo") {
		controltest.Fill(m.t, m.data)
	}
	stdout, stderr := appendTo(m.t, m.outPath), appendTo(m.t, m.errPath)
	defer stdout.Close()
	defer stderr.Close()
	args := append([]string{"serve", "--data", m.data, "--http", m.http, "--mqtt", m.mqtt}, m.args...)
	m.cmd = exec.Command(m.program, args...)
	m.cmd.Env = append(append(os.Environ(), m.env...), "MUSTER_ADMIN_KEY="+m.key)
	m.cmd.Stdout, m.cmd.Stderr = stdout, stderr
	if err := m.cmd.Start(); err != nil {
		m.t.Fatalf("start muster: %v", err)
	}
	exited := make(chan error, 1)
	m.exited = exited
	cmd := m.cmd
	go func() { exited <- cmd.Wait() }() // kill and stop wait for it
}

func appendTo(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatalf("open the server's log: %v", err)
	}
	return f
}

// ready waits until /readyz answers 200.
func (m *muster) ready() {
	m.t.Helper()
	m.await("the server to be ready", startLimit, func() bool {
		select {
		case err := <-m.exited:
			m.exited <- err
			m.t.Fatalf("the server ended while starting: %v", err)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		status, _, err := get(ctx, "http://"+m.http+"/readyz", "")
		return err == nil && status == http.StatusOK
	})
}

// kill ends the process by SIGKILL and waits for it. It does nothing when there is
// none.
func (m *muster) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill() // it may have ended by itself
	<-m.exited
	m.cmd = nil
}

// stop ends the process by SIGTERM and wants exit code 0.
func (m *muster) stop() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatalf("stop the server: %v", err)
	}
	select {
	case err := <-m.exited:
		m.cmd = nil
		if err != nil {
			m.t.Errorf("the server did not stop cleanly: %v", err)
		}
	case <-time.After(stopLimit):
		m.t.Fatalf("the server did not stop within %s", stopLimit)
	}
}

// await looks again and again until ok, and fails the test after limit.
func (m *muster) await(what string, limit time.Duration, ok func() bool) {
	m.t.Helper()
	await(m.t, what, limit, ok)
}

func await(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	end := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
}

// pause waits for d, or less when ctx ends; false says that it ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// givenAddrs are the addresses that freeAddr has given.
var givenAddrs sync.Map

// freeAddr returns a free address on the loopback below the ports that the kernel
// gives to outgoing connections: while the server is down, one of the many clients
// that try to reach it would otherwise sooner or later be given its very port.
// None is given twice: two parts of one server ask one after the other.
func freeAddr(t *testing.T) string {
	t.Helper()
	const first, last = 12_000, 32_000
	for range 200 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(first+mathrand.IntN(last-first)))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatalf("close a probe: %v", err)
		}
		if _, given := givenAddrs.LoadOrStore(addr, true); given {
			continue
		}
		return addr
	}
	t.Fatal("no free port found")
	return ""
}

// tail returns the last n bytes of a file.
func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			b = b[i+1:]
		}
	}
	return string(b)
}

// needs returns the path of a program. Without it the test is skipped, in CI it
// fails.
func needs(t *testing.T, name string) string {
	t.Helper()
	for _, p := range []string{name, "/usr/sbin/" + name} {
		if path, err := exec.LookPath(p); err == nil {
			return path
		}
	}
	missing(t, name+" is not installed (scripts/setup-test.sh does it)")
	return ""
}

// missing skips the test for want of something; in CI that is a failure.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s, and CI skips nothing", why)
	}
	t.Skip(why)
}

// result is how a program ended.
type result struct {
	code           int
	stdout, stderr string
}

// execute runs a program to its end, at most for limit.
func execute(t *testing.T, limit time.Duration, cmd func(ctx context.Context) *exec.Cmd) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := cmd(ctx)
	var stdout, stderr strings.Builder
	c.Stdout, c.Stderr = &stdout, &stderr
	c.WaitDelay = 5 * time.Second
	err := c.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s did not end within %s; it printed %s%s", c.Path, limit, stdout.String(), stderr.String())
	}
	r := result{stdout: stdout.String(), stderr: stderr.String()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.code = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("run %s: %v", c.Path, err)
	}
	return r
}

// command is execute for what needs only a path and arguments.
func command(t *testing.T, name string, args ...string) result {
	t.Helper()
	return execute(t, 30*time.Second, func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, name, args...) })
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
}

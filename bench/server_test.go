package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"muster/store/postgres/pgtest"
)

const (
	startLimit = 60 * time.Second
	stopLimit  = 90 * time.Second
	drainLimit = 5 * time.Minute
	clockTicks = 100 // USER_HZ of every Linux: /proc counts processor time in hundredths
)

// server is a broker under test, over its restarts.
type server struct {
	b     *testing.B
	name  string
	mqtt  string // host:port
	http  string // of muster, else empty
	key   string
	admin login // may use every topic

	path, env string
	args      []string
	listens   func() bool // it takes connections and knows all of them
	cmd       *exec.Cmd
	exited    chan error // yields how the process ended, once
	said      *bytes.Buffer
}

// onBoth calls f for SQLite, and for an empty TimescaleDB where there is one; in CI there must be.
func onBoth(b *testing.B, f func(b *testing.B, name, database string)) {
	b.Helper()
	f(b, "sqlite", "")
	if dsn := os.Getenv("MUSTER_TEST_TIMESCALE"); dsn != "" {
		f(b, "timescaledb", pgtest.Empty(b, dsn))
	} else if os.Getenv("CI") == "true" {
		b.Fatal("MUSTER_TEST_TIMESCALE is not set, and CI skips nothing")
	}
}

// startMuster starts muster, on SQLite without a database URL, with devices that
// each have a token.
func startMuster(b *testing.B, database string, devices int) (*server, []login) {
	b.Helper()
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	s := &server{b: b, name: "muster", mqtt: freeAddr(b), http: freeAddr(b), key: "mst_" + rand.Text(), path: path}
	s.admin = login{id: "bench-admin", user: s.key}
	s.env = "MUSTER_ADMIN_KEY=" + s.key
	s.args = []string{"serve", "--data", b.TempDir(), "--http", s.http, "--mqtt", s.mqtt, "--log-level", "warn"}
	if database != "" {
		s.args = append(s.args, "--database", database)
	}
	s.listens = func() bool {
		status, _ := s.ask(http.MethodGet, "/readyz", nil, nil)
		return status == http.StatusOK
	}
	b.Cleanup(s.stop)
	s.start()
	logins := s.devices(devices)
	return s, logins
}

// devices makes devices, several at a time.
func (s *server) devices(n int) []login {
	s.b.Helper()
	logins, errs := make([]login, n), make([]error, n)
	turns := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range logins {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			id := fmt.Sprintf("bench-%05d", i)
			var made struct{ Credential struct{ Token string } }
			status, err := s.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": id, "credential": "token"}, &made)
			if err != nil || status != http.StatusCreated {
				errs[i] = fmt.Errorf("make device %s: status %d, %w", id, status, err)
			}
			logins[i] = login{id: id, user: made.Credential.Token}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.b.Fatal(err)
	}
	return logins
}

// start starts the process and waits until it listens.
func (s *server) start() {
	s.b.Helper()
	s.cmd = exec.Command(s.path, s.args...)
	if s.env != "" {
		s.cmd.Env = append(os.Environ(), s.env)
	}
	s.said = new(bytes.Buffer)
	s.cmd.Stderr = s.said
	if err := s.cmd.Start(); err != nil {
		s.b.Fatalf("start %s: %v", s.name, err)
	}
	exited, cmd := make(chan error, 1), s.cmd
	s.exited = exited
	go func() { exited <- cmd.Wait() }() // kill and stop wait for it
	s.await(s.name+" to listen", startLimit, s.listens)
}

// kill ends the process by SIGKILL.
func (s *server) kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.exited
	s.cmd = nil
}

// stop ends the process, if there is one, by SIGTERM, and wants it to end cleanly.
func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.AfterFunc(stopLimit, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	if err := <-s.exited; err != nil {
		said := s.said.String()
		s.b.Errorf("%s ended with %v: %s", s.name, err, said[max(0, len(said)-4096):])
	}
	s.cmd = nil
}

func (s *server) await(what string, limit time.Duration, ok func() bool) {
	s.b.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(limit)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			s.b.Fatalf("waited %s in vain for %s", limit, what)
		}
	}
}

// client keeps as many connections as devices are made at a time.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}

// ask calls muster's API.
func (s *server) ask(method, path string, in, out any) (status int, err error) {
	raw, err := json.Marshal(in)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.http+path, bytes.NewReader(raw))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	switch {
	case err != nil:
		return resp.StatusCode, err
	case out == nil:
		return resp.StatusCode, nil
	}
	if text, ok := out.(*string); ok {
		*text = string(body)
		return resp.StatusCode, nil
	}
	return resp.StatusCode, json.Unmarshal(body, out)
}

// metric returns one metric of muster.
func (s *server) metric(name string) int64 {
	s.b.Helper()
	for line := range strings.Lines(s.scrape()) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return s.number(value)
		}
	}
	s.b.Fatalf("/metrics has no %s", name)
	return 0
}

// metrics returns the sum of those that begin so and have a label with its value; 0 for none.
func (s *server) metrics(begin, label string) (sum int64) {
	s.b.Helper()
	for line := range strings.Lines(s.scrape()) {
		name, value, ok := strings.Cut(line, "} ")
		if ok && strings.HasPrefix(name, begin) && strings.Contains(name, label) {
			sum += s.number(value)
		}
	}
	return sum
}

func (s *server) scrape() string {
	s.b.Helper()
	var text string
	if status, err := s.ask(http.MethodGet, "/metrics", nil, &text); err != nil || status != http.StatusOK {
		s.b.Fatalf("read /metrics: status %d, %v", status, err)
	}
	return text
}

func (s *server) number(text string) int64 {
	s.b.Helper()
	f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		s.b.Fatalf("a metric: %v", err)
	}
	return int64(f)
}

// memory returns what the server's process has resident, in bytes (proc(5), VmRSS).
func (s *server) memory() int64 {
	s.b.Helper()
	kb, ok := strings.CutSuffix(fact(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid), "VmRSS"), " kB")
	n, err := strconv.ParseInt(strings.TrimSpace(kb), 10, 64)
	if !ok || err != nil {
		s.b.Fatalf("read the server's memory: %q, %v", kb, err)
	}
	return n << 10
}

// drain waits until all that was sent is stored.
func (s *server) drain() {
	s.b.Helper()
	if s.http != "" {
		s.await("all to be stored", drainLimit, func() bool { return s.metric("muster_ingest_queued") == 0 })
	}
}

// cpu returns the processor time of the server so far (proc(5), stat, fields 14
// and 15).
func (s *server) cpu() time.Duration {
	s.b.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		s.b.Fatalf("read the server's processor time: %v", err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			s.b.Fatalf("read the server's processor time: %v", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks
}

// ownCPU returns the processor time of the load client so far.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func freeAddr(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 60 * time.Second
	drainLimit = 5 * time.Minute
	clockTicks = 100 // USER_HZ of every Linux: /proc counts processor time in hundredths
)

// server is a broker under test.
type server struct {
	b    *testing.B
	name string
	mqtt string // host:port
	http string // of muster, else empty
	key  string
	cmd  *exec.Cmd
}

// startMuster starts muster, on SQLite without a database URL.
func startMuster(b *testing.B, database string, devices int) (*server, []login) {
	b.Helper()
	path, err := program()
	if err != nil {
		b.Fatal(err)
	}
	s := &server{b: b, name: "muster", mqtt: freeAddr(b), http: freeAddr(b), key: "mst_" + rand.Text()}
	args := []string{"serve", "--data", b.TempDir(), "--http", s.http, "--mqtt", s.mqtt, "--log-level", "warn"}
	if database != "" {
		args = append(args, "--database", database)
	}
	s.launch(path, "MUSTER_ADMIN_KEY="+s.key, args...)
	s.await("muster to be ready", startLimit, func() bool {
		status, _ := s.ask(http.MethodGet, "/readyz", nil, nil)
		return status == http.StatusOK
	})
	logins := make([]login, devices)
	for i := range logins {
		logins[i].id = fmt.Sprintf("bench-%03d", i)
		var made struct{ Credential struct{ Token string } }
		status, err := s.ask(http.MethodPost, "/api/v1/devices", map[string]string{"id": logins[i].id, "credential": "token"}, &made)
		if err != nil || status != http.StatusCreated {
			b.Fatalf("make a device: status %d, %v", status, err)
		}
		logins[i].user = made.Credential.Token
	}
	return s, logins
}

// startMosquitto starts Mosquitto as it is, without persistence: its acks mean that
// a message is in its memory.
func startMosquitto(b *testing.B) *server {
	b.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			b.Fatal("there is no mosquitto (scripts/setup-test.sh installs it), and CI skips nothing")
		}
		b.Skip("there is no mosquitto (scripts/setup-test.sh installs it)")
	}
	s := &server{b: b, name: "mosquitto", mqtt: freeAddr(b)}
	host, port, err := net.SplitHostPort(s.mqtt)
	if err != nil {
		b.Fatal(err)
	}
	conf := filepath.Join(b.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\nlog_type error\n", port, host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		b.Fatal(err)
	}
	s.launch(path, "", "-c", conf)
	s.await("mosquitto to listen", startLimit, func() bool {
		c, err := net.DialTimeout("tcp", s.mqtt, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

func (s *server) launch(path, env string, args ...string) {
	s.b.Helper()
	s.cmd = exec.Command(path, args...)
	if env != "" {
		s.cmd.Env = append(os.Environ(), env)
	}
	var said bytes.Buffer
	s.cmd.Stderr = &said
	if err := s.cmd.Start(); err != nil {
		s.b.Fatalf("start %s: %v", s.name, err)
	}
	s.b.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		timer := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() })
		defer timer.Stop()
		if err := s.cmd.Wait(); err != nil {
			s.b.Errorf("%s ended with %v: %s", s.name, err, said.String())
		}
	})
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
	resp, err := http.DefaultClient.Do(req)
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
	var text string
	if status, err := s.ask(http.MethodGet, "/metrics", nil, &text); err != nil || status != http.StatusOK {
		s.b.Fatalf("read /metrics: status %d, %v", status, err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				s.b.Fatalf("metric %s: %v", name, err)
			}
			return int64(f)
		}
	}
	s.b.Fatalf("/metrics has no %s", name)
	return 0
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

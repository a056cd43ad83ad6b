package hazard

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for one packet that must come, and stockWait
// how long for one that the stock server is known not to send.
const (
	patience  = 15 * time.Second
	stockWait = 3 * time.Second
)

// server is a child process that runs a server.
type server struct {
	spec     spec
	addr     string
	patience time.Duration
	base     report // when it had started

	cmd     *exec.Cmd
	in      io.WriteCloser
	answers chan report   // closed when the child's output ends
	done    chan struct{} // closed when the process is gone
	work    sync.WaitGroup
	stderr  bytes.Buffer // to be read when done

	mu    sync.Mutex
	conns []net.Conn // all that were dialed
	names int        // that name has given
}

// launch starts a server, which is killed at the end of the test at the latest.
func launch(t testing.TB, sp spec) *server {
	t.Helper()
	sp.Dir = t.TempDir()
	raw, err := json.Marshal(sp)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{spec: sp, patience: patience, answers: make(chan report, 1), done: make(chan struct{})}
	if sp.Target == stock {
		s.patience = stockWait
	}
	s.cmd = exec.Command(os.Args[0], "-test.run=^$")
	s.cmd.Env = append(os.Environ(), childEnv+"="+string(raw))
	s.cmd.Stderr = &s.stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatalf("start the child process: %v", err)
	}
	s.work.Go(func() { s.listen(out) })
	t.Cleanup(s.kill)
	hello, err := s.await(patience)
	if err != nil || hello.Addr == "" {
		s.kill()
		t.Fatalf("the child does not start: %v %s\n%s", err, hello.Err, s.stderr.Bytes())
	}
	s.addr = hello.Addr
	if s.base, err = s.measure(); err != nil {
		t.Fatal(err)
	}
	return s
}

// listen passes the child's answers on until its output ends, and then waits for
// the process.
func (s *server) listen(out io.Reader) {
	defer close(s.done)
	defer close(s.answers)
	lines := json.NewDecoder(bufio.NewReader(out))
	for {
		var r report
		if err := lines.Decode(&r); err != nil {
			_, _ = io.Copy(io.Discard, out)
			_ = s.cmd.Wait() // how it ended is in ProcessState
			return
		}
		s.answers <- r
	}
}

func (s *server) await(d time.Duration) (report, error) {
	select {
	case r, ok := <-s.answers:
		if !ok {
			return r, errCrashed
		}
		return r, nil
	case <-time.After(d):
		return report{}, fmt.Errorf("%w: the child says nothing for %v", errFrozen, d)
	}
}

func (s *server) ask(what string, d time.Duration) (report, error) {
	if _, err := io.WriteString(s.in, what+"\n"); err != nil {
		return report{}, fmt.Errorf("%w: %w", errCrashed, err)
	}
	r, err := s.await(d)
	if err == nil && r.Err != "" {
		err = errors.New(r.Err)
	}
	return r, err
}

// measure collects the child's garbage and returns what it uses.
func (s *server) measure() (report, error) { return s.ask("measure", patience) }

// stop stops the server. It fails when that takes too long or leaves something.
func (s *server) stop() error {
	if _, err := s.ask("stop", s.patience); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	return nil
}

// died says whether the process ends within a moment.
func (s *server) died() bool {
	select {
	case <-s.done:
		return true
	case <-time.After(time.Second):
		return false
	}
}

// keep notes a connection, to be closed at the end.
func (s *server) keep(nc net.Conn) {
	s.mu.Lock()
	s.conns = append(s.conns, nc)
	s.mu.Unlock()
}

// name returns a client id that nobody has had: an id that changes hands again and
// again is slowed down.
func (s *server) name(of string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names++
	return of + "-" + itoa(s.names)
}

// hangUp closes every connection that was dialed.
func (s *server) hangUp() {
	s.mu.Lock()
	all := s.conns
	s.conns = nil
	s.mu.Unlock()
	for _, nc := range all {
		_ = nc.Close()
	}
}

// kill ends the process hard and waits for it.
func (s *server) kill() {
	s.hangUp()
	_ = s.in.Close()
	select {
	case <-s.done:
	default:
		_ = s.cmd.Process.Kill()
		for range s.answers { // the reader must come to the end
		}
	}
	s.work.Wait()
}

// metric returns a metric's value now.
func (s *server) metric(t testing.TB, f func(map[string]float64) float64) float64 {
	t.Helper()
	r, err := s.measure()
	if err != nil {
		t.Fatal(err)
	}
	return f(r.Metrics)
}

// eventually measures until something that nothing announces has come true.
func (s *server) eventually(what string, come func(report) bool) (report, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(s.patience); ; <-tick.C {
		r, err := s.measure()
		switch {
		case err != nil:
			return r, fmt.Errorf("wait for %s: %w", what, err)
		case come(r):
			return r, nil
		case time.Now().After(end):
			return r, fmt.Errorf("%w: %s did not come within %v", errHeld, what, s.patience)
		}
	}
}

// settle hangs up, checks that nothing of all that was stays behind, stops the
// server and checks its end: no leak, no race, no panic. spare is how many bytes
// more than at the start may live on, in sessions and retained messages.
func (s *server) settle(t testing.TB, spare uint64) {
	t.Helper()
	s.hangUp()
	now, err := s.eventually("the end of all connections", func(r report) bool {
		return r.Files <= s.base.Files && r.Goroutines <= s.base.Goroutines+idleWorkers && r.Heap <= s.base.Heap+spare
	})
	if err != nil {
		t.Errorf("%v: %d files, %d goroutines, %d KB of heap; at the start %d, %d, %d KB", err,
			now.Files, now.Goroutines, now.Heap>>10, s.base.Files, s.base.Goroutines, s.base.Heap>>10)
	}
	if n := panics(now.Metrics); n != 0 {
		t.Errorf("%v panics were recovered, want none", n)
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Error("the process does not end")
		return
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the process ended with %d:\n%s", code, s.stderr.Bytes())
	}
}

// musterFor starts Muster's broker for a test that attacks nothing else.
func musterFor(t *testing.T, sp spec) *server {
	t.Helper()
	t.Parallel()
	sp.Target = ours
	return launch(t, sp)
}

// known is a hazard that the stock server is known to fall to.
type known struct {
	spec   spec
	harm   error                 // what the stock server must suffer
	tries  int                   // the harm comes in one of so many tries at least; 4 when 0
	attack func(s *server) error // the harm done
	spare  uint64                // for settle; 4 MB when 0
}

// run checks that the stock server falls to the hazard in the known way, which
// proves that the test tests something, and that Muster's broker does not.
func (k known) run(t *testing.T) {
	t.Parallel()
	t.Run("the stock server suffers the known harm", func(t *testing.T) {
		var err error
		for range cmp.Or(k.tries, 4) {
			sp := k.spec
			sp.Target = stock
			s := launch(t, sp)
			err = k.attack(s)
			s.kill()
			if errors.Is(err, k.harm) {
				t.Log(err)
				return
			}
		}
		t.Errorf("it suffers %q, want %q", err, k.harm)
	})
	t.Run("Muster withstands", func(t *testing.T) {
		sp := k.spec
		sp.Target = ours
		s := launch(t, sp)
		if err := k.attack(s); err != nil {
			t.Error(err)
		}
		s.settle(t, max(k.spare, 4<<20))
	})
}

package hazard

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// childEnv carries the spec of a child process.
const childEnv = "MUSTER_HAZARD_CHILD"

// soak says whether the tests shall take their time.
func soak() bool { return os.Getenv("MUSTER_SOAK") == "1" }

// TestMain runs the tests, or in a child process the server that they attack.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		if err := child(os.Getenv(childEnv), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // a test binary's main
		}
		return
	}
	flag.Parse()
	if err := modest(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1) //nolint:forbidigo // a test binary's main
	}
	goleak.VerifyTestMain(m)
}

// modest sets how much the model-based test does, where the command line does not.
func modest() error {
	given := make(map[string]bool)
	flag.Visit(func(f *flag.Flag) { given[f.Name] = true })
	for name, value := range map[string]string{"rapid.checks": itoa(100 / slowdown), "rapid.steps": "50", "rapid.nofailfile": "true", "test.parallel": "4", "rapid.shrinktime": "10s"} {
		if given[name] || soak() && name != "rapid.nofailfile" && name != "test.parallel" {
			continue
		}
		if err := flag.Set(name, value); err != nil {
			return fmt.Errorf("set -%s: %w", name, err)
		}
	}
	return nil
}

// report is a child's answer: what it uses, and what it was asked for.
type report struct {
	Addr       string
	Heap       uint64 // bytes that live after a collection
	Goroutines int
	Files      int
	CPU        time.Duration
	Metrics    map[string]float64 // by name, and by name and label value as name{value}
	Err        string
}

// running is a server inside a child.
type running interface {
	addr() string
	metrics() (map[string]float64, error)
	stop() error // returns when everything has ended, within some seconds
}

// child runs one server and answers on out what it is asked on in, line by line:
// "measure", or "stop", after which it ends. It ends with its parent too.
func child(raw string, in io.Reader, out io.Writer) error {
	var sp spec
	if err := json.Unmarshal([]byte(raw), &sp); err != nil {
		return fmt.Errorf("read spec: %w", err)
	}
	if sp.NoFile > 0 {
		limit := syscall.Rlimit{Cur: uint64(sp.NoFile), Max: uint64(sp.NoFile)}
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Errorf("limit file descriptors: %w", err)
		}
	}
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	before, err := measure(nil)
	if err != nil {
		return err
	}
	idle := goleak.IgnoreCurrent()
	srv, err := sp.serve()
	if err != nil {
		return fmt.Errorf("start %s: %w", sp.Target, err)
	}
	if err := answers.Encode(report{Addr: srv.addr()}); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	for lines.Scan() {
		if lines.Text() == "stop" {
			r := stopped(srv, before, idle)
			srv = nil
			return answers.Encode(r)
		}
		r, err := measure(srv)
		if err != nil {
			r.Err = err.Error()
		}
		if err := answers.Encode(r); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
	return lines.Err()
}

// stopped stops a server and says what it leaves behind.
func stopped(srv running, before report, idle goleak.Option) report {
	if err := srv.stop(); err != nil {
		return report{Err: "stop: " + err.Error()}
	}
	if err := goleak.Find(idle); err != nil {
		return report{Err: err.Error()}
	}
	after, err := measure(nil)
	if err != nil {
		return report{Err: err.Error()}
	}
	if after.Files > before.Files+2 { // the poller's, made with the first socket
		after.Err = fmt.Sprintf("%d open files are left, %d before the start", after.Files, before.Files)
	}
	return after
}

func measure(srv running) (report, error) {
	var r report
	if srv != nil {
		m, err := srv.metrics()
		if err != nil {
			return r, fmt.Errorf("read metrics: %w", err)
		}
		r.Metrics = m
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return r, fmt.Errorf("count files: %w", err)
	}
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return r, fmt.Errorf("read CPU time: %w", err)
	}
	r.CPU = time.Duration(used.Utime.Nano() + used.Stime.Nano())
	r.Files, r.Goroutines = len(files)-1, runtime.NumGoroutine() // without the directory's own
	runtime.GC()
	runtime.GC() // pools are emptied by the second
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	r.Heap = mem.HeapAlloc
	return r, nil
}

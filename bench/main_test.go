package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// workDir is where the binary is built; TestMain makes and removes it.
var workDir string

func TestMain(m *testing.M) {
	if os.Getenv(sinkVariable) != "" {
		os.Exit(sink())
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	var err error
	if workDir, err = os.MkdirTemp("", "muster-bench-"); err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the binary:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(workDir) }() // what is left is in the system's own temporary directory
	return m.Run()
}

// program builds the binary when the first benchmark asks for it, unless
// MUSTER_PROGRAM names one, and prints on what machine all of this runs.
var program = sync.OnceValues(func() (string, error) {
	path := os.Getenv("MUSTER_PROGRAM")
	if path == "" {
		path = filepath.Join(workDir, "muster")
		out, err := exec.Command("go", "build", "-trimpath", "-o", path, "muster/cmd/muster").CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("build muster: %w\n%s", err, out)
		}
	}
	fmt.Printf("\nmachine: %d cores (%s), %s %s/%s, load average %s\n",
		runtime.NumCPU(), fact("/proc/cpuinfo", "model name"), runtime.Version(), runtime.GOOS, runtime.GOARCH, fact("/proc/loadavg", ""))
	return path, nil
})

// fact returns what stands behind name in a file, or its first line.
func fact(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if name == "" {
			return strings.TrimSpace(line)
		}
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// atMost returns a goal that a figure is not to exceed, and whether it does.
func atMost(got, goal float64) string {
	if got <= goal {
		return fmt.Sprintf("goal <= %g: met", goal)
	}
	return fmt.Sprintf("goal <= %g: NOT MET", goal)
}

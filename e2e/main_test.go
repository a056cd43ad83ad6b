package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program is the muster that all tests run, built once by TestMain; or the copy of
// the one that MUSTER_PROGRAM names.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m)) //nolint:forbidigo // a leak is found after all tests have passed
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "muster-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make a directory for the binary:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // what is left is in the system's own temporary directory
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, "build muster:", err)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

// build builds cmd/muster into dir, which other users may enter: one test runs the
// binary as somebody else.
func build(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	program = filepath.Join(dir, "muster")
	if given := os.Getenv("MUSTER_PROGRAM"); given != "" {
		binary, err := os.ReadFile(given)
		if err != nil {
			return err
		}
		return errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, binary, 0o755))
	}
	args := append([]string{"build"}, buildFlags...)
	out, err := exec.CommandContext(ctx, "go", append(args, "-o", program, "muster/cmd/muster")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return errors.Join(os.Chmod(dir, 0o755), os.Chmod(program, 0o755))
}

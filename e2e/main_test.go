package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program is the muster that tests run, built once by TestMain as it ships; or the copy of
// the one that MUSTER_PROGRAM names. watched is the same with the race detector, if the tests
// have it, for those in which many meet on the server while it is killed: what a page shows,
// what a command prints and who is let in needs no watching, and takes several times as long with it.
var program, watched string

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
	watched = program
	if given := os.Getenv("MUSTER_PROGRAM"); given != "" {
		binary, err := os.ReadFile(given)
		if err != nil {
			return err
		}
		return errors.Join(os.Chmod(dir, 0o755), os.WriteFile(program, binary, 0o755))
	}
	if err := compile(ctx, program, []string{"-trimpath", "-ldflags=-s -w"}, "CGO_ENABLED=0"); err != nil { // as scripts/build.sh does
		return err
	}
	if watchedFlags != nil {
		watched = filepath.Join(dir, "watched")
		if err := compile(ctx, watched, watchedFlags); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o755)
}

func compile(ctx context.Context, to string, flags []string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", slices.Concat([]string{"build", "-o", to}, flags, []string{"muster/cmd/muster"})...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Chmod(to, 0o755)
}

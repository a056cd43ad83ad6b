//go:build linux

package disktest

import (
	"os"
	"strconv"
	"syscall"
	"testing"
)

// Small makes a directory a disk of so many bytes until the test ends. Who may not mount one
// skips the test; in CI it fails.
func Small(t testing.TB, dir string, bytes int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(bytes)); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no file system can be mounted, and CI must not skip: %v", err)
		}
		t.Skipf("no file system can be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

package server

import (
	"os"
	"path/filepath"
	"testing"
)

func TestADataDirectoryHasOneNameAndItsCopyAnother(t *testing.T) {
	dir, copied := t.TempDir(), t.TempDir()
	name := func(dir string) string {
		t.Helper()
		got, err := instance(dir)
		if err != nil || len(got) != 16 {
			t.Fatalf("%q %v", got, err)
		}
		return got
	}
	first := name(dir)
	if again := name(dir); again != first {
		t.Errorf("it is called %s, and %s at its next start", first, again)
	}
	text, err := os.ReadFile(filepath.Join(dir, instanceFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, instanceFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if name(copied) == first {
		t.Error("a copy of the directory has its name")
	}
	if name(t.TempDir()) == first {
		t.Error("another directory has its name")
	}
}

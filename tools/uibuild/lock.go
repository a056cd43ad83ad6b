package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

const lockName = "vendor.lock"

// npmPackage is what package.json says of a vendored package. The nested ones of
// a package's own sub-folders carry no version and are not packages of their own.
type npmPackage struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// vendored returns the packages in vendor, by name.
func vendored(root string) ([]npmPackage, error) {
	var found []npmPackage
	vendor := os.DirFS(filepath.Join(root, "vendor"))
	err := fs.WalkDir(vendor, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || path.Base(p) != "package.json" {
			return err
		}
		b, err := fs.ReadFile(vendor, p)
		if err != nil {
			return err
		}
		var n npmPackage
		if err := json.Unmarshal(b, &n); err != nil {
			return fmt.Errorf("parse %s: %w", p, err)
		}
		if n.Version == "" {
			return nil
		}
		if n.Name != path.Dir(p) {
			return fmt.Errorf("%s says it is %s", p, n.Name)
		}
		found = append(found, n)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read vendor: %w", err)
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found, nil
}

// lockText returns what vendor.lock must say: one line of package, version,
// SHA-256 and path for each file in vendor.
func lockText(root string) ([]byte, error) {
	packages, err := vendored(root)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("# package, version, SHA-256 and file; written by: go run ./uibuild -lock\n")
	vendor := os.DirFS(filepath.Join(root, "vendor"))
	err = fs.WalkDir(vendor, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || p == lockName {
			return err
		}
		b, err := fs.ReadFile(vendor, p)
		if err != nil {
			return err
		}
		owner, ok := ownerOf(p, packages)
		if !ok {
			return fmt.Errorf("%s belongs to no package", p)
		}
		fmt.Fprintf(&out, "%s %s %x %s\n", owner.Name, owner.Version, sha256.Sum256(b), p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hash vendor: %w", err)
	}
	return out.Bytes(), nil
}

func ownerOf(file string, packages []npmPackage) (npmPackage, bool) {
	for _, p := range packages {
		if strings.HasPrefix(file, p.Name+"/") {
			return p, true
		}
	}
	return npmPackage{}, false
}

func writeLock(root string) error {
	text, err := lockText(root)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "vendor", lockName), text, 0o644); err != nil { //nolint:gosec // a committed file, for everybody to read
		return fmt.Errorf("write %s: %w", lockName, err)
	}
	return nil
}

// checkLock fails when a file in vendor is changed, added or missing.
func checkLock(root string) error {
	want, err := os.ReadFile(filepath.Join(root, "vendor", lockName))
	if err != nil {
		return fmt.Errorf("read %s: %w", lockName, err)
	}
	have, err := lockText(root)
	if err != nil {
		return err
	}
	if bytes.Equal(want, have) {
		return nil
	}
	locked := map[string]bool{}
	for line := range strings.Lines(string(want)) {
		locked[line] = true
	}
	for line := range strings.Lines(string(have)) {
		if !locked[line] {
			return fmt.Errorf("vendor is not what %s says: %s", lockName, strings.TrimSpace(line))
		}
	}
	return fmt.Errorf("vendor lacks files that %s lists", lockName)
}

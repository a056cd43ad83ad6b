package server

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// instanceFile holds what tells this data directory from all others.
const instanceFile = "instance"

// instance returns the name of the server of a data directory, the same over its restarts: 16
// letters and digits. A copy of the directory, on this machine or another, has another one, so that
// two servers of one database never take each other's work for their own.
func instance(dir string) (string, error) {
	path := filepath.Join(dir, instanceFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(rand.Text() + "\n")
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("name the data directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("name the data directory: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name the data directory: %w", err)
	}
	var inode uint64
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", bytes.TrimSpace(text), host, inode))
	return base32.StdEncoding.EncodeToString(sum[:10]), nil
}

package server

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"muster"
)

const (
	secretFile  = "secret.key" // in the data directory
	secretBytes = 32
	sealVersion = 1 // the first byte of what is sealed
)

// sealer encrypts secrets that must be read again with AES-256-GCM (NIST SP 800-38D):
// a version byte, a random nonce of 12 bytes, and the ciphertext with its tag. Who has a
// copy of the database alone cannot read them. It is safe for concurrent use.
type sealer struct{ aead cipher.AEAD }

// openSecret reads the data directory's key, or makes it at the first start. Each use
// has a key of its own, derived from it.
func openSecret(dir string) ([]byte, error) {
	path := filepath.Join(dir, secretFile)
	key, err := readSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeSecret(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the key of the data directory: %w", err)
	}
	return key, nil
}

// derive returns the key for one use (RFC 5869).
func derive(secret []byte, use string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, secret, nil, "muster "+use, secretBytes)
	if err != nil {
		return nil, fmt.Errorf("derive a key from the data directory's: %w", err)
	}
	return key, nil
}

// newSealer returns a sealer with a key derived from secret.
func newSealer(secret []byte) (*sealer, error) {
	key, err := derive(secret, "sealed secrets")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use the key of the data directory: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use the key of the data directory: %w", err)
	}
	return &sealer{aead}, nil
}

func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 { // restored from somewhere
		if err := f.Chmod(0o600); err != nil {
			return nil, muster.Errorf(muster.Invalid, "%s can be read by others: %w", secretFile, err)
		}
	}
	key, err := io.ReadAll(io.LimitReader(f, secretBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	if len(key) != secretBytes {
		return nil, muster.Errorf(muster.Invalid, "%s has not %d bytes: restore it from a backup, or remove it and set second factors up anew", secretFile, secretBytes)
	}
	return key, nil
}

// makeSecret writes a new key.
func makeSecret(path string) ([]byte, error) {
	key := make([]byte, secretBytes)
	rand.Read(key) // never fails
	return key, replaceFile(path, key)
}

// replaceFile writes a file of mode 0600 so that it is there whole or as it was before,
// also after a power cut.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*") // its mode is 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Base(path), err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync the data directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync the data directory: %w", err)
	}
	return nil
}

// Seal encrypts plain for what bind says, which Open must be told again.
func (s *sealer) Seal(plain []byte, bind string) ([]byte, error) {
	out := make([]byte, 1+s.aead.NonceSize(), 1+s.aead.NonceSize()+len(plain)+s.aead.Overhead())
	out[0] = sealVersion
	nonce := out[1:]
	rand.Read(nonce)                                         // never fails
	return s.aead.Seal(out, nonce, plain, []byte(bind)), nil //nolint:gosec // the nonce is random
}

// Open decrypts what Seal made for the same bind, or returns Invalid.
func (s *sealer) Open(sealed []byte, bind string) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < 1+n+s.aead.Overhead() || sealed[0] != sealVersion {
		return nil, muster.Errorf(muster.Invalid, "this was not sealed here")
	}
	plain, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], []byte(bind))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "this was not sealed with this data directory's key: %w", err)
	}
	return plain, nil
}

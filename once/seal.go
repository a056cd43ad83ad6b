package once

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
)

const saltSize = 16 // bytes before the sealed text; the key differs with each, so that the nonce may be zeros

// Answer is what a request was answered.
type Answer struct {
	Status int               `json:"s"`
	Header map[string]string `json:"h,omitempty"`
	Body   []byte            `json:"b,omitempty"`
}

// sealer returns AES-256-GCM with a key of secret and salt (HKDF, RFC 5869).
func sealer(secret string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), salt, "muster idempotency answer 1", 32)
	if err != nil {
		return nil, fmt.Errorf("make the key of an answer: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the key of an answer: %w", err)
	}
	return cipher.NewGCM(block) //nolint:wrapcheck // it cannot fail for AES
}

// seal returns a so that only who has secret reads it, and only as row's answer.
func seal(secret string, row *Row, a *Answer) ([]byte, error) {
	plain, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	out := make([]byte, saltSize, saltSize+len(plain)+16)
	_, _ = rand.Read(out) // it never fails
	s, err := sealer(secret, out[:saltSize])
	if err != nil {
		return nil, err
	}
	return s.Seal(out, make([]byte, s.NonceSize()), plain, row.about()), nil //nolint:gosec // the key is used once
}

func open(secret string, row *Row) (*Answer, error) {
	if len(row.Answer) < saltSize {
		return nil, fmt.Errorf("a kept answer has %d bytes", len(row.Answer))
	}
	s, err := sealer(secret, row.Answer[:saltSize])
	if err != nil {
		return nil, err
	}
	plain, err := s.Open(nil, make([]byte, s.NonceSize()), row.Answer[saltSize:], row.about())
	if err != nil {
		return nil, fmt.Errorf("open a kept answer: %w", err)
	}
	var a Answer
	if err := json.Unmarshal(plain, &a); err != nil {
		return nil, fmt.Errorf("read a kept answer: %w", err)
	}
	return &a, nil
}

// about binds an answer to its row.
func (r *Row) about() []byte { return []byte(r.Principal + "\x00" + r.Name + "\x00" + r.Print) }

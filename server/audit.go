package server

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"muster"
	"muster/audit"
)

const (
	auditHeadFile = "audit.head"  // in the data directory: the audit log's newest seal
	auditUse      = "audit seals" // of the data directory's key
)

// buildSecrets makes what the data directory's key is for: the sealer of secrets and
// that of the audit log.
func (s *Server) buildSecrets() error {
	secret, err := openSecret(s.cfg.DataDir)
	if err != nil {
		return err
	}
	if s.vault, err = newSealer(secret); err != nil {
		return err
	}
	key, err := derive(secret, auditUse)
	if err != nil {
		return err
	}
	s.sealer = audit.NewSealer(s.stores.control, auditHead(filepath.Join(s.cfg.DataDir, auditHeadFile)), key, s.cfg.Now, s.cfg.Logger)
	return nil
}

// auditHead is the file that the newest seal is kept in, as JSON. It implements
// audit.Anchor.
type auditHead string

type sealFile struct {
	First int64         `json:"first"`
	Last  int64         `json:"last"`
	At    muster.Micros `json:"at"`
	Hash  string        `json:"hash"`
}

// Load implements audit.Anchor.
func (h auditHead) Load() (audit.Seal, error) {
	text, err := os.ReadFile(string(h))
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Seal{}, nil
	}
	if err != nil {
		return audit.Seal{}, muster.Errorf(muster.Invalid, "cannot read %s: %w", auditHeadFile, err)
	}
	var f sealFile
	s := audit.Seal{}
	err = json.Unmarshal(text, &f)
	if n, herr := hex.Decode(s.Hash[:], []byte(f.Hash)); err != nil || len(f.Hash) != 2*sha256.Size || herr != nil || n != sha256.Size {
		return audit.Seal{}, muster.Errorf(muster.Invalid, "%s in the data directory is not a seal", auditHeadFile)
	}
	s.First, s.Last, s.At = f.First, f.Last, f.At
	return s, nil
}

// Save implements audit.Anchor.
func (h auditHead) Save(s audit.Seal) error {
	text, err := json.Marshal(sealFile{s.First, s.Last, s.At, hex.EncodeToString(s.Hash[:])})
	if err != nil {
		return fmt.Errorf("encode a seal: %w", err)
	}
	return replaceFile(string(h), append(text, '\n'))
}

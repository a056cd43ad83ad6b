package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/audit"
	"muster/store/control"
)

const (
	auditHeadFile   = "audit.head"    // in the data directory: the audit log's newest seal, and where it broke
	auditUse        = "audit seals"   // of the data directory's key
	auditRecordsUse = "audit records" // likewise
)

// buildSecrets makes what the data directory's key is for: the sealer of secrets and
// that of the audit log.
func (s *Server) buildSecrets(ctx context.Context) error {
	secret, err := openSecret(s.cfg.DataDir)
	if err != nil {
		return err
	}
	if s.vault, err = newSealer(secret); err != nil {
		return err
	}
	if s.linkKey, err = derive(secret, ackLinkUse); err != nil {
		return err
	}
	if s.deliveryKey, err = derive(secret, deliveryUse); err != nil {
		return err
	}
	if s.offerKey, err = derive(secret, offerUse); err != nil {
		return err
	}
	if s.sealer, err = openAudit(ctx, s.stores.control, s.cfg.DataDir, secret, s.cfg.Now, s.cfg.Logger); err != nil {
		return err
	}
	s.metrics.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "muster_audit_broken", Help: "Places where the audit log did not fit what was kept of it beside the database.",
	}, func() float64 { return float64(s.sealer.Status().Broken) }))
	return nil
}

// openAudit has the store sign its audit records from now on, and returns the sealer of them.
func openAudit(ctx context.Context, c *control.Control, dir string, secret []byte, now func() time.Time, log *slog.Logger) (*audit.Sealer, error) {
	keys, err := auditKeys(secret)
	if err != nil {
		return nil, err
	}
	sealer := audit.NewSealer(c, auditHead(filepath.Join(dir, auditHeadFile)), keys, now, log)
	if err := sealer.Open(ctx); err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	c.SignAudit(keys.MAC)
	return sealer, nil
}

// auditKeys derives the keys of the audit log from the data directory's.
func auditKeys(secret []byte) (k audit.Keys, err error) {
	if k.Seals, err = derive(secret, auditUse); err != nil {
		return k, err
	}
	k.Records, err = derive(secret, auditRecordsUse)
	return k, err
}

// auditHead is the file that the head of the audit log is kept in, as JSON. It implements
// audit.Anchor.
type auditHead string

type headFile struct {
	First  int64         `json:"first"`
	Last   int64         `json:"last"`
	At     muster.Micros `json:"at"`
	Hash   string        `json:"hash"`
	Signed int64         `json:"signed_from,omitempty"`
	Breaks []breakFile   `json:"breaks,omitempty"`
	More   int64         `json:"more_breaks,omitempty"`
}

type breakFile struct {
	At       muster.Micros `json:"at"`
	First    int64         `json:"first"`
	Last     int64         `json:"last"`
	What     string        `json:"what"`
	Expected string        `json:"expected,omitempty"`
	Found    string        `json:"found,omitempty"`
}

// Load implements audit.Anchor.
func (h auditHead) Load() (audit.Head, error) {
	text, err := os.ReadFile(string(h))
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Head{}, nil
	}
	if err != nil {
		return audit.Head{}, muster.Errorf(muster.Unavailable, "cannot read %s: %w", auditHeadFile, err)
	}
	var f headFile
	var out audit.Head
	err = json.Unmarshal(text, &f)
	s := &out.Seal
	if n, herr := hex.Decode(s.Hash[:], []byte(f.Hash)); err != nil || len(f.Hash) != 2*sha256.Size || herr != nil || n != sha256.Size {
		return audit.Head{}, muster.Errorf(muster.Invalid, "%s in the data directory is not a seal", auditHeadFile)
	}
	s.First, s.Last, s.At, s.Signed = f.First, f.Last, f.At, f.Signed
	out.Signed, out.More = f.Signed, f.More
	for _, b := range f.Breaks {
		out.Breaks = append(out.Breaks, audit.Break(b))
	}
	return out, nil
}

// Aside implements audit.Anchor.
func (h auditHead) Aside() error {
	if err := os.Rename(string(h), fmt.Sprintf("%s.bad-%d", h, time.Now().UnixMicro())); err != nil {
		return fmt.Errorf("rename %s: %w", auditHeadFile, err)
	}
	return syncDir(filepath.Dir(string(h)))
}

// Save implements audit.Anchor.
func (h auditHead) Save(head audit.Head) error {
	s := &head.Seal
	f := headFile{s.First, s.Last, s.At, hex.EncodeToString(s.Hash[:]), head.Signed, nil, head.More}
	for _, b := range head.Breaks {
		f.Breaks = append(f.Breaks, breakFile(b))
	}
	text, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode a seal: %w", err)
	}
	return replaceFile(string(h), append(text, '\n'))
}

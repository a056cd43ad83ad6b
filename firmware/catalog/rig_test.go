package catalog_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/audit"
	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/image"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/postgres"
	"muster/store/sqlite"
)

// rig is a catalogue over a real store and a directory.
type rig struct {
	*testing.T
	*catalog.Catalog
	store *control.Control
	db    control.Handles
	dir   string
	clock time.Time
	conf  catalog.Config
}

// onEach runs a test on SQLite and on the PostgreSQL that the environment has.
func onEach(t *testing.T, run func(r *rig)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		run(newRig(t))
	})
	const env = "MUSTER_TEST_POSTGRES"
	if server := os.Getenv(env); server != "" {
		t.Run(env, func(t *testing.T) {
			t.Parallel()
			run(newRigOn(t, postgresOf(t, server), control.Postgres()))
		})
	}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return newRigOn(t, control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
}

func postgresOf(t *testing.T, server string) control.Handles {
	t.Helper()
	h, err := postgres.OpenControl(t.Context(), controltest.Database(t, server))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func newRigOn(t *testing.T, h control.Handles, d control.Dialect) *rig {
	t.Helper()
	store, err := control.Open(t.Context(), h, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{T: t, store: store, db: h, dir: filepath.Join(t.TempDir(), "firmware"), clock: time.Now()}
	r.conf = catalog.Config{Store: store, Now: func() time.Time { return r.clock }, Logger: slog.New(slog.DiscardHandler)}
	r.again()
	return r
}

// again makes the catalogue anew over the same directory and store, as after a restart.
func (r *rig) again() {
	r.Helper()
	r.conf.Blobs = r.blobs(blob.Limits{Size: 1 << 30})
	r.Catalog = catalog.New(r.conf)
}

func (r *rig) blobs(l blob.Limits) *blob.Store {
	r.Helper()
	s, err := blob.Open(r.dir, l, r.conf.Now)
	r.must(err)
	return s
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) wantKind(err error, kind muster.Kind, words ...string) {
	r.Helper()
	if err == nil || muster.KindOf(err) != kind {
		r.Fatalf("got %v, want a %s error", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			r.Errorf("%q does not say %q", err, w)
		}
	}
}

// records are what the audit log has, as "action object".
func (r *rig) records() (out []string) {
	r.Helper()
	all, err := r.store.AuditAfter(r.Context(), 0, 1000)
	r.must(err)
	for _, a := range all {
		out = append(out, a.Action+" "+a.Object)
	}
	return out
}

// asked is a context with a trail, as that of a request.
func (r *rig) asked() context.Context {
	return audit.With(r.Context(), audit.Actor{Kind: audit.User, ID: "usr_1"}, r.conf.Now)
}

// left are the files below the directory, but images of artifacts.
func (r *rig) left(sub string) (out []string) {
	r.Helper()
	r.must(filepath.WalkDir(filepath.Join(r.dir, sub), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, d.Name())
		}
		return err
	}))
	return out
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func upload(b []byte) firmware.Upload {
	return firmware.Upload{SHA256: digest(b), Size: int64(len(b)), Filename: "fw.bin", By: "usr_1"}
}

// put has an image be an artifact.
func (r *rig) put(b []byte) catalog.Artifact {
	r.Helper()
	a, _, err := r.Put(r.asked(), upload(b), bytes.NewReader(b))
	r.must(err)
	return a
}

// manifest is one of images, changed as a test wants it.
func manifest(version string, images [][]byte, change ...func(*firmware.Manifest)) *firmware.Manifest {
	m := &firmware.Manifest{Schema: firmware.Schema, Product: "pump", Version: version, Type: "app", Created: time.Now().UTC().Truncate(time.Second)}
	for i, b := range images {
		info, err := image.Of(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			panic(err)
		}
		m.Files = append(m.Files, firmware.File{Filename: "fw" + string(rune('a'+i)) + ".bin", SHA256: digest(b), Size: int64(len(b)), Format: info.Format})
	}
	for _, c := range change {
		c(m)
	}
	return m
}

// signer is a secret key.
type signer struct {
	secret ed25519.PrivateKey
	id     string
}

// signer makes a key and adds it to the catalogue.
func (r *rig) signer(name string) signer {
	r.Helper()
	s := newSigner(r.T)
	text, err := firmware.PublicPEM(s.secret.Public().(ed25519.PublicKey))
	r.must(err)
	_, err = r.AddKey(r.asked(), name, text, "usr_1")
	r.must(err)
	return s
}

func newSigner(t *testing.T) signer {
	t.Helper()
	pub, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return signer{secret, firmware.KeyID(pub)}
}

func (r *rig) signed(m *firmware.Manifest, by ...signer) (out []firmware.Signature) {
	r.Helper()
	for _, s := range by {
		sig, err := firmware.Sign(s.secret, m)
		r.must(err)
		out = append(out, sig)
	}
	return out
}

// draft makes a draft of a manifest, signed by keys.
func (r *rig) draft(m *firmware.Manifest, by ...signer) catalog.Release {
	r.Helper()
	text, err := m.Bytes()
	r.must(err)
	rel, err := r.Create(r.asked(), catalog.Spec{Manifest: text, Signatures: r.signed(m, by...), By: "usr_1"})
	r.must(err)
	return rel
}

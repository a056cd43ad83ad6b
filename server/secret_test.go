package server

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"muster"
	"muster/audit"
)

func TestSecretsAreOpenedWithTheirKeyAndForWhatTheyWereSealed(t *testing.T) {
	dir := t.TempDir()
	secret, err := openSecret(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openSecret(dir)
	if err != nil || !bytes.Equal(secret, again) {
		t.Fatalf("the key is another one the second time, %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, secretFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	s, err := newSealer(secret)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.Seal([]byte("a secret"), "user usr_1")
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := s.Open(sealed, "user usr_1"); err != nil || string(plain) != "a secret" {
		t.Errorf("it opens as %q, %v", plain, err)
	}
	if _, err := s.Open(sealed, "user usr_2"); muster.KindOf(err) != muster.Invalid {
		t.Errorf("for another user it gives %v", err)
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		if _, err := s.Open(changed, "user usr_1"); err == nil {
			t.Errorf("with byte %d changed it opens", i)
		}
	}
	if other, err := derive(secret, auditUse); err != nil || bytes.Equal(other, secret) || len(other) != secretBytes {
		t.Errorf("the key for the audit log is %d bytes, %v", len(other), err)
	}
}

func TestAKeyFileThatIsDamagedIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, secretFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSecret(dir); muster.KindOf(err) != muster.Invalid {
		t.Errorf("it gives %v", err)
	}
}

func TestTheHeadOfTheAuditLogIsKeptWhole(t *testing.T) {
	head := auditHead(filepath.Join(t.TempDir(), auditHeadFile))
	if s, err := head.Load(); err != nil || s.Seal.Last != 0 {
		t.Fatalf("before the first it is %+v, %v", s, err)
	}
	want, _ := head.Load()
	want.Seal.First, want.Seal.Last, want.Seal.At, want.Seal.Signed, want.Seal.Hash[3] = 3, 9, 77, 2, 5
	want.Signed, want.More = 2, 4
	want.Breaks = []audit.Break{{At: 5, First: 1, Last: 2, What: "cut", Expected: "aa", Found: "bb"}}
	if err := head.Save(want); err != nil {
		t.Fatal(err)
	}
	if got, err := head.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("it is %+v, %v", got, err)
	}
	if err := os.WriteFile(string(head), []byte(`{"last":9,"hash":"00"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := head.Load(); muster.KindOf(err) != muster.Invalid {
		t.Errorf("a damaged one gives %v", err)
	}
	if err := head.Aside(); err != nil {
		t.Fatal(err)
	}
	if kept, err := filepath.Glob(string(head) + ".bad-*"); err != nil || len(kept) != 1 {
		t.Errorf("put aside it is at %v, %v", kept, err)
	}
}

func TestAKeyFileThatOthersCouldReadIsClosedAndABadOneIsNotReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, secretFile)
	key, err := openSecret(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil { // what a careless restore leaves
		t.Fatal(err)
	}
	again, err := openSecret(dir)
	if err != nil || !bytes.Equal(key, again) {
		t.Errorf("a restored key gives another one, %v", err)
	}
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v, %v", i.Mode(), err)
	}
	for _, n := range []int{0, 31, 33, 1 << 20} {
		if err := os.WriteFile(path, make([]byte, n), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openSecret(dir); err == nil || muster.KindOf(err) != muster.Invalid {
			t.Errorf("a key of %d bytes gives %v", n, err)
		}
		if i, err := os.Stat(path); err != nil || i.Size() != int64(n) {
			t.Error("a bad key was replaced: what it sealed would be lost for good")
		}
	}
	if left, err := filepath.Glob(path + "-*"); err != nil || len(left) != 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

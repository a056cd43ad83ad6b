package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// offline runs verbs that need no server, in a directory.
type offline struct {
	*testing.T
	dir string
}

func (o offline) path(name string) string { return filepath.Join(o.dir, name) }

func (o offline) do(want int, args ...string) (out, failed string) {
	o.Helper()
	var w, e bytes.Buffer
	if code := run(o.Context(), append([]string{"firmware"}, args...), &console{&w, &e}); code != want {
		o.Fatalf("muster firmware %v: exit code %d, %s%s", args, code, w.String(), e.String())
	}
	return w.String(), e.String()
}

func (o offline) write(name, text string) string {
	o.Helper()
	if err := os.WriteFile(o.path(name), []byte(text), 0o600); err != nil {
		o.Fatal(err)
	}
	return o.path(name)
}

func TestAReleaseIsSignedByTwoOfThreeKeysWithoutAServer(t *testing.T) {
	o := offline{t, t.TempDir()}
	image := o.write("fw-2.0.0.bin", "the image")
	var ids []string
	for _, k := range []string{"a", "b", "c"} {
		id, _ := o.do(0, "keygen", o.path(k))
		ids = append(ids, strings.TrimSpace(id))
	}
	info, err := os.Stat(o.path("a"))
	if err != nil || info.Mode().Perm() != 0o600 || len(ids[0]) != 32 || ids[0] == ids[1] {
		t.Fatalf("the secret key has mode %v, %v; the ids are %v", info.Mode(), err, ids)
	}
	if _, failed := o.do(1, "keygen", o.path("a")); !strings.Contains(failed, "there already") {
		t.Errorf("a key is written over: %s", failed)
	}
	manifest := o.path("m.json")
	o.do(0, "manifest", "--product", "pump", "--release-version", "2.0.0", "--security-version", "3", "--hardware", "pc-1:1.0,1.2", "--hardware", "pc-2", "--out", manifest, image)
	keys := []string{"--key", o.path("a.pub"), "--key", o.path("b.pub"), "--key", o.path("c.pub"), "--threshold", "2"}
	verify := func(want int, more ...string) string {
		t.Helper()
		out, failed := o.do(want, append(append([]string{"verify"}, keys...), append([]string{manifest}, more...)...)...)
		return out + failed
	}
	if said := verify(1); !strings.Contains(said, "0 good signatures") {
		t.Error(said)
	}
	if out, _ := o.do(0, "sign", "--key", o.path("a"), manifest); !strings.Contains(out, ids[0]) {
		t.Error(out)
	}
	o.do(0, "sign", "--key", o.path("a"), manifest) // again: still one
	if said := verify(1); !strings.Contains(said, "1 good signatures") {
		t.Error(said)
	}
	o.do(0, "sign", "--key", o.path("c"), manifest)
	if said := verify(0, image); !strings.Contains(said, "pump 2.0.0 is signed") {
		t.Error(said)
	}
	if said := verify(1, o.write("other.bin", "the imagf")); !strings.Contains(said, "none of the manifest's images") {
		t.Error(said)
	}
	text, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	o.write("m.json", strings.Replace(string(text), `"2.0.0"`, `"2.0.1"`, 1))
	if said := verify(1); !strings.Contains(said, "not one of this manifest") {
		t.Error(said)
	}
	if _, failed := o.do(1, "sign", "--key", o.path("a.pub"), manifest); strings.Contains(failed, "BEGIN") {
		t.Errorf("the key file is repeated: %s", failed)
	}
	cut := o.write("cut.uf2", "UF2\nWQ\x5d\x9eand no more")
	if _, failed := o.do(1, "manifest", "--product", "pump", "--release-version", "2.0.0", cut); !strings.Contains(failed, "is damaged: it is raw by its bytes, and it ends within a block") {
		t.Error(failed)
	}
	if out, _ := o.do(0, "manifest", "--product", "pump", "--release-version", "2.0.0", "--raw", cut); !strings.Contains(out, `"format": "raw"`) && !strings.Contains(out, `"format":"raw"`) {
		t.Error(out)
	}
	if _, failed := o.do(1, "manifest", "--product", "pump", "--release-version", "2.0", image); !strings.Contains(failed, "semantic version") {
		t.Error(failed)
	}
}

// $MUSTER_KEY is the API key of the verbs that ask a server, and no name of a file.
func TestAnAPIKeyInTheEnvironmentIsNoKeyThatSigns(t *testing.T) {
	o := offline{t, t.TempDir()}
	image := o.write("fw-2.0.0.bin", "the image")
	o.do(0, "keygen", o.path("a"))
	manifest := o.path("m.json")
	t.Setenv("MUSTER_KEY", "mst_thesecretoftheserver00")
	o.do(0, "manifest", "--product", "pump", "--release-version", "2.0.0", "--out", manifest, image)
	o.do(0, "sign", "--key", o.path("a"), manifest)
	if out, _ := o.do(0, "verify", "--key", o.path("a.pub"), manifest, image); !strings.Contains(out, "is signed") {
		t.Error(out)
	}
	for _, args := range [][]string{{"sign", manifest}, {"verify", manifest, image}} {
		if _, failed := o.do(1, args...); strings.Contains(failed, "thesecret") || !strings.Contains(failed, "--key") {
			t.Errorf("%s without --key says %s", args[0], failed)
		}
	}
}

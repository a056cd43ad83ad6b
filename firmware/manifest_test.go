package firmware_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware"
)

func manifest() *firmware.Manifest {
	return &firmware.Manifest{
		Schema: 1, Product: "pump-controller", Release: "Spring", Version: "2.0.0", Security: 3, Type: "app",
		Hardware: []firmware.Hardware{{Board: "pc-1", Revisions: []string{"1.0", "1.2"}}, {Board: "pc-2"}},
		MinFrom:  "1.0.0",
		Files:    []firmware.File{{Filename: "fw-2.0.0.swu", SHA256: strings.Repeat("ab", 32), Size: 1000, Format: "swupdate"}},
		Created:  time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC),
	}
}

func text(t testing.TB, m *firmware.Manifest) []byte {
	t.Helper()
	b, err := m.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func keyOf(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func trusted(keys ...ed25519.PrivateKey) (out []firmware.TrustedKey) {
	for _, k := range keys {
		pub := k.Public().(ed25519.PublicKey)
		out = append(out, firmware.TrustedKey{ID: firmware.KeyID(pub), Key: pub})
	}
	return out
}

func signed(t testing.TB, m *firmware.Manifest, keys ...ed25519.PrivateKey) (out []firmware.Signature) {
	t.Helper()
	for _, k := range keys {
		s, err := firmware.Sign(k, m)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func TestAManifestHasOneForm(t *testing.T) {
	want := text(t, manifest())
	var loose map[string]any
	if err := json.Unmarshal(want, &loose); err != nil {
		t.Fatal(err)
	}
	pretty, err := json.MarshalIndent(loose, "  ", "\t")
	if err != nil {
		t.Fatal(err)
	}
	m, err := firmware.ParseManifest(pretty)
	if err != nil {
		t.Fatal(err)
	}
	if got := text(t, m); !bytes.Equal(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if !bytes.HasPrefix(want, []byte(`{"artifacts":[{"filename":"fw-2.0.0.swu","format":"swupdate","sha256":"abab`)) {
		t.Errorf("the form is %s", want)
	}
}

func TestAManifestIsRefused(t *testing.T) {
	good := string(text(t, manifest()))
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %s in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for name, in := range map[string]string{
		"that is empty":                    ``,
		"that is no object":                `[]`,
		"with something behind it":         good + `{}`,
		"with an unknown member":           swap(`{"artifacts"`, `{"zz":1,"artifacts"`),
		"with a member twice":              swap(`"version":"2.0.0"`, `"version":"2.0.0","version":"9.0.0"`),
		"with a member in capitals":        swap(`"version":"2.0.0"`, `"version":"2.0.0","Version":"9.0.0"`),
		"with a number as text":            swap(`"security_version":3`, `"security_version":"3"`),
		"with a number in another form":    swap(`"created":"2026-11-22T10:00:00Z"`, `"created":"2026-11-22T12:00:00+02:00","x":0`),
		"of another schema":                swap(`"schema":1`, `"schema":2`),
		"without a version":                swap(`"version":"2.0.0"`, `"version":""`),
		"with a version with a v":          swap(`"version":"2.0.0"`, `"version":"v2.0.0"`),
		"with a short version":             swap(`"version":"2.0.0"`, `"version":"2.0"`),
		"without artifacts":                swap(`"artifacts":[{`, `"artifacts":[],"x":[{`),
		"with a path as a file name":       swap(`"filename":"fw-2.0.0.swu"`, `"filename":"../fw"`),
		"with a digest in capitals":        swap(`"sha256":"abab`, `"sha256":"ABab`),
		"with a size of 0":                 swap(`"size":1000`, `"size":0`),
		"with a product of two lines":      swap(`"product":"pump-controller"`, `"product":"a\nb"`),
		"with a name of two lines":         swap(`"release":"Spring"`, `"release":"a\nb"`),
		"that ends before it begins":       swap(`"hw_compat"`, `"expires":"2026-11-22T09:00:00Z","hw_compat"`),
		"with a board without a name":      swap(`"board":"pc-2"`, `"board":""`),
		"with a least version that is not": swap(`"min_from_version":"1.0.0"`, `"min_from_version":"latest"`),
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := firmware.ParseManifest([]byte(in)); err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
	if _, err := firmware.ParseManifest(make([]byte, firmware.MaxManifest+1)); muster.KindOf(err) != muster.TooLarge {
		t.Error(err)
	}
	m := manifest()
	m.Files = append(m.Files, m.Files[0])
	if err := m.Check(); muster.KindOf(err) != muster.Invalid || err == nil {
		t.Errorf("a file name twice: %v", err)
	}
}

func TestSignaturesAreEnoughWhen(t *testing.T) {
	a, b, c := keyOf(1), keyOf(2), keyOf(3)
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	revoked := trusted(a, b, c)
	revoked[0].Revoked = true
	other := manifest()
	other.Version = "2.0.1"
	old := manifest()
	old.Expires = now
	foreign := signed(t, manifest(), a)[0]
	foreign.Sig = ed25519.Sign(a, text(t, manifest())) // not under the manifest's heading
	renamed := signed(t, manifest(), c)[0]
	renamed.Key = firmware.KeyID(a.Public().(ed25519.PublicKey))
	for name, c := range map[string]struct {
		m         *firmware.Manifest
		sigs      []firmware.Signature
		keys      []firmware.TrustedKey
		threshold int
		good      bool
	}{
		"one of one":                        {manifest(), signed(t, manifest(), a), trusted(a), 1, true},
		"two of three":                      {manifest(), signed(t, manifest(), a, c), trusted(a, b, c), 2, true},
		"one of two that are needed":        {manifest(), signed(t, manifest(), a), trusted(a, b, c), 2, false},
		"the same key twice is one":         {manifest(), signed(t, manifest(), a, a), trusted(a, b, c), 2, false},
		"none, and none is asked for":       {manifest(), nil, trusted(a), 0, false},
		"of a key that is not known":        {manifest(), signed(t, manifest(), c), trusted(a, b), 1, false},
		"of a key that is revoked":          {manifest(), signed(t, manifest(), a), revoked, 1, false},
		"beside one that is revoked":        {manifest(), signed(t, manifest(), a, b), revoked, 1, true},
		"of another manifest":               {manifest(), signed(t, other, a), trusted(a), 1, false},
		"one of another beside enough":      {manifest(), append(signed(t, manifest(), a), signed(t, other, b)...), trusted(a, b), 1, false},
		"of the bytes alone":                {manifest(), []firmware.Signature{foreign}, trusted(a), 1, false},
		"of one key, said to be another's":  {manifest(), []firmware.Signature{renamed}, trusted(a), 1, false},
		"of a manifest that is out of date": {old, signed(t, old, a), trusted(a), 1, false},
		"empty":                             {manifest(), []firmware.Signature{{Key: renamed.Key}}, trusted(a), 1, false},
		"more than are looked at":           {manifest(), signed(t, manifest(), make17(a)...), trusted(a), 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			err := firmware.Verify(c.m, c.sigs, c.keys, c.threshold, now)
			if (err == nil) != c.good || err != nil && muster.KindOf(err) != muster.Invalid {
				t.Errorf("%v", err)
			}
		})
	}
}

func make17(k ed25519.PrivateKey) []ed25519.PrivateKey {
	out := make([]ed25519.PrivateKey, firmware.MaxSignatures+1)
	for i := range out {
		out[i] = k
	}
	return out
}

func TestAnyChangeOfAManifestBreaksItsSignature(t *testing.T) {
	k := keyOf(1)
	sigs := signed(t, manifest(), k)
	whole := text(t, manifest())
	rapid.Check(t, func(t *rapid.T) {
		b := bytes.Clone(whole)
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		m, err := firmware.ParseManifest(b)
		if err != nil {
			return
		}
		if firmware.Verify(m, sigs, trusted(k), 1, m.Created) == nil {
			t.Fatalf("%s is taken", b)
		}
	})
}

func TestKeysAreReadAsOpenSSLWritesThem(t *testing.T) {
	k := keyOf(7)
	private, err := firmware.PrivatePEM(k)
	if err != nil {
		t.Fatal(err)
	}
	public, err := firmware.PublicPEM(k.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := firmware.ParsePrivate(private); err != nil || !got.Equal(k) {
		t.Error(err)
	}
	if got, err := firmware.ParsePublic(public); err != nil || !got.Equal(k.Public()) {
		t.Error(err)
	}
	for name, file := range map[string][]byte{"nothing": nil, "the other kind": public, "rubbish": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "a large file": make([]byte, 1<<20)} {
		if _, err := firmware.ParsePrivate(file); err == nil || muster.KindOf(err) == muster.Internal {
			t.Errorf("%s as a private key: %v", name, err)
		}
	}
	if _, err := firmware.ParsePublic(private); err == nil {
		t.Error("a private key is taken for a public one")
	}
}

func TestWhatADeviceReportsIsTheReleasesVersion(t *testing.T) {
	v, err := firmware.ParseVersion("1.4.0")
	if err != nil {
		t.Fatal(err)
	}
	for reported, same := range map[string]bool{
		"1.4.0": true, "v1.4.0": true, "1.4": true, "1.4.1": false, "1.4.0-rc.1": false, "1.4.0+8": false, "": false, "latest": false, strings.Repeat("1", 70): false,
	} {
		if v.Is(reported) != same {
			t.Errorf("%q: %v", reported, !same)
		}
	}
	older, err := firmware.ParseVersion("1.4.0-rc.2")
	if err != nil || older.Compare(v) >= 0 || v.Compare(older) <= 0 || fmt.Sprint(older) != "1.4.0-rc.2" {
		t.Error("a release candidate is not before its release", err)
	}
}

func TestAReleaseFits(t *testing.T) {
	m := manifest()
	for _, c := range []struct {
		board, revision string
		fits            bool
	}{{"pc-1", "1.0", true}, {"pc-1", "1.1", false}, {"pc-1", "", false}, {"pc-2", "9", true}, {"pc-3", "1.0", false}, {"", "", false}} {
		if m.Fits(c.board, c.revision) != c.fits {
			t.Errorf("board %q, revision %q: %v", c.board, c.revision, !c.fits)
		}
	}
	m.Hardware = nil
	if !m.Fits("any", "") {
		t.Error("a release without boards is not for all")
	}
}

func FuzzParseManifest(f *testing.F) {
	f.Add(text(f, manifest()))
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := firmware.ParseManifest(b)
		if err != nil {
			if muster.KindOf(err) == muster.Internal {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		again, err := firmware.ParseManifest(text(t, m))
		if err != nil || !bytes.Equal(text(t, again), text(t, m)) {
			t.Fatalf("%s is read as %+v, %v", b, again, err)
		}
	})
}

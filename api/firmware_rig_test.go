package api_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/firmware/image"
	"muster/store/control"
)

// firmwareRig is the catalogue of a rig, with the images on disk.
type firmwareRig struct {
	firmware *catalog.Catalog
	images   string // the directory
	conf     catalog.Config
}

func (r *rig) startFirmware(store *control.Control, dir string, log *slog.Logger) {
	r.Helper()
	r.images = filepath.Join(dir, "firmware")
	blobs, err := blob.Open(r.images, blob.Limits{Size: 1 << 30}, time.Now)
	r.must(err)
	r.conf = catalog.Config{Store: store, Blobs: blobs, Now: time.Now, Logger: log}
	r.firmware = catalog.New(r.conf)
}

func sha256Of(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// uploadPath is where an image goes at one go.
func uploadPath(img []byte) string {
	return "/firmware/artifacts" + query("sha256", sha256Of(img), "filename", "fw.bin")
}

func octets() option { return header("Content-Type", "application/octet-stream") }

// image uploads one.
func (r *rig) image(img []byte) string {
	r.Helper()
	a := r.do("POST", "/api/v1"+uploadPath(img), string(img), octets(), bearer(r.admin))
	if a.StatusCode/100 != 2 {
		r.Fatalf("an upload gives %d %s", a.StatusCode, a.body)
	}
	return sha256Of(img)
}

// releaseKey is a secret key whose public one the server has.
type releaseKey struct {
	secret ed25519.PrivateKey
	id     string
}

func newReleaseKey(t testing.TB) (k releaseKey, pem string) {
	t.Helper()
	pub, secret, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := firmware.PublicPEM(pub)
	if err != nil {
		t.Fatal(err)
	}
	return releaseKey{secret, firmware.KeyID(pub)}, string(text)
}

func (r *rig) releaseKey(name string) releaseKey {
	r.Helper()
	k, pem := newReleaseKey(r)
	r.as("POST", "/api/v1/firmware/keys", object{"name": name, "pem": pem}).wantStatus(r, 201)
	return k
}

// manifestOf is one of an image.
func manifestOf(version string, img []byte, change ...func(*firmware.Manifest)) *firmware.Manifest {
	info, err := image.Of(bytes.NewReader(img), int64(len(img)))
	if err != nil {
		panic(err)
	}
	m := &firmware.Manifest{
		Schema: firmware.Schema, Product: "pump", Version: version, Type: "app", Created: time.Now().UTC().Truncate(time.Second),
		Files: []firmware.File{{Filename: "fw.bin", SHA256: sha256Of(img), Size: int64(len(img)), Format: info.Format}},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

func (r *rig) signaturesOf(m *firmware.Manifest, keys ...releaseKey) []firmware.Signature {
	r.Helper()
	out := []firmware.Signature{}
	for _, k := range keys {
		s, err := firmware.Sign(k.secret, m)
		r.must(err)
		out = append(out, s)
	}
	return out
}

// release makes a draft and returns its path below /api/v1.
func (r *rig) release(m *firmware.Manifest, keys ...releaseKey) string {
	r.Helper()
	a := r.as("POST", "/api/v1/firmware/releases", object{"manifest": m, "signatures": r.signaturesOf(m, keys...)}).wantStatus(r, 201)
	return "/firmware/releases/" + a.decode(r)["id"].(string)
}

// published makes a release of an image of its own that is published.
func (w *writer) published() string {
	w.Helper()
	w.ask("PUT", "/firmware/policy", object{"threshold": 1}) // one that was to change it was refused
	k := w.releaseKey(w.name("key"))
	img := []byte(w.name("image"))
	w.image(img)
	at := w.release(manifestOf("1.0.0", img, func(m *firmware.Manifest) { m.Product = w.name("product") }), k)
	w.ask("POST", at+"/publish", nil)
	return at
}

func (w *writer) newUpload(img []byte) string {
	w.Helper()
	u := w.ask("POST", "/firmware/uploads", object{"sha256": sha256Of(img), "size": len(img), "filename": "fw.bin"})
	return "/firmware/uploads/" + u["id"].(string)
}

func firmwareDoings() doings {
	drafted := func(w *writer, keys ...releaseKey) (at string, m *firmware.Manifest) {
		img := []byte(w.name("image"))
		w.image(img)
		m = manifestOf("1.0.0", img, func(m *firmware.Manifest) { m.Product = w.name("product") })
		return w.release(m, keys...), m
	}
	return doings{
		"upload-artifact": func(w *writer) deed {
			img := []byte(w.name("image"))
			return deed{path: uploadPath(img), body: string(img), who: []option{bearer(w.admin), octets()}, want: records("artifact.create firmware/artifacts/" + sha256Of(img) + " a")}
		},
		"delete-artifact": func(w *writer) deed {
			at := "firmware/artifacts/" + w.image([]byte(w.name("image")))
			return deed{path: "/" + at, want: records("artifact.delete " + at + " b")}
		},
		"begin-upload": func(w *writer) deed {
			img := []byte(w.name("image"))
			return deed{path: "/firmware/uploads", body: object{"sha256": sha256Of(img), "size": len(img), "filename": "fw.bin"}, want: records("upload.create firmware/uploads/" + sha256Of(img) + " a")}
		},
		"append-upload": func(w *writer) deed {
			img := []byte(w.name("image"))
			return deed{path: w.newUpload(img), body: string(img), who: []option{bearer(w.admin), octets(), header("Upload-Offset", "0")}, want: records("artifact.create firmware/artifacts/" + sha256Of(img) + " a")}
		},
		"delete-upload": func(w *writer) deed {
			at := w.newUpload([]byte(w.name("image")))
			return deed{path: at, want: records("upload.delete " + at[1:] + " b")}
		},
		"create-release": func(w *writer) deed {
			return deed{path: "/firmware/releases", body: object{"manifest": manifestOf("1.0.0", []byte("x"))}, want: records("release.create firmware/releases/* a")}
		},
		"change-release": func(w *writer) deed {
			at, _ := drafted(w)
			return deed{path: at, body: object{"notes": "better"}, want: records("release.update " + at[1:] + " ba")}
		},
		"delete-release": func(w *writer) deed {
			at, _ := drafted(w)
			return deed{path: at, want: records("release.delete " + at[1:] + " b")}
		},
		"sign-release": func(w *writer) deed {
			at, m := drafted(w)
			return deed{path: at + "/signatures", body: object{"signatures": w.signaturesOf(m, w.releaseKey("k"))}, want: records("release.sign " + at[1:] + " ba")}
		},
		"publish-release": func(w *writer) deed {
			at, _ := drafted(w, w.releaseKey("k"))
			return deed{path: at + "/publish", want: records("release.publish " + at[1:] + " ba")}
		},
		"deprecate-release": func(w *writer) deed {
			at := w.published()
			return deed{path: at + "/deprecate", want: records("release.deprecate " + at[1:] + " ba")}
		},
		"revoke-release": func(w *writer) deed {
			at := w.published()
			return deed{path: at + "/revoke", body: object{"reason": "it bricks"}, want: records("release.revoke " + at[1:] + " ba")}
		},
		"add-signing-key": func(w *writer) deed {
			k, pem := newReleaseKey(w)
			return deed{path: "/firmware/keys", body: object{"name": "ana", "pem": pem}, want: records("firmware_key.create firmware/keys/" + k.id + " a")}
		},
		"revoke-signing-key": func(w *writer) deed {
			at := "firmware/keys/" + w.releaseKey("ana").id
			return deed{path: "/" + at + "/revoke", body: object{"reason": "lost"}, want: records("firmware_key.revoke " + at + " ba")}
		},
		"put-firmware-policy": func(w *writer) deed {
			w.ask("PUT", "/firmware/policy", object{"threshold": 2})
			return deed{path: "/firmware/policy", body: object{"threshold": 1}, want: records("firmware_policy.update firmware/policy ba")}
		},
	}
}

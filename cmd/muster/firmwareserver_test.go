package main

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"muster/server/servertest"
)

// online runs verbs that speak to a server.
func (o offline) online(want int, server string, args ...string) (out, failed string) {
	o.Helper()
	return o.do(want, append(args, "--server", server, "--key", servertest.AdminKey)...)
}

func TestAReleaseIsMadeFromTheCommandLine(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	o, at := offline{t, t.TempDir()}, "http://"+s.HTTPAddr()
	image := o.write("fw-2.0.0.bin", "the image")
	id, _ := o.do(0, "keygen", o.path("k"))
	manifest := o.path("m.json")
	o.do(0, "manifest", "--product", "pump", "--release-version", "2.0.0", "--out", manifest, image)
	o.do(0, "sign", "--key", o.path("k"), manifest)

	_, failed := o.online(1, at, "release", manifest)
	if !strings.Contains(failed, "add the key first") {
		t.Errorf("a release of a key that is not known: %s", failed)
	}
	if _, failed := o.online(1, at, "trust", o.path("k"), "--name", "ana"); !strings.Contains(failed, "PUBLIC KEY") {
		t.Errorf("a secret key is sent: %s", failed)
	}
	if out, _ := o.online(0, at, "trust", o.path("k.pub"), "--name", "ana"); out != id {
		t.Errorf("%q is trusted, want %q", out, id)
	}
	release, _ := o.online(0, at, "release", manifest, "--channel", "stable")
	release = strings.TrimSpace(release)
	if _, failed := o.online(1, at, "publish", release); !strings.Contains(failed, "upload it first") {
		t.Errorf("%s", failed)
	}
	if out, _ := o.online(0, at, "upload", image); !strings.Contains(out, "raw") {
		t.Errorf("%s", out)
	}
	o.online(0, at, "upload", image) // again: it is there
	if out, _ := o.online(0, at, "publish", release); out != "published "+release+"\n" {
		t.Errorf("%s", out)
	}
	out, _ := o.online(0, at, "list", "--state", "published")
	if !strings.Contains(out, release) || !strings.Contains(out, "2.0.0") || !strings.Contains(out, "stable") || strings.Count(out, "\n") != 2 {
		t.Errorf("%s", out)
	}
	if out, _ := o.online(0, at, "list", "--images"); !strings.Contains(out, "fw-2.0.0.bin") || strings.Count(out, "\n") != 2 {
		t.Errorf("%s", out)
	}
	next := o.path("next.json")
	o.do(0, "manifest", "--product", "pump", "--release-version", "2.0.0", "--release-name", "again", "--out", next, image)
	o.do(0, "sign", "--key", o.path("k"), next)
	if _, failed := o.online(1, at, "release", next, "--publish"); !strings.Contains(failed, "there already") || !strings.Contains(failed, "the draft rel_") {
		t.Errorf("a version is published twice: %s", failed)
	}
}

// TestAnUploadFromTheCommandLineGoesOnAfterACut has a proxy between, which cuts the first piece
// in its middle.
func TestAnUploadFromTheCommandLineGoesOnAfterACut(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	o := offline{t, t.TempDir()}
	img, err := io.ReadAll(io.LimitReader(rand.NewChaCha8([32]byte{1}), 20<<20))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.path("fw.bin"), img, 0o600); err != nil {
		t.Fatal(err)
	}
	target, err := url.Parse("http://" + s.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	var patches, resumed atomic.Int64
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			switch patches.Add(1) {
			case 1:
				r.Body = io.NopCloser(io.MultiReader(io.LimitReader(r.Body, 5<<20), broken{}))
			case 2:
				at, _ := strconv.ParseInt(r.Header.Get("Upload-Offset"), 10, 64) // 0 fails the test
				resumed.Store(at)
			}
		}
		forward.ServeHTTP(w, r)
	}))
	defer proxy.Close()
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	out, told := o.online(0, proxy.URL, "upload", o.path("fw.bin"))
	if !strings.Contains(out, "SHA256") || !strings.Contains(told, "20971520 of 20971520 bytes") || resumed.Load() == 0 || resumed.Load() > 5<<20 {
		t.Errorf("%s%s, it went on at %d", out, told, resumed.Load())
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target.String()+"/api/v1/firmware/artifacts/"+strings.Fields(out)[1]+"/content", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	got, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if b, err := io.ReadAll(got.Body); err != nil || !bytes.Equal(b, img) {
		t.Errorf("%d bytes come back, %v", len(b), err)
	}
}

func TestOpenUploadsAreListedAndEndedFromTheCommandLine(t *testing.T) {
	s := servertest.Start(t)
	t.Setenv("MUSTER_KEY", "")
	o, at := offline{t, t.TempDir()}, "http://"+s.HTTPAddr()
	digest := strings.Repeat("ab", 32)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at+"/api/v1/firmware/uploads", strings.NewReader(`{"sha256":"`+digest+`","size":1000,"filename":"fw.bin"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	req.Header.Set("Content-Type", "application/json")
	begun, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	begun.Body.Close()
	if begun.StatusCode != http.StatusCreated {
		t.Fatalf("status %d", begun.StatusCode)
	}
	out, _ := o.online(0, at, "uploads")
	if fields := strings.Fields(out); !strings.Contains(out, digest) || !strings.Contains(out, "fw.bin") || len(fields) < 10 {
		t.Errorf("listed: %s", out)
	}
	o.online(0, at, "uploads", "--end", digest)
	if out, _ := o.online(0, at, "uploads"); strings.Contains(out, digest) {
		t.Errorf("listed after its end: %s", out)
	}
}

// broken is a body that is cut.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, net.ErrClosed }

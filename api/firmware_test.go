package api_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"muster/firmware"
	"muster/firmware/blob"
	"muster/firmware/catalog"
	"muster/internal/disktest"
)

// left are the files below the directory of images.
func (r *rig) left(sub string) (out []string) {
	r.Helper()
	r.must(filepath.WalkDir(filepath.Join(r.images, sub), func(_ string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, d.Name())
		}
		return err
	}))
	return out
}

func TestAnImageIsUploadedShownAndDeleted(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		img := []byte("the image")
		a := r.do("POST", "/api/v1"+uploadPath(img), string(img), octets(), bearer(r.admin)).wantStatus(t, 201)
		at := "/api/v1/firmware/artifacts/" + sha256Of(img)
		if got := a.decode(t); a.Header.Get("Location") != at || got["size"] != 9.0 || got["filename"] != "fw.bin" || got["image"].(object)["format"] != "raw" {
			t.Errorf("%s %v", a.Header.Get("Location"), got)
		}
		again := r.do("POST", "/api/v1"+uploadPath(img), string(img), octets(), bearer(r.admin)).wantStatus(t, 200)
		if !bytes.Equal(a.body, again.body) {
			t.Errorf("%s, again %s", a.body, again.body)
		}
		got := r.as("GET", at, nil).wantStatus(t, 200)
		if l := r.as("GET", "/api/v1/firmware/artifacts", nil).wantStatus(t, 200).decode(t); len(l["items"].([]any)) != 1 {
			t.Errorf("%v", l)
		}
		c := r.as("GET", at+"/content", nil).wantStatus(t, 200)
		if string(c.body) != "the image" || c.Header.Get("ETag") != `"`+sha256Of(img)+`"` || !strings.Contains(c.Header.Get("Content-Disposition"), "fw.bin") {
			t.Errorf("%s %v", c.body, c.Header)
		}
		if c = r.do("GET", at+"/content", nil, bearer(r.admin), header("Range", "bytes=4-6")).wantStatus(t, 206); string(c.body) != "ima" {
			t.Errorf("a range is %s", c.body)
		}
		r.do("GET", at+"/content", nil, bearer(r.key("firmware:read"))).wantProblem(t, 403, "forbidden")
		r.do("DELETE", at, nil, bearer(r.admin), header("If-Match", `"other"`)).wantProblem(t, 412, "stale")
		r.do("DELETE", at, nil, bearer(r.admin), header("If-Match", got.Header.Get("ETag"))).wantStatus(t, 204)
		for _, path := range []string{at, at + "/content", "/api/v1/firmware/artifacts/x"} {
			r.as("GET", path, nil).wantProblem(t, 404, "not_found")
		}
		if left := r.left(""); len(left) != 0 {
			t.Errorf("%v is left", left)
		}
	})
}

func TestAnImageThatIsNotWhatItsDigestSaysIsRefused(t *testing.T) {
	r := newRig(t)
	img := []byte("the image")
	for name, c := range map[string]struct {
		path, body string
		status     int
		code, at   string
	}{
		"corrupt":        {uploadPath(img), "the imagf", 422, "invalid", "query.sha256"},
		"cut off":        {uploadPath(img), "the im", 422, "invalid", "query.sha256"},
		"empty":          {uploadPath(nil), "", 422, "invalid", ""},
		"with a path":    {"/firmware/artifacts" + query("sha256", sha256Of(img), "filename", "../x"), "the image", 422, "invalid", "query.filename"},
		"with no digest": {"/firmware/artifacts?filename=a", "the image", 422, "invalid", "query.sha256"},
		"of no digest":   {"/firmware/artifacts" + query("sha256", strings.Repeat("X", 64), "filename", "a"), "the image", 422, "invalid", "query.sha256"},
	} {
		p := r.do("POST", "/api/v1"+c.path, c.body, octets(), bearer(r.admin)).wantProblem(t, c.status, c.code)
		errs, _ := p["errors"].([]any)
		if c.at == "" && len(errs) > 0 || c.at != "" && (len(errs) != 1 || errs[0].(object)["parameter"] != c.at) {
			t.Errorf("%s: %v", name, p)
		}
	}
	if left := r.left(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// TestAnUploadThatBreaksOffLeavesNothing cuts the connection in the middle of an image.
func TestAnUploadThatBreaksOffLeavesNothing(t *testing.T) {
	r := newRig(t)
	img := bytes.Repeat([]byte("x"), 1<<20)
	pr, pw := io.Pipe()
	ctx, cut := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/api/v1"+uploadPath(img), pr)
	r.must(err)
	bearer(r.admin)(req)
	req.ContentLength = int64(len(img))
	done := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_ = res.Body.Close()
		}
		done <- err
	}()
	_, err = pw.Write(img[:300_000])
	r.must(err)
	for deadline := time.Now().Add(20 * time.Second); len(r.left("uploads")) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the upload does not begin")
		}
		runtime.Gosched()
	}
	cut()
	_ = pw.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-done; err == nil {
		t.Error("the cut request is answered")
	}
	for deadline := time.Now().Add(20 * time.Second); len(r.left("")) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("%v is left", r.left(""))
		}
		runtime.Gosched()
	}
}

func TestAnUploadGoesOnWhereItWasAfterARestart(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		img := bytes.Repeat([]byte("0123456789"), 50_000)
		begin := object{"sha256": sha256Of(img), "size": len(img), "filename": "fw.bin"}
		a := r.as("POST", "/api/v1/firmware/uploads", begin).wantStatus(t, 201)
		at := a.Header.Get("Location")
		piece := func(offset string, b []byte) answer {
			return r.do("PATCH", at, string(b), octets(), bearer(r.admin), header("Upload-Offset", offset))
		}
		if got := piece("0", img[:200_000]).wantStatus(t, 200); got.Header.Get("Upload-Offset") != "200000" || got.decode(t)["offset"] != 200000.0 {
			t.Errorf("%v %s", got.Header, got.body)
		}
		wrong := piece("100000", img[100_000:])
		wrong.wantProblem(t, 409, "conflict")
		if wrong.Header.Get("Upload-Offset") != "200000" {
			t.Errorf("the right offset is %q", wrong.Header.Get("Upload-Offset"))
		}
		for _, h := range []map[string]string{{}, {"Upload-Offset": ""}, {"Upload-Offset": "-1"}, {"Upload-Offset": "some"}, {"Upload-Offset": "99999999999999999999"}} {
			bad := []option{octets(), bearer(r.admin)}
			for k, v := range h {
				bad = append(bad, header(k, v))
			}
			r.do("PATCH", at, string(img[:10]), bad...).wantProblem(t, 422, "invalid")
		}
		again := r.as("POST", "/api/v1/firmware/uploads", begin).wantStatus(t, 200)
		if again.Header.Get("Upload-Offset") != "200000" || again.Header.Get("Location") != at {
			t.Errorf("%v", again.Header)
		}

		blobs, err := blob.Open(r.images, blob.Limits{}, time.Now) // as another process would
		r.must(err)
		conf := r.conf
		conf.Blobs = blobs
		*r.firmware = *catalog.New(conf)
		if open := r.as("GET", "/api/v1/firmware/uploads", nil).wantStatus(t, 200).decode(t)["items"].([]any); len(open) != 1 ||
			open[0].(object)["id"] != sha256Of(img) || open[0].(object)["offset"] != 200000.0 || open[0].(object)["created_by"] == "" {
			t.Errorf("%v is open", open)
		}
		head := r.do("HEAD", at, nil, bearer(r.admin)).wantStatus(t, 200)
		if head.Header.Get("Upload-Offset") != "200000" || len(head.body) != 0 {
			t.Errorf("%v %s", head.Header, head.body)
		}
		got := piece("200000", img[200_000:]).wantStatus(t, 200).decode(t)
		if x, ok := got["artifact"].(object); !ok || x["sha256"] != sha256Of(img) || got["offset"] != 500000.0 {
			t.Errorf("%v", got)
		}
		r.do("HEAD", at, nil, bearer(r.admin)).wantStatus(t, 404)
		piece("500000", nil).wantProblem(t, 404, "not_found")
		here := r.as("POST", "/api/v1/firmware/uploads", begin).wantStatus(t, 200)
		if x := here.decode(t); x["id"] != "" || x["artifact"] == nil || here.Header.Get("Location") != "/api/v1/firmware/artifacts/"+sha256Of(img) {
			t.Errorf("%v", x)
		}
	})
}

func TestAnUploadOfOtherBytesEndsWithItsLast(t *testing.T) {
	r := newRig(t)
	img := []byte("the image")
	a := r.as("POST", "/api/v1/firmware/uploads", object{"sha256": sha256Of(img), "size": 9, "filename": "fw.bin"}).wantStatus(t, 201)
	at := a.Header.Get("Location")
	r.do("PATCH", at, "the imagf", octets(), header("Upload-Offset", "0"), bearer(r.admin)).wantProblem(t, 422, "invalid")
	r.as("GET", at, nil).wantProblem(t, 404, "not_found")
	at = r.as("POST", "/api/v1/firmware/uploads", object{"sha256": sha256Of(img), "size": 9, "filename": "fw.bin"}).wantStatus(t, 201).Header.Get("Location")
	r.do("PATCH", at, "the image and more", octets(), header("Upload-Offset", "0"), bearer(r.admin)).wantProblem(t, 413, "too_large")
	if got := r.as("GET", at, nil).wantStatus(t, 200).decode(t); got["offset"] != 0.0 {
		t.Errorf("after a piece that is too long the upload is %v", got)
	}
	r.as("DELETE", at, nil).wantStatus(t, 204)
	if left := r.left(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

func TestAFullDiskIs507AndLeavesNothing(t *testing.T) {
	r := newRig(t)
	disktest.Small(t, r.images, 4<<20)
	blobs, err := blob.Open(r.images, blob.Limits{}, time.Now)
	r.must(err)
	conf := r.conf
	conf.Blobs = blobs
	*r.firmware = *catalog.New(conf)
	img := bytes.Repeat([]byte("x"), 8<<20)
	r.do("POST", "/api/v1"+uploadPath(img), string(img), octets(), bearer(r.admin)).wantProblem(t, 507, "insufficient_storage")
	if left := r.left(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
	r.as("POST", "/api/v1/firmware/uploads", object{"sha256": sha256Of(img), "size": len(img), "filename": "fw.bin"}).wantProblem(t, 507, "insufficient_storage")
	img = img[:3<<20]
	at := r.as("POST", "/api/v1/firmware/uploads", object{"sha256": sha256Of(img), "size": len(img), "filename": "fw.bin"}).wantStatus(t, 201).Header.Get("Location")
	ballast := filepath.Join(r.images, "ballast") // somebody else fills the disk meanwhile
	r.must(os.WriteFile(ballast, make([]byte, 2<<20), 0o600))
	r.do("PATCH", at, string(img), octets(), header("Upload-Offset", "0"), bearer(r.admin)).wantProblem(t, 507, "insufficient_storage")
	if got := r.as("GET", at, nil).wantStatus(t, 200).decode(t); got["offset"] != 0.0 {
		t.Errorf("the upload is %v", got)
	}
	r.must(os.Remove(ballast))
	r.as("DELETE", at, nil).wantStatus(t, 204)
	if left := r.left(""); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// noise is n bytes that are the same each time.
func noise(n int64) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{3}), n) }

func TestAnUploadTakesTheSameMemoryHoweverLargeItIs(t *testing.T) {
	r := newRig(t)
	grown := func(n int64) uint64 {
		h := sha256.New()
		_, err := io.Copy(h, noise(n))
		r.must(err)
		path := "/api/v1/firmware/artifacts" + query("sha256", hex.EncodeToString(h.Sum(nil)), "filename", "fw.bin")
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.url+path, noise(n))
		r.must(err)
		bearer(r.admin)(req)
		req.ContentLength = n
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		res, err := http.DefaultTransport.RoundTrip(req)
		r.must(err)
		runtime.ReadMemStats(&after)
		r.must(res.Body.Close())
		if res.StatusCode != http.StatusCreated {
			t.Fatalf("%d bytes give %d", n, res.StatusCode)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := grown(1<<20), grown(256<<20)
	t.Logf("1 MiB allocates %d KiB, 256 MiB %d KiB", small>>10, large>>10)
	if large > small+8<<20 { // the client's half is counted too
		t.Errorf("256 MiB allocate %d bytes, 1 MiB %d", large, small)
	}
}

func TestAReleaseGoesFromDraftToRevoked(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		a, b := r.releaseKey("a"), r.releaseKey("b")
		img := []byte("the image")
		m := manifestOf("2.0.0", img)
		r.as("PUT", "/api/v1/firmware/policy", object{"threshold": 2}).wantStatus(t, 200)
		at := "/api/v1" + r.release(m, a)
		publish := func(want int) answer { return r.as("POST", at+"/publish", nil).wantStatus(t, want) }
		says := func(x answer, words string) {
			t.Helper()
			if !strings.Contains(string(x.body), words) {
				t.Errorf("%s does not say %q", x.body, words)
			}
		}
		says(publish(409), "1 good signatures of keys that count, 2 are needed")
		other, _ := newReleaseKey(t)
		wrong := r.signaturesOf(manifestOf("2.0.1", img), b)
		for _, sigs := range [][]firmware.Signature{wrong, r.signaturesOf(m, other)} {
			p := r.as("POST", at+"/signatures", object{"signatures": sigs}).wantProblem(t, 422, "invalid")
			if errs := p["errors"].([]any); errs[0].(object)["pointer"] != "#/signatures/0" {
				t.Errorf("%v", p)
			}
		}
		r.as("POST", at+"/signatures", object{"signatures": r.signaturesOf(m, b)}).wantStatus(t, 200)
		says(publish(409), "upload it first")
		r.image(img)
		r.as("PATCH", at, object{"notes": "better", "channel": "beta"}).wantStatus(t, 200)
		got := publish(200).decode(t)
		if got["state"] != "published" || got["offerable"] != true || got["notes"] != "better" || got["published_at"] == nil || len(got["signatures"].([]any)) != 2 {
			t.Errorf("%v", got)
		}
		r.as("PATCH", at, object{"notes": "other"}).wantProblem(t, 409, "conflict")
		r.as("DELETE", at, nil).wantProblem(t, 409, "conflict")
		r.as("DELETE", "/api/v1/firmware/artifacts/"+sha256Of(img), nil).wantProblem(t, 409, "conflict")

		r.as("POST", "/api/v1/firmware/keys/"+b.id+"/revoke", object{"reason": "lost"}).wantStatus(t, 200)
		x := r.as("GET", at, nil).wantStatus(t, 200)
		if x.decode(t)["offerable"] != false {
			t.Errorf("a release whose key was revoked: %s", x.body)
		}
		says(x, "1 good signatures")
		r.as("PUT", "/api/v1/firmware/policy", object{"threshold": 1}).wantStatus(t, 200)
		if x := r.as("GET", at, nil).decode(t); x["offerable"] != true || x["problem"] != nil {
			t.Errorf("%v", x)
		}
		r.as("POST", at+"/deprecate", nil).wantStatus(t, 200)
		r.as("POST", at+"/revoke", object{"reason": ""}).wantProblem(t, 422, "invalid")
		got = r.as("POST", at+"/revoke", object{"reason": "it bricks"}).wantStatus(t, 200).decode(t)
		if got["state"] != "revoked" || got["reason"] != "it bricks" || got["offerable"] != false {
			t.Errorf("%v", got)
		}
		l := r.as("GET", "/api/v1/firmware/releases?state=revoked&product=pump", nil).wantStatus(t, 200).decode(t)
		if len(l["items"].([]any)) != 1 {
			t.Errorf("%v", l)
		}
	})
}

func TestAMislabelledImageIsNotPublished(t *testing.T) {
	r := newRig(t)
	k := r.releaseKey("a")
	img := []byte("plain bytes")
	r.image(img)
	for name, change := range map[string]func(*firmware.Manifest){
		"by its format": func(m *firmware.Manifest) { m.Files[0].Format = "mcuboot" },
		"by its size":   func(m *firmware.Manifest) { m.Files[0].Size = 12 },
	} {
		at := "/api/v1" + r.release(manifestOf("2.0.0", img, change), k)
		a := r.as("POST", at+"/publish", nil)
		a.wantProblem(t, 409, "conflict")
		if !strings.Contains(string(a.body), "the image fw.bin") {
			t.Errorf("%s: %s", name, a.body)
		}
	}
}

func TestAReleaseIsChangedOnlyAsItWasSeen(t *testing.T) {
	r := newRig(t)
	at := "/api/v1" + r.release(manifestOf("2.0.0", []byte("x")))
	seen := r.as("GET", at, nil).wantStatus(t, 200).Header.Get("ETag")
	r.do("PATCH", at, object{"notes": "one"}, bearer(r.admin), header("If-Match", seen)).wantStatus(t, 200)
	for _, try := range []struct {
		method, path string
		body         any
	}{
		{"PATCH", at, object{"notes": "two"}},
		{"DELETE", at, nil},
		{"POST", at + "/publish", nil},
		{"POST", at + "/deprecate", nil},
		{"POST", at + "/revoke", object{"reason": "x"}},
		{"POST", at + "/signatures", object{"signatures": []object{{"key": "x", "sig": "eA=="}}}},
	} {
		r.do(try.method, try.path, try.body, bearer(r.admin), header("If-Match", seen)).wantProblem(t, 412, "stale")
	}
	p := r.as("GET", "/api/v1/firmware/policy", nil).wantStatus(t, 200).Header.Get("ETag")
	r.do("PUT", "/api/v1/firmware/policy", object{"threshold": 2}, bearer(r.admin), header("If-Match", p)).wantStatus(t, 200)
	r.do("PUT", "/api/v1/firmware/policy", object{"threshold": 3}, bearer(r.admin), header("If-Match", p)).wantProblem(t, 412, "stale")
	key := r.releaseKey("a")
	r.do("POST", "/api/v1/firmware/keys/"+key.id+"/revoke", object{"reason": "x"}, bearer(r.admin), header("If-Match", `"9"`)).wantProblem(t, 412, "stale")
}

func TestTwoPublishersAtOnceAreOneAndAConflict(t *testing.T) {
	onEachStore(t, func(t *testing.T, newRig rigMaker) {
		r := newRig(t)
		img := []byte("x")
		r.image(img)
		at := "/api/v1" + r.release(manifestOf("2.0.0", img), r.releaseKey("a"))
		var wg sync.WaitGroup
		status := make([]int, 6)
		for i := range status {
			wg.Go(func() { status[i] = r.as("POST", at+"/publish", nil).StatusCode })
		}
		wg.Wait()
		slices.Sort(status)
		if !slices.Equal(status, []int{200, 409, 409, 409, 409, 409}) {
			t.Errorf("%v", status)
		}
	})
}

func TestOnlyAnAdminSaysWhomToTrust(t *testing.T) {
	r := newRig(t)
	k := r.releaseKey("a")
	operator, viewer := r.key("firmware:read", "firmware:write"), r.key("firmware:read")
	_, pem := newReleaseKey(t)
	at := r.release(manifestOf("2.0.0", []byte("x")))
	for _, try := range []struct {
		method, path string
		body         any
		least        string // of those who may
	}{
		{"POST", "/firmware/keys", object{"name": "mine", "pem": pem}, "admin"},
		{"POST", "/firmware/keys/" + k.id + "/revoke", object{"reason": "x"}, "admin"},
		{"PUT", "/firmware/policy", object{"threshold": 1}, "admin"},
		{"PATCH", at, object{"notes": "x"}, "operator"},
		{"POST", uploadPath([]byte("y")), "y", "operator"},
		{"POST", "/firmware/uploads", object{"sha256": sha256Of([]byte("z")), "size": 1, "filename": "a"}, "operator"},
		{"GET", at, nil, "viewer"},
		{"GET", "/firmware/keys", nil, "viewer"},
		{"GET", "/firmware/policy", nil, "viewer"},
	} {
		for who, key := range map[string]string{"operator": operator, "viewer": viewer} {
			a := r.do(try.method, "/api/v1"+try.path, try.body, bearer(key))
			if may := try.least == "viewer" || try.least == who; may != (a.StatusCode < 300) || !may && a.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s by a %s gives %d %s", try.method, try.path, who, a.StatusCode, a.body)
			}
		}
	}
}

func TestPagesOfReleasesAndImagesFollowEachOther(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		r.image([]byte{byte('a' + i)})
		r.release(manifestOf("1.0."+string(rune('0'+i)), []byte{byte('a' + i)}))
	}
	for path, member := range map[string]string{"/firmware/artifacts": "sha256", "/firmware/releases": "version"} {
		var got []string
		for cursor := ""; ; {
			l := r.as("GET", "/api/v1"+path+"?limit=2&cursor="+cursor, nil).wantStatus(t, 200).decode(t)
			for _, i := range l["items"].([]any) {
				got = append(got, i.(object)[member].(string))
			}
			if l["next"] == nil {
				break
			}
			cursor = l["next"].(string)
		}
		if len(got) != 5 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 5 || member == "version" && got[0] != "1.0.4" {
			t.Errorf("%s: %v", path, got)
		}
		r.as("GET", "/api/v1"+path+"?cursor=x", nil).wantProblem(t, 422, "invalid")
	}
}

package server_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/firmware/s3/s3test"
	"muster/server"
	"muster/server/servertest"
	"muster/store/postgres/pgtest"
)

// inBucket has a server keep its images in a bucket.
func inBucket(f *s3test.Server) func(*server.Config) {
	return func(c *server.Config) {
		c.Firmware.S3, c.Firmware.S3Keys = f.URL+"/images/muster?region=us-east-1", server.S3Keys{Access: "key", Secret: "planted-s3-secret"}
		c.PresenceGrace = -1
	}
}

// readyParts returns the parts that a server says are not ready.
func (u *updating) readyParts() (parts []string) {
	u.t.Helper()
	r := request(u.t, u.Server, http.MethodGet, "/readyz", "", "")
	defer r.Body.Close()
	var said struct{ Reasons []struct{ Part string } }
	if err := json.NewDecoder(r.Body).Decode(&said); err != nil {
		u.t.Fatal(err)
	}
	for _, x := range said.Reasons {
		parts = append(parts, x.Part)
	}
	return parts
}

// offerNow puts a device into the state of one that was offered the release.
func (u *updating) offerNow(id string) {
	u.t.Helper()
	err := u.ControlForTest().Decide(u.t.Context(), u.rollout, director.Fence{}, muster.MicrosOf(time.Now()), director.Select{IDs: []muster.DeviceID{muster.DeviceID(id)}},
		func(r *rollout.Rollout, list []*rollout.Device) ([]rollout.Change, error) {
			c, err := rollout.Step(r, list[0], rollout.Fact{Event: rollout.Offer}, muster.MicrosOf(time.Now()))
			return []rollout.Change{c}, err
		})
	if err != nil {
		u.t.Fatal(err)
	}
}

func (u *updating) hasImage() bool {
	return len(globbed(u.t, filepath.Join(u.dir, "firmware", "sha256", "*", u.sha256))) == 1
}

func globbed(t *testing.T, pattern string) []string {
	t.Helper()
	list, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestTwoServersShareABucketAndADatabase uploads to one and fetches from the other, which never had the
// image, also while the bucket is away.
func TestTwoServersShareABucketAndADatabase(t *testing.T) {
	t.Parallel()
	database := pgtest.Empty(t, pgtest.Server(t, "MUSTER_TEST_POSTGRES"))
	f := s3test.New(t)
	start := func() *updating {
		u := &updating{t: t, ids: []string{"d1"}, rollout: "r1", soak: time.Hour}
		u.Server = servertest.Start(t, inBucket(f), func(c *server.Config) {
			c.DatabaseURL, u.dir = database, c.DataDir
		})
		return u
	}
	one := start()
	one.image = bytes.Repeat([]byte("an image of firmware"), 20_000)
	one.publish("app", "2.0.0")
	if got := f.Names(); len(got) != 1 || got[0] != "muster/sha256/"+one.sha256[:2]+"/"+one.sha256 {
		t.Fatalf("%v is in the bucket", got)
	}
	tokens := one.create()
	one.begin()
	one.offerNow("d1")
	two := start()
	two.sha256 = one.sha256
	o := two.client5("d1", tokens["d1"]).offer(two.OfferKeyForTest())

	f.SetDown(true)
	two.waits(func() bool { return len(two.readyParts()) == 1 && two.readyParts()[0] == "firmware" }, "nothing is said of the bucket")
	r := request(t, two.Server, http.MethodGet, strings.TrimPrefix(two.url(o.Files[0].URL), "http://"+two.HTTPAddr()), "", "")
	if r.StatusCode != http.StatusServiceUnavailable || r.Header.Get("Retry-After") == "" {
		t.Errorf("without the bucket: %d, Retry-After %q", r.StatusCode, r.Header.Get("Retry-After"))
	}
	r.Body.Close()
	_, signer, _ := one.DeliveryForTest()
	at := signer.URL("", sha256.Sum256(one.image), "d1", int64(o.Action), time.Now().Add(time.Hour))
	if status, b := one.ranged(at, "0-99"); status != http.StatusPartialContent || len(b) != 100 {
		t.Errorf("what is on the disk, without the bucket: %d", status)
	}
	f.SetDown(false)
	two.waits(func() bool { return len(two.readyParts()) == 0 }, "the server is not ready again")
	status, got := two.ranged(o.Files[0].URL, "0-")
	if status != http.StatusPartialContent || !bytes.Equal(got, one.image) || !two.hasImage() {
		t.Errorf("from the bucket: %d, %d bytes", status, len(got))
	}
	c := two.client5("d1", tokens["d1"])
	if got := c.fetch(&o, 0, int64(len(one.image)), 65_536); !bytes.Equal(got, one.image) {
		t.Errorf("%d bytes over MQTT", len(got))
	}
}

func TestTheKeysOfABucketAreNotTold(t *testing.T) {
	t.Parallel()
	f := s3test.New(t)
	var log safeBuffer
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("key\nplanted-s3-secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := &updating{t: t}
	u.Server = servertest.Start(t, inBucket(f), func(c *server.Config) {
		c.Firmware.S3Keys = server.S3Keys{File: keys}
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	u.waits(func() bool { return len(u.readyParts()) == 0 }, "the bucket is not used")
	f.SetDown(true)
	u.waits(func() bool { return len(u.readyParts()) == 1 }, "nothing is said of the bucket")
	var seen bytes.Buffer
	for _, path := range []string{"/api/v1/system", "/metrics", "/readyz"} {
		r := request(t, u.Server, http.MethodGet, path, servertest.AdminKey, "")
		if _, err := seen.ReadFrom(r.Body); err != nil {
			t.Fatal(err)
		}
	}
	seen.WriteString(log.String())
	if !bytes.Contains(seen.Bytes(), []byte("bucket")) || bytes.Contains(seen.Bytes(), []byte("planted-s3-secret")) {
		t.Error("the secret key is told, or nothing of the bucket")
	}
}

func TestABucketThatIsNotOneIsRefusedAtTheStart(t *testing.T) {
	good := server.S3Keys{Access: "key", Secret: "planted-s3-secret"}
	for name, c := range map[string]server.FirmwareConfig{
		"no URL": {S3: "images", S3Keys: good}, "no bucket": {S3: "https://s3.example.com/", S3Keys: good}, "another scheme": {S3: "ftp://s3.example.com/images", S3Keys: good},
		"keys in it": {S3: "https://key:planted-s3-secret@s3.example.com/images", S3Keys: good}, "another member": {S3: "https://s3.example.com/images?secret=planted-s3-secret", S3Keys: good},
		"another style": {S3: "https://s3.example.com/images?style=x", S3Keys: good}, "no keys": {S3: "https://s3.example.com/images"},
		"keys twice": {S3: "https://s3.example.com/images", S3Keys: server.S3Keys{Access: "key", Secret: "planted-s3-secret", File: "x"}},
		"no file":    {S3: "https://s3.example.com/images", S3Keys: server.S3Keys{File: "/nowhere"}},
		"a cache":    {Cache: -1},
	} {
		_, err := server.New(t.Context(), server.Config{
			DataDir: t.TempDir(), HTTPAddr: "127.0.0.1:0", MQTTAddr: "127.0.0.1:0", LogMaxBytes: 256 << 20, MaxPacket: 256 << 10,
			Logger: slog.New(slog.DiscardHandler), Now: time.Now, Firmware: c,
		})
		if err == nil || muster.KindOf(err) != muster.Invalid || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

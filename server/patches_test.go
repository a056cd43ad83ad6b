package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/firmware/delta"
	"muster/firmware/rollout"
	"muster/firmware/talk"
	"muster/server"
	"muster/server/servertest"
	"muster/sim"
)

// startPatching starts a server with the releases 1.0.0 and 2.0.0, whose images differ little, and the
// images, the older first.
func startPatching(t *testing.T, change func(*server.Config), devices ...string) (u *updating, tokens map[string]string, old []byte) {
	t.Helper()
	u = &updating{t: t, ids: devices, rollout: "r1", soak: time.Hour}
	u.Server = servertest.Start(t, func(c *server.Config) {
		c.PresenceGrace = -1
		change(c)
	})
	dice := rand.New(rand.NewPCG(1, 2))
	old = make([]byte, 300_000)
	for i := range old {
		old[i] = byte(dice.Uint32())
	}
	u.image = old
	u.publish("app", "1.0.0")
	u.image = bytes.Clone(old)
	copy(u.image[100_000:], "the next version")
	u.publish("app", "2.0.0")
	tokens = u.create()
	return u, tokens, old
}

// patched returns what a patch makes of an older image.
func patched(t *testing.T, old, patch []byte, size int64, sum [sha256.Size]byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out bytes.Buffer
	if err := delta.Apply(t.Context(), f, bytes.NewReader(patch), &out, delta.Want{SHA256: sum, Size: size}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// patchOverMQTT fetches a patch in one request.
func (c *firmwareClient) patchOverMQTT(o *talk.Offer) []byte {
	c.t.Helper()
	p := o.Files[0].Patch
	c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":%d,"patch":true}`, o.Action, max(p.Size, 256)))
	return c.hears("firmware/data/0").payload
}

// ranged fetches a part of what an address of the server names.
func (u *updating) ranged(path, bytes string) (int, []byte) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), soon)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.url(path), http.NoBody)
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Range", "bytes="+bytes)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		u.t.Fatal(err)
	}
	return resp.StatusCode, b
}

func (u *updating) url(path string) string {
	if at := strings.Index(path, "/fw/blob/"); at >= 0 {
		path = path[at:]
	}
	return "http://" + u.HTTPAddr() + path
}

func TestADeviceMakesTheImageByAPatchAndGetsTheWholeOneAfterAFailure(t *testing.T) {
	u, tokens, old := startPatching(t, func(*server.Config) {}, "d1")
	c := u.client5("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`)
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	p := o.Files[0].Patch
	if p == nil || o.Files[0].SHA256 != u.sha256 || o.Files[0].Size != int64(len(u.image)) || p.Size*2 > o.Files[0].Size {
		t.Fatalf("offered: %+v", o.Files)
	}
	whole := sha256.Sum256(u.image)
	if got := patched(t, old, c.patchOverMQTT(&o), o.Files[0].Size, whole); !bytes.Equal(got, u.image) {
		t.Error("another image over MQTT")
	}
	status, head := u.ranged(p.URL, "0-9")
	status2, rest := u.ranged(p.URL, "10-")
	if status != http.StatusPartialContent || status2 != http.StatusPartialContent || int64(len(head)+len(rest)) != p.Size {
		t.Fatalf("ranges of a patch: %d, %d", status, status2)
	}
	if got := patched(t, old, append(head, rest...), o.Files[0].Size, whole); !bytes.Equal(got, u.image) {
		t.Error("another image over HTTP")
	}
	var shown struct {
		Files []talk.OfferFile
	}
	call(t, u.Server, http.MethodGet, "/api/v1/devices/d1/firmware", nil, &shown)
	if len(shown.Files) != 1 || shown.Files[0].Patch == nil || shown.Files[0].Patch.SHA256 != p.SHA256 || shown.Files[0].SHA256 != u.sha256 {
		t.Errorf("over HTTP it is to fetch %+v", shown.Files)
	}
	c.reports(&o, 1, "failed", `,"error":"the patch makes another image"`)
	again := c.offer(u.OfferKeyForTest())
	if again.Attempt != 2 || again.Files[0].Patch != nil || again.Files[0].SHA256 != u.sha256 {
		t.Errorf("offered after a failure: %+v", again.Files)
	}
	c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":256,"patch":true}`, again.Action))
	if m := c.hears("firmware/error"); !strings.Contains(string(m.payload), `"code":"no_file"`) {
		t.Errorf("pieces of a patch that is not offered: %s", m.payload)
	}
}

func TestThereIsABudgetOfPatchesAsOfImages(t *testing.T) {
	u, tokens, _ := startPatching(t, func(*server.Config) {}, "d1")
	c := u.client5("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`)
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	sum, status := 0, 0
	for sum < 2*len(u.image) {
		got := []byte(nil)
		if status, got = u.ranged(o.Files[0].Patch.URL, "0-"); status != http.StatusPartialContent {
			t.Fatalf("after %d bytes: %d", sum, status)
		}
		sum += len(got)
	}
	_, got := u.ranged(o.Files[0].URL, fmt.Sprintf("0-%d", 3*len(u.image)-sum-1))
	if sum += len(got); sum != 3*len(u.image) {
		t.Errorf("%d bytes of the patch and of the image", sum)
	}
	for _, url := range []string{o.Files[0].Patch.URL, o.Files[0].URL} {
		if status, b := u.ranged(url, "0-"); status != http.StatusForbidden || !bytes.Contains(b, []byte("budget_spent")) {
			t.Errorf("when nothing is left: %d %s", status, b)
		}
	}
}

func TestNoPatchesAreOfferedWhenTheyAreOff(t *testing.T) {
	dir := ""
	u, tokens, _ := startPatching(t, func(c *server.Config) {
		c.Firmware.NoPatches = true
		dir = c.DataDir
	}, "d1")
	c := u.client5("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`)
	u.begin()
	if o := c.offer(u.OfferKeyForTest()); o.Files[0].Patch != nil {
		t.Errorf("offered: %+v", o.Files[0].Patch)
	}
	if _, err := os.Stat(filepath.Join(dir, "patches")); !os.IsNotExist(err) {
		t.Errorf("there is a directory of patches: %v", err)
	}
}

func TestAVirtualFleetTakesPatches(t *testing.T) {
	t.Parallel()
	u, tokens, _ := startPatching(t, func(*server.Config) {}, "sim-0001", "sim-0002")
	u.soak = 0
	ctx, cancel := context.WithCancel(context.Background())
	var patched atomic.Uint64
	ended := make(chan error, 1)
	cfg := sim.Config{
		Addr: u.BrokerAddr(), Devices: 2, Rate: 0.1, Firmware: true, FirmwareHTTP: u.HTTPAddr(), FirmwareImages: t.TempDir(), Seed: 3,
		Credentials: func(i int) (string, string) { return tokens[u.ids[i]], "" },
	}
	go func() { ended <- sim.Run(ctx, cfg, func(s sim.Stats) { patched.Store(s.Patched) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	u.begin()
	for _, id := range u.ids {
		u.becomes(id, rollout.Confirmed)
	}
	before := patched.Load()
	copy(u.image[200_000:], "one more")
	u.publish("app", "3.0.0")
	u.rollout = "r2"
	u.begin()
	for _, id := range u.ids { // one over MQTT, one over HTTP
		u.becomes(id, rollout.Confirmed)
	}
	u.waits(func() bool { return patched.Load() == before+2 }, "not both devices took the patch")
}

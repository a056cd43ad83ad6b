package server_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"muster/firmware/rollout"
	"muster/firmware/s3/s3test"
	"muster/server"
	"muster/server/servertest"
)

// spoil changes a byte of an image on a server's disk, and puts the file's time back.
func (u *updating) spoil() {
	u.t.Helper()
	path := filepath.Join(u.dir, "firmware", "sha256", u.sha256[:2], u.sha256)
	info, err := os.Stat(path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		u.t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		u.t.Fatal(err)
	}
}

// TestAnImageThatWasChangedOnDiskIsServedAtNoDoor asks at every door before and after it was changed.
func TestAnImageThatWasChangedOnDiskIsServedAtNoDoor(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	var log safeBuffer
	u := &updating{t: t, image: imageOf(20_000), ids: []string{"d1", "ddi", "tb"}, rollout: "r1", soak: time.Hour, retry: time.Hour}
	u.Server = servertest.Start(t, func(c *server.Config) {
		c.PresenceGrace, u.dir, c.Logger = -1, c.DataDir, slog.New(slog.NewTextHandler(&log, nil))
		c.DDI.Idle, c.DDI.Busy = time.Second, time.Second
	})
	tokens := u.fill("app")
	base := "http://" + u.HTTPAddr()
	c, tb := u.client5("d1", tokens["d1"]), u.tbConnects("tb", tokens["tb"], "fw")
	for _, f := range []string{"v2/fw/response/+/chunk/+", "v2/fw/error"} {
		if code := tb.listens(f); code > 2 {
			t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	ddi := func(path string) (int, string) {
		status, _, body := ddiCall(t, http.MethodGet, base+"/default/controller/v1/ddi"+path, "TargetToken "+tokens["ddi"], "")
		return status, body
	}
	ddi("")
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	tb.next("v1/devices/me/attributes")
	u.becomes("ddi", rollout.Offered)
	_, deployment := ddi(fmt.Sprintf("/deploymentBase/%d", u.row("ddi").Action))
	link := regexp.MustCompile(`http://[^"]*/artifacts/pump\.bin`).FindString(deployment)
	if link == "" {
		t.Fatalf("no address in %s", deployment)
	}
	_, link, _ = strings.Cut(link, "/controller/v1/ddi")
	doors := map[string]func() (served bool, said string){
		"HTTP": func() (bool, string) {
			status, b := u.ranged(o.Files[0].URL, "0-99")
			return status == http.StatusPartialContent, fmt.Sprint(status, string(b[:min(len(b), 400)]))
		},
		"DDI": func() (bool, string) {
			status, body := ddi(link)
			return status == http.StatusOK, fmt.Sprint(status, body[:min(len(body), 400)])
		},
		"the API": func() (bool, string) {
			status, _, body := ddiCall(t, http.MethodGet, base+"/api/v1/firmware/artifacts/"+u.sha256+"/content", "Bearer "+servertest.AdminKey, "")
			return status == http.StatusOK, fmt.Sprint(status, body[:min(len(body), 400)])
		},
		"MQTT": func() (bool, string) {
			c.say("devices/me/firmware/get", fmt.Sprintf(`{"action":%d,"off":0,"len":256,"n":1}`, o.Action))
			for end := time.After(soon); ; {
				select {
				case m := <-c.got:
					switch m.topic {
					case "devices/me/firmware/data/0":
						return true, ""
					case "devices/me/firmware/error":
						return false, "503 " + string(m.payload)
					}
				case <-end:
					return false, "nothing comes"
				}
			}
		},
		"ThingsBoard": func() (bool, string) {
			tb.says("v2/fw/request/1/chunk/0", "4096")
			for end := time.After(soon); ; {
				select {
				case m := <-tb.got:
					switch m.Topic {
					case "v2/fw/response/1/chunk/0":
						return true, ""
					case "v2/fw/error":
						return false, "503 " + string(m.Payload)
					}
				case <-end:
					return false, "nothing comes"
				}
			}
		},
	}
	for name, ask := range doors {
		if served, said := ask(); !served {
			t.Errorf("before it was changed it is not served by %s: %s", name, said)
		}
	}
	news := u.hears("firmware.image_wrong")
	u.spoil()
	for name, ask := range doors {
		if served, said := ask(); served || !strings.HasPrefix(said, "503") {
			t.Errorf("after it was changed it is answered by %s: %t %s", name, served, said)
		}
	}
	if _, text := u.ranged("/metrics", "0-"); !strings.Contains(string(text), "muster_firmware_images_wrong 1\n") {
		t.Error("the metric does not say it")
	}
	if !strings.Contains(log.String(), "is not what was uploaded any more") || !strings.Contains(log.String(), u.sha256) {
		t.Error("the log does not say it")
	}
	if e := news(); !strings.Contains(e, u.sha256) {
		t.Errorf("the event is %s", e)
	}
	if found, all := wrong(t, u.dir); !slices.Contains(found, "images") || !strings.Contains(all["images"], u.sha256+" (pump.bin): its bytes on disk were changed") {
		t.Errorf("the doctor finds %v: %s", found, all["images"])
	}
	u.upload()
	for name, ask := range doors {
		if served, said := ask(); !served {
			t.Errorf("once it was uploaded again it is not served by %s: %s", name, said)
		}
	}
	if _, all := wrong(t, u.dir); !strings.HasSuffix(all["images"], "each as it was uploaded") {
		t.Errorf("the doctor says of images: %s", all["images"])
	}
}

// hears begins to follow events of a type; next waits for one, and returns its data.
func (u *updating) hears(kind string) (next func() string) {
	u.t.Helper()
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodGet, "http://"+u.HTTPAddr()+"/api/v1/stream?channel=events&types="+kind, nil)
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != http.StatusOK {
		u.t.Fatalf("the stream is answered %v, %v", res, err)
	}
	u.t.Cleanup(func() { _ = res.Body.Close() })
	lines := bufio.NewScanner(res.Body)
	begun := false
	for !begun && lines.Scan() {
		begun = strings.HasPrefix(lines.Text(), "id: ")
	}
	return func() string {
		for lines.Scan() {
			if line := lines.Text(); strings.Contains(line, kind) && strings.HasPrefix(line, "data: ") {
				return line
			}
		}
		return fmt.Sprint("none: ", lines.Err())
	}
}

// upload sends the image in pieces, as who was told to upload it again does.
func (u *updating) upload() {
	u.t.Helper()
	base, key := "http://"+u.HTTPAddr()+"/api/v1/firmware/uploads", "Bearer "+servertest.AdminKey
	status, _, body := ddiCall(u.t, http.MethodPost, base, key, fmt.Sprintf(`{"sha256":%q,"size":%d,"filename":"pump.bin"}`, u.sha256, len(u.image)))
	if status != http.StatusCreated {
		u.t.Fatalf("an upload is answered %d %s", status, body)
	}
	req, err := http.NewRequestWithContext(u.t.Context(), http.MethodPatch, base+"/"+u.sha256, strings.NewReader(string(u.image)))
	if err != nil {
		u.t.Fatal(err)
	}
	req.Header.Set("Authorization", key)
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Upload-Offset", "0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		u.t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		u.t.Fatalf("its bytes are answered %d", resp.StatusCode)
	}
}

func TestNoPatchIsMadeOfAnImageThatWasChanged(t *testing.T) {
	u := &updating{t: t, rollout: "r1", soak: time.Hour}
	u.Server = servertest.Start(t, func(c *server.Config) { c.PresenceGrace, u.dir = -1, c.DataDir })
	u.image = imageOf(100_000)
	u.publish("app", "1.0.0")
	u.spoil()
	u.ids, u.image = []string{"d1"}, slices.Concat(u.image, []byte("the next version"))
	u.publish("app", "2.0.0")
	tokens := u.create()
	c := u.client5("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`)
	u.begin()
	if o := c.offer(u.OfferKeyForTest()); o.Files[0].Patch != nil || o.Files[0].SHA256 != u.sha256 {
		t.Errorf("offered: %+v", o.Files)
	}
}

// TestTheDoctorReadsABucketToo has an image changed in the bucket, and another missing there.
func TestTheDoctorReadsABucketToo(t *testing.T) {
	f := s3test.New(t)
	u := &updating{t: t, rollout: "r1"}
	var conf server.Config
	u.Server = servertest.Start(t, inBucket(f), func(c *server.Config) { u.dir, conf = c.DataDir, *c })
	u.image = imageOf(30_000)
	u.publish("app", "2.0.0")
	look := server.Images{S3: conf.Firmware.S3, S3Keys: conf.Firmware.S3Keys}
	ask := func(look server.Images) (out string) {
		server.Doctor(context.WithoutCancel(t.Context()), u.dir, "", time.Now(), look, func(c server.Check) {
			if c.Name == "images" {
				out += c.Detail
			}
		})
		return out
	}
	if got := ask(look); !strings.HasPrefix(got, "1, of ") || !strings.HasSuffix(got, "each as it was uploaded") {
		t.Errorf("it says %q", got)
	}
	u.spoil()
	if got := ask(look); !strings.Contains(got, "its copy on this disk was changed") {
		t.Errorf("of the cache it says %q", got)
	}
	f.Spoil(f.Names()[0])
	if got := ask(look); !strings.Contains(got, "its bytes in the bucket were changed") && !strings.Contains(got, "it is not in the bucket") {
		t.Errorf("of the bucket it says %q", got)
	}
	if got := ask(server.Images{Skip: true}); got != "not looked at, as asked" {
		t.Errorf("it says %q", got)
	}
}

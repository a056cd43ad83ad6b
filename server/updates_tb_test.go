package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"

	"muster/firmware/rollout"
	"muster/server/servertest"
)

// tbClient is a device that does what tb_device_mqtt.py of
// thingsboard/thingsboard-python-client-sdk does, in its order and with its payloads.
type tbClient struct {
	*talker
	which string // fw or sw
}

// tbConnects subscribes as _on_connect does.
func (u *updating) tbConnects(id, token, which string) *tbClient {
	u.t.Helper()
	c := &tbClient{talks(u.t, u.Server, id, token, ""), which}
	for _, f := range []string{"v1/devices/me/attributes", "v1/devices/me/attributes/response/+", "v1/devices/me/rpc/request/+", "v1/devices/me/rpc/response/+"} {
		if code := c.listens(f); code != 1 {
			u.t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	return c
}

// next returns the next message at a topic.
func (c *tbClient) next(topic string) *paho5.Publish {
	c.t.Helper()
	for end := time.After(soon); ; {
		select {
		case p := <-c.got:
			if p.Topic == topic {
				return p
			}
		case <-end:
			c.t.Fatalf("nothing comes at %s", topic)
		}
	}
}

// info sends current_firmware_info, as send_telemetry does.
func (c *tbClient) info(title, version, state string) {
	c.t.Helper()
	payload := fmt.Sprintf(`[{"ts":%d,"values":{"current_%s_title":%q,"current_%s_version":%q,"%s_state":%q}}]`, time.Now().UnixMilli(), c.which, title, c.which, version, c.which, state)
	if code := c.says("v1/devices/me/telemetry", payload); code != 0 {
		c.t.Errorf("telemetry: %#x", code)
	}
}

// fetch is __get_firmware for all parts.
func (c *tbClient) fetch(request int, size, each int) []byte {
	c.t.Helper()
	var image []byte
	for part := 0; len(image) < size; part++ {
		asked := fmt.Sprint(each)
		if each == 0 {
			asked = ""
		}
		if code := c.says(fmt.Sprintf("v2/%s/request/%d/chunk/%d", c.which, request, part), asked); code != 0 {
			c.t.Errorf("part %d: %#x", part, code)
		}
		p := c.next(fmt.Sprintf("v2/%s/response/%d/chunk/%d", c.which, request, part))
		if len(p.Payload) == 0 {
			c.t.Fatalf("part %d is empty", part)
		}
		image = append(image, p.Payload...)
	}
	return image
}

func attributesIn(t *testing.T, raw []byte) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestThingsBoardsPythonClientUpdatesUnchanged(t *testing.T) {
	for which, releaseType := range map[string]string{"fw": "app", "sw": "software"} {
		t.Run(which, func(t *testing.T) {
			u, tokens := startUpdating(t, releaseType, 20_000, "d1")
			c := u.tbConnects("d1", tokens["d1"], which)
			if code := c.listens("v2/" + which + "/response/+"); code > 2 { // get_firmware_update
				t.Fatalf("subscribe to the parts: %#x", code)
			}
			c.info("Initial", "v0", "IDLE")
			c.says("v1/devices/me/attributes/request/1", `{"sharedKeys":"fw_checksum,fw_checksum_algorithm,fw_size,fw_title,fw_version"}`)
			if got := string(c.next("v1/devices/me/attributes/response/1").Payload); got != `{}` {
				t.Errorf("before anything is offered: %s", got)
			}

			u.begin()
			told := attributesIn(t, c.next("v1/devices/me/attributes").Payload)
			want := map[string]any{"title": "pump", "version": "2.0.0", "size": 20000.0, "checksum": u.sha256, "checksum_algorithm": "SHA256", "state": "INITIATED", "tag": "pump 2.0.0"}
			for key, value := range want {
				if told[which+"_"+key] != value {
					t.Errorf("%s_%s is %v, want %v", which, key, told[which+"_"+key], value)
				}
			}
			c.says("v1/devices/me/attributes/request/2", fmt.Sprintf(`{"sharedKeys":"%s_title,%s_version"}`, which, which))
			if got := string(c.next("v1/devices/me/attributes/response/2").Payload); got != fmt.Sprintf(`{"shared":{"%s_title":"pump","%s_version":"2.0.0"}}`, which, which) {
				t.Errorf("asked for: %s", got)
			}

			c.info("Initial", "v0", "DOWNLOADING")
			u.becomes("d1", rollout.Downloading)
			if got := c.fetch(1, 20_000, 4_096); !bytes.Equal(got, u.image) {
				t.Fatal("not the image")
			}
			c.info("Initial", "v0", "DOWNLOADED")
			u.becomes("d1", rollout.Downloaded)
			c.info("Initial", "v0", "VERIFIED")
			c.info("Initial", "v0", "UPDATING")
			u.becomes("d1", rollout.Installing)
			c.info("pump", "2.0.0", "UPDATED")
			u.becomes("d1", rollout.Rebooting)
			if d := u.row("d1"); !d.Soaking {
				t.Errorf("it has the version, and does not soak: %+v", d)
			}
		})
	}
}

func TestAThingsBoardDeviceThatSaysUpdatedWithItsOldVersionHasRolledBack(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 20_000, "d1")
	c := u.tbConnects("d1", tokens["d1"], "fw")
	c.info("Initial", "v0", "IDLE") // as it does when it comes
	u.wantsRuns("v0")
	u.begin()
	c.next("v1/devices/me/attributes")
	c.info("Initial", "v0", "UPDATING")
	u.becomes("d1", rollout.Installing)
	c.info("Initial", "v0", "UPDATED")
	u.becomes("d1", rollout.RolledBack)
}

func TestAThingsBoardDevicesBootloaderSaysNothingOfTheReleaseAndIsNotItsFirmware(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 20_000, "d1")
	c := u.tbConnects("d1", tokens["d1"], "fw")
	c.info("pump", "1.0.0", "IDLE")
	u.wantsRuns("1.0.0")
	u.begin()
	c.next("v1/devices/me/attributes")
	c.info("pump", "1.0.0", "UPDATING")
	u.becomes("d1", rollout.Installing)
	kept := func(version string) func() bool {
		return func() bool {
			_, _, body := ddiCall(t, http.MethodGet, "http://"+u.HTTPAddr()+"/api/v1/devices/d1/twin", "Bearer "+servertest.AdminKey, "")
			return strings.Contains(body, `"versions":{"boot":"`+version+`"}`)
		}
	}
	c.info("boot", "3.0.0", "UPDATED")
	u.waits(kept("3.0.0"), "the bootloader's version is not kept, of telemetry")
	if code := c.says("v1/devices/me/attributes", `{"fw_title":"boot","fw_version":"3.1.0"}`); code != 0 {
		t.Errorf("attributes: %#x", code)
	}
	u.waits(kept("3.1.0"), "the bootloader's version is not kept, of attributes")
	u.is("d1", rollout.Installing)
	if got := u.runs(); got != "1.0.0" {
		t.Errorf("its firmware is said to be %s", got)
	}
	c.info("boot", "2.0.0", "UPDATED") // the release's own number
	u.waits(kept("2.0.0"), "a version as the release's is not kept")
	u.is("d1", rollout.Installing)
	c.info("pump", "2.0.0", "UPDATED")
	u.becomes("d1", rollout.Rebooting)
	u.wantsRuns("2.0.0")
}

func TestAThingsBoardDeviceGetsAnAnswerToEveryRequestForAPart(t *testing.T) {
	u, tokens := startUpdating(t, "app", 20_000, "d1")
	c := u.tbConnects("d1", tokens["d1"], "fw")
	for _, f := range []string{"v2/fw/response/+/chunk/+", "v2/fw/error", "v2/sw/error"} {
		if code := c.listens(f); code > 2 {
			t.Fatalf("subscribe to %s: %#x", f, code)
		}
	}
	c.says("v2/fw/request/1/chunk/0", "4096")
	if p := c.next("v2/fw/error"); string(p.Payload) != "NOT_FOUND" {
		t.Errorf("before the offer: %s", p.Payload)
	}
	u.begin()
	c.next("v1/devices/me/attributes")
	if got := c.fetch(1, 20_000, 0); !bytes.Equal(got, u.image) {
		t.Error("the whole image in one part is not the image")
	}
	c.says("v2/fw/request/2/chunk/1", "4096")
	if p := c.next("v2/fw/response/2/chunk/1"); !bytes.Equal(p.Payload, u.image[4096:8192]) {
		t.Error("not the second part")
	}
	c.says("v2/fw/request/2/chunk/2", "") // the size that was named before
	if p := c.next("v2/fw/response/2/chunk/2"); !bytes.Equal(p.Payload, u.image[8192:12288]) {
		t.Error("not the third part")
	}
	c.says("v2/fw/request/2/chunk/5", "4096")
	if p := c.next("v2/fw/response/2/chunk/5"); len(p.Payload) != 0 {
		t.Errorf("behind the end: %d bytes", len(p.Payload))
	}
	c.says("v2/sw/request/3/chunk/0", "4096")
	if p := c.next("v2/sw/error"); string(p.Payload) != "NOT_FOUND" {
		t.Errorf("firmware as software: %s", p.Payload)
	}
	c.says("v2/fw/request/4/chunk/0", "100000")
	if p := c.next("v2/fw/error"); string(p.Payload) != "PAYLOAD_TOO_LARGE" {
		t.Errorf("a part that is too large: %s", p.Payload)
	}
	for topic, payload := range map[string]string{"v2/fw/request/x/chunk/0": "1", "v2/fw/request/1/part/0": "1", "v2/fw/request/1/chunk/0": "many", "v2/fw/nonsense": ""} {
		if code := c.says(topic, payload); code != 0x99 {
			t.Errorf("%s %q: %#x", topic, payload, code)
		}
		if p := c.next("v2/fw/error"); string(p.Payload) != "BAD_REQUEST" {
			t.Errorf("%s %q: %s", topic, payload, p.Payload)
		}
	}
	if _, err := c.Publish(t.Context(), &paho5.Publish{Topic: "v2/sw/request/1/chunk/-1", Payload: []byte("4096")}); err != nil { // at QoS 0, where no code answers
		t.Fatal(err)
	}
	if p := c.next("v2/sw/error"); string(p.Payload) != "BAD_REQUEST" {
		t.Errorf("software at QoS 0: %s", p.Payload)
	}
	u.stop(rollout.Paused)
	if p := c.next("v1/devices/me/attributes"); !strings.HasPrefix(string(p.Payload), `{"deleted":["fw_checksum",`) {
		t.Errorf("taken back: %s", p.Payload)
	}
}

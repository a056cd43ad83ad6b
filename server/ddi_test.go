package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/firmware/rollout"
	"muster/server"
	"muster/server/servertest"
)

// ddiCall sends a request, and returns the status, headers and body of the answer.
func ddiCall(t *testing.T, method, url, auth, body string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", auth)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, string(text)
}

func TestAttributesOfHawkBitsClientsAreInTheTwinAndTheirVersionIsTheDevices(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := servertest.Start(t)
	url := "http://" + s.HTTPAddr()
	admin := "Bearer " + servertest.AdminKey
	status, _, body := ddiCall(t, http.MethodPost, url+"/api/v1/devices", admin, `{"id":"pump-7","credential":"token"}`)
	var made struct{ Credential struct{ Username string } }
	if err := json.Unmarshal([]byte(body), &made); status != http.StatusCreated || err != nil {
		t.Fatalf("the device is %d %s, %v", status, body, err)
	}
	token := "TargetToken " + made.Credential.Username
	door := url + "/default/controller/v1/pump-7"
	for _, c := range []struct{ sent, want string }{
		{`{"data":{"fw":"1.0.0","board":"a","x":"1"}}`, `{"ddi":{"board":"a","fw":"1.0.0","x":"1"},"firmware":{"version":"1.0.0"},"hw":{"board":"a"}}`},
		{`{"data":{"x":"2"}}`, `{"ddi":{"board":"a","fw":"1.0.0","x":"2"},"firmware":{"version":"1.0.0"},"hw":{"board":"a"}}`},
		{`{"mode":"remove","data":{"x":"","board":null}}`, `{"ddi":{"fw":"1.0.0"},"firmware":{"version":"1.0.0"},"hw":{"board":"a"}}`},
		{`{"mode":"replace","data":{"firmware":"2.0.0","hwRevision":"3"}}`, `{"ddi":{"firmware":"2.0.0","hwRevision":"3"},"firmware":{"version":"2.0.0"},"hw":{"board":"a","revision":"3"}}`},
	} {
		if status, _, body := ddiCall(t, http.MethodPut, door+"/configData", token, c.sent); status != http.StatusOK {
			t.Fatalf("%s is answered %d %s", c.sent, status, body)
		}
		_, _, body := ddiCall(t, http.MethodGet, url+"/api/v1/devices/pump-7/twin", admin, "")
		var twin struct {
			Reported struct{ State map[string]any }
		}
		var want map[string]any
		for text, to := range map[string]any{body: &twin, c.want: &want} {
			if err := json.Unmarshal([]byte(text), to); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		if d := cmp.Diff(want, twin.Reported.State); d != "" {
			t.Errorf("%s\n%s", c.sent, d)
		}
	}
	_, header, _ := ddiCall(t, http.MethodGet, door, token, "")
	if header.Get("Content-Security-Policy") != "" || header.Get("Content-Length") == "" {
		t.Errorf("a device with a small buffer gets %v", header)
	}
	if status, _, _ := ddiCall(t, http.MethodGet, door, "TargetToken nothing", ""); status != http.StatusUnauthorized {
		t.Errorf("another token is answered %d", status)
	}
}

func TestWithDDIOffItsPathsAreThePages(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	s := servertest.Start(t, func(c *server.Config) { c.DDI.Off = true })
	if _, header, _ := ddiCall(t, http.MethodGet, "http://"+s.HTTPAddr()+"/default/controller/v1/pump-7", "TargetToken x", ""); header.Get("WWW-Authenticate") != "" {
		t.Errorf("it is answered %v", header)
	}
}

func TestADeviceThatIsMadeAgainHasNothingToDoWithWhatTheDeletedOneWasOffered(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 4096, "pump-7")
	url, admin := "http://"+u.HTTPAddr(), "Bearer "+servertest.AdminKey
	door := url + "/default/controller/v1/pump-7"
	if status, _, body := ddiCall(t, http.MethodGet, door, "TargetToken "+tokens["pump-7"], ""); status != http.StatusOK {
		t.Fatalf("a poll is answered %d %s", status, body)
	}
	u.begin()
	u.becomes("pump-7", rollout.Offered)
	if status, _, body := ddiCall(t, http.MethodDelete, url+"/api/v1/devices/pump-7?data=keep", admin, ""); status != http.StatusOK {
		t.Fatalf("to delete it is answered %d %s", status, body)
	}
	again := create(t, u.Server, "pump-7")
	u.becomes("pump-7", rollout.Skipped)
	if d := u.row("pump-7"); d.Reason != rollout.Deleted {
		t.Errorf("it was skipped as %s", d.Reason)
	}
	_, _, body := ddiCall(t, http.MethodGet, door, "TargetToken "+again, "")
	for _, link := range []string{"deploymentBase", "cancelAction"} {
		if strings.Contains(body, link) || !strings.Contains(body, "configData") {
			t.Errorf("the device that was made again is told %s", body)
		}
	}
}

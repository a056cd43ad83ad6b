package server_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestWhyOfARolloutThatIsNotOpenIsTrueToo: its release is looked up, as that of an open one is at each look.
func TestWhyOfARolloutThatIsNotOpenIsTrueToo(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	u, tokens := startUpdating(t, "app", 5_000, "d1")
	c := u.client5("d1", tokens["d1"])
	if code := c.say("devices/me/reported", `{"firmware":{"version":"1.2.3"}}`); code > 0x10 {
		t.Fatalf("reported: %#x", code)
	}
	var draft struct{ ID string }
	u.asks(http.MethodPost, "", `{"name":"later","release":"`+u.release+`","q":"id:*"}`, http.StatusCreated, &draft)
	var why struct {
		Rules []struct {
			Name, Detail string
			Holds        bool
		}
	}
	u.asks(http.MethodGet, "/"+draft.ID+"/devices/d1/why", "", http.StatusOK, &why)
	want := map[string]string{"release_signed": "signed as it must be", "not_installed": "1.2.3", "reachable": "is there"}
	for _, r := range why.Rules {
		if text, ok := want[r.Name]; ok {
			delete(want, r.Name)
			if !r.Holds || !strings.Contains(r.Detail, text) {
				t.Errorf("%s: %t, %s, want it to hold: %s", r.Name, r.Holds, r.Detail, text)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
}

package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/client"
	"muster/server/servertest"
)

func open(t *testing.T, base, key string) *client.Client {
	t.Helper()
	c, err := client.New(base, key, client.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestADeviceIsMadeFoundAndDeleted(t *testing.T) {
	s := servertest.Start(t)
	c, ctx := open(t, "http://"+s.HTTPAddr(), servertest.AdminKey), t.Context()
	name := "Pump 7"
	made, err := c.CreateDevice(ctx, &client.NewDevice{ID: "pump-7", Name: &name, Tags: map[string]string{"site": "berlin"}}, nil)
	if err != nil || made.Credential == nil || made.Credential.Token == nil {
		t.Fatalf("made %+v, %v", made, err)
	}
	page, err := c.ListDevices(ctx, &client.ListDevicesParams{Q: "tag:site=berlin", Limit: 10})
	if err != nil || len(page.Items) != 1 || page.Items[0].ID != "pump-7" || page.Next != nil {
		t.Fatalf("listed %+v, %v", page, err)
	}
	res, err := c.ExportDevicesStream(ctx, &client.ExportDevicesParams{Format: "ndjson"})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var ids []any
	for line, err := range client.Lines[map[string]any](res.Body) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, line["id"])
	}
	if d := cmp.Diff([]any{"pump-7"}, ids); d != "" {
		t.Error(d)
	}
	if _, err := c.DeleteDevice(ctx, "pump-7", &client.DeleteDeviceParams{Data: "keep"}); err != nil {
		t.Fatal(err)
	}
	_, err = c.GetDevice(ctx, "pump-7")
	if p, ok := errors.AsType[*client.Problem](err); !ok || p.Status != 404 || client.Code(err) != "not_found" {
		t.Errorf("a device that is not there gives %v", err)
	}
}

func TestErrorsAreProblemsThatPointAtTheFault(t *testing.T) {
	s := servertest.Start(t)
	ctx := t.Context()
	_, err := open(t, "http://"+s.HTTPAddr(), servertest.AdminKey).ListDevices(ctx, &client.ListDevicesParams{Limit: 5000})
	if p, ok := errors.AsType[*client.Problem](err); !ok || p.Status != 422 || !strings.Contains(err.Error(), "query.limit") {
		t.Errorf("a limit that is too large gives %v", err)
	}
	for _, id := range []string{"..", ".", "a/b"} {
		if _, err := open(t, "http://"+s.HTTPAddr(), servertest.AdminKey).GetDevice(ctx, id); err == nil {
			t.Errorf("the id %q is taken", id)
		}
	}
	if _, err := open(t, "http://"+s.HTTPAddr(), "mst_nobodys-key-0123456789").GetMe(ctx); client.Code(err) != "unauthorized" {
		t.Errorf("a key that is unknown gives %v", err)
	}
	if _, err := client.New("localhost:8080", ""); err == nil {
		t.Error("an address without a scheme is taken")
	}
}

func TestAGETIsTriedAgainWhileTheServerIsBusyAndAPOSTIsNot(t *testing.T) {
	tries := map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries[r.Method]++
		if tries[r.Method] < 3 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"kind":"api_key","name":"x","scopes":[]}`))
	}))
	defer s.Close()
	c := open(t, s.URL, "")
	if me, err := c.GetMe(t.Context()); err != nil || me.Name != "x" || tries["GET"] != 3 {
		t.Errorf("%v after %d tries", err, tries["GET"])
	}
	_, err := c.CreateDevice(t.Context(), &client.NewDevice{ID: "a"}, nil)
	if p, ok := errors.AsType[*client.Problem](err); !ok || p.Status != 503 || tries["POST"] != 1 {
		t.Errorf("%v after %d tries", err, tries["POST"])
	}
}

func TestServerSentEventsAreRead(t *testing.T) {
	const text = ": hello\n\nid: 7\nevent: device.created\ndata: {\"a\":\ndata: 1}\n\ndata:x\n\nevent: cut off"
	var got []client.Message
	for m, err := range client.Messages(strings.NewReader(text)) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	want := []client.Message{{ID: "7", Type: "device.created", Data: "{\"a\":\n1}"}, {ID: "7", Type: "message", Data: "x"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, err := range client.Messages(strings.NewReader("data: " + strings.Repeat("x", 2<<20))) {
		if err == nil {
			t.Error("a line without end is taken")
		}
	}
}

func ExampleLines() {
	type reading struct{ Time string }
	for r, err := range client.Lines[reading](strings.NewReader("{\"time\":\"09:00\"}\n{\"time\":\"09:01\"}\n")) {
		fmt.Println(r.Time, err)
	}
	// Output:
	// 09:00 <nil>
	// 09:01 <nil>
}

package server_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/server/servertest"
)

// web is the API of a server.
type web struct {
	*testing.T
	url string
}

func (w web) do(method, path, contentType, body string, prefer string) (*http.Response, []byte) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+servertest.AdminKey)
	req.Header.Set("Content-Type", contentType)
	if prefer != "" {
		req.Header.Set("Prefer", prefer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res, text
}

// async does what becomes a task and returns the task at its end, with its result.
func (w web) async(method, path, contentType, body string) (task map[string]any, result []byte) {
	w.Helper()
	res, text := w.do(method, path, contentType, body, "respond-async")
	if res.StatusCode != http.StatusAccepted {
		w.Fatalf("%s %s gives %d %s", method, path, res.StatusCode, text)
	}
	at := res.Header.Get("Location")
	if res, text = w.do("GET", at+"?wait=60s", "", "", ""); res.StatusCode != http.StatusOK {
		w.Fatalf("the task gives %d %s", res.StatusCode, text)
	}
	if err := json.Unmarshal(text, &task); err != nil {
		w.Fatal(err)
	}
	if res, result = w.do("GET", at+"/result", "", "", ""); res.StatusCode != http.StatusOK {
		w.Fatalf("the result of %v gives %d %s", task, res.StatusCode, result)
	}
	return task, result
}

func TestBulkTasksDoWhatTheirRequestsWouldDo(t *testing.T) {
	s := servertest.Start(t)
	w := web{t, "http://" + s.HTTPAddr()}
	var list strings.Builder
	list.WriteString("id,tags,credential\n")
	for i := range 600 {
		fmt.Fprintf(&list, "d%04d,n=%d,token\n", i, i%2)
	}
	list.WriteString("d0000,,\n")
	task, result := w.async("POST", "/api/v1/devices:import?partial=true", "text/csv", list.String())
	if task["state"] != "succeeded" || task["done"] != 600.0 || task["total"] != 600.0 {
		t.Errorf("the import is %v", task)
	}
	tokens := imported(t, result, 600, `{"dry_run":false,"lines":601,"created":600,"updated":0,"same":0,"refused":1,`)
	for _, id := range []string{"d0000", "d0599"} {
		connect(t, s, tokens[id]).Disconnect(100)
	}
	task, result = w.async("POST", "/api/v1/devices:update", "application/json", `{"q":"tag:n=1","expect":300,"tags":{"n":"2"}}`)
	if want := `{"matched":300,"changed":300,"refused":0,"refusals":[]}`; strings.TrimSpace(string(result)) != want {
		t.Errorf("the change %v says %s", task, result)
	}
	_, result = w.async("GET", "/api/v1/devices:export?q=tag:n=2&format=ndjson", "", "")
	if n := bytes.Count(result, []byte("\n")); n != 300 || !bytes.Contains(result, []byte(`"n":"2"`)) {
		t.Errorf("the export has %d lines", n)
	}
	_, result = w.async("POST", "/api/v1/devices:delete", "application/json", `{"q":"tag:n=2","expect":300,"data":"keep"}`)
	if want := `{"matched":300,"changed":300,"refused":0,"refusals":[]}`; strings.TrimSpace(string(result)) != want {
		t.Errorf("the deletion says %s", result)
	}
	res, text := w.do("POST", "/api/v1/devices:update", "application/json", `{"q":"","dry_run":true}`, "")
	if !bytes.Contains(text, []byte(`"matched":300`)) {
		t.Errorf("afterwards: %d %s", res.StatusCode, text)
	}
	if _, text = w.do("POST", "/api/v1/tasks", "application/json", `{"kind":"devices.export","input":{"q":"colour:red"}}`, ""); !bytes.Contains(text, []byte(`"code":"invalid"`)) {
		t.Errorf("an export of a query that is none: %s", text)
	}
}

// imported reads the result of an import and returns the tokens.
func imported(t *testing.T, result []byte, made int, report string) map[string]string {
	t.Helper()
	tokens := map[string]string{}
	last := ""
	lines := bufio.NewScanner(bytes.NewReader(result))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l struct {
			Made *struct {
				ID         string
				Credential struct{ Kind, Token, Username string }
			}
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if last = lines.Text(); l.Made != nil {
			if tokens[l.Made.ID] != "" {
				t.Errorf("%s is there twice", l.Made.ID)
			}
			tokens[l.Made.ID] = l.Made.Credential.Token
		}
	}
	if len(tokens) != made || !strings.Contains(last, report) {
		t.Errorf("%d are made, the report is %s", len(tokens), last)
	}
	return tokens
}

func TestPicturesAndTasksAreOnTheSystemPageAndInTheMetrics(t *testing.T) {
	s := servertest.Start(t)
	w := web{t, "http://" + s.HTTPAddr()}
	w.do("POST", "/api/v1/devices", "application/json", `{"id":"d1"}`, "")
	res, picture := w.do("GET", "/api/v1/devices/d1/identicon.png?size=96", "", "", "")
	m, err := png.Decode(bytes.NewReader(picture))
	if err != nil || m.Bounds().Dx() != 96 {
		t.Fatalf("%d: %v", res.StatusCode, err)
	}
	_, text := w.do("GET", "/api/v1/system", "", "", "")
	var page struct {
		Sections struct {
			Tasks    struct{ Kinds []struct{ Kind string } }
			Services []struct {
				Name    string
				Running bool
			}
		}
	}
	if err := json.Unmarshal(text, &page); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, k := range page.Sections.Tasks.Kinds {
		kinds = append(kinds, k.Kind)
	}
	if got := strings.Join(kinds, " "); got != "devices.delete devices.export devices.import devices.update identicon" {
		t.Errorf("the kinds are %s", got)
	}
	running := false
	for _, l := range page.Sections.Services {
		running = running || l.Name == "tasks" && l.Running
	}
	if !running {
		t.Errorf("no loop tasks runs: %v", page.Sections.Services)
	}
	if _, text = w.do("GET", "/metrics", "", "", ""); !bytes.Contains(text, []byte(`muster_tasks{kind="identicon",state="succeeded"} 1`)) {
		t.Error("the picture is not in the metrics")
	}
}

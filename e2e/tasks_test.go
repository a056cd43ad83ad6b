package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/store/control/controltest"
)

// task is one as the API shows it.
type task struct {
	ID, State   string
	Done, Total int64
	Error       *struct{ Code, Detail string }
}

// async starts what becomes a task and returns the task's path.
func (m *muster) async(method, path, contentType, body string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), workLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+m.http+path, strings.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Prefer", "respond-async")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		m.t.Fatalf("start a task: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		m.t.Fatalf("a task is answered %d %s %v", resp.StatusCode, text, err)
	}
	return resp.Header.Get("Location")
}

func (m *muster) task(path string) (t task) {
	m.t.Helper()
	m.ask(http.MethodGet, path, nil, http.StatusOK, &t)
	return t
}

// ended waits for the end of a task.
func (m *muster) ended(path string) (t task) {
	m.t.Helper()
	m.await("the task to end", workLimit, func() bool {
		t = m.task(path)
		return t.State != "queued" && t.State != "running"
	})
	return t
}

func (m *muster) result(path string) []byte {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), workLimit)
	defer cancel()
	status, text, err := get(ctx, "http://"+m.http+path+"/result", m.key)
	if err != nil || status != http.StatusOK {
		m.t.Fatalf("the result is %d: %v", status, err)
	}
	return text
}

const manyLines = 30_000

func TestAnImportThatIsKilledGoesOnAndMakesEachDeviceOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			var args []string
			if engine == "postgres" {
				args = []string{"--database", controltest.Database(t, timescale(t))}
			}
			m := serve(t, args...)
			var list strings.Builder
			list.WriteString("id,tags,credential\n")
			for i := range manyLines {
				fmt.Fprintf(&list, "d%05d,n=%d,token\n", i, i)
			}
			at := m.async(http.MethodPost, "/api/v1/devices:import", "text/csv", list.String())
			next := m.async(http.MethodGet, "/api/v1/devices:export?format=ndjson&q=id:d00*", "", "")
			for kill := range int64(3) { // each after some steps more
				before := (kill + 1) * 5_000
				m.await("the import to be under way", workLimit, func() bool { return m.task(at).Done >= before })
				m.kill()
				m.start()
				m.ready()
			}
			if got := m.ended(at); got.State != "succeeded" || got.Done != manyLines {
				t.Fatalf("the import is %+v %+v", got, got.Error)
			}
			tokens := map[string]string{}
			dec := json.NewDecoder(bytes.NewReader(m.result(at)))
			created, reports := 0, 0
			for dec.More() {
				var line struct {
					Made *struct {
						ID         string
						Credential credential
					}
					Report *struct{ Created, Refused int }
				}
				if err := dec.Decode(&line); err != nil {
					t.Fatal(err)
				}
				if line.Report != nil {
					created, reports = line.Report.Created, reports+1
					continue
				}
				if tokens[line.Made.ID] != "" {
					t.Errorf("%s was made twice", line.Made.ID)
				}
				tokens[line.Made.ID] = line.Made.Credential.Token
			}
			var counted struct{ Matched int }
			m.ask(http.MethodPost, "/api/v1/devices:update", map[string]any{"q": "id:d*", "dry_run": true}, http.StatusOK, &counted)
			if len(tokens) != manyLines || created != manyLines || reports != 1 || counted.Matched != manyLines {
				t.Errorf("%d lines, %d reports of %d, %d devices, want %d", len(tokens), reports, created, counted.Matched, manyLines)
			}
			for i := 0; i < manyLines; i += 4999 { // one at least of each step
				id := fmt.Sprintf("d%05d", i)
				talk(t, m, id, tokens[id], "", false).cut()
			}
			if got := m.ended(next); got.State != "succeeded" {
				t.Errorf("the export that was there at the kills is %+v", got)
			}
			at = m.async(http.MethodPost, "/api/v1/devices:delete", "application/json", fmt.Sprintf(`{"q":"id:d*","expect":%d,"data":"keep"}`, manyLines))
			m.await("the deletion to be under way", workLimit, func() bool { return m.task(at).Done >= 5_000 })
			m.kill()
			m.start()
			m.ready()
			m.ended(at)
			var report struct{ Matched, Changed, Refused int }
			if err := json.Unmarshal(m.result(at), &report); err != nil || report.Changed != manyLines || report.Refused != 0 {
				t.Errorf("the deletion says %+v: %v", report, err)
			}
		})
	}
}

func TestATaskIsCancelledForGoodThoughTheServerIsKilled(t *testing.T) {
	t.Parallel()
	m := serve(t)
	var list strings.Builder
	list.WriteString("id,credential\n")
	for i := range manyLines {
		fmt.Fprintf(&list, "d%05d,token\n", i)
	}
	at := m.async(http.MethodPost, "/api/v1/devices:import", "text/csv", list.String())
	m.await("the import to be under way", workLimit, func() bool { return m.task(at).Done > 0 })
	var cancelled task
	m.ask(http.MethodDelete, at, nil, http.StatusOK, &cancelled)
	m.kill()
	m.start()
	m.ready()
	got := m.ended(at)
	if got.State != "cancelled" || got.Done == 0 || got.Done >= manyLines {
		t.Fatalf("it is %+v", got)
	}
	var counted struct{ Matched int }
	m.ask(http.MethodPost, "/api/v1/devices:update", map[string]any{"q": "id:d*", "dry_run": true}, http.StatusOK, &counted)
	if lines := bytes.Count(m.result(at), []byte(`{"made":`)); lines != counted.Matched || int64(lines) != got.Done {
		t.Errorf("%d devices are there, the result so far has %d, the task says %d", counted.Matched, lines, got.Done)
	}
}

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"
)

const (
	bulkDevices = 100
	bulkEach    = 100
)

// TestLinesThatWereAnsweredAreStoredOnce writes 10,000 lines over HTTP, kills the server
// when it has answered, and finds each of them in the database once; again with NDJSON,
// and sent a second time.
func TestLinesThatWereAnsweredAreStoredOnce(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			bulk(t, e)
		})
	}
}

func bulk(t *testing.T, e engine) {
	args, read := e.prepare(t)
	m := serve(t, args...)
	began := time.Now().Add(-time.Hour).Truncate(time.Second)
	var lines, objects bytes.Buffer
	for i := range bulkDevices * bulkEach {
		device, n := fmt.Sprintf("bulk-%03d", i%bulkDevices), i/bulkDevices
		at := began.Add(time.Duration(n) * time.Second)
		fmt.Fprintf(&lines, "env,host=%s,room=a\\ b t=%d,n=%di,on=t,s=\"x\" %d\n", device, n, n, at.UnixNano())
		fmt.Fprintf(&objects, `{"device":%q,"ts":%d,"values":{"seq":%d}}`+"\n", device, at.Unix(), n)
	}
	m.post("/api/v2/write?create=true&org=o&bucket=b", "text/plain; charset=utf-8", packed(t, lines.Bytes()), http.StatusNoContent)
	m.again()
	answer := m.post("/api/v1/telemetry", "application/x-ndjson", packed(t, objects.Bytes()), http.StatusOK)
	m.again()
	var took struct {
		Accepted int `json:"accepted"`
	}
	if err := json.Unmarshal(answer, &took); err != nil || took.Accepted != bulkDevices*bulkEach {
		t.Errorf("NDJSON is answered %s (%v)", answer, err)
	}
	m.post("/api/v2/write", "text/plain", packed(t, lines.Bytes()), http.StatusNoContent)
	if l := m.drained(drainLimit); !l.balanced() || l.duplicate < bulkDevices*bulkEach || l.rejected+l.dropped+l.replaced > 0 {
		t.Errorf("after the second time the ledger is %+v", l)
	}
	m.checkLines(began)
	m.stop()
	found := read(m)
	if found.total != bulkDevices*bulkEach {
		t.Errorf("%d rows have seq, want %d", found.total, bulkDevices*bulkEach)
	}
	for device, seqs := range found.of {
		for seq, n := range seqs {
			if n != 1 || seq >= bulkEach {
				t.Errorf("%s has seq %d %d times", device, seq, n)
			}
		}
	}
}

// again kills the server and starts it.
func (m *muster) again() {
	m.t.Helper()
	m.kill()
	m.start()
	m.ready()
}

// checkLines checks that each device has each line once, with its time and values.
func (m *muster) checkLines(began time.Time) {
	m.t.Helper()
	for d := range bulkDevices {
		device := fmt.Sprintf("bulk-%03d", d)
		var got []int
		for _, p := range m.telemetry(device) {
			n, ok := p.Values["env.room=a b.n"]
			if !ok {
				continue // of NDJSON
			}
			i := len(got)
			want := map[string]any{
				"env.room=a b.n": json.Number(fmt.Sprint(i)), "env.room=a b.t": json.Number(fmt.Sprint(i)), "env.room=a b.on": true, "env.room=a b.s": "x",
			}
			at := began.Add(time.Duration(i) * time.Second).UTC().Format("2006-01-02T15:04:05.000000Z")
			if n != want["env.room=a b.n"] || fmt.Sprint(p.Values) != fmt.Sprint(want) || p.Time != at {
				m.t.Fatalf("reading %d of %s is %+v, want %v at %s", i, device, p, want, at)
			}
			got = append(got, i)
		}
		if len(got) != bulkEach || !slices.IsSorted(got) {
			m.t.Errorf("%s has %d lines, want %d", device, len(got), bulkEach)
		}
	}
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// post sends a gzip body as Telegraf does and returns the answer's.
func (m *muster) post(path, contentType string, body []byte, want int) []byte {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+path, bytes.NewReader(body))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("Authorization", "Bearer "+m.key)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		m.t.Fatalf("POST %s: %v", path, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, answerLimit))
	if err != nil || res.StatusCode != want {
		m.t.Fatalf("POST %s answers %d, want %d: %s (%v)", path, res.StatusCode, want, answer, err)
	}
	return answer
}

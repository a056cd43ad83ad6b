package api_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/ingest"
)

// memoryLog is a log in memory whose appends can be held up.
type memoryLog struct {
	mu      sync.Mutex
	frames  [][]byte
	entered chan struct{} // one token: an append waits at the gate
	gate    chan struct{} // nil, or closed to let appends through
}

func (l *memoryLog) Append(ctx context.Context, _ string, frame []byte) (uint64, error) {
	if l.gate != nil {
		select {
		case l.entered <- struct{}{}:
		default:
		}
		select {
		case <-l.gate:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = append(l.frames, bytes.Clone(frame))
	return uint64(len(l.frames)), nil
}

func (l *memoryLog) Read(_ context.Context, seq uint64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq == 0 || seq > uint64(len(l.frames)) {
		return nil, muster.Errorf(muster.NotFound, "there is no frame %d", seq)
	}
	return l.frames[seq-1], nil
}

func (l *memoryLog) State(context.Context) (ingest.LogState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ingest.LogState{Incarnation: "i", First: 1, Last: uint64(len(l.frames)), MaxBytes: 1 << 40}, nil
}
func (l *memoryLog) Purge(context.Context, uint64) error   { return nil }
func (l *memoryLog) Renew(context.Context) (string, error) { return "j", nil }

// writeRig is the API over the real pipeline, with a log in memory.
type writeRig struct {
	*rig
	in    *ingest.Ingest
	log   *memoryLog
	clock atomic.Int64 // ns that the API's clock is ahead
	stop  func()
}

// late is a writer that is made after the API.
type late struct{ api.TelemetryWriter }

func newWriteRig(t *testing.T, change ...func(*late, *memoryLog)) *writeRig {
	t.Helper()
	return newWriteRigWith(t, func(*api.Deps) {}, change...)
}

func newWriteRigWith(t *testing.T, deps func(*api.Deps), change ...func(*late, *memoryLog)) *writeRig {
	t.Helper()
	w := &writeRig{log: &memoryLog{entered: make(chan struct{}, 1)}}
	writer := &late{}
	w.rig = newRig(t, func(d *api.Deps) {
		d.Writer = writer
		d.Now = func() time.Time { return time.Now().Add(time.Duration(w.clock.Load())) }
		deps(d)
	})
	w.in = ingest.New(ingest.Config{
		Log: w.log, Store: w.telemetry, Latest: w.telemetry, Level: ingest.LevelDurable, Now: time.Now,
		Logger: slog.New(slog.DiscardHandler), Known: w.registry.Has,
	})
	writer.TelemetryWriter = w.in
	for _, c := range change {
		c(writer, w.log)
	}
	w.must(w.in.Start(t.Context()))
	w.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()
		if err := w.in.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(w.stop)
	for _, id := range []muster.DeviceID{"d1", "d2"} {
		w.device(id)
	}
	return w
}

// stored stops the pipeline and returns what the store has of a device, oldest first.
func (w *writeRig) stored(id muster.DeviceID) []string {
	w.Helper()
	w.stop()
	if l := w.in.Ledger(); !l.Balanced() || l.Queued != 0 {
		w.Errorf("the ledger is %+v", l)
	}
	got := []string{}
	for r, err := range w.telemetry.Range(w.Context(), ingest.RangeQuery{Device: id, To: 1 << 60}) {
		w.must(err)
		line := string(ingest.AppendJSON(nil, &r))
		if r.Time < muster.MicrosOf(time.Now().Add(-time.Hour)) { // else it is the arrival
			line += " " + r.Time.Time().Format(time.RFC3339Nano)
		}
		got = append(got, line)
	}
	return got
}

// rejections returns what the store keeps as rejected, of a device or of none.
func (w *writeRig) rejections(id muster.DeviceID) []string {
	w.Helper()
	w.stop()
	rows, err := w.telemetry.Rejected(w.Context(), "", 1000)
	w.must(err)
	got := []string{}
	for _, r := range rows {
		if r.Device == id {
			got = append(got, fmt.Sprintf("%s %s: %s: %s", r.Topic, r.Code, r.Reason, r.Payload))
		}
	}
	return got
}

const writeKeyScope = accounts.TelemetryWrite

// post writes to the API with a key that may write telemetry.
func (w *writeRig) post(path, contentType, body string, more ...option) answer {
	w.Helper()
	return w.do("POST", path, body, append([]option{header("Content-Type", contentType), bearer(w.key(writeKeyScope))}, more...)...)
}

func (w *writeRig) postJSON(query, body string) answer {
	w.Helper()
	return w.post("/api/v1/telemetry"+query, "application/json", body)
}

func TestTelemetryIsWrittenInEveryForm(t *testing.T) {
	tests := []struct {
		name, query, kind, body string
		accepted                int
		d1, d2                  []string
	}{
		{"one message", "", "application/json", `{"device":"d1","t":1,"on":true}`, 1, []string{`{"on":true,"t":1}`}, []string{}},
		{"one with its time", "", "application/json; charset=utf-8", `{"device":"d1","ts":1772366400,"values":{"t":1}}`, 1, []string{`{"t":1} 2026-03-01T12:00:00Z`}, []string{}},
		{"an array", "", "application/json", `[{"device":"d1","t":1},{"device":"d2","t":2},{"device":"d1","t":3}]`, 3, []string{`{"t":1}`, `{"t":3}`}, []string{`{"t":2}`}},
		{
			"by device", "", "application/json", `{"devices":{"d1":[{"ts":1772366400,"values":{"t":1}},{"ts":1772366401,"values":{"t":2}}],"d2":{"t":3}}}`, 3,
			[]string{`{"t":1} 2026-03-01T12:00:00Z`, `{"t":2} 2026-03-01T12:00:01Z`},
			[]string{`{"t":3}`},
		},
		{"of the device that is named", "?device=d1", "application/json", `[{"t":1},{"device":"x"}]`, 2, []string{`{"t":1}`, `{"device":"x"}`}, []string{}},
		{"a scalar", "?device=d2", "application/json", `21.5`, 1, []string{}, []string{`{"value":21.5}`}},
		{"lines", "", "application/x-ndjson", "{\"device\":\"d1\",\"t\":1}\n\n{\"device\":\"d2\",\"t\":2}\r\n[{\"device\":\"d1\",\"t\":3}]", 3, []string{`{"t":1}`, `{"t":3}`}, []string{`{"t":2}`}},
		{"lines of one device", "?device=d1", "application/x-ndjson", "{\"t\":1}\n2\n", 2, []string{`{"t":1}`, `{"value":2}`}, []string{}},
		{"nothing", "", "application/json", `[]`, 0, []string{}, []string{}},
		{"no lines", "", "application/x-ndjson", "", 0, []string{}, []string{}},
	}
	w := newWriteRig(t)
	for i, tt := range tests {
		own := w.pair(i)
		a := w.post("/api/v1/telemetry"+own.Replace(tt.query), tt.kind, own.Replace(tt.body)).wantStatus(t, 200)
		want := map[string]any{"accepted": float64(tt.accepted), "rejected_count": 0.0, "rejected": []any{}}
		if d := cmp.Diff(want, a.decode(t)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { w.wantPair(t, i, tt.d1, tt.d2) })
	}
}

// pair makes two devices for the i-th case of a table and returns what puts them in the
// place of d1 and d2.
func (w *writeRig) pair(i int) *strings.Replacer {
	w.Helper()
	a, b := fmt.Sprintf("case%da", i), fmt.Sprintf("case%db", i)
	w.device(muster.DeviceID(a))
	w.device(muster.DeviceID(b))
	return strings.NewReplacer("d1", a, "d2", b)
}

// wantPair checks what is stored of them.
func (w *writeRig) wantPair(t *testing.T, i int, d1, d2 []string) {
	t.Helper()
	a, b := fmt.Sprintf("case%da", i), fmt.Sprintf("case%db", i)
	own := strings.NewReplacer("d1", a, "d2", b)
	for id, want := range map[string][]string{a: d1, b: d2} {
		for i := range want {
			want[i] = own.Replace(want[i])
		}
		if d := cmp.Diff(want, w.stored(muster.DeviceID(id))); d != "" {
			t.Errorf("%s: %s", id, d)
		}
	}
}

func TestRefusedMessagesAreToldByNumberAndKept(t *testing.T) {
	w := newWriteRig(t)
	body := strings.Join([]string{
		`{"device":"d1","t":1}`, `{"device":"nobody","t":2}`, `{"device":"../x","t":3}`, `{"t":4}`, `not JSON`,
		`{"device":"d1","ts":5e9,"values":{"t":5}}`, `{"device":"d1"}`, `[{"device":"d1","t":6},7]`, `{"device":"d1","x":"` + strings.Repeat("y", 256<<10) + `"}`, `{"device":"d2","t":7}`,
	}, "\n")
	a := w.post("/api/v1/telemetry", "application/x-ndjson", body).wantStatus(t, 200)
	got := a.decode(t)
	lines := []string{}
	for _, r := range got["rejected"].([]any) {
		m := r.(map[string]any)
		lines = append(lines, fmt.Sprintf("%v %v %v", m["line"], m["device"], m["code"]))
	}
	want := []string{"2 nobody device", "3 ../x device", "4  device", "5  malformed", "6 d1 time", "7 d1 malformed", "8  malformed", "9  too_large"}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if got["accepted"] != 3.0 || got["rejected_count"] != 8.0 {
		t.Errorf("accepted %v, rejected %v", got["accepted"], got["rejected_count"])
	}
	if d := cmp.Diff([]string{`{"t":1}`, `{"t":6}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{
		`devices/d1/telemetry malformed: the message has no values: {"device":"d1"}`,
		`devices/d1/telemetry time: time stamp 2128-06-11T08:53:20Z is more than 24 h ahead: {"device":"d1","ts":5e9,"values":{"t":5}}`,
	}, w.rejections("d1")); d != "" {
		t.Error(d)
	}
	if n := len(w.rejections("")); n != 6 {
		t.Errorf("%d are kept of no device, want 6: %v", n, w.rejections(""))
	}
	if l := w.in.Ledger(); l.Received != 11 || l.Stored != 3 || l.Rejected != 8 {
		t.Errorf("the ledger is %+v", l)
	}
}

func TestWhenNothingIsAcceptedTheAnswerIsAProblem(t *testing.T) {
	w := newWriteRig(t)
	p := w.postJSON("", `[{"device":"nobody","t":1},{"device":"d1","ts":1e9,"values":{}}]`).wantProblem(t, 422, "rejected")
	if p["accepted"] != 0.0 || p["rejected_count"] != 2.0 || p["line"] != 2.0 || p["detail"] != "nothing was accepted: there is no such device" {
		t.Errorf("the problem is %v", p)
	}
	w.postJSON("?device=nobody", `{"t":1}`).wantProblem(t, 422, "rejected")
}

func TestABodyThatCanNotBeReadIsAProblem(t *testing.T) {
	w := newWriteRig(t)
	big := `{"device":"d1","t":"` + strings.Repeat("x", 8<<20) + `"}`
	chunked := func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(struct{ io.Reader }{r.Body}) }
	tests := []struct {
		name, query, kind, body string
		status                  int
		code                    string
		more                    []option
	}{
		{"no JSON", "", "application/json", `[{"device":"d1","t":1},`, 400, "malformed", nil},
		{"an empty body", "", "application/json", "", 400, "malformed", nil},
		{"another type", "", "text/csv", "a,b", 415, "unsupported_media_type", nil},
		{"no type", "", "", "{}", 415, "unsupported_media_type", nil},
		{"another encoding", "", "application/json", "{}", 415, "unsupported_media_type", []option{header("Content-Encoding", "br")}},
		{"no gzip", "", "application/json", "{}", 400, "malformed", []option{header("Content-Encoding", "gzip")}},
		{"gzip that is damaged", "", "application/x-ndjson", zipped(strings.Repeat("{\"device\":\"d1\",\"t\":1}\n", 9))[:40], 400, "malformed", []option{header("Content-Encoding", "gzip")}},
		{"a bomb", "", "application/x-ndjson", zipped(strings.Repeat("\n", 20<<20)), 413, "too_large", []option{header("Content-Encoding", "gzip")}},
		{"a small bomb of JSON", "", "application/json", zipped(big), 413, "too_large", []option{header("Content-Encoding", "gzip")}},
		{"too large", "", "application/json", big, 413, "too_large", nil},
		{"too large, of unknown length", "", "application/json", big, 413, "too_large", []option{chunked}},
		{"a device that is none", "?device=a%2Fb", "application/json", "{}", 422, "invalid", nil},
		{"a parameter that is none", "?devices=a", "application/json", "{}", 422, "invalid", nil},
		{"create without the right", "?create=true", "application/json", "{}", 403, "forbidden", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.post("/api/v1/telemetry"+tt.query, tt.kind, tt.body, tt.more...).wantProblem(t, tt.status, tt.code)
		})
	}
	if l := w.in.Ledger(); l.Received > 9 { // of the gzip that is damaged
		t.Errorf("something was taken: %+v", l)
	}
	if log := w.rig.log.String(); strings.Contains(log, "xxxx") {
		t.Error("the log has what was sent")
	}
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, s)
	_ = z.Close()
	return b.String()
}

func TestABodyMayBeCompressed(t *testing.T) {
	w := newWriteRig(t)
	a := w.post("/api/v1/telemetry", "application/json", zipped(`{"device":"d1","t":1}`), header("Content-Encoding", "gzip")).wantStatus(t, 200)
	if got := a.decode(t)["accepted"]; got != 1.0 {
		t.Errorf("accepted %v", got)
	}
	if d := cmp.Diff([]string{`{"t":1}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
}

func TestTheAnswerComesWhenAllIsDurable(t *testing.T) {
	gate := make(chan struct{})
	w := newWriteRig(t, func(_ *late, l *memoryLog) { l.gate = gate })
	for _, path := range []string{"/api/v1/telemetry?device=d1", "/api/v2/write?device=d1"} {
		body, kind := "{\"t\":1}\n{\"t\":2}", "application/x-ndjson"
		if strings.Contains(path, "v2") {
			body, kind = "m f=1\nm f=2", "text/plain"
		}
		answers := make(chan answer, 1)
		go func() { answers <- w.post(path, kind, body) }()
		<-w.log.entered
		select {
		case a := <-answers:
			t.Errorf("%s is answered %d before the log has it", path, a.StatusCode)
		default:
		}
		gate <- struct{}{} // this append
		for done := false; !done; {
			select {
			case gate <- struct{}{}: // and those of what came while it waited
			case a := <-answers:
				if a.StatusCode/100 != 2 {
					t.Errorf("%s is answered %d %s", path, a.StatusCode, a.body)
				}
				done = true
			}
		}
	}
	close(gate)
}

// full takes n messages and then says that the log is full.
type full struct {
	api.TelemetryWriter
	left atomic.Int64
}

func (f *full) Take(ctx context.Context, m ingest.Message) (ingest.Refusal, error) {
	if f.left.Add(-1) < 0 {
		return ingest.Refusal{}, muster.Errorf(muster.Busy, "the log is full")
	}
	return f.TelemetryWriter.Take(ctx, m)
}

func TestAFullLogIsSaidWithWhatWasTaken(t *testing.T) {
	f := &full{}
	w := newWriteRig(t, func(l *late, _ *memoryLog) { f.TelemetryWriter, l.TelemetryWriter = l.TelemetryWriter, f })
	f.left.Store(2)
	a := w.postJSON("", `[{"device":"d1","t":1},{"device":"d2","t":2},{"device":"d1","t":3},{"device":"d1","t":4}]`)
	p := a.wantProblem(t, 503, "unavailable")
	if p["accepted"] != 2.0 || p["line"] != 2.0 || p["detail"] != "the log is full" || a.Header.Get("Retry-After") != "5" {
		t.Errorf("the problem is %v, Retry-After %q", p, a.Header.Get("Retry-After"))
	}
	f.left.Store(1)
	a = w.post("/api/v2/write", "text/plain", "m,device=d1 f=1\nm,device=d1 f=2")
	a.wantStatus(t, 503)
	want := map[string]any{"code": "unavailable", "accepted": 1.0, "message": "the log is full; of the lines up to 1 1 were accepted, what follows was not taken"}
	if d := cmp.Diff(want, a.decode(t)); d != "" || a.Header.Get("Retry-After") != "5" {
		t.Errorf("Retry-After is %q; %s", a.Header.Get("Retry-After"), d)
	}
	if d := cmp.Diff([]string{`{"t":1}`, `{"m.f":1}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
}

// slowly is a body that is written while it is sent.
func (w *writeRig) slowly(path, kind string, more ...option) (*io.PipeWriter, <-chan answer) {
	w.Helper()
	in, out := io.Pipe()
	answers := make(chan answer, 1)
	go func() {
		replace := func(r *http.Request) { r.Body, r.ContentLength = in, -1 }
		answers <- w.post(path, kind, "", append([]option{replace}, more...)...)
	}()
	return out, answers
}

func (w *writeRig) awaitTaken(n uint64) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	for w.in.Ledger().Received < n {
		if ctx.Err() != nil {
			w.Fatalf("%d messages did not come: %+v", n, w.in.Ledger())
		}
		w.do("GET", "/healthz", nil) // gives way
	}
}

func TestAStreamOfARevokedKeyEnds(t *testing.T) {
	for _, path := range []string{"/api/v1/telemetry?device=d1", "/api/v2/write?device=d1"} {
		w := newWriteRig(t)
		key, secret, err := w.accounts.CreateKey(t.Context(), accounts.KeySpec{Name: "soon gone", Scopes: []string{writeKeyScope}})
		w.must(err)
		out, answers := w.slowly(path, "application/x-ndjson", bearer(secret))
		one := "{\"t\":1}\n"
		if strings.Contains(path, "v2") {
			one = "m f=1\n"
		}
		_, err = io.WriteString(out, one)
		w.must(err)
		w.awaitTaken(1)
		w.must(w.accounts.DeleteKey(t.Context(), key.ID))
		w.clock.Store(int64(2 * time.Second))
		_, _ = io.WriteString(out, one) // the server may have gone already
		a := <-answers
		_ = out.Close()
		a.wantStatus(t, 401)
		if got := a.decode(t); got["accepted"] != 1.0 {
			t.Errorf("%s gives %v", path, got)
		}
		if got := w.stored("d1"); len(got) != 1 {
			t.Errorf("stored: %v", got)
		}
	}
}

func TestAServerThatStopsAnswersItsStreams(t *testing.T) {
	w := newWriteRig(t)
	out, answers := w.slowly("/api/v1/telemetry?device=d1", "application/x-ndjson")
	_, err := io.WriteString(out, "{\"t\":1}\n{\"t\":2}\n{\"t\":")
	w.must(err)
	w.awaitTaken(2)
	w.server.Config.Handler.(*api.API).EndStreams()
	a := <-answers
	_ = out.Close()
	if p := a.wantProblem(t, 503, "unavailable"); p["accepted"] != 2.0 {
		t.Errorf("the problem is %v", p)
	}
	w.postJSON("", `{"device":"d1","t":3}`).wantProblem(t, 503, "unavailable")
	if got := w.stored("d1"); len(got) != 2 {
		t.Errorf("stored: %v", got)
	}
}

func TestAStreamThatIsCutKeepsItsWholeLines(t *testing.T) {
	w := newWriteRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url+"/api/v1/telemetry?device=d1", in)
	w.must(err)
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Authorization", "Bearer "+w.key(writeKeyScope))
	ended := make(chan error, 1)
	go func() {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_ = res.Body.Close()
		}
		ended <- err
	}()
	_, err = io.WriteString(out, "{\"t\":1}\n2")
	w.must(err)
	w.awaitTaken(1)
	cancel()
	_ = out.CloseWithError(context.Canceled)
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the request ends with %v", err)
	}
	w.server.Close() // waits for the handler
	if d := cmp.Diff([]string{`{"t":1}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
}

func TestAKeyWithASelectorWritesItsDevicesOnly(t *testing.T) {
	w := newWriteRig(t)
	spec := accounts.KeySpec{Name: "one device", Scopes: []string{writeKeyScope, accounts.DevicesWrite}, Selector: "id:d1"}
	_, secret, err := w.accounts.CreateKey(t.Context(), spec)
	w.must(err)
	got := w.post("/api/v1/telemetry", "application/json", `[{"device":"d1","t":1},{"device":"d2","t":2},{"device":"nobody","t":3}]`, bearer(secret)).wantStatus(t, 200).decode(t)
	want := []any{
		map[string]any{"line": 2.0, "device": "d2", "code": "device", "detail": "there is no such device"},
		map[string]any{"line": 3.0, "device": "nobody", "code": "device", "detail": "there is no such device"},
	}
	if d := cmp.Diff(want, got["rejected"]); d != "" || got["accepted"] != 1.0 {
		t.Errorf("accepted %v; %s", got["accepted"], d)
	}
	w.post("/api/v2/write", "text/plain", "m,host=d2 f=1\nm,host=d1 f=2", bearer(secret)).wantStatus(t, 400)
	w.post("/api/v1/telemetry?device=d2", "application/json", `{"t":1}`, bearer(secret)).wantProblem(t, 422, "rejected")
	w.post("/api/v1/telemetry?create=true", "application/json", `{"device":"d9","t":1}`, bearer(secret)).wantProblem(t, 403, "forbidden")
	if d := cmp.Diff([]string{`{"t":1}`, `{"m.f":2}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
	if got := w.stored("d2"); len(got) != 0 {
		t.Errorf("d2 has %v", got)
	}
}

func TestDevicesAreMadeWhenAsked(t *testing.T) {
	w := newWriteRig(t)
	key := bearer(w.key(writeKeyScope, accounts.DevicesWrite))
	a := w.post("/api/v1/telemetry?create=true", "application/json", `[{"device":"new1","t":1},{"device":"new1","t":2},{"device":"d1","t":3},{"device":"a b","t":4}]`, key).wantStatus(t, 200)
	if got := a.decode(t); got["accepted"] != 3.0 || got["rejected_count"] != 1.0 {
		t.Errorf("it gives %v", got)
	}
	w.post("/api/v2/write?create=true", "text/plain", "m,host=new2 f=1", key).wantStatus(t, 204)
	w.post("/api/v2/write?create=true", "text/plain", "m,host=new3 f=1").wantStatus(t, 403)
	var ids []muster.DeviceID
	for _, id := range []muster.DeviceID{"new1", "new2", "new3"} {
		if w.registry.Has(id) {
			ids = append(ids, id)
		}
	}
	if d := cmp.Diff([]muster.DeviceID{"new1", "new2"}, ids); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{`{"t":1}`, `{"t":2}`}, w.stored("new1")); d != "" {
		t.Error(d)
	}
}

func TestARequestMakesABoundedNumberOfDevices(t *testing.T) {
	w := newWriteRig(t)
	var body strings.Builder
	for i := range 1002 {
		fmt.Fprintf(&body, "m,host=h%d f=1\n", i)
	}
	a := w.post("/api/v2/write?create=1", "text/plain", body.String(), bearer(w.key(writeKeyScope, accounts.DevicesWrite))).wantStatus(t, 400)
	got := a.decode(t)
	if got["accepted"] != 1000.0 || got["line"] != 1001.0 || len(got["rejected"].([]any)) != 2 {
		t.Errorf("accepted %v, line %v, %v", got["accepted"], got["line"], got["rejected"])
	}
}

func TestOfManyRefusedMessagesTheFirstAreKept(t *testing.T) {
	w := newWriteRig(t)
	a := w.post("/api/v1/telemetry?device=d1", "application/x-ndjson", strings.Repeat("{}\n", 1500)+"{\"t\":1}\n").wantStatus(t, 200)
	got := a.decode(t)
	if got["accepted"] != 1.0 || got["rejected_count"] != 1500.0 || len(got["rejected"].([]any)) != 1000 {
		t.Errorf("accepted %v, rejected %v, listed %d", got["accepted"], got["rejected_count"], len(got["rejected"].([]any)))
	}
	if d := cmp.Diff([]string{`{"t":1}`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
	if l := w.in.Ledger(); l.Rejected != 1000 || l.Received != 1001 {
		t.Errorf("the ledger is %+v", l)
	}
	if !strings.Contains(string(w.do("GET", "/metrics", nil).body), "muster_http_refused_unkept_total 500") {
		t.Error("the rest is not counted")
	}
}

func TestTooMuchAtOnceIsRefused(t *testing.T) {
	w := newWriteRig(t)
	open, wait := make([]*io.PipeWriter, 8), make([]<-chan answer, 8) // of unknown length: 8 MiB each, of 64 for one key
	begin := func(i int) {
		open[i], wait[i] = w.slowly("/api/v1/telemetry?device=d1", "application/json")
		_, err := io.WriteString(open[i], "[")
		w.must(err)
	}
	for i := range open {
		begin(i)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	a := w.postJSON("?device=d1", `{"t":1}`)
	for a.StatusCode == http.StatusOK && ctx.Err() == nil { // the handlers have not all begun
		for i := range wait {
			select {
			case refused := <-wait[i]: // it came while the small one was held
				refused.wantProblem(t, 429, "busy")
				w.must(open[i].Close()) // or who reads of it waits for ever
				begin(i)
			default:
			}
		}
		a = w.postJSON("?device=d1", `{"t":1}`)
	}
	a.wantProblem(t, 429, "busy")
	if a.Header.Get("Retry-After") == "" {
		t.Error("there is no Retry-After")
	}
	w.do("POST", "/api/v1/telemetry?device=d1", `{"t":1}`, bearer(w.admin)).wantStatus(t, 200) // another key has its own
	for i, out := range open {
		_, err := io.WriteString(out, "]")
		w.must(err)
		w.must(out.Close())
		(<-wait[i]).wantStatus(t, 200)
	}
	w.postJSON("?device=d1", `{"t":2}`).wantStatus(t, 200)
}

func TestALongStreamIsTakenWhole(t *testing.T) {
	w := newWriteRig(t)
	const n = 30_000
	out, answers := w.slowly("/api/v1/telemetry", "application/x-ndjson")
	var b []byte
	for i := range n {
		b = fmt.Appendf(b[:0], "{\"device\":\"d%d\",\"ts\":%d,\"values\":{\"n\":%d}}\n", i%2+1, 1772366400+i, i)
		_, err := out.Write(b)
		w.must(err)
	}
	w.must(out.Close())
	if got := (<-answers).wantStatus(t, 200).decode(t); got["accepted"] != float64(n) {
		t.Errorf("it gives %v", got)
	}
	if a, b := len(w.stored("d1")), len(w.stored("d2")); a != n/2 || b != n/2 {
		t.Errorf("%d and %d are stored", a, b)
	}
}

package api_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/accounts"
	"muster/api"
)

func (w *writeRig) influx(query, body string, more ...option) answer {
	w.Helper()
	token := header("Authorization", "Token "+w.key(writeKeyScope))
	return w.do("POST", "/api/v2/write"+query, body, append([]option{header("Content-Type", "text/plain; charset=utf-8"), token}, more...)...)
}

func TestLinesBecomeReadingsOfTheirDevices(t *testing.T) {
	tests := []struct {
		name, query, body string
		d1, d2            []string
	}{
		{"by the tag device, before host", "", "m,device=d1,host=d2 f=1", []string{`{"m.host=d2.f":1}`}, []string{}},
		{"by the tag host", "?org=o&bucket=b&orgID=x", "m,host=d2 f=1,g=t", []string{}, []string{`{"m.f":1,"m.g":true}`}},
		{"by the parameter", "?device=d1", "m,room=hall f=1\nm,device=d2 f=2", []string{`{"m.room=hall.f":1}`}, []string{`{"m.f":2}`}},
		{"by a tag of one's choice", "?device_tag=machine", "m,machine=d1,host=d2 f=1", []string{`{"m.host=d2.f":1}`}, []string{}},
		{
			"series that differ in a tag", "?precision=s", "cpu,cpu=cpu0,host=d1 idle=1 1772366400\ncpu,cpu=cpu1,host=d1 idle=2 1772366400",
			[]string{`{"cpu.cpu=cpu0.idle":1} 2026-03-01T12:00:00Z`, `{"cpu.cpu=cpu1.idle":2} 2026-03-01T12:00:00Z`},
			[]string{},
		},
		{"nanoseconds", "?precision=ns&device=d1", "m f=1 1772366400123456789", []string{`{"m.f":1} 2026-03-01T12:00:00.123456Z`}, []string{}},
		{"microseconds", "?precision=us&device=d1", "m f=1 1772366400123456", []string{`{"m.f":1} 2026-03-01T12:00:00.123456Z`}, []string{}},
		{"milliseconds", "?precision=ms&device=d1", "m f=1 1772366400123", []string{`{"m.f":1} 2026-03-01T12:00:00.123Z`}, []string{}},
		{"a text of two lines, and a comment", "?device=d1", "# m f=0\nm f=\"a\nb\"\n\nm f=2\r\n", []string{`{"m.f":"a\nb"}`, `{"m.f":2}`}, []string{}},
		{"nothing", "", "", []string{}, []string{}},
	}
	w := newWriteRig(t)
	for i, tt := range tests {
		own := w.pair(i)
		if a := w.influx(own.Replace(tt.query), own.Replace(tt.body)).wantStatus(t, 204); len(a.body) != 0 {
			t.Errorf("%s: the answer has a body: %s", tt.name, a.body)
		}
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { w.wantPair(t, i, tt.d1, tt.d2) })
	}
}

func TestRefusedLinesAreToldAsInfluxDBDoes(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		want       map[string]any
	}{
		{"some lines", "m,host=d1 f=1\n\nm,host=d1 f\nm,host=nobody f=1\nm f=1\nm,host=d1 f=2", 400, map[string]any{
			"code": "invalid", "line": 3.0, "accepted": 2.0,
			"message": "partial write: 2 lines were accepted and 3 refused; line 3: a field is name=value at byte 11; line 4: there is no such device; " +
				"line 5: the line has no tag device or host, and the query no device",
			"rejected": []any{
				map[string]any{"line": 3.0, "device": "d1", "code": "malformed", "detail": "a field is name=value at byte 11"},
				map[string]any{"line": 4.0, "device": "nobody", "code": "device", "detail": "there is no such device"},
				map[string]any{"line": 5.0, "device": "", "code": "device", "detail": "the line has no tag device or host, and the query no device"},
			},
		}},
		{"every line, for what it says", "m,host=nobody f=1", 422, map[string]any{
			"code": "unprocessable entity", "line": 1.0, "accepted": 0.0,
			"message":  "partial write: 0 lines were accepted and 1 refused; line 1: there is no such device",
			"rejected": []any{map[string]any{"line": 1.0, "device": "nobody", "code": "device", "detail": "there is no such device"}},
		}},
		{"every line, for its form", "hello", 400, map[string]any{
			"code": "invalid", "line": 1.0, "accepted": 0.0,
			"message":  "partial write: 0 lines were accepted and 1 refused; line 1: a line has fields behind a space at byte 5",
			"rejected": []any{map[string]any{"line": 1.0, "device": "", "code": "malformed", "detail": "a line has fields behind a space at byte 5"}},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWriteRig(t)
			a := w.influx("", tt.body).wantStatus(t, tt.status)
			if d := cmp.Diff(tt.want, a.decode(t)); d != "" {
				t.Error(d)
			}
			n := len(w.rejections("")) + len(w.rejections("d1"))
			if want := len(tt.want["rejected"].([]any)); n != want {
				t.Errorf("%d are kept, want %d", n, want)
			}
		})
	}
}

func TestWhoWritesLinesIsKnownByAnAPIKey(t *testing.T) {
	w := newWriteRig(t)
	key := w.key(writeKeyScope)
	basic := func(r *http.Request) { r.SetBasicAuth("anyone", key) }
	for name, who := range map[string]option{"token": header("Authorization", "Token "+key), "bearer": bearer(key), "lower case": header("Authorization", "token "+key), "basic": basic} {
		if a := w.influx("", "m,host=d1 f=1", who); a.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
	}
	cookie, _, err := w.accounts.SignIn(t.Context(), w.admin)
	w.must(err)
	for name, who := range map[string]option{
		"nobody": func(r *http.Request) { r.Header.Del("Authorization") }, "unknown": header("Authorization", "Token mst_nobodys-key-0123456789"),
		"a session": func(r *http.Request) {
			r.Header.Del("Authorization")
			r.AddCookie(&http.Cookie{Name: "muster", Value: cookie})
		},
	} {
		a := w.influx("", "m,host=d1 f=1", who).wantStatus(t, 401)
		if got := a.decode(t); got["code"] != "unauthorized" || got["message"] == "" || a.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %v", name, got)
		}
	}
	others := []string{accounts.TelemetryRead, accounts.DevicesWrite, accounts.MQTT}
	if got := w.influx("", "m,host=d1 f=1", bearer(w.key(others...))).wantStatus(t, 403).decode(t); got["code"] != "forbidden" || !strings.Contains(fmt.Sprint(got["message"]), "telemetry:write") {
		t.Errorf("without the scope: %v", got)
	}
	if got := w.stored("d1"); len(got) != 4 {
		t.Errorf("stored: %v", got)
	}
}

func TestInfluxRequestsThatCanNotBeTaken(t *testing.T) {
	w := newWriteRig(t)
	chunked := func(r *http.Request) { r.ContentLength = -1; r.Body = io.NopCloser(struct{ io.Reader }{r.Body}) }
	comments := "m,host=d1 f=1\n" + strings.Repeat("#"+strings.Repeat("x", 1022)+"\n", 100<<10) // 100 MB
	streamed := comments[:65<<20]
	bomb := zipped(comments[:8<<20])
	gz := header("Content-Encoding", "gzip")
	tests := []struct {
		name, query, body string
		status            int
		code              string
		accepted          float64
		more              []option
	}{
		{"100 MB", "", comments, 413, "request too large", 0, nil},
		{"65 MB of unknown length", "", streamed, 413, "request too large", 1, []option{chunked}},
		{"a bomb", "", bomb, 413, "request too large", 1, []option{gz}},
		{"no gzip", "", "m,host=d1 f=1", 400, "invalid", 0, []option{gz}},
		{"no zstd", "", "x", 400, "invalid", 0, []option{header("Content-Encoding", "zstd")}},
		{"another precision", "?precision=min", "x", 400, "invalid", 0, nil},
		{"another create", "?create=perhaps", "x", 400, "invalid", 0, nil},
		{"a device that is none", "?device=..", "x", 422, "unprocessable entity", 0, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := w.influx(tt.query, tt.body, tt.more...).wantStatus(t, tt.status)
			got := a.decode(t)
			if got["code"] != tt.code || got["accepted"] != tt.accepted || got["message"] == "" || !strings.HasPrefix(a.header(), "application/json") {
				t.Errorf("it gives %v as %s", got, a.header())
			}
			if tt.status == 413 && got["maxLength"] != float64(64<<20) {
				t.Errorf("maxLength is %v", got["maxLength"])
			}
		})
	}
	a := w.do("GET", "/api/v2/write", nil, bearer(w.key(writeKeyScope))).wantStatus(t, 405)
	if a.Header.Get("Allow") != "POST" || a.decode(t)["code"] != "method_not_allowed" {
		t.Errorf("GET gives %s", a.body)
	}
}

func TestWritersOfLineProtocolAreLimitedAsAllOthersAre(t *testing.T) {
	begun := time.Now()
	w := newWriteRigWith(t, func(d *api.Deps) {
		d.Limits = api.Limits{Rate: 1, Burst: 2, Nobody: 2}
		d.Now = func() time.Time { return begun } // so that nobody gets a token back
	})
	for range 2 {
		w.influx("", "m,host=d1 f=1").wantStatus(t, 204)
	}
	a := w.influx("", "m,host=d1 f=1").wantStatus(t, 429)
	if s := a.Header.Get("Retry-After"); s != "1" || a.Header.Get("RateLimit") == "" || a.decode(t)["code"] != "too many requests" {
		t.Errorf("one too many gives %s, Retry-After %q", a.body, s)
	}
	nobody := header("Authorization", "Token mst_nobodys-key-0123456789")
	for range 2 {
		w.do("POST", "/write", "m f=1", nobody).wantStatus(t, 401)
	}
	w.do("POST", "/write", "m f=1", nobody).wantStatus(t, 429)
}

func TestClientsOfInfluxDB1AreServed(t *testing.T) {
	w := newWriteRig(t)
	key := w.key(writeKeyScope)
	basic := func(r *http.Request) { r.SetBasicAuth("u", key) }
	w.do("POST", "/write?db=x&rp=y&precision=u&consistency=any", "m,host=d1 f=1 1772366400123456", basic).wantStatus(t, 204)
	got := w.do("POST", "/write?db=x", "m,host=d1", basic).wantStatus(t, 400).decode(t)
	if got["error"] != got["message"] || got["error"] == "" {
		t.Errorf("it gives %v", got)
	}
	if d := cmp.Diff([]string{`{"m.f":1} 2026-03-01T12:00:00.123456Z`}, w.stored("d1")); d != "" {
		t.Error(d)
	}
}

// TestATelegrafRequestIsTaken sends what Telegraf's output influxdb_v2 sends
// (plugins/outputs/influxdb_v2/http.go): gzip by streaming, Token, its content type.
func TestATelegrafRequestIsTaken(t *testing.T) {
	w := newWriteRig(t)
	in, out := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+"/api/v2/write?bucket=b&org=o", in)
	w.must(err)
	req.Header.Set("User-Agent", "Telegraf/1.37.2 Go/1.25.5")
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("Authorization", "Token "+w.key(writeKeyScope))
	go func() {
		z := gzip.NewWriter(out)
		for i := range 1000 {
			_, _ = fmt.Fprintf(z, "cpu,cpu=cpu%d,host=d1 usage_idle=98.5,usage_user=1.25 %d\n", i%4, 1772366400000000000+int64(i/4)*1e9)
		}
		_ = out.CloseWithError(z.Close())
	}()
	res, err := http.DefaultTransport.RoundTrip(req)
	w.must(err)
	w.must(res.Body.Close())
	if res.StatusCode != http.StatusNoContent {
		t.Errorf("it gives %d", res.StatusCode)
	}
	if n := len(w.stored("d1")); n != 1000 {
		t.Errorf("%d are stored", n)
	}
}

func TestWritingLinesIsDocumented(t *testing.T) {
	w := newWriteRig(t)
	doc := string(w.do("GET", "/api/openapi.json", nil).wantStatus(t, 200).body)
	for _, want := range []string{`"/api/v2/write"`, `"write-influx"`, `"precision"`, `"write-telemetry"`} {
		if !strings.Contains(doc, want) {
			t.Errorf("the OpenAPI document has no %s", want)
		}
	}
}

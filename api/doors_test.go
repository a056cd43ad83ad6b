package api_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"muster/api"
	"muster/devices"
)

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheWriteAPIOfInfluxDB1TakesCompressedBodies(t *testing.T) {
	w := newWriteRig(t)
	z, err := zstd.NewWriter(nil)
	w.must(err)
	const line = "m,device=d1 f=1\n"
	token := header("Authorization", "Token "+w.key(writeKeyScope))
	for coding, body := range map[string]string{"gzip": gzipped(t, line), "zstd": string(z.EncodeAll([]byte(line), nil)), "identity": line} {
		if a := w.do("POST", "/write?db=x", body, token, header("Content-Encoding", coding)); a.StatusCode != http.StatusNoContent {
			t.Errorf("%s gives %d: %s", coding, a.StatusCode, a.body)
		}
	}
	w.do("POST", "/write", line, token, header("Content-Encoding", "br")).wantProblem(t, 415, "unsupported_media_type")
}

func TestAWrongMethodOrPathOutsideOfTheAPIIsAProblemToo(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		method, path, allow string
		status              int
		code                string
	}{
		{"GET", "/write", "POST", 405, "method_not_allowed"},
		{"DELETE", "/healthz", "GET, HEAD", 405, "method_not_allowed"},
		{"POST", "/setup/x", "GET, HEAD", 405, "method_not_allowed"},
		{"POST", "/write/", "", 404, "not_found"},
		{"GET", "/healthz/x", "", 404, "not_found"},
	} {
		a := r.do(tt.method, tt.path, nil)
		a.wantProblem(t, tt.status, tt.code)
		if got := a.Header.Get("Allow"); got != tt.allow {
			t.Errorf("%s %s: Allow is %q", tt.method, tt.path, got)
		}
	}
}

func TestEveryAnswerHasARequestIDAndTheSecurityHeaders(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) })
	r := newRig(t, func(d *api.Deps) { d.LiveSocket, d.MQTTSocket = refuse, refuse })
	for path, status := range map[string]int{
		"/mqtt": 400, "/api/v1/live": 400, "/api/v1/nothing": 404, "/api/v1/devices": 401, "/healthz": 200, "/write": 405, "/setup/x": 404, "/": 200, "/metrics": 200,
	} {
		a := r.do("GET", path, nil, header("X-Request-Id", "mine"))
		if a.StatusCode != status && path != "/setup/x" {
			t.Errorf("%s gives %d", path, a.StatusCode)
		}
		if a.Header.Get("X-Request-Id") != "mine" || a.Header.Get("X-Content-Type-Options") != "nosniff" || a.Header.Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %v", path, a.Header)
		}
	}
}

func TestAPathThatIsNotThereCountsAgainstWhoAsks(t *testing.T) {
	r := newRig(t, func(d *api.Deps) { d.Limits = api.Limits{Rate: 1, Burst: 2, Nobody: 3} })
	for _, tt := range []struct {
		policy string
		who    []option
		most   int
	}{
		{"key", []option{bearer(r.key("devices:read"))}, 2},
		{"admin", []option{bearer(r.admin)}, 20},
		{"stranger", nil, 3},
	} {
		for n := range tt.most {
			a := r.do("GET", []string{"/api/v1/nothing", "/api/v1//x", "/api/v2/y"}[n%3], nil, tt.who...)
			a.wantProblem(t, 404, "not_found")
			if !strings.HasPrefix(a.Header.Get("RateLimit"), `"`+tt.policy+`";r=`) {
				t.Errorf("%s: RateLimit is %q", tt.policy, a.Header.Get("RateLimit"))
			}
		}
		r.do("GET", "/api/v1/nothing", nil, tt.who...).wantProblem(t, 429, "busy")
	}
}

func TestAKeyWithASelectorSeesGroupsWithinItsReachByNameAlone(t *testing.T) {
	r := newReachRig(t)
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "a-secret", Query: "id:outside-*", Description: hidden}))
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "empty", Description: hidden}))
	r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "z-both", Query: "id:outside-* or id:in-1", Description: hidden}))
	for kind, who := range r.who {
		var names []string
		after := ""
		for range 10 {
			l := r.do("GET", "/api/v1/groups?limit=1&after="+after, nil, who).wantStatus(t, 200).decode(t)
			for _, i := range l["items"].([]any) {
				g := i.(object)
				names = append(names, g["name"].(string))
				if _, told := g["query"]; told || g["description"] != "" {
					t.Errorf("%s: it sees %v", kind, g)
				}
			}
			if l["next"] == nil {
				break
			}
			after = l["next"].(string)
		}
		if strings.Join(names, " ") != "all saved z-both" {
			t.Errorf("%s: it sees %v", kind, names)
		}
		for _, name := range []string{"a-secret", "empty", "none-such"} {
			r.do("GET", "/api/v1/groups/"+name, nil, who).wantProblem(t, 404, "not_found")
		}
		a := r.do("GET", "/api/v1/groups/z-both", nil, who).wantStatus(t, 200)
		tag := a.Header.Get("ETag")
		if strings.Contains(string(a.body), hidden) || a.decode(t)["devices"] != 1.0 {
			t.Errorf("%s: it sees %s", kind, a.body)
		}
		r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "z-both", Query: "id:in-1 or id:outside-*", Description: hidden + " anew"}))
		if again := r.do("GET", "/api/v1/groups/z-both", nil, who); again.Header.Get("ETag") != tag {
			t.Errorf("%s: the ETag tells of the query: %s, %s", kind, tag, again.Header.Get("ETag"))
		}
		r.must(r.registry.PutGroup(t.Context(), devices.Group{Name: "z-both", Query: "id:outside-* or id:in-1", Description: hidden}))
	}
	if g := r.as("GET", "/api/v1/groups/a-secret", nil).wantStatus(t, 200).decode(t); g["query"] != "id:outside-*" || g["description"] != hidden {
		t.Errorf("an admin sees %v", g)
	}
}

func TestAnImportWhoseCompressedBodyIsRefusedEndsItsAnswer(t *testing.T) {
	r := newRig(t)
	whole := gzipped(t, "id,name\n"+strings.Repeat("x1,\n", 20000))
	for name, body := range map[string]string{
		"cut off": whole[:len(whole)-9],
		"bomb":    gzipped(t, "id,name\n"+strings.Repeat("x1,\n", 4<<20)),
		"no gzip": "id,name\n" + strings.Repeat("x1,\n", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			a := r.do("POST", "/api/v1/devices:import", body, bearer(r.admin), header("Content-Type", "text/csv"), header("Content-Encoding", "gzip")).wantStatus(t, 200)
			lines := strings.Split(strings.TrimSpace(string(a.body)), "\n")
			var last map[string]json.RawMessage
			if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || len(last) != 1 || last["error"] == nil {
				t.Errorf("the last line is %s", lines[len(lines)-1])
			}
		})
	}
}

func TestEveryStreamedAnswerHasAnExample(t *testing.T) {
	doc := newRig(t).do("GET", "/api/openapi.json", nil).wantStatus(t, 200).decode(t)
	seen := 0
	for path, item := range doc["paths"].(object) {
		for method, op := range item.(object) {
			for status, answer := range op.(object)["responses"].(object) {
				content, _ := answer.(object)["content"].(object)
				for kind, media := range content {
					if kind != "application/x-ndjson" && kind != "text/csv" {
						continue
					}
					seen++
					text, _ := media.(object)["example"].(string)
					if text == "" {
						t.Errorf("%s %s %s %s has none", method, path, status, kind)
					}
					for line := range strings.Lines(text) {
						if kind == "application/x-ndjson" && !json.Valid([]byte(line)) {
							t.Errorf("%s %s: %s", method, path, line)
						}
					}
				}
			}
		}
	}
	if seen != 5 {
		t.Errorf("%d such answers", seen)
	}
}

func TestMessagesAreDecodedAsOverMQTTAndSoLessStrictly(t *testing.T) {
	tests := []struct {
		name, body string
		d1, d2     []string
	}{
		{"a value twice", `{"device":"d1","a":1,"a":2}`, []string{`{"a":2}`}, []string{}},
		{"a value twice, once nested", `{"device":"d1","o":{"z":1},"o.z":2}`, []string{`{"o.z":2}`}, []string{}},
		{"a time twice", `{"device":"d1","timestamp":1772366400,"ts":1772366401,"a":1}`, []string{`{"a":1,"ts":1772366401} 2026-03-01T12:00:00Z`}, []string{}},
		{"a device twice in devices", `{"devices":{"d1":{"a":1},"d1":{"a":2}}}`, []string{`{"a":1}`, `{"a":2}`}, []string{}},
		{"a member that nobody knows", `{"device":"d1","nobody_knows":1}`, []string{`{"nobody_knows":1}`}, []string{}},
		{"a number beyond a double", `{"device":"d1","n":1e400}`, []string{`{"n":1e400}`}, []string{}},
	}
	w := newWriteRig(t)
	for i, tt := range tests {
		w.postJSON("", w.pair(i).Replace(tt.body)).wantStatus(t, 200)
	}
	for _, body := range []string{`{"device":"d1","device":"d1","a":1}`, `{"device":"d1","a":"\ud800"}`, "{\"device\":\"d1\",\"a\":\"\xff\"}", `{"device":"d1","a":"\u0000"}`} {
		w.postJSON("", body).wantStatus(t, 422)
	}
	w.postJSON("", `{"device":"d1","a":1} x`).wantStatus(t, 400)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { w.wantPair(t, i, tt.d1, tt.d2) })
	}
}

package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/audit"
)

// unauditedOperations are those that leave no record, each with its reason.
func unauditedOperations() map[string]string {
	return map[string]string{
		"write-telemetry":    "it is what devices say, thousands of times a second; devices that it makes are recorded",
		"write-influx":       "likewise",
		"send-to-stream":     "what shows is chosen; its two commands that change something leave what ack-notification and send-notification leave",
		"preview-template":   "it changes nothing",
		"send-notification":  "the notification itself is kept, with who sent it and when",
		"ack-notification":   "the receipt is kept, with who acked, when and by which door",
		"mark-notifications": "likewise, and a screen says so of all it shows",
		"read-inbox":         "likewise",
		"forgot-password":    "it changes nothing yet, and a record would be made or not by whether there is such a user",
	}
}

// deed is a request that changes something, with the records that it must leave.
type deed struct {
	path string // below /api/v1
	body any
	who  []option // the admin key when empty
	want []string // "action object views" as records writes it; * in the place of an id that is new
}

// writer is a rig on which one operation after the other is done.
type writer struct {
	*rig
	mails outbox
	first *http.Cookie // of who followed the set-up link
	made  int
}

func newWriter(t *testing.T) *writer {
	t.Helper()
	w := &writer{rig: newWriteRig(t).rig}
	w.mails = w.mailing()
	w.first = w.do("GET", "/setup/"+w.setup, nil).wantStatus(t, 303).Cookies()[0]
	return w
}

// name returns a name that nothing has yet.
func (w *writer) name(kind string) string {
	w.made++
	return fmt.Sprintf("%s-%d", kind, w.made)
}

// ask does what a deed needs, by the admin key unless it says by whom, and returns the answer's body.
func (w *writer) ask(method, at string, body any, who ...option) object {
	w.Helper()
	if len(who) == 0 {
		who = []option{bearer(w.admin)}
	}
	a := w.do(method, "/api/v1"+at, body, who...)
	if a.StatusCode/100 != 2 {
		w.Fatalf("%s %s gives %d: %s", method, at, a.StatusCode, a.body)
	}
	if len(a.body) == 0 || a.body[0] != '{' {
		return nil
	}
	return a.decode(w)
}

// last is the number of the newest record.
func (w *writer) last() int64 {
	w.Helper()
	n, err := w.control.AuditLast(w.Context())
	w.must(err)
	return n
}

// since returns the records after a number.
func (w *writer) since(after int64) []audit.Record {
	w.Helper()
	records, err := w.control.AuditAfter(w.Context(), after, 100)
	w.must(err)
	return records
}

// spelled is a record as deeds spell it: - for no view, b for one of before, a of after.
func spelled(r audit.Record) string {
	views := ""
	if string(r.Before) != "null" {
		views += "b"
	}
	if string(r.After) != "null" {
		views += "a"
	}
	if views == "" {
		views = "-"
	}
	return r.Action + " " + r.Object + " " + views
}

// wantRecords checks that the records after a number are those of a deed, each with who did
// it, from where and by which request.
func (w *writer) wantRecords(t *testing.T, after int64, d deed, request, kind string) {
	t.Helper()
	var got []string
	for _, r := range w.since(after) {
		got = append(got, spelled(r))
		if r.Actor.Kind != kind || r.Actor.ID == "" && kind != audit.Anonymous || r.Actor.Address != "127.0.0.1" || r.Actor.Request != request || r.At == 0 {
			t.Errorf("%s was done by %+v", r.Action, r.Actor)
		}
	}
	same := slices.EqualFunc(d.want, got, func(want, got string) bool {
		ok, err := path.Match(want, got)
		return ok && err == nil
	})
	if !same {
		t.Error(cmp.Diff(d.want, got))
	}
}

// kindOf is the kind of actor that a deed's request is done by.
func (d deed) kindOf(public bool) string {
	probe, err := http.NewRequest(http.MethodGet, "http://x/", nil)
	if err != nil {
		return ""
	}
	for _, o := range d.who {
		o(probe)
	}
	switch {
	case len(probe.Cookies()) > 0:
		return audit.User
	case public:
		return audit.Anonymous
	}
	return audit.Key
}

// TestEveryOperationThatChangesSomethingLeavesItsRecords does each one of the router once,
// and says of each which records it leaves. What is refused, and an answer that is given
// again for its Idempotency-Key, leaves none.
func TestEveryOperationThatChangesSomethingLeavesItsRecords(t *testing.T) {
	w := newWriter(t)
	doings := allDoings()
	for _, o := range operations(w.rig) {
		if o.method == http.MethodGet {
			continue
		}
		do, known := doings[o.ID]
		delete(doings, o.ID)
		t.Run(o.ID, func(t *testing.T) {
			whole := w.T
			w.T = t
			defer func() { w.T = whole }()
			if !known {
				t.Fatal("nobody says which records it leaves")
			}
			w.refused(t, o)
			d := do(w)
			public := cmp.Equal(o.Security, []map[string][]string{{}})
			who := append([]option{header("X-Request-Id", "audited-"+o.ID), header("Idempotency-Key", o.ID)}, d.who...)
			if len(d.who) == 0 && !public {
				who = append(who, bearer(w.admin))
			}
			before := w.last()
			a := w.do(o.method, "/api/v1"+d.path, d.body, who...)
			if a.StatusCode/100 != 2 {
				t.Fatalf("it gives %d: %s", a.StatusCode, a.body)
			}
			if _, not := unauditedOperations()[o.ID]; not != (len(d.want) == 0) {
				t.Errorf("it leaves %v", d.want)
			}
			w.wantRecords(t, before, d, "audited-"+o.ID, d.kindOf(public))
			before = w.last()
			again := w.do(o.method, "/api/v1"+d.path, d.body, who...)
			same := again.Header.Get("Location") != "" && again.Header.Get("Location") == a.Header.Get("Location") // commands and jobs remember their keys themselves
			if (same || again.Header.Get("Idempotency-Replayed") == "true") && w.last() != before {
				t.Errorf("an answer that is given again leaves %v", w.since(before))
			}
		})
	}
	for id := range doings {
		t.Errorf("there is no operation %s", id)
	}
	for id, why := range unauditedOperations() {
		if why == "" {
			t.Errorf("%s has no reason", id)
		}
	}
}

// refused asks for o in ways that are refused.
func (w *writer) refused(t *testing.T, o operation) {
	t.Helper()
	before, refused := w.last(), 0
	nobody := bearer("mst_nobodys-key-0123456789")
	unknown := strings.NewReplacer("/d1", "/nobody", "/groups/g", "/groups/nobody", "/profiles/p", "/profiles/nobody").Replace(o.at())
	for _, who := range []option{func(*http.Request) {}, nobody, bearer(w.admin)} {
		for _, body := range []any{"not even JSON", `{"nobody_knows":1}`} {
			if a := w.do(o.method, unknown, body, who); a.StatusCode >= 400 {
				refused++
				continue
			}
			before = w.last() // it has no body and no name of anything in its path
		}
	}
	if after := w.last(); after != before || refused < 4 {
		t.Errorf("of %d that were refused there are the records %v", refused, w.since(before))
	}
}

// TestADryRunLeavesNoRecord does every operation that has one.
func TestADryRunLeavesNoRecord(t *testing.T) {
	w := &writer{rig: newRig(t)}
	w.device("d1")
	csv := header("Content-Type", "text/csv")
	runs := map[string]func() answer{
		"update-devices": func() answer {
			return w.as("POST", "/api/v1/devices:update", object{"q": "id:*", "dry_run": true, "tags": object{"a": "b"}})
		},
		"delete-devices": func() answer { return w.as("POST", "/api/v1/devices:delete", object{"q": "id:*", "dry_run": true}) },
		"import-devices": func() answer {
			return w.do("POST", "/api/v1/devices:import?dry_run=true&update=true", "id,name\nd1,Changed\nd2,New\n", csv, bearer(w.admin))
		},
		"create-job": func() answer {
			return w.as("POST", "/api/v1/jobs", object{"q": "id:*", "kind": "command", "method": "m", "dry_run": true})
		},
	}
	before := w.last()
	for _, id := range slices.Sorted(maps.Keys(runs)) {
		runs[id]().wantStatus(t, 200)
		if w.last() != before {
			t.Errorf("%s leaves %v", id, w.since(before))
			before = w.last()
		}
	}
	for route, op := range describedRoutes(w.rig) {
		text := fmt.Sprint(op.RequestBody.Content)
		if strings.Contains(text, "dry_run") && runs[op.ID] == nil {
			t.Errorf("%s has a dry run that is not tried", route)
		}
	}
}

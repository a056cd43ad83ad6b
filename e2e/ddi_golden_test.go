package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"muster/firmware/desk"
	"muster/firmware/rollout"
)

func stringBody(s string) io.Reader {
	if s == "" {
		return http.NoBody
	}
	return strings.NewReader(s)
}

// A transcript is what a client of hawkBit sends, in its order, and what it reads of the
// answers: see the comments in testdata/ddi for where each fact comes from. Its lines are
//
//	# a comment
//	> METHOD {TARGET} the request; {base}, {configData}, ... are what was read before
//	| Name: value     a header of it; Authorization is added
//	+ body            its body, in which {action} and the like are filled in
//	< STATUS          what must come back
//	= NAME PATH       a member of the answer, by its dotted path, is read as NAME; it must be text or a number as the client asserts:
//	= NAME: PATH TYPE
//	- PATH            the answer must not have this member
//	@ STATE           the row of the device must come to this state
//	! VERB            something happens: offer, pause, away (the server is asked as if later)
type transcript struct {
	*updates
	vars   map[string]string
	method string
	target string
	header map[string]string
	body   string

	status  int
	answer  map[string]any
	headers http.Header
	raw     string
}

// play replays a transcript.
func (u *updates) play(path string) {
	u.Helper()
	text, err := os.ReadFile(path)
	u.must(err)
	tr := &transcript{updates: u, vars: map[string]string{"base": u.url + "/DEFAULT/controller/v1/" + string(u.device), "server": u.url}}
	for i, line := range strings.Split(string(text), "\n") {
		op, rest, _ := strings.Cut(line, " ")
		if op == "" || op == "#" {
			continue
		}
		if err := tr.line(op, rest); err != nil {
			u.Fatalf("%s:%d: %s: %v\nthe answer was %d %s", path, i+1, line, err, tr.status, tr.raw)
		}
	}
}

func (tr *transcript) line(op, rest string) error {
	switch op {
	case ">":
		tr.method, tr.target, _ = strings.Cut(rest, " ")
		tr.header, tr.body = map[string]string{"Authorization": "TargetToken " + tr.token}, ""
	case "|":
		name, value, _ := strings.Cut(rest, ": ")
		tr.header[name] = tr.fill(value)
	case "+":
		tr.body += tr.fill(rest)
	case "<":
		return tr.goes(rest)
	case "=":
		return tr.reads(rest)
	case "-":
		if v, ok := member(tr.answer, rest); ok {
			return fmt.Errorf("it is there: %v", v)
		}
	case "@":
		tr.comesTo("the device to be "+rest, func(a *desk.Action) bool { return a.Device.State.String() == rest })
	case "!":
		return tr.happens(rest)
	default:
		return fmt.Errorf("there is no such line")
	}
	return nil
}

// fill puts what was read into a text: only {NAME}, the braces of JSON are left.
func (tr *transcript) fill(s string) string {
	for name, v := range tr.vars {
		s = strings.ReplaceAll(s, "{"+name+"}", v)
	}
	return s
}

func (tr *transcript) goes(want string) error {
	tr.status, tr.headers, tr.raw = tr.send(tr.method, tr.fill(tr.target), tr.header, tr.body)
	tr.answer = nil
	if strings.Contains(tr.headers.Get("Content-Type"), "json") {
		if err := json.Unmarshal([]byte(tr.raw), &tr.answer); err != nil {
			return err
		}
	}
	// Zephyr's client counts the body against this header.
	if tr.headers.Get("Content-Length") != fmt.Sprint(len(tr.raw)) && tr.method != http.MethodHead {
		return fmt.Errorf("Content-Length is %q", tr.headers.Get("Content-Length"))
	}
	if fmt.Sprint(tr.status) != want {
		return fmt.Errorf("the status is %d", tr.status)
	}
	return nil
}

// reads reads a member, or the body's length or a header of the answer.
func (tr *transcript) reads(rest string) error {
	parts := strings.Fields(rest)
	if len(parts) < 2 {
		return fmt.Errorf("a name and a path are needed")
	}
	if name, ok := strings.CutPrefix(parts[1], "header:"); ok {
		tr.vars[parts[0]] = tr.headers.Get(name)
	} else if parts[1] == "length" {
		tr.vars[parts[0]] = fmt.Sprint(len(tr.raw))
	} else {
		v, ok := member(tr.answer, parts[1])
		if !ok {
			return fmt.Errorf("it is not there")
		}
		text, kind := "", "object"
		switch v := v.(type) {
		case string:
			text, kind = v, "string"
		case float64:
			text, kind = fmt.Sprintf("%.0f", v), "number"
		}
		if len(parts) > 2 && parts[2] != kind {
			return fmt.Errorf("it is a %s", kind)
		}
		tr.vars[parts[0]] = text
	}
	if len(parts) > 3 && tr.vars[parts[0]] != tr.fill(parts[3]) {
		return fmt.Errorf("it is %q", tr.vars[parts[0]])
	}
	return nil
}

// member finds a member by its dotted path; a number is the place in an array.
func member(v any, path string) (any, bool) {
	for name := range strings.SplitSeq(path, ".") {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[name]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			var i int
			if _, err := fmt.Sscan(name, &i); err != nil || i >= len(at) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

func (tr *transcript) happens(what string) error {
	switch what {
	case "offer": // the device has asked just now
		tr.roll()
		tr.comesTo("the offer", func(a *desk.Action) bool { return a.Device.State == rollout.Offered })
	case "pause":
		tr.pause()
		tr.comesTo("the offer to be taken back", func(a *desk.Action) bool { return a.Device.State == rollout.Queued })
	case "closed": // the device's answer to that is kept
		tr.comesTo("the end to be known", func(a *desk.Action) bool { return a.Closed == a.Device.Action })
	default:
		return fmt.Errorf("nobody knows how")
	}
	return nil
}

func TestTheRequestsOfOtherClientsAreAnsweredAsTheyNeed(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("testdata/ddi")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		t.Run(e.Name(), func(t *testing.T) {
			t.Parallel()
			image := []byte(strings.Repeat("a bundle of two megabytes, less two cuts ", 50_000)[:2_000_000])
			newUpdates(t, "pump-2.0.0.raucb", image, 0).play("testdata/ddi/" + e.Name())
		})
	}
	want := []string{"rauc-cancel.txt", "rauc-corrupt.txt", "rauc-install.txt", "zephyr-cancel.txt", "zephyr-install.txt"}
	if !slices.Equal(names, want) {
		t.Errorf("the transcripts are %q", names)
	}
}

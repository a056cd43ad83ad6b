package talk_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/firmware/chunk"
	"muster/firmware/talk"
)

func TestReportsAreReadStrictly(t *testing.T) {
	for in, want := range map[string]talk.Status{
		`{"action":257,"state":"downloading"}`:                                  {Action: 257, State: talk.StateDownloading},
		`{"state":"failed", "action":1,"attempt":2,"seq":9,"error":"no space"}`: {Action: 1, Attempt: 2, Seq: 9, State: talk.StateFailed, Error: "no space"},
		`{"action":2147483647,"state":"downloading","progress":100}`:            {Action: 2147483647, State: talk.StateDownloading, Progress: 100},
		`{"action":1,"state":"running","version":"2.0.0"}`:                      {Action: 1, State: talk.StateRunning, Version: "2.0.0"},
	} {
		got, err := talk.ParseStatus([]byte(in))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", in, err, d)
		}
	}
	for name, in := range map[string]string{
		"nothing": ``, "an array": `[]`, "a number": `1`, "two objects": `{"action":1,"state":"failed"}{}`, "cut short": `{"action":1,"state":"failed"`,
		"no action": `{"state":"failed"}`, "no state": `{"action":1}`, "action 0": `{"action":0,"state":"failed"}`, "action over int32": `{"action":2147483648,"state":"failed"}`,
		"an action with an exponent": `{"action":1e2,"state":"failed"}`, "an action as text": `{"action":"1","state":"failed"}`, "null": `{"action":1,"state":null}`,
		"a member twice": `{"action":1,"action":2,"state":"failed"}`, "another member": `{"action":1,"state":"failed","x":1}`, "another case": `{"Action":1,"state":"failed"}`,
		"progress over 100": `{"action":1,"state":"downloading","progress":101}`, "a state of the server's": `{"action":1,"state":"confirmed"}`,
		"running nothing": `{"action":1,"state":"running"}`, "a long version": `{"action":1,"state":"running","version":"` + strings.Repeat("1", 65) + `"}`,
	} {
		if _, err := talk.ParseStatus([]byte(in)); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := talk.ParseStatus([]byte(strings.Repeat(" ", 5000))); muster.KindOf(err) != muster.TooLarge {
		t.Errorf("5,000 bytes: %v", err)
	}
}

func TestRequestsForPiecesAreReadStrictly(t *testing.T) {
	for in, want := range map[string]talk.Get{
		`{"action":1,"off":0,"len":256}`:                        {Action: 1, Len: 256, N: 1},
		`{"action":1,"off":9007199254740992,"len":65536,"n":8}`: {Action: 1, Off: 1 << 53, Len: 65536, N: 8},
		`{"action":1,"off":5,"len":1000,"n":1,"file":31}`:       {Action: 1, Off: 5, Len: 1000, N: 1, File: 31},
		`{"action":1,"off":0,"len":256,"patch":true}`:           {Action: 1, Len: 256, N: 1, Patch: true},
	} {
		got, err := talk.ParseGet([]byte(in))
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", in, err, d)
		}
	}
	for _, in := range []string{
		`{"action":1,"off":0}`, `{"action":1,"len":256}`, `{"off":0,"len":256}`, `{"action":1,"off":0,"len":255}`, `{"action":1,"off":0,"len":65537}`,
		`{"action":1,"off":-1,"len":256}`, `{"action":1,"off":0,"len":256,"n":0}`, `{"action":1,"off":0,"len":256,"n":9}`, `{"action":1,"off":0,"len":256,"file":32}`,
		`{"action":1,"off":0.5,"len":256}`, `{"action":1,"off":99999999999999999999,"len":256}`, `{"action":1,"off":0,"len":256,"path":"/etc"}`,
		`{"action":1,"off":0,"len":256,"patch":1}`,
	} {
		if _, err := talk.ParseGet([]byte(in)); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func TestAnswersToWhatWasTakenBackAreReadStrictly(t *testing.T) {
	for in, want := range map[string]talk.CancelAck{
		`{"action":1}`: {Action: 1, Stopped: true}, `{"action":1,"stopped":false}`: {Action: 1}, `{"stopped":true,"action":7}`: {Action: 7, Stopped: true},
	} {
		if got, err := talk.ParseCancelAck([]byte(in)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{`{}`, `{"action":1,"stopped":1}`, `{"action":1,"stopped":"true"}`, `{"action":-1}`, `null`} {
		if _, err := talk.ParseCancelAck([]byte(in)); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func refusedInWords(t *testing.T, err error) {
	t.Helper()
	if kind := muster.KindOf(err); kind != muster.Invalid && kind != muster.TooLarge || muster.Public(err) == "" {
		t.Fatalf("refused with %v", err)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(`{"action":257,"attempt":1,"seq":3,"state":"downloading","progress":40}`))
	f.Add([]byte(`{"action":1,"state":"failed","error":"\u0000"}`))
	f.Add([]byte(`{"action":1,"state":"running","version":"1.0.0"}`))
	f.Add([]byte(`[[[[`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := talk.ParseStatus(in)
		if err != nil {
			refusedInWords(t, err)
			return
		}
		if !json.Valid(in) || s.Action < 1 || s.Progress < 0 || s.Progress > 100 || s.Seq < 0 || s.Attempt < 0 || len(s.Version) > 64 || s.State == talk.StateRunning && s.Version == "" {
			t.Fatalf("%q was read as %+v", in, s)
		}
	})
}

func FuzzGet(f *testing.F) {
	f.Add([]byte(`{"action":1,"off":0,"len":256,"n":8,"file":0}`))
	f.Add([]byte(`{"action":1,"off":1e3,"len":256}`))
	f.Add([]byte(`{"action":1,"off":0,"len":65536}x`))
	f.Fuzz(func(t *testing.T, in []byte) {
		g, err := talk.ParseGet(in)
		if err != nil {
			refusedInWords(t, err)
			return
		}
		if !json.Valid(in) || g.Action < 1 || g.Off < 0 || g.Len < chunk.MinLen || g.Len > chunk.MaxLen || g.N < 1 || g.N > chunk.MaxPieces || g.File < 0 || g.File > 31 {
			t.Fatalf("%q was read as %+v", in, g)
		}
	})
}

func FuzzCancelAck(f *testing.F) {
	f.Add([]byte(`{"action":1,"stopped":false}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := talk.ParseCancelAck(in)
		if err != nil {
			refusedInWords(t, err)
			return
		}
		if !json.Valid(in) || a.Action < 1 {
			t.Fatalf("%q was read as %+v", in, a)
		}
	})
}

package ddi_test

import (
	"fmt"
	"strings"
	"testing"

	"muster/api/ddi"
	"muster/firmware/rollout"
)

// What each word of a device means, in each state in which its action is in flight.
func TestWhatAFeedbackMeansInEachState(t *testing.T) {
	const nothing = ""
	states := []rollout.State{rollout.Offered, rollout.Downloading, rollout.Downloaded, rollout.Installing, rollout.Rebooting}
	all := func(event string) [5]string { return [5]string{event, event, event, event, event} }
	early := func(before, after string) [5]string { return [5]string{before, before, before, after, after} }
	for name, c := range map[string]struct {
		says ddi.Feedback
		with ddi.Known
		want [5]string
	}{
		"closed, success: it restarts into it": {ddi.Feedback{Execution: "closed", Finished: "success"}, ddi.Known{}, all("rebooting")},
		"closed, none: likewise":               {ddi.Feedback{Execution: "closed", Finished: "none"}, ddi.Known{}, all("rebooting")},
		"closed, failure":                      {ddi.Feedback{Execution: "closed", Finished: "failure"}, ddi.Known{}, all("failed")},
		"closed, success, whose word is a confirmation": {
			ddi.Feedback{Execution: "closed", Finished: "success"}, ddi.Known{Trusted: true}, all("target_version"),
		},
		"closed, none, whose word is a confirmation: it is none": {
			ddi.Feedback{Execution: "closed", Finished: "none"}, ddi.Known{Trusted: true}, all("rebooting"),
		},
		"closed, success, told to wait: it skipped the update": {
			ddi.Feedback{Execution: "closed", Finished: "success"}, ddi.Known{Skip: true}, early(nothing, "rebooting"),
		},
		"closed, success, told to wait, with the image": {
			ddi.Feedback{Execution: "closed", Finished: "success"},
			ddi.Known{Skip: true, Whole: true},
			[5]string{"downloaded", "downloaded", nothing, "rebooting", "rebooting"},
		},
		"closed, failure, told to wait": {ddi.Feedback{Execution: "closed", Finished: "failure"}, ddi.Known{Skip: true}, all("failed")},
		"canceled":                      {ddi.Feedback{Execution: "canceled", Finished: "none"}, ddi.Known{}, early("canceled", "failed")},
		"rejected":                      {ddi.Feedback{Execution: "rejected", Finished: "none"}, ddi.Known{}, early("denied", "failed")},
		"scheduled":                     {ddi.Feedback{Execution: "scheduled", Finished: "none"}, ddi.Known{}, all(nothing)},
		"download": {
			ddi.Feedback{Execution: "download", Finished: "none", Count: 1, Of: 4},
			ddi.Known{},
			[5]string{"downloading 25", "downloading 25", nothing, nothing, nothing},
		},
		"downloaded": {
			ddi.Feedback{Execution: "downloaded", Finished: "success"}, ddi.Known{}, [5]string{"downloaded", "downloaded", nothing, nothing, nothing},
		},
		"proceeding, before the image": {
			ddi.Feedback{Execution: "proceeding", Finished: "none", Of: 1},
			ddi.Known{},
			[5]string{"downloading", "downloading", "installing", "installing", nothing},
		},
		"proceeding, with the image": {
			ddi.Feedback{Execution: "proceeding", Finished: "none"},
			ddi.Known{Whole: true},
			[5]string{"installing", "installing", "installing", "installing", nothing},
		},
		"proceeding, all steps done": {
			ddi.Feedback{Execution: "proceeding", Finished: "none", Count: 1, Of: 1},
			ddi.Known{},
			[5]string{"installing", "installing", "installing", "installing", nothing},
		},
		"proceeding, told to wait, with the image": {
			ddi.Feedback{Execution: "proceeding", Finished: "none"},
			ddi.Known{Whole: true, Skip: true},
			[5]string{"downloading", "downloading", nothing, "installing", nothing},
		},
		"resumed": {
			ddi.Feedback{Execution: "resumed", Finished: "none"}, ddi.Known{}, [5]string{"downloading", "downloading", "installing", "installing", nothing},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, s := range states {
				c.with.State = s
				f, ok := c.says.Fact(c.with)
				got := nothing
				if ok {
					got = f.Event.String()
					if f.Progress > 0 {
						got += fmt.Sprintf(" %d", f.Progress)
					}
					if _, may := rollout.Next(s, f.Event); !may {
						t.Errorf("%s: %s does not happen there", s, f.Event)
					}
				}
				if got != c.want[i] {
					t.Errorf("%s: it means %q, want %q", s, got, c.want[i])
				}
			}
		})
	}
}

func TestAFeedbackIsReadAsEachClientWritesIt(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want string // execution finished count/of detail; "!" for refused
	}{
		"SWUpdate: the id is a number": {
			`{"id":7,"time":"20261123T030124","status":{"result":{"progress":{"cnt":0,"of":1},"finished":"none"},"execution":"proceeding","details":["Installing Update Chunk Artifacts."]}}`,
			"proceeding none 0/1 Installing Update Chunk Artifacts.",
		},
		"SWUpdate: tabs of its log": {"{\"status\":{\"result\":{\"finished\":\"none\"},\"execution\":\"proceeding\",\"details\":[\"[x] : \tubiswap\",\"b\"]}}", "proceeding none 0/0 [x] :  ubiswap; b"},
		"SWUpdate: no details":      {`{"id":7,"status":{"result":{"finished":"failure"},"execution":"closed","details":[ ]}}`, "closed failure 0/0 "},
		"RAUC: the id is text":      {`{"id":"7","time":"x","status":{"result":{"finished":"success"},"execution":"closed","details":["ok"]}}`, "closed success 0/0 ok"},
		"Zephyr: no id, no details": {`{"status":{"execution":"closed","result":{"finished":"success"}}}`, "closed success 0/0 "},
		"a code": {
			`{"status":{"execution":"closed","code":200,"result":{"finished":"failure"},"details":["a"," ","b"]}}`, "closed failure 0/0 code 200; a; b",
		},
		"null members":                {`{"status":{"execution":"closed","code":null,"result":{"finished":"none","progress":null},"details":null}}`, "closed none 0/0 "},
		"a progress below nothing":    {`{"status":{"execution":"download","result":{"finished":"none","progress":{"cnt":-3,"of":99999999999999999999}}}}`, "download none 0/0 "},
		"no JSON":                     {`{"status":`, "!"},
		"an array":                    {`[]`, "!"},
		"two documents":               {`{"status":{"execution":"closed","result":{"finished":"none"}}}{}`, "!"},
		"an execution of its own":     {`{"status":{"execution":"done","result":{"finished":"success"}}}`, "!"},
		"no execution":                {`{"status":{"result":{"finished":"success"}}}`, "!"},
		"a result of its own":         {`{"status":{"execution":"closed","result":{"finished":"yes"}}}`, "!"},
		"no result":                   {`{"status":{"execution":"closed"}}`, "!"},
		"details that are no texts":   {`{"status":{"execution":"closed","result":{"finished":"none"},"details":[1]}}`, "!"},
		"details that are one text":   {`{"status":{"execution":"closed","result":{"finished":"none"},"details":"x"}}`, "!"},
		"a progress that is an array": {`{"status":{"execution":"closed","result":{"finished":"none","progress":[]}}}`, "!"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := ddi.ParseFeedback([]byte(c.text))
			got := fmt.Sprintf("%s %s %d/%d %s", f.Execution, f.Finished, f.Count, f.Of, f.Detail())
			if err != nil {
				got = "!"
			}
			if got != c.want {
				t.Errorf("it is %q, want %q (%v)", got, c.want, err)
			}
		})
	}
}

func TestOfDetailsFiftyLinesOf512BytesAreKept(t *testing.T) {
	line := `"` + strings.Repeat("ü", 300) + `"`
	f, err := ddi.ParseFeedback([]byte(`{"status":{"execution":"closed","result":{"finished":"failure"},"details":[` + strings.Repeat(line+",", 99) + line + `]}}`))
	if err != nil || len(f.Details) != 50 {
		t.Fatalf("%d details are kept, %v", len(f.Details), err)
	}
	if d := f.Details[49]; d != strings.Repeat("ü", 256) {
		t.Errorf("a detail has %d bytes: %q", len(d), d)
	}
	if d := f.Detail(); len(d) > rollout.MaxDetail {
		t.Errorf("the line has %d bytes", len(d))
	}
}

func TestAttributesAreReadWithinTheirLimits(t *testing.T) {
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"a%d":"x",`, i)
		}
		return `{"data":{` + strings.TrimSuffix(b.String(), ",") + `}}`
	}
	for name, c := range map[string]struct{ text, want string }{
		"RAUC":                   {`{"time":"t","status":{"result":{"finished":"success"},"execution":"closed"},"data":{"fw":"1.0.0"}}`, "merge map[fw:1.0.0]"},
		"SWUpdate":               {`{"id":"","mode":"replace","data":{ "board": "a"}}`, "replace map[board:a]"},
		"Zephyr":                 {`{"mode":"merge","data":{"VIN":"ab","hwRevision":"3"},"id":"","time":"","status":{"execution":"closed","result":{"finished":"success"}}}`, "merge map[VIN:ab hwRevision:3]"},
		"remove":                 {`{"mode":"remove","data":{"a":null,"b":""}}`, "remove map[a: b:]"},
		"numbers and booleans":   {`{"data":{"a":1.5,"b":true,"c":10000000}}`, "merge map[a:1.5 b:true c:10000000]"},
		"none":                   {`{"data":{}}`, "merge map[]"},
		"a hundred":              {many(100), ""},
		"more than a hundred":    {many(101), "!"},
		"a long name":            {`{"data":{"` + strings.Repeat("n", 129) + `":"x"}}`, "!"},
		"no name":                {`{"data":{"":"x"}}`, "!"},
		"a long value":           {`{"data":{"a":"` + strings.Repeat("v", 513) + `"}}`, "!"},
		"a value that is a list": {`{"data":{"a":[]}}`, "!"},
		"null":                   {`{"data":{"a":null}}`, "!"},
		"no data":                {`{"mode":"merge"}`, "!"},
		"a mode of its own":      {`{"mode":"add","data":{"a":"b"}}`, "!"},
		"no JSON":                {`data`, "!"},
	} {
		t.Run(name, func(t *testing.T) {
			mode, values, err := ddi.ParseAttributes([]byte(c.text))
			got := fmt.Sprint(mode, " ", values)
			if err != nil {
				got = "!"
			}
			if c.want != "" && got != c.want || c.want == "" && len(values) != 100 {
				t.Errorf("it is %q, want %q (%v)", got, c.want, err)
			}
		})
	}
}

func FuzzFeedback(f *testing.F) {
	for _, s := range []string{
		`{"id":7,"status":{"result":{"progress":{"cnt":0,"of":1},"finished":"none"},"execution":"proceeding","details":["a"]}}`,
		`{"status":{"execution":"closed","code":-1,"result":{"finished":"failure"}}}`, "{\"status\":{\"details\":[\"\t\xff\"]}}", `{"status":{"result":{"progress":{"of":1e400}}}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ddi.ParseFeedback(text)
		if err != nil {
			return
		}
		if len(b.Details) > 50 || len(b.Detail()) > rollout.MaxDetail || b.Count < 0 || b.Of < 0 {
			t.Fatalf("%q is read as %+v", text, b)
		}
		for s := rollout.Offered; s <= rollout.Rebooting; s++ {
			for bits := range 8 {
				k := ddi.Known{State: s, Whole: bits&1 > 0, Skip: bits&2 > 0, Trusted: bits&4 > 0}
				fact, ok := b.Fact(k)
				if _, may := rollout.Next(s, fact.Event); ok && (!may || fact.Progress < 0 || fact.Progress > 100) {
					t.Fatalf("%q means %+v to %+v", text, fact, k)
				}
			}
		}
	})
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(`{"mode":"merge","data":{"VIN":"ab","hwRevision":3,"x":true}}`))
	f.Add([]byte(`{"mode":"remove","data":{"a":null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		mode, values, err := ddi.ParseAttributes(text)
		if err != nil {
			return
		}
		if mode != ddi.Merge && mode != ddi.Replace && mode != ddi.Remove || len(values) > ddi.MaxAttributes {
			t.Fatalf("%q is read as %s of %d", text, mode, len(values))
		}
		for k, v := range values {
			if k == "" || len(k) > 128 || len(v) > 512 {
				t.Fatalf("%q has %q: %q", text, k, v)
			}
		}
	})
}

package thingsboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func TestMessagesThatBreakTheFormAreRefusedWithTheReason(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40)
	for name, c := range map[string]struct{ topic, payload, want string }{
		"a topic that the API has not":           {"v1/devices/me/nothing", "{}", "no such topic"},
		"a topic for subscribers only":           {"v1/gateway/attributes/response", "{}", "no such topic"},
		"Protocol Buffers, telemetry":            {"v2/t/p", "x", "Protocol Buffers"},
		"Protocol Buffers, an answer":            {"v2/r/res/p/1", "x", "Protocol Buffers"},
		"a request number that is text":          {"v1/devices/me/rpc/response/x", "{}", "whole number"},
		"a request number with a sign":           {"v1/devices/me/rpc/response/+1", "{}", "whole number"},
		"a negative request number":              {"v2/a/req/-1", "{}", "whole number"},
		"no request number":                      {"v2/a/req/", "{}", "whole number"},
		"levels behind the request number":       {"v1/devices/me/rpc/request/1/2", "{}", "whole number"},
		"attributes: not JSON":                   {"v1/devices/me/attributes", "a b", "not JSON"},
		"attributes: empty":                      {"v1/devices/me/attributes", " \n", "empty"},
		"attributes: an array":                   {"v1/devices/me/attributes", "[1]", "not a JSON object"},
		"attributes: not UTF-8":                  {"v1/devices/me/attributes", "{\"a\":\"\xff\"}", "UTF-8"},
		"attributes: nested too deep":            {"v1/devices/me/attributes", strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), "nested deeper than 16"},
		"attributes: nested far too deep":        {"v1/devices/me/attributes", deep, "nested deeper than 32"},
		"attributes request: keys are a number":  {"v1/devices/me/attributes/request/1", `{"clientKeys":5}`, "clientKeys is not a list"},
		"attributes request: too many keys":      {"v1/devices/me/attributes/request/1", `{"sharedKeys":"` + strings.Repeat("a,", 1000) + `a"}`, "more than 1000 keys"},
		"attributes request: keys of objects":    {"v1/devices/me/attributes/request/1", `{"sharedKeys":[{}]}`, "not text"},
		"RPC answer: neither JSON nor text":      {"v1/devices/me/rpc/response/1", "\xff\xfe", "neither JSON nor UTF-8"},
		"RPC answer: nested too deep":            {"v1/devices/me/rpc/response/1", deep, "nested deeper"},
		"RPC request: no method":                 {"v1/devices/me/rpc/request/1", `{"params":{}}`, "no method"},
		"RPC request: method is an object":       {"v1/devices/me/rpc/request/1", `{"method":{}}`, "method is not text"},
		"claim: negative duration":               {"v1/devices/me/claim", `{"durationMs":-1}`, "whole number"},
		"claim: duration of years":               {"v1/devices/me/claim", `{"durationMs":99999999999999}`, "over a year"},
		"claim: secret is an array":              {"v1/devices/me/claim", `{"secretKey":[]}`, "secretKey is not text"},
		"claim: secret is too long":              {"v1/devices/me/claim", `{"secretKey":"` + strings.Repeat("s", 1025) + `"}`, "at most 1024"},
		"connect: no device":                     {"v1/gateway/connect", `{"type":"x"}`, "name is empty"},
		"connect: the name is null":              {"v1/gateway/connect", `{"device":null}`, "device is not text"},
		"connect: the gateway itself":            {"v1/gateway/connect", `{"device":"gw"}`, "cannot connect itself"},
		"connect: control characters":            {"v1/gateway/connect", `{"device":"a\u0007"}`, "not plain text"},
		"connect: a name that is far too long":   {"v1/gateway/connect", `{"device":"` + strings.Repeat("ü", 50) + `"}`, "at most 93"},
		"gateway telemetry: no device":           {"v1/gateway/telemetry", "{}", "names no device"},
		"gateway telemetry: a record alone is 5": {"v1/gateway/telemetry", `{"A":5}`, "not an array of records"},
		"gateway telemetry: records are numbers": {"v1/gateway/telemetry", `{"A":[5]}`, "not an object"},
		"gateway answer: no id":                  {"v1/gateway/rpc", `{"device":"A","data":{}}`, "no id"},
		"gateway answer: no device":              {"v1/gateway/rpc", `{"id":1,"data":{}}`, "name is empty"},
		"gateway request: no id":                 {"v1/gateway/attributes/request", `{"device":"A","client":true,"key":"k"}`, "no id"},
		"gateway request: key of neither side":   {"v1/gateway/attributes/request", `{"id":1,"device":"A","key":"k"}`, "which side"},
		"gateway request: a side without a key":  {"v1/gateway/attributes/request", `{"id":1,"device":"A","client":true}`, "which side"},
		"registration: no secret":                {"/provision/request", `{"provisionDeviceKey":"k"}`, "both needed"},
		"registration: unknown credentials":      {"/provision/request", `{"provisionDeviceKey":"k","provisionDeviceSecret":"s","credentialsType":"LWM2M_CREDENTIALS"}`, "none of"},
		"registration: certificate is missing":   {"/provision/request", `{"provisionDeviceKey":"k","provisionDeviceSecret":"s","credentialsType":"X509_CERTIFICATE"}`, "need hash"},
		"registration: certificate is huge":      {"/provision/request", `{"provisionDeviceKey":"k","provisionDeviceSecret":"s","hash":"` + strings.Repeat("A", 20000) + `"}`, "at most 16384 bytes"},
		"registration: a wrong topic":            {"/provision/response", `{}`, "no such topic"},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := Up(c.topic, "gw", []byte(c.payload))
			if err == nil {
				t.Fatalf("it was taken: %+v", res)
			}
			if muster.KindOf(err) != muster.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused as %s with %q, want invalid with %q", muster.KindOf(err), err, c.want)
			}
			if d := cmp.Diff(Result{}, res, cmp.AllowUnexported(Request{})); d != "" {
				t.Errorf("a refused message has a result\n%s", d)
			}
		})
	}
}

func TestWhatIsTooLargeIsRefusedAsTooLarge(t *testing.T) {
	for _, c := range []struct {
		topic string
		size  int
	}{
		{"v1/devices/me/attributes", MaxDocument},
		{"v1/devices/me/rpc/request/1", MaxPayload},
		{"v1/devices/me/rpc/response/1", MaxPayload},
		{"v1/gateway/telemetry", MaxPayload},
		{"/provision/request", MaxPayload},
	} {
		payload := []byte(`{"a":"` + strings.Repeat("x", c.size) + `"}`)
		if _, err := Up(c.topic, "gw", payload); muster.KindOf(err) != muster.TooLarge {
			t.Errorf("%s with %d bytes: %v", c.topic, len(payload), err)
		}
	}
}

func TestOnlyARegistrationNeedsNoDevice(t *testing.T) {
	if _, err := Up("v1/devices/me/telemetry", "", []byte("{}")); muster.KindOf(err) != muster.Invalid {
		t.Errorf("telemetry of nobody: %v", err)
	}
}

func TestAnAnswerOfAnyFormIsTheResult(t *testing.T) {
	for payload, want := range map[string]string{
		``:                    `{"status":"ok"}`,
		`null`:                `{"status":"ok","result":null}`,
		`5`:                   `{"status":"ok","result":5}`,
		`{"error":"no"}`:      `{"status":"ok","result":{"error":"no"}}`,
		`plain "text"` + "\n": `{"status":"ok","result":"plain \"text\"\n"}`,
		`{broken`:             `{"status":"ok","result":"{broken"}`,
	} {
		res, err := Up("v1/devices/me/rpc/response/007", "d", []byte(payload))
		if err != nil {
			t.Errorf("%q: %v", payload, err)
			continue
		}
		if m := res.Messages[0]; string(m.Payload) != want || m.Topic != "devices/d/commands/7/result" {
			t.Errorf("%q became %s at %s, want %s", payload, m.Payload, m.Topic, want)
		}
	}
}

func TestARequestWithoutKeysAsksForEverything(t *testing.T) {
	for _, payload := range []string{"", "{}", `{"other":1}`} {
		res, err := Up("v2/a/req/j/3", "d", []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		reply, err := res.Requests[0].Attributes([]byte(`{"a":1,"b":{"c":2}}`), []byte(`{"d":[3]}`))
		if err != nil {
			t.Fatal(err)
		}
		want := Reply{"v2/a/res/j/3", []byte(`{"client":{"a":1,"b":{"c":2}},"shared":{"d":[3]}}`)}
		if d := cmp.Diff(want, reply); d != "" {
			t.Errorf("%q: %s", payload, d)
		}
	}
}

func TestAnEmptyListOfKeysAsksForNothingOfThatSide(t *testing.T) {
	res, err := Up("v1/devices/me/attributes/request/3", "d", []byte(`{"clientKeys":"","sharedKeys":" x , y"}`))
	if err != nil {
		t.Fatal(err)
	}
	reply, err := res.Requests[0].Attributes([]byte(`{"x":1}`), []byte(`{"y":{},"x":"\u00e9"}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"shared":{"x":"\u00e9","y":{}}}`; string(reply.Payload) != want {
		t.Errorf("answered %s, want %s", reply.Payload, want)
	}
}

func TestAnAnswerFromABrokenDocumentIsAFaultOfOurs(t *testing.T) {
	r := Request{AllClient: true, AllShared: true}
	for _, doc := range []string{"[]", "{", "\xff"} {
		if _, err := r.Attributes([]byte(doc), nil); muster.KindOf(err) != muster.Internal {
			t.Errorf("reported %q: %v", doc, err)
		}
		if _, err := r.Attributes(nil, []byte(doc)); muster.KindOf(err) != muster.Internal {
			t.Errorf("desired %q: %v", doc, err)
		}
	}
}

func TestAGatewaysRequestForOneAbsentKeyIsAnsweredWithoutValue(t *testing.T) {
	res, err := Up("v1/gateway/attributes/request", "gw", []byte(`{"id":1.0,"device":"A","client":false,"key":"gone"}`))
	if err != nil {
		t.Fatal(err)
	}
	reply, err := res.Requests[0].Attributes(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":1,"device":"A"}`; string(reply.Payload) != want {
		t.Errorf("answered %s, want %s", reply.Payload, want)
	}
}

func TestAKeyOfBothSidesIsAnsweredToAGatewayAsDesired(t *testing.T) {
	res, err := Up("v1/gateway/attributes/request", "gw", []byte(`{"id":1,"device":"A"}`))
	if err != nil {
		t.Fatal(err)
	}
	reply, err := res.Requests[0].Attributes([]byte(`{"k":1,"r":2}`), []byte(`{"k":3}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"id":1,"device":"A","values":{"r":2,"k":3}}`; string(reply.Payload) != want {
		t.Errorf("answered %s, want %s", reply.Payload, want)
	}
}

func TestLimitsAreToldEvenWhenThereAreNone(t *testing.T) {
	for topic, want := range map[string]Reply{
		"v1/devices/me/rpc/request/1": {"v1/devices/me/rpc/response/1", []byte(`{"maxPayloadSize":262144,"maxInflightMessages":0,"rateLimits":{}}`)},
		"v2/r/req/1":                  {"v2/r/res/1", []byte(`{"maxPayloadSize":262144,"maxInflightMessages":0,"rateLimits":{}}`)},
		"v2/r/req/j/1":                {"v2/r/res/j/1", []byte(`{"maxPayloadSize":262144,"maxInflightMessages":0,"rateLimits":{}}`)},
	} {
		res, err := Up(topic, "d", []byte(`{"method":"getSessionLimits","params":{"timeout":5000}}`))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, res.Requests[0].Limits(Limits{MaxPayload: 262144})); d != "" {
			t.Error(d)
		}
	}
}

func TestOneDevicesMistakeCostsNoOtherItsData(t *testing.T) {
	payload := `{"A":[{"t":1}],"bad":7,"` + strings.Repeat("ü", 60) + `":[{"t":2}],"B":{"t":3},"empty":[]}`
	res, err := Up("v1/gateway/telemetry", "gw", []byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	var taken, refused []string
	for _, m := range res.Messages {
		taken = append(taken, m.Name+" "+string(m.Payload))
	}
	for _, r := range res.Refused {
		refused = append(refused, fmt.Sprintf("%.3s %s %s", r.Name, r.Payload, muster.KindOf(r.Err)))
		if !strings.HasPrefix(muster.Public(r.Err), `the device "`+r.Name+`": `) {
			t.Errorf("the reason %q does not name the device", muster.Public(r.Err))
		}
	}
	if d := cmp.Diff([]string{`A [{"t":1}]`, `B {"t":3}`}, taken); d != "" {
		t.Errorf("taken %s", d)
	}
	if d := cmp.Diff([]string{"bad 7 invalid", "üüü [{\"t\":2}] invalid"}, refused); d != "" {
		t.Errorf("refused %s", d)
	}
}

func TestAGatewaysMessageIsBounded(t *testing.T) {
	children := func(n int, value string) []byte {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"d%d":%s`, i, value)
		}
		return []byte("{" + b.String()[1:] + "}")
	}
	records := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat(`{"t":1},`, n), ",") + "]" }
	for _, topic := range []string{"v1/gateway/telemetry", "v1/gateway/attributes", "v1/gateway/claim"} {
		if _, err := Up(topic, "gw", children(MaxChildren, `{"a":1}`)); err != nil {
			t.Errorf("%s: %d devices: %v", topic, MaxChildren, err)
		}
		if _, err := Up(topic, "gw", children(MaxChildren+1, `{"a":1}`)); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: %d devices: %v", topic, MaxChildren+1, err)
		}
	}
	res, err := Up("v1/gateway/telemetry", "gw", children(4, records(MaxReadings/4)))
	if err != nil || len(res.Messages) != 4*3 {
		t.Errorf("%d records of 4 devices: %d messages, %v", MaxReadings, len(res.Messages), err)
	}
	if _, err = Up("v1/gateway/telemetry", "gw", children(1, records(MaxReadings+1))); muster.KindOf(err) != muster.Invalid {
		t.Errorf("%d records: %v", MaxReadings+1, err)
	}
}

func TestManyRecordsOfADeviceAreSplitAsIngestTakesThem(t *testing.T) {
	var all []string
	for i := range 2500 {
		all = append(all, fmt.Sprintf(`{"n":%d}`, i))
	}
	res, err := Up("v1/gateway/telemetry", "gw", []byte(`{"A":[`+strings.Join(all, " , ")+`]}`))
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	next := 0
	for _, m := range res.Messages {
		var records []struct{ N int }
		if err := json.Unmarshal(m.Payload, &records); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(records))
		for _, r := range records {
			if r.N != next {
				t.Fatalf("record %d comes where %d belongs", r.N, next)
			}
			next++
		}
	}
	if d := cmp.Diff([]int{1000, 1000, 500}, sizes); d != "" {
		t.Error(d)
	}
}

func TestAGatewaysMetadataIsTakenOutOfTelemetry(t *testing.T) {
	const meta = `"metadata":{"connector":"modbus","receivedTs":1,"publishedTs":2}`
	for in, want := range map[string]string{
		`[{"ts":1700000000000,"values":{"t":1},` + meta + `}]`:      `[{"ts":1700000000000,"values":{"t":1}}]`,
		`[{` + meta + `,"t":1},{"t":2}]`:                            `[{"t":1},{"t":2}]`,
		`{"ts":1700000000000,"values":{"metadata":1},` + meta + `}`: `{"ts":1700000000000,"values":{"metadata":1}}`,
	} {
		res, err := Up("v1/gateway/telemetry", "gw", []byte(`{"A":`+in+`}`))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res.Messages[0].Payload); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
}

// mergePatch is RFC 7396, section 2.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = mergePatch(t[k], v)
		}
	}
	return t
}

// withoutNulls is what a merge patch leaves of a new object.
func withoutNulls(v any) any {
	if m, ok := v.(map[string]any); ok {
		for k, v := range m {
			if v == nil {
				delete(m, k)
			} else {
				m[k] = withoutNulls(v)
			}
		}
	}
	return v
}

func anyJSON(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		kinds := 6
		if depth == 0 {
			kinds = 4
		}
		switch rapid.IntRange(0, kinds-1).Draw(t, "kind") {
		case 0:
			return nil
		case 1:
			return rapid.Bool().Draw(t, "bool")
		case 2:
			return float64(rapid.Int32().Draw(t, "number"))
		case 3:
			return rapid.String().Draw(t, "text")
		case 4:
			return rapid.SliceOfN(anyJSON(depth-1), 0, 3).Draw(t, "array")
		default:
			return anyObject(depth).Draw(t, "object")
		}
	})
}

func anyObject(depth int) *rapid.Generator[any] {
	return rapid.Custom(func(t *rapid.T) any {
		out := map[string]any{}
		maps.Copy(out, rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", `q"\`, "ü", "a b", ""}), anyJSON(depth-1), 0, 4).Draw(t, "members"))
		return out
	})
}

func toJSON(t *rapid.T, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fromJSON(t *rapid.T, b []byte) any {
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func TestReportedBecomesWhatThingsBoardWouldKeep(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := withoutNulls(anyObject(3).Draw(t, "before"))
		sent := anyObject(3).Draw(t, "sent")
		want := fromJSON(t, toJSON(t, before)).(map[string]any)
		for k, v := range sent.(map[string]any) {
			if v != nil {
				want[k] = withoutNulls(fromJSON(t, toJSON(t, v)))
			}
		}
		res, err := Up("v1/devices/me/attributes", "d", toJSON(t, sent))
		if err != nil {
			t.Fatal(err)
		}
		got := before
		for _, m := range res.Messages {
			got = mergePatch(got, fromJSON(t, m.Payload))
		}
		if d := cmp.Diff(any(want), got); d != "" {
			t.Fatalf("after %s (-ThingsBoard +ours)\n%s", toJSON(t, sent), d)
		}
	})
}

func TestQuotesThatAShellTookAwayAreFound(t *testing.T) {
	for in, want := range map[string]string{
		`{temperature:25}`:                   `{"temperature":25}`,
		`{'a':'it"s', b : true}`:             `{"a":"it\"s", "b" : true}`,
		`{'a':'it\'s'}`:                      `{"a":"it's"}`,
		`[{key1:value1},{key2:-1.5e3}]`:      `[{"key1":"value1"},{"key2":-1.5e3}]`,
		`{ts:1451649600512,values:{k:null}}`: `{"ts":1451649600512,"values":{"k":null}}`,
		`{true:1}`:                           `{"true":1}`,
	} {
		res, err := Up("v1/devices/me/telemetry", "d", []byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if got := string(res.Messages[0].Payload); got != want {
			t.Errorf("%s became %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{`{a`, `{'a`, `{a:1`, `{a b:1}`, "{\xff:1}", `21.5`, `{}`, "\x81", ``} {
		res, err := Up("v1/devices/me/telemetry", "d", []byte(in))
		if err != nil || string(res.Messages[0].Payload) != in {
			t.Errorf("%q is for ingest to judge, and became %q, %v", in, res.Messages[0].Payload, err)
		}
	}
}

func TestStrictJSONIsLeftAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		doc := toJSON(t, anyJSON(4).Draw(t, "doc"))
		if got := relax(doc); !bytes.Equal(got, doc) {
			t.Fatalf("%s became %s", doc, got)
		}
	})
}

func TestTopicsThatAreNotThingsBoardsCostNothing(t *testing.T) {
	topics := []string{"devices/me/telemetry", "devices/d/reported", "v1", "v2/fwd/request/1/chunk/0", "v2/fw", "v2/telemetry", "a/b", "", "/x", "v1/devices/you/telemetry"}
	if n := testing.AllocsPerRun(100, func() {
		for _, topic := range topics {
			if Is(topic) {
				t.Errorf("%q is taken for ThingsBoard's", topic)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	payload := []byte(`{"temperature":22.5}`)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Up("v1/devices/me/telemetry", "d1", payload); err != nil {
			t.Error(err)
		}
	}); n > 2 {
		t.Errorf("a telemetry message costs %v allocations, want the topic and the list", n)
	}
}

package thingsboard

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"muster"
)

func FuzzUp(f *testing.F) {
	for _, s := range [...][2]string{
		{"v1/devices/me/telemetry", `{temperature:25}`},
		{"v1/devices/me/attributes", `{"a":{"b":null},"c":null,"d":[1,{"e":"\u00e9\""}]}`},
		{"v1/devices/me/attributes/request/1", `{"clientKeys":"a,b","sharedKeys":["c"]}`},
		{"v1/devices/me/rpc/response/1", `{"x":1}`},
		{"v2/r/req/j/2", `{"method":"getSessionLimits","params":{}}`},
		{"v2/c", `{"secretKey":"s","durationMs":6e4}`},
		{"v1/gateway/connect", `{"device":"Device A","type":"t"}`},
		{"v1/gateway/telemetry", `{"A":[{"ts":1483228800000,"values":{"t":42},"metadata":{}}],"B":{"t":1},"C":1}`},
		{"v1/gateway/attributes", `{"A":{"a":{}},"B":[]}`},
		{"v1/gateway/attributes/request", `{"id":1,"device":"A","client":true,"key":"k"}`},
		{"v1/gateway/rpc", `{"device":"A","id":1,"data":{}}`},
		{"v1/gateway/claim", `{"A":{}}`},
		{"/provision/request", `{"provisionDeviceKey":"k","provisionDeviceSecret":"s","credentialsType":"MQTT_BASIC","clientId":5}`},
	} {
		f.Add(s[0], []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		res, err := Up(topic, "gw", payload)
		if err != nil {
			if k := muster.KindOf(err); k != muster.Invalid && k != muster.TooLarge {
				t.Fatalf("refused as %s: %v", k, err)
			}
			return
		}
		if !Is(topic) {
			t.Fatalf("%q is not ThingsBoard's and was translated", topic)
		}
		if len(res.Messages) > MaxReadings || len(res.Requests) > MaxChildren {
			t.Fatalf("%d messages, %d requests", len(res.Messages), len(res.Requests))
		}
		for _, m := range res.Messages {
			checkMessage(t, m, len(payload))
		}
		for _, r := range res.Requests {
			if r.Kind != AskAttributes {
				continue
			}
			reply, err := r.Attributes([]byte(`{"a":1,"k":{"b":[]}}`), []byte(`{"c":"x","k":null}`))
			if err != nil || !json.Valid(reply.Payload) {
				t.Fatalf("answer %s, %v", reply.Payload, err)
			}
		}
	})
}

func checkMessage(t *testing.T, m Message, size int) {
	t.Helper()
	id, rest, ok := split(m.Topic)
	if !ok || id != m.Device {
		t.Fatalf("topic %q of %q", m.Topic, m.Device)
	}
	if _, err := muster.ParseDeviceID(string(id)); err != nil {
		t.Fatal(err)
	}
	if len(m.Payload) > 6*size+64 {
		t.Fatalf("%d bytes became %d", size, len(m.Payload))
	}
	if (rest != "telemetry" || m.Name != "") && !json.Valid(m.Payload) {
		t.Fatalf("%s has %q, which is not JSON", m.Topic, m.Payload)
	}
}

func FuzzDown(f *testing.F) {
	f.Add("v1/devices/me/attributes", "devices/d/desired", []byte(`{"version":2,"state":{"a":1,"b":{"c":[]}}}`), []byte(`{"version":1,"state":{"x":1}}`))
	f.Add("v1/gateway/rpc", "devices/d..20e/commands/7", []byte(`{"method":"m","params":[1]}`), []byte(nil))
	f.Add("v2/r/res/+", "devices/d/requests/7/response", []byte(`{}`), []byte(nil))
	f.Fuzz(func(t *testing.T, filter, topic string, payload, prev []byte) {
		s, err := Subscribe(filter)
		if err != nil {
			return
		}
		replies, err := s.Down(topic, payload, prev)
		if err != nil && muster.KindOf(err) != muster.Invalid && muster.KindOf(err) != muster.TooLarge {
			t.Fatalf("refused as %s: %v", muster.KindOf(err), err)
		}
		for _, r := range replies {
			if s.Rest != answers && !json.Valid(r.Payload) {
				t.Fatalf("%s has %q", r.Topic, r.Payload)
			}
			if strings.ContainsAny(r.Topic, "+#") {
				t.Fatalf("topic %q", r.Topic)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	for _, s := range []string{"Device A", "..41", "...41", "..b", "..bQQ", "me", "ü", ".", ".."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ID(s); err == nil {
			if _, err := muster.ParseDeviceID(string(id)); err != nil || Name(id) != s {
				t.Fatalf("%q became %q and came back as %q, %v", s, id, Name(id), err)
			}
		}
		if id, err := muster.ParseDeviceID(s); err == nil {
			if back, err := ID(Name(id)); Name(id) != s && (err != nil || back != id) {
				t.Fatalf("id %q is called %q, which is %q, %v", id, Name(id), back, err)
			}
		}
	})
}

func FuzzRelax(f *testing.F) {
	for _, s := range []string{`{temperature:25}`, `{'a':'it"s\''}`, `[{a:b},{c:1}]`, `{"a":'\\"'}`, `{`, `'`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		got := relax(doc)
		if json.Valid(doc) && !bytes.Equal(got, doc) {
			t.Fatalf("JSON %q became %q", doc, got)
		}
		if len(got) > 6*len(doc)+16 {
			t.Fatalf("%d bytes became %d", len(doc), len(got))
		}
	})
}

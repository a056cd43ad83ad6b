package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
)

const arrival = "arrival" // in place of a time: the message carried none

// said is one message and the readings it must become: "time key=value ...".
type said struct{ name, topic, payload, want string }

// TestWhatDevicesSayIsWhatTheAPIShows publishes each form of payload by MQTT 3.1.1
// and 5 and reads it back.
func TestWhatDevicesSayIsWhatTheAPIShows(t *testing.T) {
	t.Parallel()
	m := serve(t)
	forms := []said{
		{"a scalar takes its key from the topic", "telemetry/temperature", `21.5`, "arrival temperature=21.5"},
		{"a scalar string", "telemetry/door/state", `"open"`, `arrival door.state=open`},
		{"a flat object", "telemetry", `{"t":-3,"on":true,"name":"Ærø","none":null}`, `arrival name=Ærø none=<nil> on=true t=-3`},
		{"ts and values", "telemetry", `{"ts":1767225600123,"values":{"a":1,"b":0.1}}`, `2026-01-01T00:00:00.123000Z a=1 b=0.1`},
		{"ts in seconds", "telemetry", `{"ts":1767225601,"values":{"a":1}}`, `2026-01-01T00:00:01.000000Z a=1`},
		{"ts in microseconds", "telemetry", `{"ts":1767225602000001,"values":{"a":1}}`, `2026-01-01T00:00:02.000001Z a=1`},
		{"timestamp in RFC 3339, in a flat object", "telemetry", `{"timestamp":"2026-01-01T01:00:03+01:00","a":1}`, `2026-01-01T00:00:03.000000Z a=1`},
		{"an array of flat objects", "telemetry", `[{"a":1},{"a":2}]`, "arrival a=1 | arrival a=2"},
		{"an array of ts and values", "telemetry", `[{"ts":1767225604000,"values":{"a":1}},{"ts":1767225605000,"values":{"a":2}}]`, "2026-01-01T00:00:04.000000Z a=1 | 2026-01-01T00:00:05.000000Z a=2"},
		{"nested objects flatten", "telemetry", `{"a":{"b":{"c":1}},"d":[1,{"e":2}]}`, `arrival a.b.c=1 d=[1 map[e:2]]`},
		{"an integer beyond 2^53 keeps its digits", "telemetry", `{"n":9007199254740993}`, "arrival n=9007199254740993"},
	}
	for i, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			m.t = t
			sayBothWays(t, m, fmt.Sprintf("form-%d", i), f)
		})
	}
	m.t = t
}

// sayBothWays publishes f from two devices, one of each protocol version.
func sayBothWays(t *testing.T, m *muster, id string, f said) {
	c3 := paho3Client(t, m, "tcp://"+m.mqtt, id+"-3", m.device(id+"-3", "token").Token, "")
	must(t, c3.Publish("devices/"+id+"-3/"+f.topic, 1, false, f.payload))
	c5, _ := connect5(t, dial(t, m.mqtt), id+"-5", m.device(id+"-5", "token").Token, "")
	if code, why := c5.publish(t, "devices/me/"+f.topic, f.payload); code != 0 {
		t.Fatalf("PUBACK %#x (%s)", code, why)
	}
	for _, device := range []string{id + "-3", id + "-5"} {
		want := strings.Split(f.want, " | ")
		var got []string
		for _, p := range m.awaitTelemetry(device, len(want)) {
			got = append(got, p.text(t))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", device, diff)
		}
	}
}

// text returns "time key=value ...", keys in order; a time of just now is arrival.
func (p point) text(t *testing.T) string {
	t.Helper()
	at, err := time.Parse(time.RFC3339Nano, p.Time)
	if err != nil {
		t.Fatalf("time %q: %v", p.Time, err)
	}
	words := []string{p.Time}
	if time.Since(at).Abs() < time.Minute {
		words[0] = arrival
	}
	for _, k := range slices.Sorted(maps.Keys(p.Values)) {
		words = append(words, fmt.Sprintf("%s=%v", k, p.Values[k]))
	}
	return strings.Join(words, " ")
}

// wrong is a message that is refused for good.
type wrong struct{ name, payload, code, reason string }

func wrongs() []wrong {
	ahead := time.Now().Add(25 * time.Hour).UnixMilli()
	return []wrong{
		{"malformed JSON", `{"a":1,}`, "malformed", ""},
		{"NaN", `{"a":NaN}`, "malformed", ""},
		{"infinity", `{"a":-Infinity}`, "malformed", ""},
		{"nothing", ``, "malformed", "empty"},
		{"text that is no JSON", `hello`, "malformed", ""},
		{"a time stamp more than 24 h ahead", fmt.Sprintf(`{"ts":%d,"values":{"a":1}}`, ahead), "time", "24 h ahead"},
		{"a time stamp before 2000", `{"ts":"1999-12-31T23:59:59Z","values":{"a":1}}`, "time", "before 2000"},
		{"deep nesting", strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), "malformed", "deeper than"},
		{"very deep nesting", strings.Repeat("[", 50_000), "malformed", ""},
		{"bytes that are no UTF-8", "{\"a\":\"\xff\xfe\"}", "malformed", ""},
	}
}

// TestBadPayloadsAreToldKeptAndForgiven publishes what is refused for good: MQTT 5
// gets 0x99, both versions are told at devices/{id}/errors, the API lists it, and
// the connection stays.
func TestBadPayloadsAreToldKeptAndForgiven(t *testing.T) {
	t.Parallel()
	m := serve(t)
	for i, w := range wrongs() {
		t.Run(w.name, func(t *testing.T) {
			m.t = t
			badByPaho3(t, m, fmt.Sprintf("bad-%d-3", i), w)
			badByPaho5(t, m, fmt.Sprintf("bad-%d-5", i), w)
		})
	}
	m.t = t
	if l := m.drained(drainLimit); l.rejected != int64(2*len(wrongs())) || !l.balanced() {
		t.Errorf("the ledger is %+v, want %d rejected", l, 2*len(wrongs()))
	}
}

func badByPaho3(t *testing.T, m *muster, id string, w wrong) {
	c := paho3Client(t, m, "tcp://"+m.mqtt, id, m.device(id, "token").Token, "")
	told := make(chan []byte, 1)
	must(t, c.Subscribe("devices/"+id+"/errors", 1, func(_ paho3.Client, p paho3.Message) { told <- p.Payload() }))
	must(t, c.Publish("devices/"+id+"/telemetry", 1, false, w.payload))
	select {
	case body := <-told:
		w.mustTell(t, string(body))
	case <-time.After(clientLimit):
		t.Error("MQTT 3.1.1: it is not told")
	}
	w.mustBeKept(t, m, id)
	must(t, c.Publish("devices/"+id+"/telemetry", 1, false, `{"fine":1}`))
	m.awaitTelemetry(id, 1)
}

func badByPaho5(t *testing.T, m *muster, id string, w wrong) {
	c, _ := connect5(t, dial(t, m.mqtt), id, m.device(id, "token").Token, "")
	if code := c.subscribe(t, "devices/me/errors"); code > 2 {
		t.Fatalf("SUBACK %#x", code)
	}
	if code, why := c.publish(t, "devices/me/telemetry", w.payload); code != 0x99 || !strings.Contains(why, w.reason) {
		t.Errorf("MQTT 5: PUBACK %#x (%s), want 0x99 and %q", code, why, w.reason)
	}
	w.mustTell(t, string(c.next(t).Payload))
	w.mustBeKept(t, m, id)
	if code, why := c.publish(t, "devices/me/telemetry", `{"fine":1}`); code != 0 {
		t.Errorf("MQTT 5: after it, PUBACK %#x (%s)", code, why)
	}
	m.awaitTelemetry(id, 1)
}

func (w wrong) mustTell(t *testing.T, problem string) {
	t.Helper()
	for _, want := range []string{`"code":"` + w.code + `"`, `"status":422`, w.reason} {
		if !strings.Contains(problem, want) {
			t.Errorf("it is told %s, which has no %s", problem, want)
		}
	}
}

func (w wrong) mustBeKept(t *testing.T, m *muster, id string) {
	t.Helper()
	got := m.awaitRejected(id, 1)[0]
	if got.Code != w.code || !strings.Contains(got.Reason, w.reason) || got.Size != len(w.payload) || got.Topic != "devices/"+id+"/telemetry" {
		t.Errorf("the API shows %+v, want code %s, %d bytes", got, w.code, len(w.payload))
	}
}

// TestAPacketOverTheMaximumEndsTheConnectionAndIsShown sends more than 256 KiB.
func TestAPacketOverTheMaximumEndsTheConnectionAndIsShown(t *testing.T) {
	t.Parallel()
	m := serve(t)
	payload := `{"a":"` + strings.Repeat("x", 256<<10) + `"}`
	lost := make(chan error, 1)
	o := paho3.NewClientOptions().AddBroker("tcp://" + m.mqtt).SetClientID("large-3").SetUsername(m.device("large-3", "token").Token).
		SetProtocolVersion(4).SetAutoReconnect(false).SetConnectionLostHandler(func(_ paho3.Client, err error) { lost <- err })
	c3 := paho3.NewClient(o)
	must(t, c3.Connect())
	defer c3.Disconnect(0)
	c3.Publish("devices/large-3/telemetry", 1, false, payload)
	select {
	case <-lost:
	case <-time.After(clientLimit):
		t.Error("MQTT 3.1.1: the connection was not closed")
	}

	c5, _ := connect5(t, dial(t, m.mqtt), "large-5", m.device("large-5", "token").Token, "")
	go func() {
		// The connection ends before an answer; what it says is asked below.
		_, _ = c5.Publish(t.Context(), &paho5.Publish{Topic: "devices/large-5/telemetry", QoS: 1, Payload: []byte(payload)})
	}()
	select {
	case code := <-c5.bye: // told by paho after it has closed the connection
		if code != 0x95 {
			t.Errorf("MQTT 5: DISCONNECT %#x, want 0x95", code)
		}
	case <-time.After(clientLimit):
		t.Error("MQTT 5: no DISCONNECT came")
	}
	for _, id := range []string{"large-3", "large-5"} {
		got := m.awaitRejected(id, 1)[0]
		if got.Code != "too_large" || got.Size < len(payload) || got.Topic != "devices/"+id+"/telemetry" {
			t.Errorf("%s: the API shows %+v", id, got)
		}
	}
	// One that just fits is taken.
	fits := `{"a":"` + strings.Repeat("x", 250<<10) + `"}`
	again := paho3Client(t, m, "tcp://"+m.mqtt, "large-3", m.device("large-fits", "token").Token, "")
	must(t, again.Publish("devices/large-fits/telemetry", 1, false, fits))
	if got := m.awaitTelemetry("large-fits", 1)[0]; fmt.Sprint(got.Values) != "map[a:"+strings.Repeat("x", 250<<10)+"]" {
		t.Errorf("the API shows other than the 250 KiB that were sent")
	}
}

package thingsboard

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
)

func TestOnlyTheFiltersThatThingsBoardGrantsAreGranted(t *testing.T) {
	for _, f := range []string{
		"v1/devices/me/#", "v1/devices/me/+", "v1/devices/me/telemetry", "v1/devices/me/rpc/request/#", "v1/devices/me/rpc/request/1",
		"v1/gateway/#", "v1/gateway/telemetry", "v2/a/+", "v2/r/req/p/+", "v2/a/p", "/provision/#", "/provision/request",
	} {
		if !Is(f) {
			t.Errorf("%s is not seen as ThingsBoard's", f)
		}
		if s, err := Subscribe(f); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s is granted as %+v, %v", f, s, err)
		}
	}
}

func TestASubscriptionTakesOnlyWhatItMeans(t *testing.T) {
	doc := []byte(`{"version":1,"state":{}}`)
	for name, c := range map[string]struct {
		filter, topic string
		payload, prev []byte
		want          string
	}{
		"answers have no topic":         {"v1/gateway/attributes/response", "devices/d/desired", doc, nil, "does not mean"},
		"desired for commands":          {"v1/devices/me/rpc/request/+", "devices/d/desired", doc, nil, "does not mean"},
		"commands for desired":          {"v1/devices/me/attributes", "devices/d/commands/1", doc, nil, "does not mean"},
		"results for commands":          {"v2/r/res/+", "devices/d/requests/1", doc, nil, "does not mean"},
		"another root":                  {"v2/a", "things/d/desired", doc, nil, "does not mean"},
		"no rest":                       {"v2/a", "devices/d", doc, nil, "does not mean"},
		"a command's id is a word":      {"v2/r/req/+", "devices/d/commands/c1", doc, nil, "must be a number"},
		"a command without a method":    {"v2/r/req/+", "devices/d/commands/1", []byte("{}"), nil, "no method"},
		"a command that is no object":   {"v2/r/req/+", "devices/d/commands/1", []byte("[]"), nil, "not a JSON object"},
		"a document without state":      {"v2/a", "devices/d/desired", []byte(`{"version":1}`), nil, "no state"},
		"a document before that is not": {"v2/a", "devices/d/desired", doc, []byte("x y"), "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Subscribe(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Down(c.topic, c.payload, c.prev)
			if muster.KindOf(err) != muster.Invalid || !strings.Contains(err.Error(), c.want) || got != nil {
				t.Errorf("got %v, %v, want invalid with %q", got, err, c.want)
			}
		})
	}
}

func TestACommandWithoutParametersHasAnEmptyObject(t *testing.T) {
	for filter, want := range map[string]Reply{
		"v2/r/req/j/+":   {"v2/r/req/j/5", []byte(`{"method":"reboot","params":{}}`)},
		"v1/gateway/rpc": {"v1/gateway/rpc", []byte(`{"device":"Däch \"1\"","data":{"id":5,"method":"reboot","params":{}}}`)},
	} {
		s, err := Subscribe(filter)
		if err != nil {
			t.Fatal(err)
		}
		id, err := ID(`Däch "1"`)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Down("devices/"+string(id)+"/commands/5", []byte(`{"method":"reboot"}`), nil)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]Reply{want}, got); d != "" {
			t.Error(d)
		}
	}
}

func TestAClientThatAppliesWhatItIsToldHasTheDesiredState(t *testing.T) {
	for _, filter := range []string{"v1/devices/me/attributes", "v1/gateway/attributes"} {
		s, err := Subscribe(filter)
		if err != nil {
			t.Fatal(err)
		}
		rapid.Check(t, func(t *rapid.T) {
			objects := rapid.Custom(func(t *rapid.T) map[string]any {
				return withoutNulls(anyObject(3).Draw(t, "state")).(map[string]any)
			})
			before, after := objects.Draw(t, "before"), objects.Draw(t, "after")
			wrap := func(v any) []byte { return toJSON(t, map[string]any{"version": 1, "state": v}) }
			replies, err := s.Down("devices/d/desired", wrap(after), wrap(before))
			if err != nil {
				t.Fatal(err)
			}
			has := fromJSON(t, toJSON(t, before)).(map[string]any)
			for _, r := range replies {
				apply(t, s, has, r)
			}
			if d := cmp.Diff(fromJSON(t, toJSON(t, after)), any(has)); d != "" {
				t.Fatalf("told %s (-desired +client)\n%s", replies, d)
			}
			if cmp.Equal(before, after) && len(replies) > 0 {
				t.Fatalf("nothing changed, told %s", replies)
			}
			whole, err := s.Down("devices/d/desired", wrap(after), nil)
			if err != nil || len(whole) > 1 || len(after) > 0 && len(whole) == 0 {
				t.Fatalf("to a client that knows nothing: %v, %v", whole, err)
			}
		})
	}
}

// apply does what a client of ThingsBoard does with a message about attributes.
func apply(t *rapid.T, s Subscription, has map[string]any, r Reply) {
	if r.Topic != s.Filter {
		t.Fatalf("told at %s, subscribed to %s", r.Topic, s.Filter)
	}
	data := fromJSON(t, r.Payload).(map[string]any)
	if s.Scope == Children {
		if data["device"] != "d" || len(data) != 2 {
			t.Fatalf("gateway is told %s", r.Payload)
		}
		data = data["data"].(map[string]any)
	}
	gone, ok := data["deleted"].([]any)
	if !ok {
		maps.Copy(has, data)
		return
	}
	for _, k := range gone {
		delete(has, k.(string))
	}
}

package thingsboard

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster"
)

// sequence is a documented sequence of messages, as testdata/golden.json quotes it.
type sequence struct {
	Name, Source string
	Steps        []step
}

// step is one message up, or one subscription with what comes down for it.
type step struct {
	Publish             *wireMessage
	Guest               bool // the publisher registers itself
	Inside              []wireMessage
	Request             *wireRequest
	Connect, Disconnect *wireChild

	Reported, Desired json.RawMessage // the documents, for the answer to attributes
	Limits            *Limits
	Provisioned       *ProvisionResponse
	Documented        map[string]any // what the source shows of the answer
	Reply             *wireMessage

	Subscribe, Scope, Means, Of string
	Message                     *wireMessage
	Before                      json.RawMessage
	Down                        []wireMessage
}

type wireMessage struct {
	Name, Topic string
	Payload     json.RawMessage
	Text        *string // a payload that is not JSON
}

func (m wireMessage) bytes() []byte {
	if m.Text != nil {
		return []byte(*m.Text)
	}
	return m.Payload
}

type wireChild struct{ Device, Name, Profile string }

type wireRequest struct {
	Kind, Device, Name, Secret, Duration string
	ID                                   int64
	Client, Shared                       []string
	Provision                            ProvisionRequest
}

func TestDocumentedSequences(t *testing.T) {
	raw, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []sequence
	if err := json.Unmarshal(raw, &all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 25 {
		t.Fatalf("only %d sequences are quoted", len(all))
	}
	for _, s := range all {
		t.Run(s.Name, func(t *testing.T) {
			if s.Source == "" {
				t.Error("the sequence has no source")
			}
			for i, st := range s.Steps {
				if st.Publish != nil {
					st.up(t, i)
				}
				if st.Subscribe != "" {
					st.down(t, i)
				}
			}
		})
	}
}

func (st step) up(t *testing.T, i int) {
	t.Helper()
	device := muster.DeviceID("d1")
	if st.Guest {
		device = ""
	}
	if !Is(st.Publish.Topic) {
		t.Errorf("step %d: %s is not seen as ThingsBoard's", i, st.Publish.Topic)
	}
	res, err := Up(st.Publish.Topic, device, st.Publish.bytes())
	if err != nil {
		t.Fatalf("step %d: %v", i, err)
	}
	var inside []wireMessage
	for _, m := range res.Messages {
		inside = append(inside, wireMessage{Name: m.Name, Topic: m.Topic, Payload: m.Payload})
		if id, _, _ := split(m.Topic); id != m.Device {
			t.Errorf("step %d: %s is said to be %s's", i, m.Topic, m.Device)
		}
	}
	diff(t, i, st.Inside, inside)
	for _, pair := range [...]struct {
		want *wireChild
		got  *Child
	}{{st.Connect, res.Connect}, {st.Disconnect, res.Disconnect}} {
		var got *wireChild
		if c := pair.got; c != nil {
			got = &wireChild{string(c.Device), c.Name, c.Profile}
		}
		if d := cmp.Diff(pair.want, got); d != "" {
			t.Errorf("step %d: child (-documented +got)\n%s", i, d)
		}
	}
	if st.Request == nil {
		if len(res.Requests) > 0 {
			t.Errorf("step %d: unexpected requests %+v", i, res.Requests)
		}
		return
	}
	if len(res.Requests) != 1 {
		t.Fatalf("step %d: %d requests, want 1", i, len(res.Requests))
	}
	st.answer(t, i, res.Requests[0])
}

func (st step) answer(t *testing.T, i int, r Request) {
	t.Helper()
	got := wireRequest{Device: string(r.Device), Name: r.Name, ID: r.ID, Client: r.Client, Shared: r.Shared, Provision: r.Provision}
	var reply Reply
	switch r.Kind {
	case AskPart:
		t.Fatalf("step %d: parts of images are not in the documented sequences", i)
	case AskAttributes:
		got.Kind = "attributes"
		var err error
		if reply, err = r.Attributes(st.Reported, st.Desired); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	case AskLimits:
		got.Kind = "limits"
		reply = r.Limits(*st.Limits)
	case AskClaim:
		got.Kind, got.Secret, got.Duration = "claim", r.Secret, r.Duration.String()
	case AskProvision:
		got.Kind = "provision"
		reply = st.Provisioned.Reply()
		var sent map[string]any
		if err := json.Unmarshal(reply.Payload, &sent); err != nil {
			t.Fatal(err)
		}
		for k, want := range st.Documented {
			if d := cmp.Diff(want, sent[k]); d != "" {
				t.Errorf("step %d: %s differs from what is documented\n%s", i, k, d)
			}
		}
	}
	if d := cmp.Diff(*st.Request, got); d != "" {
		t.Errorf("step %d: request (-documented +got)\n%s", i, d)
	}
	if st.Reply != nil {
		diff(t, i, []wireMessage{*st.Reply}, []wireMessage{{Topic: reply.Topic, Payload: reply.Payload}})
	}
}

func (st step) down(t *testing.T, i int) {
	t.Helper()
	s, err := Subscribe(st.Subscribe)
	if err != nil {
		t.Fatalf("step %d: %v", i, err)
	}
	scope := map[Scope]string{Answers: "answers", Own: "own", Children: "children"}[s.Scope]
	id := muster.DeviceID("d1")
	if st.Of != "" {
		id = muster.DeviceID(st.Of)
	}
	if scope != st.Scope || s.Canonical(id) != st.Means {
		t.Errorf("step %d: %s means %q of %s, want %q of %s", i, st.Subscribe, s.Canonical(id), scope, st.Means, st.Scope)
	}
	if st.Message == nil {
		return
	}
	replies, err := s.Down(st.Message.Topic, st.Message.Payload, st.Before)
	if err != nil {
		t.Fatalf("step %d: %v", i, err)
	}
	var got []wireMessage
	for _, r := range replies {
		got = append(got, wireMessage{Topic: r.Topic, Payload: r.Payload})
	}
	diff(t, i, st.Down, got)
}

// diff compares messages by the JSON of their payloads.
func diff(t *testing.T, i int, want, got []wireMessage) {
	t.Helper()
	plain := func(list []wireMessage) []any {
		var out []any
		for _, m := range list {
			var v any
			if err := json.Unmarshal(m.Payload, &v); err != nil {
				t.Fatalf("step %d: %s is not JSON: %v", i, m.Payload, err)
			}
			out = append(out, []any{m.Name, m.Topic, v})
		}
		return out
	}
	if d := cmp.Diff(plain(want), plain(got)); d != "" {
		t.Errorf("step %d: (-documented +got)\n%s", i, d)
	}
}

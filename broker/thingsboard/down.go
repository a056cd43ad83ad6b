package thingsboard

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"muster"
)

// Scope says whose topics of ours a subscription means.
type Scope uint8

// The scopes.
const (
	Answers  Scope = iota // none: only replies to the client's own requests
	Own                   // devices/{own id}/Rest
	Children              // devices/{id}/Rest of each device behind the gateway
)

// Subscription is what a filter of ThingsBoard's API means. It can be compared.
type Subscription struct {
	Filter string // as it was subscribed to
	Scope  Scope
	Rest   string // behind devices/{id}/; empty for Answers
}

// What goes down, behind devices/{id}/.
const (
	desired  = "desired"
	commands = "commands/+"
	answers  = "requests/+/response"
)

// Subscribe returns what filter means: exactly the filters that ThingsBoard grants.
// Any other is an Invalid error.
func Subscribe(filter string) (Subscription, error) {
	switch filter {
	case "v1/devices/me/attributes", "v2/a", "v2/a/j":
		return Subscription{filter, Own, desired}, nil
	case "v1/devices/me/rpc/request/+", "v2/r/req/+", "v2/r/req/j/+":
		return Subscription{filter, Own, commands}, nil
	case "v1/devices/me/rpc/response/+", "v2/r/res/+", "v2/r/res/j/+":
		return Subscription{filter, Own, answers}, nil
	case "v2/fw/response/+/chunk/+", "v2/sw/response/+/chunk/+", "v2/fw/error", "v2/sw/error",
		"v2/fw/response/+", "v2/sw/response/+": // as ThingsBoard's Python client asks for them
		return Subscription{filter, Answers, ""}, nil
	case "v1/devices/me/attributes/response/+", "v2/a/res/+", "v2/a/res/j/+", gatewayAnswers, provisionResponse:
		return Subscription{filter, Answers, ""}, nil
	case gatewayAttributes:
		return Subscription{filter, Children, desired}, nil
	case gatewayRPC:
		return Subscription{filter, Children, commands}, nil
	}
	if isShort(filter) && (strings.HasSuffix(filter, "/p") || strings.HasSuffix(filter, "/p/+")) {
		return Subscription{}, muster.Errorf(muster.Invalid, "payloads in Protocol Buffers are not sent: subscribe without /p")
	}
	return Subscription{}, muster.Errorf(muster.Invalid, "ThingsBoard's API has no such topic to subscribe to; wildcards stand only where it documents them")
}

// Canonical returns the filter of ours that s means for the device id: the
// subscriber for Own, one of its children for Children. It is empty for Answers.
func (s Subscription) Canonical(id muster.DeviceID) string {
	if s.Scope == Answers {
		return ""
	}
	return canonical(id, s.Rest)
}

// Down translates a message to a topic of ours for who subscribed with s.
//
// An offer of firmware, devices/{id}/firmware, is told as attributes, and one that was taken
// back, devices/{id}/firmware/cancel, by their deletion: see Tells.
//
// For devices/{id}/desired, payload and prev are {"version","state"}: the document
// now, and the one that this subscriber was told before. It is told the keys of the
// top level that differ, and in a second message those that are gone; a prev of nil
// stands for not known, then it is told every key. For commands/{cid}, whose cid must
// be a number, and requests/{n}/response prev is not looked at.
//
// The errors are Invalid: topic is not one that s means, or payload has not its form.
func (s Subscription) Down(topic string, payload, prev []byte) ([]Reply, error) {
	id, rest, ok := split(topic)
	if !ok || s.Scope == Answers {
		return nil, errNotMeant()
	}
	kind, tail, _ := strings.Cut(rest, "/")
	switch {
	case s.Tells(rest):
		return s.firmware(id, rest, payload)
	case rest == desired && s.Rest == desired:
		return s.attributes(id, payload, prev)
	case kind == "commands" && s.Rest == commands:
		return s.command(id, tail, payload)
	case kind == "requests" && s.Rest == answers:
		n, isAnswer := strings.CutSuffix(tail, "/response")
		if _, err := requestID(n); err != nil || !isAnswer {
			return nil, errNotMeant()
		}
		return []Reply{{strings.TrimSuffix(s.Filter, "+") + n, payload}}, nil
	}
	return nil, errNotMeant()
}

func errNotMeant() error {
	return muster.Errorf(muster.Invalid, "the subscription does not mean this topic")
}

// split takes devices/{id}/{rest} apart.
func split(topic string) (id muster.DeviceID, rest string, ok bool) {
	s, ok := strings.CutPrefix(topic, "devices/")
	if !ok {
		return "", "", false
	}
	name, rest, ok := strings.Cut(s, "/")
	return muster.DeviceID(name), rest, ok && name != "" && rest != ""
}

// attributes tells what changed between two desired documents.
func (s Subscription) attributes(id muster.DeviceID, payload, prev []byte) ([]Reply, error) {
	next, err := stateOf(payload)
	if err != nil {
		return nil, err
	}
	before := map[string][]byte{}
	if prev != nil {
		old, err := stateOf(prev)
		if err != nil {
			return nil, err
		}
		for m := range members(old) {
			before[m.key()] = m.value
		}
	}
	changed := []byte{'{'}
	for m := range members(next) {
		key := m.key()
		if old, ok := before[key]; !ok || !same(old, m.value) {
			changed = appendMember(changed, m.name, m.value)
		}
		delete(before, key)
	}
	var replies []Reply
	if len(changed) > 1 {
		replies = append(replies, s.update(id, append(changed, '}')))
	}
	if len(before) > 0 {
		replies = append(replies, s.update(id, deleted(before)))
	}
	return replies, nil
}

// deleted is {"deleted":["k"]}, in the order of the keys.
func deleted(gone map[string][]byte) []byte {
	out := []byte(`{"deleted":[`)
	for i, key := range slices.Sorted(maps.Keys(gone)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendText(out, key)
	}
	return append(out, `]}`...)
}

// update is one message about attributes: {"k":v} for a device, {"device","data"} for
// its gateway.
func (s Subscription) update(id muster.DeviceID, data []byte) Reply {
	if s.Scope == Children {
		out := appendMember([]byte{'{'}, []byte(`"device"`), appendText(nil, Name(id)))
		data = append(appendMember(out, []byte(`"data"`), data), '}')
	}
	return Reply{s.Filter, data}
}

// stateOf returns the state in {"version":n,"state":{..}}.
func stateOf(payload []byte) ([]byte, error) {
	doc, err := object(payload)
	if err != nil {
		return nil, err
	}
	for m := range members(doc) {
		if m.key() == "state" && m.value[0] == '{' {
			return m.value, nil
		}
	}
	return nil, muster.Errorf(muster.Invalid, "a desired document has no state")
}

// same compares two JSON values, space aside.
func same(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}

// command is {"method","params"}, with the number in the topic for a device and in
// the message for its gateway.
func (s Subscription) command(id muster.DeviceID, cid string, payload []byte) ([]Reply, error) {
	n, err := requestID(cid)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "a command's id must be a number for ThingsBoard's clients")
	}
	doc, err := object(payload)
	if err != nil {
		return nil, err
	}
	method, params := []byte(nil), []byte("{}")
	for m := range members(doc) {
		switch m.key() {
		case "method":
			method = m.value
		case "params":
			params = m.value
		}
	}
	if method == nil {
		return nil, muster.Errorf(muster.Invalid, "the command has no method")
	}
	data := []byte{'{'}
	if s.Scope == Children {
		data = appendMember(data, []byte(`"id"`), []byte(number(n)))
	}
	data = appendMember(data, []byte(`"method"`), method)
	data = append(appendMember(data, []byte(`"params"`), params), '}')
	if s.Scope == Children {
		return []Reply{s.update(id, data)}, nil
	}
	return []Reply{{strings.TrimSuffix(s.Filter, "+") + number(n), data}}, nil
}

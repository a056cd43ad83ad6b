package thingsboard

import (
	"muster"
)

// Reply is a message in ThingsBoard's spelling, for the client.
type Reply struct {
	Topic   string
	Payload []byte
}

// Attributes answers a request of kind AskAttributes. reported and desired are the
// states of the two documents, JSON objects; nil stands for an empty one. Keys that
// they have not are left out of the answer. It returns an Internal error when one is
// no JSON object.
func (r Request) Attributes(reported, desired []byte) (Reply, error) {
	client, err := pick(reported, r.Client, r.AllClient)
	if err != nil {
		return Reply{}, err
	}
	shared, err := pick(desired, r.Shared, r.AllShared)
	if err != nil {
		return Reply{}, err
	}
	if r.dialect == gateway {
		return r.gatewayAnswer(client, shared), nil
	}
	payload := []byte{'{'}
	if len(client) > 0 {
		payload = appendMember(payload, []byte(`"client"`), appendObject(nil, client))
	}
	if len(shared) > 0 {
		payload = appendMember(payload, []byte(`"shared"`), appendObject(nil, shared))
	}
	return Reply{r.answerTopic("attributes/response/", "a/res/"), append(payload, '}')}, nil
}

// gatewayAnswer is {"id","device","value"} for one key and {"id","device","values"}
// for several; where both sides have a key, the desired one is told.
func (r Request) gatewayAnswer(client, shared []member) Reply {
	payload := []byte(`{"id":` + number(r.ID))
	payload = appendMember(payload, []byte(`"device"`), appendText(nil, r.Name))
	told := make(map[string]bool, len(shared))
	for _, m := range shared {
		told[m.key()] = true
	}
	all := make([]member, 0, len(client)+len(shared))
	for _, m := range client {
		if !told[m.key()] {
			all = append(all, m)
		}
	}
	all = append(all, shared...)
	switch {
	case r.multi && len(all) > 0:
		payload = appendMember(payload, []byte(`"values"`), appendObject(nil, all))
	case len(all) == 1:
		payload = appendMember(payload, []byte(`"value"`), all[0].value)
	}
	return Reply{gatewayAnswers, append(payload, '}')}
}

// pick returns the members of doc that have the keys, in the order of keys, or all.
func pick(doc []byte, keys []string, all bool) ([]member, error) {
	if len(doc) == 0 || len(keys) == 0 && !all {
		return nil, nil
	}
	obj, err := state(doc)
	if err != nil {
		return nil, err
	}
	var list []member
	byKey := make(map[string]member, len(keys))
	for m := range members(obj) {
		if all {
			list = append(list, m)
			continue
		}
		byKey[m.key()] = m
	}
	for _, k := range keys {
		if m, ok := byKey[k]; ok {
			list = append(list, m)
			delete(byKey, k) // named twice, told once
		}
	}
	return list, nil
}

// state checks a document of ours.
func state(doc []byte) ([]byte, error) {
	obj, err := object(doc)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "read a device's document: %w", err)
	}
	return obj, nil
}

func appendObject(dst []byte, list []member) []byte {
	dst = append(dst, '{')
	for _, m := range list {
		dst = appendMember(dst, m.name, m.value)
	}
	return append(dst, '}')
}

// Limits are the limits of a session, for getSessionLimits. Rates are written as
// ThingsBoard does, "200:1,6000:60": 200 in a second and 6,000 in a minute; empty
// stands for no limit.
type Limits struct {
	MaxPayload  int // bytes
	MaxInflight int // messages that are not acknowledged yet

	Messages, TelemetryMessages, DataPoints string
	Gateway                                 bool // the rates are told for the devices behind it, too
}

// Limits answers a request of kind AskLimits. rateLimits is in the answer also when
// there are none: ThingsBoard's IoT gateway sends nothing before it has seen it.
func (r Request) Limits(l Limits) Reply {
	rates := []byte{'{'}
	for _, f := range [...]struct{ name, value string }{
		{`"messages"`, l.Messages}, {`"telemetryMessages"`, l.TelemetryMessages}, {`"telemetryDataPoints"`, l.DataPoints},
	} {
		if f.value != "" {
			rates = appendMember(rates, []byte(f.name), appendText(nil, f.value))
		}
	}
	rates = append(rates, '}')
	payload := []byte(`{"maxPayloadSize":` + number(int64(l.MaxPayload)))
	payload = appendMember(payload, []byte(`"maxInflightMessages"`), []byte(number(int64(l.MaxInflight))))
	payload = appendMember(payload, []byte(`"rateLimits"`), rates)
	if l.Gateway {
		payload = appendMember(payload, []byte(`"gatewayRateLimits"`), rates)
	}
	return Reply{r.answerTopic("rpc/response/", "r/res/"), append(payload, '}')}
}

// answerTopic is where the answer goes, in the spelling of the request.
func (r Request) answerTopic(longRest, shortRest string) string {
	prefix := deviceTopics + longRest
	if r.dialect != long {
		prefix = shortTopics + shortRest
	}
	if r.dialect == shortJSON {
		prefix += "j/"
	}
	return prefix + number(r.ID)
}

package thingsboard

import (
	"bytes"

	"muster"
)

// upGateway translates what a gateway publishes for its children.
func upGateway(r route, gw muster.DeviceID, payload []byte) (Result, error) {
	doc, err := object(payload)
	if err != nil {
		return Result{}, err
	}
	switch r.verb {
	case verbGatewayConnect:
		child, err := childOf(gw, doc)
		return Result{Connect: child}, err
	case verbGatewayDisconnect:
		child, err := childOf(gw, doc)
		return Result{Disconnect: child}, err
	case verbGatewayTelemetry:
		if records(doc) > MaxReadings {
			return Result{}, muster.Errorf(muster.Invalid, "the message has more than %d records", MaxReadings)
		}
		return eachChild(doc, func(res *Result, c Child, value []byte) error {
			messages, err := childTelemetry(c, value)
			res.Messages = append(res.Messages, messages...)
			return err
		})
	case verbGatewayAttributes:
		return eachChild(doc, func(res *Result, c Child, value []byte) error {
			messages, err := reported(c.Device, c.Name, value)
			res.Messages = append(res.Messages, messages...)
			return err
		})
	case verbGatewayClaim:
		return eachChild(doc, func(res *Result, c Child, value []byte) error {
			claim, err := claimOf(c, value)
			if err == nil {
				res.Requests = append(res.Requests, claim)
			}
			return err
		})
	case verbGatewayAttributesRequest:
		return gatewayAttributesRequest(doc)
	default:
		return gatewayResult(doc)
	}
}

// childOf reads {"device":"A","type":"profile"}.
func childOf(gw muster.DeviceID, doc []byte) (*Child, error) {
	var c Child
	var err error
	for m := range members(doc) {
		switch m.key() {
		case "device":
			c.Name, err = text("device", m.value)
		case "type":
			if !isNull(m.value) {
				c.Profile, err = text("type", m.value)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if c.Device, err = ID(c.Name); err != nil {
		return nil, err
	}
	if c.Device == gw {
		return nil, muster.Errorf(muster.Invalid, "a gateway cannot connect itself as a device behind it")
	}
	return &c, nil
}

// eachChild calls one for each member of {"A":...,"B":...}. What one refuses is set
// aside and the rest is taken, so that one device's mistake costs no other its data;
// when nothing is left, the first refusal is the message's.
func eachChild(doc []byte, one func(*Result, Child, []byte) error) (Result, error) {
	var res Result
	count := 0
	for m := range members(doc) {
		if count++; count > MaxChildren {
			return Result{}, muster.Errorf(muster.Invalid, "the message names more than %d devices", MaxChildren)
		}
		name := m.key()
		id, err := ID(name)
		if err == nil {
			err = one(&res, Child{Device: id, Name: name}, m.value)
		}
		if err != nil {
			err = muster.Errorf(muster.KindOf(err), "the device %.100q: %s", name, muster.Public(err))
			res.Refused = append(res.Refused, Refusal{Name: name, Payload: m.value, Err: err})
		}
	}
	if count == 0 {
		return Result{}, muster.Errorf(muster.Invalid, "the message names no device")
	}
	if len(res.Refused) == count {
		return Result{}, res.Refused[0].Err
	}
	return res, nil
}

// records counts the records of telemetry in a gateway's message.
func records(doc []byte) int {
	n := 0
	for m := range members(doc) {
		if m.value[0] != '[' {
			n++
			continue
		}
		for range elements(m.value) {
			n++
		}
	}
	return n
}

// childTelemetry turns a device's records, [{"ts","values"}...] or one of them alone,
// into messages of at most perMessage records each.
func childTelemetry(c Child, value []byte) ([]Message, error) {
	m := Message{Device: c.Device, Name: c.Name, Topic: canonical(c.Device, "telemetry"), Payload: value}
	metadata := bytes.Contains(value, []byte(`"metadata"`))
	if value[0] == '{' {
		if metadata {
			m.Payload = withoutMetadata(nil, value)
		}
		return []Message{m}, nil
	}
	if value[0] != '[' {
		return nil, muster.Errorf(muster.Invalid, "the telemetry of a device is not an array of records")
	}
	n := 0
	for v := range elements(value) {
		if n++; v[0] != '{' {
			return nil, muster.Errorf(muster.Invalid, "a record of telemetry is not an object")
		}
	}
	switch {
	case n == 0:
		return nil, nil
	case n <= perMessage && !metadata:
		return []Message{m}, nil
	}
	return rewrite(m, value, metadata), nil
}

// rewrite makes payloads of at most perMessage records, without metadata.
func rewrite(m Message, value []byte, metadata bool) []Message {
	var out []Message
	var payload []byte
	n := 0
	flush := func() {
		payload = append(payload, ']')
		m.Payload = payload
		out = append(out, m)
		payload, n = nil, 0
	}
	for v := range elements(value) {
		if n == 0 {
			payload = append(payload, '[')
		} else {
			payload = append(payload, ',')
		}
		if metadata {
			payload = withoutMetadata(payload, v)
		} else {
			payload = append(payload, v...)
		}
		if n++; n == perMessage {
			flush()
		}
	}
	if n > 0 {
		flush()
	}
	return out
}

// withoutMetadata appends a record without what the gateway says about its own delays
// (connector, receivedTs, publishedTs): ThingsBoard takes it out, too.
func withoutMetadata(dst, record []byte) []byte {
	dst = append(dst, '{')
	for m := range members(record) {
		if m.key() != "metadata" {
			dst = appendMember(dst, m.name, m.value)
		}
	}
	return append(dst, '}')
}

// gatewayResult reads {"device":"A","id":1,"data":{...}}.
func gatewayResult(doc []byte) (Result, error) {
	var name string
	var data []byte
	id := int64(-1)
	var err error
	for m := range members(doc) {
		switch m.key() {
		case "device":
			name, err = text("device", m.value)
		case "id":
			id, err = whole("id", m.value)
		case "data":
			data = m.value
		}
		if err != nil {
			return Result{}, err
		}
	}
	device, err := ID(name)
	if err != nil {
		return Result{}, err
	}
	if id < 0 {
		return Result{}, muster.Errorf(muster.Invalid, "the answer has no id")
	}
	return one(result(device, name, id, data))
}

// gatewayAttributesRequest reads both documented forms: {"id","device","client":true,
// "key":"k"} (or "keys":[..]), where client false means shared, and {"id","device",
// "client":["k"],"shared":["l"]}.
func gatewayAttributesRequest(doc []byte) (Result, error) {
	req := Request{Kind: AskAttributes, ID: -1, dialect: gateway}
	var scope, single, client, shared []byte
	var err error
	for m := range members(doc) {
		switch m.key() {
		case "device":
			req.Name, err = text("device", m.value)
		case "id":
			req.ID, err = whole("id", m.value)
		case "key", "keys":
			single = m.value
		case "shared":
			shared = m.value
		case "client":
			if client = m.value; m.value[0] == 't' || m.value[0] == 'f' {
				client, scope = nil, m.value
			}
		}
		if err != nil {
			return Result{}, err
		}
	}
	if req.Device, err = ID(req.Name); err != nil {
		return Result{}, err
	}
	if req.ID < 0 {
		return Result{}, muster.Errorf(muster.Invalid, "the request has no id")
	}
	if (scope == nil) != (single == nil) {
		return Result{}, muster.Errorf(muster.Invalid, "client says which side a key is of: true or false, with key or keys")
	}
	if scope != nil {
		if client, shared = single, nil; scope[0] == 'f' {
			client, shared = nil, single
		}
	}
	if err := req.want("client", client, "shared", shared); err != nil {
		return Result{}, err
	}
	req.multi = req.AllClient || len(req.Client)+len(req.Shared) > 1 || scope == nil
	return Result{Requests: []Request{req}}, nil
}

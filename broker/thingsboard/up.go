package thingsboard

import (
	"encoding/json"
	"unicode/utf8"

	"muster"
)

// Message is one message for a topic of ours.
type Message struct {
	Device  muster.DeviceID // whose topic it is
	Name    string          // the child's ThingsBoard name when a gateway speaks for it, else empty
	Topic   string          // canonical: devices/{Device}/...
	Payload []byte          // may alias what was published
}

// Child is a device behind a gateway.
type Child struct {
	Device  muster.DeviceID
	Name    string // its ThingsBoard name
	Profile string // ThingsBoard's "type"; empty for the default profile
}

// Refusal is the part of a gateway's message that is about one device and cannot be
// taken, while the rest is.
type Refusal struct {
	Name    string // the device's ThingsBoard name
	Payload []byte // its part of the message; may alias what was published
	Err     error  // muster.Invalid or muster.TooLarge
}

// Result is what one published message means. It may be empty: a message without
// values asks for nothing.
type Result struct {
	Messages   []Message // to be taken in, in this order
	Requests   []Request // to be answered on the same connection
	Refused    []Refusal // to be kept as rejected
	Connect    *Child    // the gateway now speaks for this device
	Disconnect *Child    // it does no longer
}

// Up translates a message that device published to topic; device is empty for who
// registers itself. It returns an Invalid error for a topic that ThingsBoard's API
// has not and for a payload that breaks its form, TooLarge for one that is taken
// apart and over MaxPayload or MaxDocument.
func Up(topic string, device muster.DeviceID, payload []byte) (Result, error) {
	r, err := parse(topic)
	if err != nil {
		return Result{}, err
	}
	if device == "" && r.verb != verbProvision {
		return Result{}, muster.Errorf(muster.Invalid, "only a device may publish to ThingsBoard's topics")
	}
	switch r.verb {
	case verbTelemetry:
		return upTelemetry(device, payload), nil
	case verbAttributes:
		messages, err := reported(device, "", payload)
		return Result{Messages: messages}, err
	case verbAttributesRequest:
		return upAttributesRequest(r, device, payload)
	case verbResult:
		return one(result(device, "", r.id, payload))
	case verbRequest:
		return upRequest(r, device, payload)
	case verbClaim:
		return ask(claimOf(Child{Device: device}, payload))
	case verbProvision:
		return upProvision(payload)
	case verbPart:
		return upPart(r, device, payload)
	default:
		return upGateway(r, device, payload)
	}
}

func one(m Message, err error) (Result, error) {
	if err != nil {
		return Result{}, err
	}
	return Result{Messages: []Message{m}}, nil
}

func ask(r Request, err error) (Result, error) {
	if err != nil {
		return Result{}, err
	}
	return Result{Requests: []Request{r}}, nil
}

// upTelemetry leaves the payload to ingest, which takes the same forms.
func upTelemetry(device muster.DeviceID, payload []byte) Result {
	if !isStrict(payload) && len(payload) <= MaxPayload && utf8.Valid(payload) {
		if strict := relax(payload); json.Valid(strict) {
			payload = strict
		}
	}
	return Result{Messages: []Message{{Device: device, Topic: canonical(device, "telemetry"), Payload: payload}}}
}

// reported turns client-side attributes into merge patches of the reported side.
// ThingsBoard replaces the value of each key as a whole and skips null; a merge patch
// (RFC 7396) merges objects and deletes at null. So null is left out, and when there
// are objects a first patch deletes their keys.
func reported(device muster.DeviceID, name string, payload []byte) ([]Message, error) {
	doc, err := object(payload)
	switch {
	case err != nil:
		return nil, err
	case len(doc) > MaxDocument:
		return nil, muster.Errorf(muster.TooLarge, "the attributes have %d bytes, at most %d are allowed", len(doc), MaxDocument)
	case depth(doc) > MaxDocumentDepth:
		return nil, muster.Errorf(muster.Invalid, "the attributes are nested deeper than %d levels", MaxDocumentDepth)
	}
	var gone, set []byte
	nulls := false
	for m := range members(doc) {
		switch m.value[0] {
		case 'n':
			nulls = true
			continue
		case '{':
			gone = patchMember(gone, m.name, []byte("null"))
		}
		set = patchMember(set, m.name, m.value)
	}
	if set == nil {
		return nil, nil
	}
	if nulls {
		set = append(set, '}')
		doc = set
	}
	message := Message{Device: device, Name: name, Topic: canonical(device, "reported"), Payload: doc}
	if gone == nil {
		return []Message{message}, nil
	}
	first := message
	gone = append(gone, '}')
	first.Payload = gone
	return []Message{first, message}, nil
}

func patchMember(patch, name, value []byte) []byte {
	if patch == nil {
		patch = []byte{'{'}
	}
	return appendMember(patch, name, value)
}

// result turns the answer to a server-side RPC into a command's result. ThingsBoard
// has no form for errors in it: whatever the device answers is the result.
func result(device muster.DeviceID, name string, id int64, payload []byte) (Message, error) {
	m := Message{Device: device, Name: name, Topic: canonical(device, "commands/"+number(id)+"/result")}
	switch {
	case len(payload) > MaxPayload:
		return Message{}, muster.Errorf(muster.TooLarge, "the answer has %d bytes, at most %d are taken here", len(payload), MaxPayload)
	case len(payload) == 0:
		m.Payload = []byte(`{"status":"ok"}`)
		return m, nil
	case !utf8.Valid(payload):
		return Message{}, muster.Errorf(muster.Invalid, "the answer is neither JSON nor UTF-8 text")
	}
	out := append(make([]byte, 0, len(payload)+32), `{"status":"ok","result":`...)
	switch {
	case !json.Valid(payload):
		out = appendText(out, string(payload))
	case depth(payload) > MaxDepth:
		return Message{}, muster.Errorf(muster.Invalid, "the answer is nested deeper than %d levels", MaxDepth)
	default:
		out = append(out, payload...)
	}
	out = append(out, '}')
	m.Payload = out
	return m, nil
}

// sessionLimits is the client-side RPC that ThingsBoard's transport answers itself.
const sessionLimits = "getSessionLimits"

// upRequest turns a client-side RPC into a request of the device.
func upRequest(r route, device muster.DeviceID, payload []byte) (Result, error) {
	doc, err := object(payload)
	if err != nil {
		return Result{}, err
	}
	var method string
	var rawMethod, params []byte
	for m := range members(doc) {
		switch m.key() {
		case "method":
			if method, err = text("method", m.value); err != nil {
				return Result{}, err
			}
			rawMethod = appendText(nil, method)
		case "params":
			params = m.value
		}
	}
	switch method {
	case "":
		return Result{}, muster.Errorf(muster.Invalid, "the request has no method")
	case sessionLimits:
		return Result{Requests: []Request{{Kind: AskLimits, Device: device, ID: r.id, dialect: r.dialect}}}, nil
	}
	out := appendMember([]byte{'{'}, []byte(`"method"`), rawMethod)
	if params != nil {
		out = appendMember(out, []byte(`"params"`), params)
	}
	topic := canonical(device, "requests/"+number(r.id))
	return Result{Messages: []Message{{Device: device, Topic: topic, Payload: append(out, '}')}}}, nil
}

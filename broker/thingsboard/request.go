package thingsboard

import (
	"bytes"
	"strings"
	"time"

	"muster"
)

// RequestKind says what a client asks the server itself.
type RequestKind uint8

// The kinds of requests.
const (
	AskAttributes RequestKind = iota // for values of both documents: Request.Attributes
	AskLimits                        // for the session's limits: Request.Limits
	AskClaim                         // to be claimable; it has no answer
	AskProvision                     // to be registered: ProvisionResponse.Reply
	AskPart                          // for a part of an image, at Request.PartTopic; why not, at ErrorTopic
)

// Request is what a client asks the server itself. The answer goes to the same
// connection.
type Request struct {
	Kind   RequestKind
	Device muster.DeviceID // whom it is about; empty for AskProvision
	Name   string          // the child's ThingsBoard name when a gateway asks, else empty
	ID     int64           // the client's number

	// Of AskAttributes: keys of the reported (client) and desired (shared) document's
	// top level, and whether all are asked for.
	Client, Shared       []string
	AllClient, AllShared bool

	// Of AskClaim: what the user must know, may be empty, and for how long the device
	// may be claimed, 0 for the server's default.
	Secret   string
	Duration time.Duration

	Provision ProvisionRequest // of AskProvision

	// Of AskPart: whether it is of v2/sw, which part is asked for, and of what size, in
	// bytes. A Size of 0 stands for the one named before with the same ID, or for the whole.
	Software bool
	Part     int64
	Size     int

	dialect dialect
	multi   bool // a gateway's request that is answered with "values"
}

// upAttributesRequest reads {"clientKeys":"a,b","sharedKeys":"c"}. Without either, all
// values are asked for.
func upAttributesRequest(r route, device muster.DeviceID, payload []byte) (Result, error) {
	req := Request{Kind: AskAttributes, Device: device, ID: r.id, dialect: r.dialect}
	if len(bytes.TrimSpace(payload)) == 0 {
		payload = []byte("{}")
	}
	doc, err := object(payload)
	if err != nil {
		return Result{}, err
	}
	var client, shared []byte
	for m := range members(doc) {
		switch m.key() {
		case "clientKeys":
			client = m.value
		case "sharedKeys":
			shared = m.value
		}
	}
	if err := req.want("clientKeys", client, "sharedKeys", shared); err != nil {
		return Result{}, err
	}
	return Result{Requests: []Request{req}}, nil
}

// want sets which keys are asked for: all when neither field is there.
func (r *Request) want(clientField string, client []byte, sharedField string, shared []byte) error {
	r.AllClient, r.AllShared = client == nil && shared == nil, client == nil && shared == nil
	var err error
	if client != nil {
		if r.Client, err = keys(clientField, client); err != nil {
			return err
		}
	}
	if shared != nil {
		r.Shared, err = keys(sharedField, shared)
	}
	return err
}

// keys returns the keys that a value names, as an array or with commas.
func keys(field string, value []byte) ([]string, error) {
	var list []string
	if value[0] != '[' {
		if bytes.Count(value, []byte{','}) >= MaxKeys {
			return nil, tooManyKeys(field)
		}
		s, err := longText(field, value)
		if err != nil {
			return nil, err
		}
		for k := range strings.SplitSeq(s, ",") {
			if k = strings.TrimSpace(k); k != "" {
				list = append(list, k)
			}
		}
		return list, nil
	}
	for v := range elements(value) {
		s, err := text(field, v)
		if err != nil {
			return nil, err
		}
		if list = append(list, s); len(list) > MaxKeys {
			return nil, tooManyKeys(field)
		}
	}
	return list, nil
}

// longText is text for lists of keys, whose length the keys bound.
func longText(field string, value []byte) (string, error) {
	if value[0] != '"' || len(value) > MaxDocument {
		return "", muster.Errorf(muster.Invalid, "%s is not a list of keys", field)
	}
	return member{name: value}.key(), nil
}

func tooManyKeys(field string) error {
	return muster.Errorf(muster.Invalid, "%s names more than %d keys", field, MaxKeys)
}

// claimOf reads {"secretKey":"value","durationMs":60000}; both may be absent, and so
// may the payload.
func claimOf(who Child, payload []byte) (Request, error) {
	req := Request{Kind: AskClaim, Device: who.Device, Name: who.Name}
	if len(bytes.TrimSpace(payload)) == 0 {
		return req, nil
	}
	doc, err := object(payload)
	if err != nil {
		return Request{}, err
	}
	const maxDuration = int64(366 * 24 * time.Hour / time.Millisecond)
	for m := range members(doc) {
		if isNull(m.value) {
			continue
		}
		switch m.key() {
		case "secretKey":
			req.Secret, err = text("secretKey", m.value)
		case "durationMs":
			var ms int64
			if ms, err = whole("durationMs", m.value); err == nil && ms > maxDuration {
				err = muster.Errorf(muster.Invalid, "durationMs is over a year")
			}
			req.Duration = time.Duration(ms) * time.Millisecond
		}
		if err != nil {
			return Request{}, err
		}
	}
	return req, nil
}

package thingsboard

import (
	"bytes"
	"strconv"
	"strings"

	"muster"
	"muster/firmware/talk"
)

// Where images are: v2/fw/request/{n}/chunk/{i}, and the same with sw.
const (
	firmwareTopics = "v2/fw/"
	softwareTopics = "v2/sw/"

	offered   = "firmware"
	takenBack = "firmware/cancel"
)

// isImage says whether topic is below v2/fw or v2/sw.
func isImage(topic string) bool {
	return strings.HasPrefix(topic, firmwareTopics) || strings.HasPrefix(topic, softwareTopics)
}

// parsePart takes the topic of a request for a part apart.
func parsePart(topic string) (route, error) {
	r := route{verb: verbPart, soft: strings.HasPrefix(topic, softwareTopics)}
	rest, ok := strings.CutPrefix(topic[len(firmwareTopics):], "request/")
	id, part, both := strings.Cut(rest, "/chunk/")
	if !ok || !both {
		return route{}, muster.Errorf(muster.Invalid, "ThingsBoard's API has no such topic to publish to")
	}
	var err error
	if r.id, err = requestID(id); err != nil {
		return route{}, err
	}
	r.part, err = requestID(part)
	return r, err
}

// upPart reads the size of a part: decimal digits, or nothing.
func upPart(r route, device muster.DeviceID, payload []byte) (Result, error) {
	q := Request{Kind: AskPart, Device: device, ID: r.id, Part: r.part, Software: r.soft}
	if text := bytes.TrimSpace(payload); len(text) > 0 {
		n, err := strconv.ParseUint(string(text[:min(len(text), 20)]), 10, 31)
		if err != nil || len(text) > 20 {
			return Result{}, muster.Errorf(muster.Invalid, "the size of a part is not a whole number")
		}
		q.Size = int(n)
	}
	return Result{Requests: []Request{q}}, nil
}

func (r Request) imageTopics() string {
	if r.Software {
		return softwareTopics
	}
	return firmwareTopics
}

// PartTopic is where the part that was asked for goes.
func (r Request) PartTopic() string {
	return r.imageTopics() + "response/" + number(r.ID) + "/chunk/" + number(r.Part)
}

// ErrorTopic is where it goes why there is no part.
func (r Request) ErrorTopic() string { return r.imageTopics() + "error" }

// PartRefusal is where it goes why a message that was published to topic is no request for a
// part of an image; empty for a topic of anything else.
func PartRefusal(topic string) string {
	if !isImage(topic) {
		return ""
	}
	return topic[:len(firmwareTopics)] + "error"
}

// HearsPart says whether parts of images go to a subscription whose filter is not one of
// their topics: ThingsBoard sends them whatever was subscribed to, and its Python client
// relies on that.
func (s Subscription) HearsPart(topic string) bool {
	prefix, ok := strings.CutSuffix(s.Filter, "response/+")
	return ok && (prefix == firmwareTopics || prefix == softwareTopics) && strings.HasPrefix(topic, prefix+"response/")
}

// Tells says whether a subscriber to attributes is told of the message behind devices/{id}/
// too: of an offer of firmware, and of its end.
func (s Subscription) Tells(rest string) bool {
	return s.Rest == desired && (rest == offered || rest == takenBack)
}

// firmware tells of an offer as attributes, or that they are gone.
func (s Subscription) firmware(id muster.DeviceID, rest string, payload []byte) ([]Reply, error) {
	if rest == takenBack {
		gone := map[string][]byte{}
		for _, name := range talk.AttributeNames() {
			gone[name] = nil
		}
		return []Reply{s.update(id, deleted(gone))}, nil
	}
	data, err := talk.OfferAttributes(payload)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong
	}
	if data == nil { // there is nothing to begin
		return nil, nil
	}
	return []Reply{s.update(id, data)}, nil
}

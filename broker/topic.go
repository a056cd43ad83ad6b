package broker

import (
	"strings"

	"muster"
)

// Limits on topics and filters. What is over them is refused.
const (
	maxTopicBytes  = 1024
	maxTopicLevels = 32
)

const (
	deviceTopics = "devices/"
	ownTopics    = "devices/me/"
	telemetry    = "telemetry"
)

// What a device may publish and what it may receive under devices/{id}/ (DESIGN,
// section 4), as filters. Telemetry stands apart: it goes to the sink.
var (
	upTopics = [...]string{
		"reported", "commands/+/result", "events/+", "logs",
		"firmware/status", "firmware/get", "firmware/cancel/ack", "notifications/+/ack",
	}
	downTopics = [...]string{
		"desired", "commands/+", "firmware", "firmware/data/+", "firmware/error", "firmware/cancel",
		"notifications", "presence", "errors",
	}
)

// isTelemetry says whether rest, a topic behind devices/{id}/, carries telemetry.
func isTelemetry(rest string) bool {
	return strings.HasPrefix(rest, telemetry) && (len(rest) == len(telemetry) || rest[len(telemetry)] == '/')
}

func isUp(rest string) bool   { return matchesAny(upTopics[:], rest) }
func isDown(rest string) bool { return matchesAny(downTopics[:], rest) }

func matchesAny(filters []string, topic string) bool {
	for _, f := range filters {
		if matches(f, topic) {
			return true
		}
	}
	return false
}

// mayGet says whether filter, behind devices/{id}/, can match a topic that a
// device may receive.
func mayGet(filter string) bool {
	for _, f := range downTopics {
		if overlaps(filter, f) {
			return true
		}
	}
	return false
}

// matches says whether a valid filter matches topic, a name without wildcards. It
// allocates nothing.
func matches(filter, topic string) bool {
	if topic != "" && topic[0] == '$' && filter != "" && (filter[0] == '+' || filter[0] == '#') {
		return false // MQTT-4.7.2-1
	}
	return overlaps(filter, topic)
}

// overlaps says whether some topic matches both valid filters.
func overlaps(a, b string) bool {
	for {
		la, ra, moreA := strings.Cut(a, "/")
		lb, rb, moreB := strings.Cut(b, "/")
		if la == "#" || lb == "#" {
			return true
		}
		if la != lb && la != "+" && lb != "+" {
			return false
		}
		switch {
		case !moreA && !moreB:
			return true
		case !moreA:
			return rb == "#" // a/# matches its parent a too
		case !moreB:
			return ra == "#"
		}
		a, b = ra, rb
	}
}

// checkFilter returns why a subscription's filter is invalid, empty when it is
// valid. Shared filters come without their $share/{group}/.
func checkFilter(f string) string {
	if why := checkSize(f); why != "" {
		return why
	}
	for level, rest, more := "", f, true; more; {
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return "the wildcard # may only end a filter"
		case len(level) > 1 && strings.ContainsAny(level, "+#"):
			return "a wildcard must stand alone in its level"
		}
	}
	return ""
}

func checkSize(topic string) string {
	switch {
	case topic == "":
		return "the topic is empty"
	case len(topic) > maxTopicBytes:
		return "the topic has more than 1024 bytes"
	case strings.Count(topic, "/") >= maxTopicLevels:
		return "the topic has more than 32 levels"
	}
	return ""
}

// splitShare returns the prefix $share/{group}/ of a shared filter, empty for
// any other, and the filter behind it. ok is false when the prefix is malformed.
func splitShare(f string) (prefix, filter string, ok bool) {
	head, rest, _ := strings.Cut(f, "/")
	if !strings.EqualFold(head, "$share") {
		return "", f, true
	}
	group, filter, more := strings.Cut(rest, "/")
	if !more || group == "" || filter == "" || strings.ContainsAny(group, "+#") {
		return "", f, false
	}
	return f[:len(f)-len(filter)], filter, true
}

// splitDevice splits devices/{id}/{rest}. ok is false for any other topic.
func splitDevice(topic string) (id muster.DeviceID, rest string, ok bool) {
	tail, found := strings.CutPrefix(topic, deviceTopics)
	if !found {
		return "", "", false
	}
	name, rest, more := strings.Cut(tail, "/")
	if !more {
		return "", "", false
	}
	id, err := muster.ParseDeviceID(name)
	return id, rest, err == nil
}

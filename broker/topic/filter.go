package topic

import (
	"strings"
	"unicode/utf8"
)

// Limits on topic names and filters. What is over them is refused; MQTT itself
// allows 65,535 bytes and as many levels (MQTT 5, 4.7.3).
const (
	MaxBytes  = 1024 // of a name, or of a filter without its $share/{group}/
	MaxLevels = 32
)

const wildcards = "+#"

// CheckFilter returns why a subscription's filter is invalid, empty when it is valid
// (MQTT 5, 4.7). A shared filter comes without its $share/{group}/, see SplitShare.
func CheckFilter(f string) string {
	if why := check(f); why != "" {
		return why
	}
	for level, rest, more := "", f, true; more; {
		level, rest, more = strings.Cut(rest, "/")
		switch {
		case level == "#" && more:
			return "the wildcard # may only end a filter"
		case len(level) > 1 && strings.ContainsAny(level, wildcards):
			return "a wildcard must stand alone in its level"
		}
	}
	return ""
}

// CheckName returns why the name of a topic that is published to is invalid, empty
// when it is valid (MQTT 5, 4.7).
func CheckName(t string) string {
	if why := check(t); why != "" {
		return why
	}
	if strings.ContainsAny(t, wildcards) {
		return "a topic name may have no wildcard"
	}
	return ""
}

func check(topic string) string {
	switch {
	case topic == "":
		return "the topic is empty"
	case len(topic) > MaxBytes:
		return "the topic has more than 1024 bytes"
	case strings.Count(topic, "/") >= MaxLevels:
		return "the topic has more than 32 levels"
	case strings.IndexByte(topic, 0) >= 0:
		return "the topic contains the null character"
	case !utf8.ValidString(topic):
		return "the topic is not valid UTF-8"
	}
	return ""
}

// Matches says whether a valid filter matches a valid name. A wildcard at the first
// level does not match names that begin with $ (MQTT-4.7.2-1), and a/# matches a
// (4.7.1.2). It allocates nothing.
func Matches(filter, name string) bool {
	if hidden(name) && openStart(filter) {
		return false
	}
	at := 0 // in name
	for i := 0; i < len(filter); i++ {
		switch {
		case filter[i] == '#':
			return true
		case filter[i] == '+':
			for at < len(name) && name[at] != '/' {
				at++
			}
		case at == len(name):
			return filter[i:] == "/#"
		case filter[i] != name[at]:
			return false
		default:
			at++
		}
	}
	return at == len(name)
}

// Overlaps says whether some name matches both valid filters.
func Overlaps(a, b string) bool {
	if hidden(a) && openStart(b) || hidden(b) && openStart(a) {
		return false
	}
	return overlap(a, b)
}

// hidden says whether a wildcard at the first level leaves topic out (MQTT-4.7.2-1).
func hidden(topic string) bool { return topic != "" && topic[0] == '$' }

// openStart says whether a valid filter's first level is a wildcard.
func openStart(filter string) bool {
	return filter != "" && (filter[0] == '+' || filter[0] == '#')
}

func overlap(a, b string) bool {
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

// Covers says whether every name that matches the valid filter narrow matches the
// valid filter wide too: a client with the grant wide may subscribe to narrow.
func Covers(wide, narrow string) bool {
	if hidden(narrow) && openStart(wide) {
		return false
	}
	if narrow == "#" && wide == "+/#" {
		return true // there is no name above the first level, which is all that +/# lacks
	}
	for {
		lw, rw, moreW := strings.Cut(wide, "/")
		ln, rn, moreN := strings.Cut(narrow, "/")
		switch {
		case lw == "#":
			return true
		case ln == "#", lw != "+" && lw != ln:
			return false
		case !moreN:
			return !moreW || rw == "#"
		case !moreW:
			return false
		}
		wide, narrow = rw, rn
	}
}

// SplitShare splits the filter of a shared subscription, $share/{group}/{filter}
// (MQTT 5, 4.8.2; $share as it is spelled there). The group of any other filter is
// empty. ok is false when what begins with $share is malformed: then filter is f. The
// filter itself is not checked.
func SplitShare(f string) (group, filter string, ok bool) {
	rest, shared := strings.CutPrefix(f, "$share")
	if !shared || rest != "" && rest[0] != '/' {
		return "", f, true
	}
	group, filter, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	if group == "" || filter == "" || strings.ContainsAny(group, wildcards) {
		return "", f, false
	}
	return group, filter, true
}

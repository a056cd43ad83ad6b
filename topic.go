package muster

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxFilter is the longest topic filter in a list of rights, in bytes.
	MaxFilter = 1024
	// MaxFilterLevels is the most levels of such a filter.
	MaxFilterLevels = 32
	// MaxFilters is the most filters in one list of rights.
	MaxFilters = 32
)

// CheckFilter returns an Invalid error unless filter is an MQTT topic filter (MQTT
// 5, section 4.7) of at most MaxFilter bytes and MaxFilterLevels levels, and plain
// text: UTF-8 without control characters.
func CheckFilter(filter string) error {
	switch {
	case filter == "":
		return Errorf(Invalid, "a topic filter is not empty")
	case len(filter) > MaxFilter:
		return Errorf(Invalid, "a topic filter has at most %d bytes", MaxFilter)
	case strings.Count(filter, "/") >= MaxFilterLevels:
		return Errorf(Invalid, "a topic filter has at most %d levels", MaxFilterLevels)
	case !utf8.ValidString(filter) || strings.ContainsFunc(filter, unicode.IsControl):
		return Errorf(Invalid, "a topic filter is plain text")
	}
	for i := range len(filter) {
		alone := (i == 0 || filter[i-1] == '/') && (i+1 == len(filter) || filter[i+1] == '/')
		if filter[i] == '+' && !alone {
			return Errorf(Invalid, "+ in a topic filter stands for a whole level")
		}
		if filter[i] == '#' && (!alone || i+1 < len(filter)) {
			return Errorf(Invalid, "# in a topic filter stands for all levels from there on: it is the last")
		}
	}
	return nil
}

// CheckRights returns an Invalid error, which names the place, unless publish and
// subscribe are lists of at most MaxFilters valid topic filters that can be given
// as rights. None may begin with $, but for $SYS/ in subscribe, nor with
// devices/me/, which means another device on each connection.
func CheckRights(publish, subscribe []string) error {
	if err := checkRights("publish", publish); err != nil {
		return err
	}
	return checkRights("subscribe", subscribe)
}

func checkRights(list string, filters []string) error {
	if len(filters) > MaxFilters {
		return InvalidAt(list, "%s has %d filters, at most %d are allowed", list, len(filters), MaxFilters)
	}
	for i, f := range filters {
		if err := CheckFilter(f); err != nil {
			return InvalidAt(list+"/"+strconv.Itoa(i), "%s[%d]: %w", list, i, err)
		}
		switch {
		case strings.HasPrefix(f, "$SYS/") && list == "subscribe":
		case f[0] == '$':
			return InvalidAt(list+"/"+strconv.Itoa(i), "%s[%d]: topics that begin with $ are the server's; only $SYS/ may be subscribed to", list, i)
		case f == "devices/me" || strings.HasPrefix(f, "devices/me/"):
			return InvalidAt(list+"/"+strconv.Itoa(i), "%s[%d]: me stands for the connected device; every device has its own topics anyway", list, i)
		}
	}
	return nil
}

// FreeTopic says whether topic (a name, without wildcards) has no meaning of its
// own in Muster: it is not under devices/, v1/, v2/, provision/ or /provision/ and
// does not begin with $ (DESIGN, section 4: "anything else").
func FreeTopic(topic string) bool {
	first, rest, _ := strings.Cut(topic, "/")
	switch first {
	case "devices", "v1", "v2", "provision":
		return false
	case "":
		second, _, _ := strings.Cut(rest, "/")
		return topic != "" && second != "provision"
	}
	return first[0] != '$'
}

// FreeFilter says whether every topic that filter, a valid one, can match is free.
// That is never so when its first level is a wildcard.
func FreeFilter(filter string) bool {
	first, rest, _ := strings.Cut(filter, "/")
	second, _, _ := strings.Cut(rest, "/")
	if first == "+" || first == "#" || first == "" && (second == "+" || second == "#") {
		return false
	}
	return FreeTopic(filter)
}

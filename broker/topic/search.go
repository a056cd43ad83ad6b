package topic

import "strings"

// search is one Tree.Match on its way through the names.
type search[V any] struct {
	filter string
	limit  int
	key    []byte // no name before it is still to come
	found  []V
	more   bool
	done   bool
}

// verdict is what a name means to a search.
type verdict int

const (
	itMatches verdict = iota
	nextMay           // it does not match, the next one may
	fromKey           // no name before search.key matches
	noneMay           // nor does any name behind it
)

// beyond follows '/' in the order of bytes: prefix/... < prefix + beyond.
const beyond = '/' + 1

// literal returns what every match of filter begins with; its first wildcard is at first.
// A filter a/# matches a too.
func literal(filter string, first int) string {
	if filter[first] == '#' && first > 0 {
		return filter[:first-1]
	}
	return filter[:first]
}

// judge compares name with the filter level by level. When it skips, the key lies
// behind name.
func (s *search[V]) judge(name string) verdict {
	if hidden(name) && openStart(s.filter) {
		s.key = append(s.key[:0], '$'+1)
		return fromKey
	}
	at := 0 // where the level begins in name
	for tail, open := s.filter, true; open; {
		var want string
		want, tail, open = strings.Cut(tail, "/")
		if want == "#" {
			return itMatches
		}
		level, _, deeper := strings.Cut(name[at:], "/")
		if want != "+" && want != level {
			return s.jump(name, at, want)
		}
		end := at + len(level)
		switch {
		case !open && !deeper:
			return itMatches
		case !open: // neither this nor any other name below that level
			s.key = append(append(s.key[:0], name[:end]...), beyond)
			return fromKey
		case !deeper && tail == "#":
			return itMatches
		case !deeper:
			return nextMay
		}
		at = end + 1
	}
	return nextMay
}

// jump sets the key to where a name can match again, given that the level of name which
// begins at at is not want: to that level with want, if that is still to come, else
// beyond all names that share the levels before.
func (s *search[V]) jump(name string, at int, want string) verdict {
	s.key = append(append(s.key[:0], name[:at]...), want...)
	if string(s.key) > name {
		return fromKey
	}
	s.key = append(s.key, '/') // want-x lies between want and want/
	if string(s.key) > name {
		return fromKey
	}
	if at == 0 {
		return noneMay
	}
	s.key = append(append(s.key[:0], name[:at-1]...), beyond)
	return fromKey
}

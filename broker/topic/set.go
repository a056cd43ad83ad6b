package topic

import "slices"

// Options are what a client asked for with one subscription (MQTT 5, 3.8.3.1).
type Options struct {
	QoS               byte // 0, 1 or 2
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte   // 0, 1 or 2
	Identifier        uint32 // the Subscription Identifier, 0 for none
}

// Member is one subscriber of a filter.
type Member[S comparable] struct {
	Owner S
	Options
}

// few members are looked up one by one. More have an index.
const few = 8

// set keeps the members of one filter in order of joining. Joining and leaving take
// constant time: one that leaves a large set stays as a gap until half of the set
// are gaps.
type set[S comparable] struct {
	entries []entry[S]
	index   map[S]int32 // places in entries; nil while they are few, and then there are no gaps
	gaps    int
}

type entry[S comparable] struct {
	Member[S]
	gone bool
}

func (s *set[S]) len() int { return len(s.entries) - s.gaps }

// put adds owner, or changes the options of one that is there.
func (s *set[S]) put(owner S, o Options) (existed, changed bool) {
	if i := s.find(owner); i >= 0 {
		changed = s.entries[i].Options != o
		s.entries[i].Options = o
		return true, changed
	}
	s.entries = append(s.entries, entry[S]{Member: Member[S]{Owner: owner, Options: o}})
	switch {
	case s.index != nil:
		s.index[owner] = int32(len(s.entries) - 1)
	case len(s.entries) > few:
		s.reindex()
	}
	return false, true
}

func (s *set[S]) drop(owner S) (existed bool) {
	i := s.find(owner)
	if i < 0 {
		return false
	}
	if s.index == nil {
		s.entries = slices.Delete(s.entries, i, i+1)
		return true
	}
	s.entries[i] = entry[S]{gone: true}
	delete(s.index, owner)
	if s.gaps++; s.gaps > len(s.entries)/2 {
		s.compact()
	}
	return true
}

// find returns the place of owner in entries, or -1.
func (s *set[S]) find(owner S) int {
	if s.index != nil {
		if i, ok := s.index[owner]; ok {
			return int(i)
		}
		return -1
	}
	for i := range s.entries {
		if s.entries[i].Owner == owner {
			return i
		}
	}
	return -1
}

// compact closes the gaps and gives the memory back.
func (s *set[S]) compact() {
	live := make([]entry[S], 0, s.len())
	for i := range s.entries {
		if !s.entries[i].gone {
			live = append(live, s.entries[i])
		}
	}
	s.entries, s.gaps, s.index = live, 0, nil
	if len(live) > few {
		s.reindex()
	}
}

func (s *set[S]) reindex() {
	s.index = make(map[S]int32, len(s.entries))
	for i := range s.entries {
		s.index[s.entries[i].Owner] = int32(i)
	}
}

// members returns a copy in order of joining.
func (s *set[S]) members() []Member[S] {
	ms := make([]Member[S], 0, s.len())
	for i := range s.entries {
		if !s.entries[i].gone {
			ms = append(ms, s.entries[i].Member)
		}
	}
	return ms
}

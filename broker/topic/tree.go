package topic

import (
	"maps"
	"strings"
	"sync"
)

// Tree holds one value for each topic name and finds those that match a filter: the
// retained messages. It is safe for concurrent use. Its owner bounds how many names
// there are.
//
// The names lie in bytewise order. A wildcard filter is a search through the part of
// that order which its literal beginning allows, and jumps over what cannot match.
type Tree[V any] struct {
	mu    sync.RWMutex
	by    map[string]V
	peak  int // of len(by) since by was made: a map never shrinks
	names names
}

// stretch is how many names are looked at before writers get their turn.
const stretch = 512

// NewTree returns an empty Tree.
func NewTree[V any]() *Tree[V] { return &Tree[V]{by: map[string]V{}} }

// Len returns how many names have a value.
func (t *Tree[V]) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.by)
}

// Get returns the value of name.
func (t *Tree[V]) Get(name string) (V, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	v, ok := t.by[name]
	return v, ok
}

// Set gives name, which has passed CheckName, the value v, and returns the value it
// had.
func (t *Tree[V]) Set(name string, v V) (old V, had bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, had = t.by[name]; had {
		t.by[name] = v
		return old, true
	}
	name = strings.Clone(name)
	t.by[name] = v
	t.peak = max(t.peak, len(t.by))
	t.names.insert(name)
	return old, false
}

// Delete takes the value of name away and returns it.
func (t *Tree[V]) Delete(name string) (old V, had bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old, had = t.by[name]; !had {
		return old, false
	}
	delete(t.by, name)
	t.names.remove(name)
	if t.peak > chunkSize && len(t.by)*4 < t.peak {
		by := make(map[string]V, len(t.by))
		maps.Copy(by, t.by)
		t.by, t.peak = by, len(by)
	}
	return old, true
}

// Match returns the values of the names that match a valid filter, in bytewise order
// of the names, the first limit of them; more says that there are others. Writers wait
// for 512 names at most: what is set or deleted meanwhile may be in the result or not,
// all else is exact.
func (t *Tree[V]) Match(filter string, limit int) (found []V, more bool) {
	first := strings.IndexAny(filter, wildcards)
	if first < 0 {
		v, ok := t.Get(filter)
		if ok && limit > 0 {
			found = append(found, v)
		}
		return found, ok && limit <= 0
	}
	s := search[V]{filter: filter, key: []byte(literal(filter, first)), limit: limit}
	for !s.done {
		t.scan(&s)
	}
	return s.found, s.more
}

// Each calls f with every name and its value in bytewise order of the names, until f
// returns false. No lock is held meanwhile: what is set or deleted while it runs may
// be seen or not.
func (t *Tree[V]) Each(f func(name string, v V) bool) {
	var key []byte
	for {
		batch, rest := t.batch(key)
		for _, e := range batch {
			if !f(e.name, e.v) {
				return
			}
		}
		if !rest {
			return
		}
		key = append(append(key[:0], batch[len(batch)-1].name...), 0) // the next name there can be
	}
}

type pair[V any] struct {
	name string
	v    V
}

// batch returns the next names from key on. rest says that there may be others behind.
func (t *Tree[V]) batch(key []byte) (batch []pair[V], rest bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	batch = make([]pair[V], 0, min(stretch, len(t.by)))
	for p := t.names.seek(key); len(batch) < stretch; p = t.names.after(p) {
		name, ok := t.names.get(p)
		if !ok {
			return batch, false
		}
		batch = append(batch, pair[V]{name, t.by[name]})
	}
	return batch, true
}

// scan goes one stretch on with s.
func (t *Tree[V]) scan(s *search[V]) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	p := t.names.seek(s.key)
	for range stretch {
		name, ok := t.names.get(p)
		if !ok {
			s.done = true
			return
		}
		switch s.judge(name) {
		case itMatches:
			if len(s.found) >= s.limit {
				s.more, s.done = true, true
				return
			}
			s.found = append(s.found, t.by[name])
			p = t.names.after(p)
		case nextMay:
			p = t.names.after(p)
		case fromKey:
			p = t.names.seekFrom(p, s.key)
		case noneMay:
			s.done = true
			return
		}
	}
	if name, ok := t.names.get(p); ok {
		s.key = append(s.key[:0], name...)
	} else {
		s.done = true
	}
}

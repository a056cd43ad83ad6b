package twin

import (
	"maps"
	"slices"

	"muster"
	"muster/devices"
)

// levels are the documents above the device. They are replaced, never changed in place.
type levels struct {
	fleet    *document
	profiles map[string]*document
	groups   map[string]*document // of static groups
}

func (l *levels) none() bool { return l.fleet == nil && len(l.profiles) == 0 && len(l.groups) == 0 }

func (l *levels) get(at Level) *document {
	switch at.kind {
	case profileLevel:
		return l.profiles[at.name]
	case groupLevel:
		return l.groups[at.name]
	default:
		return l.fleet
	}
}

// with returns l with d at a level, or without a document there when d is nil.
func (l *levels) with(at Level, d *document) *levels {
	out := *l
	replaced := func(m map[string]*document) map[string]*document {
		c := maps.Clone(m)
		if c == nil {
			c = make(map[string]*document)
		}
		c[at.name] = d
		if d == nil {
			delete(c, at.name)
		}
		return c
	}
	switch at.kind {
	case profileLevel:
		out.profiles = replaced(l.profiles)
	case groupLevel:
		out.groups = replaced(l.groups)
	default:
		out.fleet = d
	}
	return &out
}

// key appends to b what tells the levels that apply to a device from others: its
// profile and its groups, those that have documents.
func (l *levels) key(b []byte, d *devices.Device) []byte {
	if l.profiles[d.Profile] != nil {
		b = append(b, d.Profile...)
	}
	if len(l.groups) == 0 {
		return b
	}
	for g := range d.Groups.All() {
		if l.groups[g] != nil {
			b = append(b, 0)
			b = append(b, g...)
		}
	}
	return b
}

// base merges the levels that apply to d.
func (l *levels) base(d *devices.Device) (*base, error) {
	b := &base{key: string(l.key(nil, d))}
	add := func(at Level) error {
		doc := l.get(at)
		if doc == nil {
			return nil
		}
		n, err := parse(doc.text, 0)
		if err != nil {
			return err
		}
		b.levels = append(b.levels, levelDocument{at, doc})
		b.root = merge(b.root, n)
		b.version = max(b.version, doc.version)
		return nil
	}
	if err := add(Fleet()); err != nil {
		return nil, err
	}
	if err := add(Profile(d.Profile)); err != nil {
		return nil, err
	}
	for g := range d.Groups.All() {
		if err := add(Group(g)); err != nil {
			return nil, err
		}
	}
	b.text = b.root.text()
	return b, nil
}

// bases remembers the merges of one levels. It belongs to the holder of the turn.
type bases struct {
	levels *levels
	byKey  map[string]*base
	buf    []byte
}

// maxBases is how many merges are remembered; with more, all are made anew.
const maxBases = 4096

func (bs *bases) of(d *devices.Device) (*base, error) {
	bs.buf = bs.levels.key(bs.buf[:0], d)
	if b, ok := bs.byKey[string(bs.buf)]; ok {
		return b, nil
	}
	b, err := bs.levels.base(d)
	if err != nil {
		return nil, err
	}
	if bs.byKey == nil || len(bs.byKey) >= maxBases {
		bs.byKey = make(map[string]*base)
	}
	bs.byKey[b.key] = b
	return b, nil
}

// with returns bs with another document at a level, or none when d is nil, and those
// merges that it has no part in.
func (bs *bases) with(at Level, d *document) bases {
	out := bases{levels: bs.levels.with(at, d), byKey: make(map[string]*base)}
	for key, b := range bs.byKey {
		if at != Fleet() && !b.has(at) {
			out.byKey[key] = b
		}
	}
	return out
}

// has says whether a level is part of b.
func (b *base) has(at Level) bool {
	return slices.ContainsFunc(b.levels, func(l levelDocument) bool { return l.Level == at })
}

// applies says whether a level is one of d's.
func (l Level) applies(d *devices.Device) bool {
	switch l.kind {
	case profileLevel:
		return d.Profile == l.name
	case groupLevel:
		return d.Groups.Has(l.name)
	case deviceLevel:
		return d.ID == muster.DeviceID(l.name)
	default:
		return true
	}
}

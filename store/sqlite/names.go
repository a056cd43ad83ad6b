package sqlite

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"strconv"
	"strings"

	"muster"
)

// Bounds of the caches of ids. A map that is full is emptied, and what it held is
// found in the database again.
const (
	maxDevices  = 1 << 18
	maxSets     = 1 << 16
	maxPointers = 1 << 16
)

// names caches the ids of devices and layouts.
type names struct {
	devices  map[muster.DeviceID]int64
	sets     map[string]int64 // by canonical keys
	pointers map[*muster.Layout]int64
}

func newNames() names {
	return names{devices: map[muster.DeviceID]int64{}, sets: map[string]int64{}, pointers: map[*muster.Layout]int64{}}
}

// merge takes what a committed transaction found and made.
func (n *names) merge(fresh *names) {
	mergeInto(n.devices, fresh.devices, maxDevices)
	mergeInto(n.sets, fresh.sets, maxSets)
	mergeInto(n.pointers, fresh.pointers, maxPointers)
}

func mergeInto[K comparable](to, from map[K]int64, bound int) {
	if len(to)+len(from) > bound {
		clear(to)
	}
	maps.Copy(to, from)
}

// device returns the id of a device, making it known when it is not.
func (u *update) device(name muster.DeviceID) (int64, error) {
	if id, ok := u.t.names.devices[name]; ok {
		return id, nil
	}
	if id, ok := u.fresh.devices[name]; ok {
		return id, nil
	}
	if name == "" {
		return 0, muster.Errorf(muster.Invalid, "a reading has no device")
	}
	id, _, err := u.findOrInsert(u.t.stmts.findDevice, u.t.stmts.insertDevice, string(name))
	if err != nil {
		return 0, fmt.Errorf("intern device: %w", err)
	}
	u.fresh.devices[muster.DeviceID(strings.Clone(string(name)))] = id // name may be a part of a whole frame
	return id, nil
}

// set returns the id of a layout's set of keys: for a loose one a negative hash of
// the keys, which is not kept.
func (u *update) set(l *muster.Layout) (int64, error) {
	if l.Loose {
		return looseID(l), nil
	}
	if id, ok := u.t.names.pointers[l]; ok {
		return id, nil
	}
	if id, ok := u.fresh.pointers[l]; ok {
		return id, nil
	}
	canonical := canonicalKeys(l)
	id, ok := u.t.names.sets[canonical]
	if !ok {
		id, ok = u.fresh.sets[canonical]
	}
	if !ok {
		var err error
		if id, err = u.intern(l); err != nil {
			return 0, fmt.Errorf("intern keys: %w", err)
		}
		u.fresh.sets[canonical] = id
	}
	u.fresh.pointers[l] = id
	return id, nil
}

// intern finds or makes the layout's set and its metrics.
func (u *update) intern(l *muster.Layout) (int64, error) {
	metrics := make([]int64, len(l.Keys))
	keys := []byte{'['}
	for i, k := range l.Keys {
		id, _, err := u.findOrInsert(u.t.stmts.findMetric, u.t.stmts.insertMetric, k.Name, int64(k.Kind))
		if err != nil {
			return 0, err
		}
		metrics[i] = id
		if i > 0 {
			keys = append(keys, ',')
		}
		keys = strconv.AppendInt(keys, id, 10)
	}
	set, inserted, err := u.findOrInsert(u.t.stmts.findSet, u.t.stmts.insertSet, string(append(keys, ']')))
	if err != nil || !inserted {
		return set, err
	}
	for i, slot := range slots(l) {
		if _, err := u.exec(u.t.stmts.setKey, set, int64(i), metrics[i], int64(slot)); err != nil {
			return 0, err
		}
	}
	return set, nil
}

// slots returns, for each key, its place among the numbers or among the texts.
func slots(l *muster.Layout) []int {
	out := make([]int, len(l.Keys))
	n, t := 0, 0
	for i, k := range l.Keys {
		if k.Kind == muster.JSON {
			out[i] = t
			t++
		} else {
			out[i] = n
			n++
		}
	}
	return out
}

// canonicalKeys spells a layout's keys so that equal layouts, and only they, are
// equal strings.
func canonicalKeys(l *muster.Layout) string {
	var b []byte
	for _, k := range l.Keys {
		b = append(b, byte(k.Kind))
		b = binary.AppendUvarint(b, uint64(len(k.Name)))
		b = append(b, k.Name...)
	}
	return string(b)
}

// looseID returns a negative id made of the keys alone, so that a replayed reading
// meets its row. Two layouts of one id at one device and time would replace each
// other: once in 2^63.
func looseID(l *muster.Layout) int64 {
	sum := sha256.Sum256([]byte(canonicalKeys(l)))
	return int64(binary.BigEndian.Uint64(sum[:]) | 1<<63)
}

package postgres

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"sync"

	"muster"
)

// Bounds on the interned names kept in memory (each cache holds at most twice its
// limit); what was forgotten is looked up in the database again.
const (
	maxDevices = 250_000
	maxMetrics = 100_000
	maxSets    = 50_000
)

// set says how one layout lies in the table.
type set struct {
	id     int32
	loose  bool
	labels [][]byte // of the JSON keys, in order: `{"name":` and then `,"name":`
}

// names are the interned ids that the writer knows. They are added after they are
// committed, so that a rolled-back id is never used.
type names struct {
	mu      sync.Mutex
	devices *cache[muster.DeviceID, int32]
	metrics *cache[muster.Key, int32]
	sets    *cache[*muster.Layout, *set]
}

func newNames() *names {
	return &names{
		devices: newCache[muster.DeviceID, int32](maxDevices),
		metrics: newCache[muster.Key, int32](maxMetrics),
		sets:    newCache[*muster.Layout, *set](maxSets),
	}
}

// row is a reading with its interned ids.
type row struct {
	*muster.Reading
	at     int // its place in the batch
	device int32
	set    *set
}

// missing are the names that a batch needs and the caches do not have.
type missing struct {
	devices map[muster.DeviceID]int32
	metrics map[muster.Key]int32
	sets    map[*muster.Layout]*set
}

// resolve gives every reading its ids and interns what is new.
func (t *Telemetry) resolve(ctx context.Context, rs []muster.Reading) ([]row, error) {
	rows := make([]row, len(rs))
	miss := t.names.look(rs, rows)
	if len(miss.devices) == 0 && len(miss.sets) == 0 {
		return rows, nil
	}
	if err := t.intern(ctx, miss); err != nil {
		return nil, classify("intern names", err)
	}
	t.names.add(miss)
	for i := range rows {
		r := &rows[i]
		if r.device == 0 {
			r.device = miss.devices[r.Device]
		}
		if r.set == nil {
			r.set = miss.sets[r.Layout]
		}
	}
	return rows, nil
}

// look fills rows with what the caches have and returns the rest.
func (n *names) look(rs []muster.Reading, rows []row) missing {
	miss := missing{map[muster.DeviceID]int32{}, map[muster.Key]int32{}, map[*muster.Layout]*set{}}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range rs {
		r := &rs[i]
		rows[i] = row{Reading: r, at: i}
		var ok bool
		if rows[i].device, ok = n.devices.get(r.Device); !ok {
			miss.devices[r.Device] = 0
		}
		if r.Layout.Loose {
			rows[i].set = &set{id: looseID(r.Layout.Keys), loose: true}
			continue
		}
		if rows[i].set, ok = n.sets.get(r.Layout); ok {
			continue
		}
		miss.sets[r.Layout] = nil
		for _, k := range r.Layout.Keys {
			id, _ := n.metrics.get(k)
			miss.metrics[k] = id
		}
	}
	return miss
}

func (n *names) add(m missing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, v := range m.devices {
		n.devices.put(k, v)
	}
	for k, v := range m.metrics {
		n.metrics.put(k, v)
	}
	for k, v := range m.sets {
		n.sets.put(k, v)
	}
}

// forget drops the id of a device that is erased.
func (n *names) forget(d muster.DeviceID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.devices.remove(d)
}

// labels are what comes before each JSON value of l in extra.
func labels(l *muster.Layout) [][]byte {
	var out [][]byte
	for _, k := range l.Keys {
		if k.Kind != muster.JSON {
			continue
		}
		sep := byte(',')
		if len(out) == 0 {
			sep = '{'
		}
		out = append(out, append(appendString([]byte{sep}, k.Name), ':'))
	}
	return out
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string always marshals
	return append(b, q...)
}

// looseID is the set_id of a layout that is not interned: a negative hash of its
// keys, so that another set of keys at the same time is another row.
func looseID(keys []muster.Key) int32 {
	h := fnv.New64a()
	for _, k := range keys {
		_, _ = h.Write([]byte(k.Name))
		_, _ = h.Write([]byte{0, byte(k.Kind)})
	}
	sum := h.Sum64()
	sum ^= sum >> 33 // FNV mixes its high bits less
	return -1 - int32(sum%(1<<31-1))
}

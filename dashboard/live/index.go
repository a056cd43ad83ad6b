package live

import (
	"sync"
	"sync/atomic"

	"muster"
)

// index finds the rows that somebody watches. It holds a row per watched device,
// which is bounded by the connections, their channels and the 200 rows of a list.
type index struct {
	viewers atomic.Int64  // device and devices channels that are shown
	changes atomic.Uint64 // calls of Observe and DevicesChanged while there are viewers

	mu    sync.RWMutex
	rows  map[muster.DeviceID]*row
	pages map[*row]struct{} // rows with a device channel

	pendingMu sync.Mutex
	pending   []*row // each row once (row.queued)
	spare     []*row
}

// Observe marks the devices of rs as changed. It is called after rs is committed
// and readable through Deps.Devices, keeps nothing of rs, and does not wait: one
// atomic load when nobody watches, else a map look-up per device.
func (g *Gateway) Observe(rs []muster.Reading) {
	x := &g.index
	if x.viewers.Load() == 0 {
		return
	}
	x.changes.Add(1)
	x.mu.RLock()
	defer x.mu.RUnlock()
	var last muster.DeviceID
	for i := range rs {
		if id := rs[i].Device; id != last {
			last = id
			x.touch(x.rows[id])
		}
	}
}

// DevicesChanged marks devices whose registry entry, presence or connection has
// changed, devices made and removed included. Like Observe it comes after the
// change and does not wait.
func (g *Gateway) DevicesChanged(ids []muster.DeviceID) {
	g.grids.touch(ids)
	x := &g.index
	if x.viewers.Load() == 0 {
		return
	}
	x.changes.Add(1)
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, id := range ids {
		x.touch(x.rows[id])
	}
}

// touch puts r among the pending rows, once.
func (x *index) touch(r *row) {
	if r == nil || r.queued.Load() || !r.queued.CompareAndSwap(false, true) {
		return
	}
	x.pendingMu.Lock()
	x.pending = append(x.pending, r)
	x.pendingMu.Unlock()
}

// touchPages marks every row with a device channel: the ledger counts messages
// that never reach Observe.
func (x *index) touchPages() {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for r := range x.pages {
		x.touch(r)
	}
}

// take returns the pending rows. The slice is good until the next take.
func (x *index) take() []*row {
	x.pendingMu.Lock()
	defer x.pendingMu.Unlock()
	rows := x.pending
	clear(x.spare[:cap(x.spare)])
	x.pending, x.spare = x.spare[:0], rows
	return rows
}

// watch registers s for the devices ids, and returns their rows in that order.
// From here on a change of them marks s.
func (x *index) watch(s *sub, ids []muster.DeviceID) []*row {
	rows := make([]*row, len(ids))
	x.viewers.Add(1)
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, id := range ids {
		r := x.rows[id]
		if r == nil {
			r = &row{id: id}
			x.rows[id] = r
		}
		r.addWatcher(s, i)
		if s.kind == kindDevice {
			x.pages[r] = struct{}{}
		}
		rows[i] = r
	}
	return rows
}

// unwatch undoes watch and forgets the rows that nobody watches any more.
func (x *index) unwatch(s *sub, rows []*row) {
	x.viewers.Add(-1)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range rows {
		left, pages := r.removeWatcher(s)
		if pages == 0 {
			delete(x.pages, r)
		}
		if left == 0 {
			delete(x.rows, r.id)
		}
	}
}

func (x *index) size() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return len(x.rows)
}

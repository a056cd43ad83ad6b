package command

import (
	"container/heap"
	"encoding/json"
	"slices"

	"muster"
)

// desk is what the owner has in memory. Nobody else touches it.
type desk struct {
	loaded bool
	items  map[int64]*item           // at most MaxOpen
	lines  map[muster.DeviceID]*line // of devices with an unfinished command
	due    expiries                  // all items
	runs   map[int64]*run            // at most maxUnfinished
	dirty  []*line                   // to be looked at by pump, each once
	events []happening               // to be committed
	loose  []settled                 // to be committed
	ids    struct{ next, end int64 } // a block from the store
	token  struct {
		run string
		n   int
	} // names the batches
	flush muster.Micros     // when events are to be committed, 0 for none
	doubt *batch            // not known to be committed
	retry muster.Micros     // not before, after a failure
	fails int               // in a row
	limit int               // of events in one batch
	gone  []muster.DeviceID // deleted devices to be looked at
	adopt []int64           // jobs to be looked for
	tries int               // deliveries since the start
}

// item is an unfinished command.
type item struct {
	Open
	line   *line
	index  int             // in expiries
	tries  int             // deliveries since the start, to tell late outcomes
	params json.RawMessage // for the first try only; then the store has them
}

// line is the unfinished commands of one device.
type line struct {
	device  muster.DeviceID
	all     []*item // unfinished, at most MaxOpenPerDevice
	waiting []*item // not delivered, in order; at most MaxOpenPerDevice
	flying  *item   // the one on a connection, the first of waiting
	heard   bool    // somebody listens since flying was sent
	dirty   bool
}

func (d *desk) init() {
	d.items = map[int64]*item{}
	d.lines = map[muster.DeviceID]*line{}
	d.runs = map[int64]*run{}
	d.due, d.dirty, d.events, d.loose, d.gone, d.doubt = nil, nil, nil, nil, nil, nil
	d.adopt = nil // Load finds them
	d.ids.next, d.ids.end = 0, 0
	d.flush, d.retry, d.fails, d.limit = 0, 0, 0, maxBatch
}

// add takes a command in, at the end of its line unless it is delivered.
func (d *desk) add(o Open, params json.RawMessage) *item {
	l := d.lines[o.Device]
	if l == nil {
		l = &line{device: o.Device}
		d.lines[o.Device] = l
	}
	it := &item{Open: o, line: l, params: params}
	it.Device = l.device // one text for all of them
	d.items[o.ID] = it
	heap.Push(&d.due, it)
	l.all = append(l.all, it)
	if o.State <= Sent {
		l.waiting = append(l.waiting, it)
	}
	return it
}

// moved gives it a new state.
func (d *desk) moved(it *item, s State) {
	before := it.State
	it.State = s
	l := it.line
	if before <= Sent && s > Sent {
		l.waiting = slices.DeleteFunc(l.waiting, func(o *item) bool { return o == it })
		if l.flying == it {
			l.flying = nil
		}
		d.soil(l)
	}
	if s.Final() {
		d.remove(it)
	}
}

func (d *desk) remove(it *item) {
	heap.Remove(&d.due, it.index)
	delete(d.items, it.ID)
	l := it.line
	l.all = slices.DeleteFunc(l.all, func(o *item) bool { return o == it })
	if len(l.all) == 0 {
		delete(d.lines, l.device)
	}
}

// soil has pump look at l.
func (d *desk) soil(l *line) {
	if !l.dirty && len(l.waiting) > 0 {
		l.dirty = true
		d.dirty = append(d.dirty, l)
	}
}

// listens has pump look at what waits for a device.
func (d *desk) listens(device muster.DeviceID) {
	if l := d.lines[device]; l != nil {
		l.heard = true
		d.soil(l)
	}
}

// later has h committed, soon or at once.
func (d *desk) later(h happening, by muster.Micros) {
	d.events = append(d.events, h)
	if d.flush == 0 || by < d.flush {
		d.flush = by
	}
}

// expiries is a heap of commands by when they expire.
type expiries []*item

func (h *expiries) Len() int { return len(*h) }

func (h *expiries) Less(i, j int) bool {
	a, b := (*h)[i], (*h)[j]
	return a.Expires < b.Expires || a.Expires == b.Expires && a.ID < b.ID
}

func (h *expiries) Swap(i, j int) {
	l := *h
	l[i], l[j] = l[j], l[i]
	l[i].index, l[j].index = i, j
}

// Push implements heap.Interface.
func (h *expiries) Push(x any) {
	it := x.(*item) //nolint:forcetypeassert // only items are pushed
	it.index = len(*h)
	*h = append(*h, it)
}

// Pop implements heap.Interface.
func (h *expiries) Pop() any {
	l := *h
	it := l[len(l)-1]
	l[len(l)-1] = nil
	*h = l[:len(l)-1]
	return it
}

package journal

import "slices"

// Encoder writes an item's current record, for the cleaner, which calls it with
// the journal's lock held: it must not block, take a lock that is held while the
// journal is called, or call the journal. It appends to b and returns the longer
// slice, or nil when the item has gone meanwhile; the journal then waits for the
// record that ends the item, and cleans nothing behind it until that is durable.
type Encoder interface {
	AppendRecord(b []byte) []byte
}

// Item is one thing that must be found again after a restart. It is embedded in,
// or pointed to by, what it belongs to. Its zero value with Owner set is ready.
// It has 48 bytes; it must not be copied while the journal knows it.
type Item struct {
	// Owner writes the item's record anew. It is set before the item is given to
	// the journal and not changed afterwards.
	Owner Encoder

	prev, next *Item
	seq        uint64 // the frame of its newest durable record, 0 when there is none
	size       uint32 // of that record in its frame
}

// itemList holds the live items in the order of the frames of their newest
// records. It belongs to one goroutine: Replay's, then Run's.
type itemList struct {
	root     Item // a ring: next is the oldest, prev the newest
	count    int
	live     int64 // bytes of the newest records
	unsorted bool  // items were placed out of order
}

func (l *itemList) init() { l.root.next, l.root.prev = &l.root, &l.root }

// oldest returns the first item, nil when there is none.
func (l *itemList) oldest() *Item {
	if l.root.next == &l.root {
		return nil
	}
	return l.root.next
}

// place says that i's newest record lies in frame seq and takes size bytes there.
func (l *itemList) place(i *Item, seq uint64, size uint32) {
	l.remove(i)
	last := l.root.prev
	if last != &l.root && last.seq > seq {
		l.unsorted = true
	}
	i.seq, i.size = seq, size
	i.prev, i.next = last, &l.root
	last.next, l.root.prev = i, i
	l.count++
	l.live += int64(size)
}

// remove takes i out; it does nothing when i is not in.
func (l *itemList) remove(i *Item) {
	if i.seq == 0 {
		return
	}
	i.prev.next, i.next.prev = i.next, i.prev
	i.prev, i.next, i.seq = nil, nil, 0
	l.count--
	l.live -= int64(i.size)
}

// sort restores the order after placing out of order; equal frames keep theirs.
func (l *itemList) sort() {
	if !l.unsorted {
		return
	}
	all := make([]*Item, 0, l.count)
	for i := l.root.next; i != &l.root; i = i.next {
		all = append(all, i)
	}
	slices.SortStableFunc(all, func(a, b *Item) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	at := &l.root
	for _, i := range all {
		at.next, i.prev = i, at
		at = i
	}
	at.next, l.root.prev = &l.root, at
	l.unsorted = false
}

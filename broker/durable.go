package broker

import (
	"sync/atomic"

	"muster/broker/journal"
)

// stored is a message that is in the journal for the sessions that have not had it.
type stored struct {
	item    journal.Item
	num     uint64
	m       *message
	targets []*target // complete before the first record is written
	left    atomic.Int32
}

// target is one session's share in a stored message.
type target struct {
	of    *stored
	s     *session
	n     uint64
	qos   byte
	flags byte
	ids   []uint32
	state atomic.Uint32 // of the target states
}

// States of a target.
const (
	targetLive uint32 = iota
	targetReleased
	targetDone
)

// Flags of a target.
const (
	flagRetain = 1 << iota
	flagMe
	flagReleased
)

// remember makes e's durable record. It is written by commit.
func (r *route) remember(s *session, e *entry) *target {
	if r.kept == nil {
		r.kept = &stored{num: s.b.lastStored.Add(1), m: r.m}
		r.kept.item.Owner = r.kept
		r.kept.left.Store(1) // the route's own, until commit
	}
	t := &target{of: r.kept, s: s, n: e.n, qos: e.qos, ids: e.ids}
	if e.retain {
		t.flags |= flagRetain
	}
	if e.me {
		t.flags |= flagMe
	}
	r.kept.left.Add(1)
	r.kept.targets = append(r.kept.targets, t)
	return t
}

// commit writes down what a route has queued for kept sessions, and with it the QoS 2
// id it came with, if any. done is told when that is durable. It must be called once,
// after the last remember.
func (b *Broker) commit(k *stored, in *receipt, done func(error)) {
	held := false
	for _, t := range k.targets {
		held = held || t.qos == 2
	}
	if held {
		after := done
		done = func(err error) {
			if err == nil {
				b.unhold(k)
			}
			if after != nil {
				after(err)
			}
		}
	}
	if in == nil {
		b.journal.WriteFunc(k.AppendRecord, &k.item, nil, done)
	} else {
		b.journal.WriteFunc(func(p []byte) []byte { return appendPair(p, in, k) }, &k.item, nil, nil)
		b.journal.WriteFunc(in.AppendRecord, &in.item, nil, done)
	}
	k.release(b)
}

// unhold sends the QoS 2 copies of a message that is durable now.
func (b *Broker) unhold(k *stored) {
	var kk kicks
	for _, t := range k.targets {
		if t.qos == 2 {
			t.s.unhold(t.n, &kk)
		}
	}
	kk.flush(b)
}

// release gives up one share of a message. The last one ends its record.
func (k *stored) release(b *Broker) {
	if k.left.Add(-1) == 0 {
		b.journal.Write(nothing(), nil, []*journal.Item{&k.item}, nil)
	}
}

// settleTarget writes down that a copy is done with. It accepts nil.
func (b *Broker) settleTarget(t *target) {
	if t == nil || t.state.Swap(targetDone) == targetDone {
		return
	}
	var drop []*journal.Item
	if t.of.left.Add(-1) == 0 {
		drop = []*journal.Item{&t.of.item}
	}
	b.journal.WriteFunc(func(p []byte) []byte { return appendDone(p, t.s.num, t.n) }, nil, drop, nil)
}

// releaseTarget writes down that a copy's PUBREC has come, and calls then when that
// is durable.
func (b *Broker) releaseTarget(t *target, then func()) {
	t.state.CompareAndSwap(targetLive, targetReleased)
	b.journal.WriteFunc(func(p []byte) []byte { return appendReleased(p, t.s.num, t.n) }, nil, nil, func(err error) {
		if err == nil {
			then()
		}
	})
}

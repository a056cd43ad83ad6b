package director_test

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"slices"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

var errCrash = errors.New("the process ended")

// memory is a store in memory. Its transactions run one after the other; crash ends some of
// them before, and some after, they are committed.
type memory struct {
	rollouts map[string]*kept
	where    map[muster.DeviceID]string
	crash    func() (before, after bool)
	commits  int
	log      func(r *rollout.Rollout, changes []rollout.Change)
}

// kept is a rollout with its devices, and queues of those that something is due for. What a
// queue has may be out of date, and is looked at when it comes out.
type kept struct {
	r       rollout.Rollout
	devices map[muster.DeviceID]*rollout.Device
	ready   queue // by phase and rank
	waiting queue // by Due
	overdue queue // by Deadline
}

type entry struct {
	key uint64
	dev *rollout.Device
}

type queue []entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].key < q[j].key }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(entry)) }
func (q *queue) Pop() any {
	old := *q
	e := old[len(old)-1]
	*q = old[:len(old)-1]
	return e
}

func newMemory() *memory {
	return &memory{rollouts: map[string]*kept{}, where: map[muster.DeviceID]string{}, crash: func() (bool, bool) { return false, false }}
}

// add keeps a rollout, whose devices are queued.
func (m *memory) add(r rollout.Rollout, ids []muster.DeviceID) {
	k := &kept{devices: map[muster.DeviceID]*rollout.Device{}}
	var members []rollout.Member
	for _, id := range ids {
		d := &rollout.Device{Rollout: r.ID, ID: id, Rank: rollout.Rank(r.Seed, id)}
		k.devices[id], members = d, append(members, rollout.Member{Rank: d.Rank})
	}
	slices.SortFunc(members, func(a, b rollout.Member) int { return cmp.Compare(a.Rank, b.Rank) })
	r.Upto = r.Plan.Cuts(members, r.Membership)
	r.Counts = make([]rollout.Counts, len(r.Plan.Phases))
	for _, d := range k.devices {
		d.Phase = r.Plan.Place(rollout.Member{Rank: d.Rank}, r.Upto)
		r.Counts[d.Phase].By[rollout.Queued]++
		k.file(d)
	}
	k.r = r
	m.rollouts[r.ID] = k
}

// file puts a device where it will be looked for.
func (k *kept) file(d *rollout.Device) {
	switch {
	case d.State == rollout.Queued && d.Due == 0:
		heap.Push(&k.ready, entry{rankKey(d), d})
	case d.State == rollout.Queued && d.Due != director.Asleep:
		heap.Push(&k.waiting, entry{uint64(d.Due), d})
	}
	if !d.State.Ended() && d.Deadline != 0 {
		heap.Push(&k.overdue, entry{uint64(d.Deadline), d})
	}
}

// rankKey orders by phase, then rank.
func rankKey(d *rollout.Device) uint64 { return uint64(d.Phase)<<56 | d.Rank>>8 }

func (m *memory) Open(context.Context, int) (out []rollout.Rollout, _ error) {
	for _, k := range m.rollouts {
		if !k.r.Status.Ended() || k.r.InFlight() > 0 || openOf(&k.r) > 0 {
			out = append(out, k.r)
		}
	}
	slices.SortFunc(out, func(a, b rollout.Rollout) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func openOf(r *rollout.Rollout) (n int) {
	for i := range r.Counts {
		n += r.Counts[i].Open()
	}
	return n
}

func (m *memory) InFlight(_ context.Context, ids []muster.DeviceID) (map[muster.DeviceID]string, error) {
	out := map[muster.DeviceID]string{}
	for _, id := range ids {
		if r, ok := m.where[id]; ok {
			out[id] = r
		}
	}
	return out, nil
}

// Actions implements director.Store.
func (m *memory) Actions(_ context.Context, ids []muster.DeviceID) (map[muster.DeviceID][]director.Action, error) {
	out := map[muster.DeviceID][]director.Action{}
	for _, id := range ids {
		if out[id] != nil {
			continue
		}
		var all []director.Action
		confirmed := map[string]int32{}
		for _, k := range m.rollouts {
			d := k.devices[id]
			if d == nil || d.Action == 0 {
				continue
			}
			all = append(all, director.Action{
				Number: d.Action, Rollout: k.r.ID, Release: k.r.Release, Product: k.r.Product, State: d.State, Retries: d.Retries(), Late: d.Late, Updated: d.Updated,
			})
			if d.State == rollout.Confirmed {
				confirmed[k.r.Product] = max(confirmed[k.r.Product], d.Action)
			}
		}
		all = slices.DeleteFunc(all, func(a director.Action) bool { return !a.State.InFlight() && a.Number < confirmed[a.Product] })
		slices.SortFunc(all, func(a, b director.Action) int {
			if a.State.InFlight() != b.State.InFlight() {
				return map[bool]int{true: -1, false: 1}[a.State.InFlight()]
			}
			return cmp.Compare(b.Number, a.Number)
		})
		if len(all) > 0 {
			out[id] = all[:min(len(all), director.MostActions)]
		}
	}
	return out, nil
}

func (m *memory) Decide(_ context.Context, id string, f director.Fence, now muster.Micros, s director.Select, decide director.Decide) error {
	k := m.rollouts[id]
	if k == nil {
		return muster.Errorf(muster.NotFound, "there is no such rollout")
	}
	if f.Owner != "" && (k.r.Owner != f.Owner || k.r.Epoch != f.Epoch) {
		return muster.Errorf(muster.Stale, "the lease is lost")
	}
	before, after := m.crash()
	if before {
		return errCrash
	}
	r := k.r
	r.Counts = slices.Clone(k.r.Counts)
	found := k.find(s, &r, now)
	for _, d := range found {
		in, is := m.where[d.ID]
		d.Elsewhere = is && in != id
	}
	work := make([]rollout.Device, len(found))
	list := make([]*rollout.Device, len(found))
	for i, d := range found {
		work[i] = *d
		list[i] = &work[i]
	}
	changes, err := decide(&r, list)
	if err != nil {
		k.refile(s, found)
		return err
	}
	k.r = r
	for i, d := range found {
		changed := *d != work[i]
		*d = work[i]
		if d.State.InFlight() {
			m.where[d.ID] = id
		} else if m.where[d.ID] == id {
			delete(m.where, d.ID)
		}
		if changed || s.Due || s.Overdue {
			k.file(d)
		}
	}
	m.commits++
	if m.log != nil {
		m.log(&k.r, changes)
	}
	if after {
		return errCrash
	}
	return nil
}

// refile puts back what a decision that failed took out.
func (k *kept) refile(s director.Select, found []*rollout.Device) {
	if !s.Due && !s.Overdue {
		return
	}
	for _, d := range found {
		k.file(d)
	}
}

func (k *kept) find(s director.Select, r *rollout.Rollout, now muster.Micros) (out []*rollout.Device) {
	switch {
	case s.Due:
		out = k.parked(s.Limit, now)
		return append(out, k.due(s.Limit-len(out), r.Phase, now)...)
	case s.Overdue:
		seen := map[*rollout.Device]bool{}
		for len(k.overdue) > 0 && k.overdue[0].key <= uint64(now) && len(out) < s.Limit {
			e := heap.Pop(&k.overdue).(entry)
			if !e.dev.State.Ended() && uint64(e.dev.Deadline) == e.key && !seen[e.dev] {
				seen[e.dev] = true
				out = append(out, e.dev)
			}
		}
	case len(s.In) > 0:
		for _, d := range k.devices {
			if slices.Contains(s.In, d.State) && len(out) < s.Limit {
				out = append(out, d)
			}
		}
	default:
		for _, id := range s.IDs {
			if d := k.devices[id]; d != nil {
				out = append(out, d)
			}
		}
	}
	return out
}

// parked are those whose maintenance window has opened, or that came since.
func (k *kept) parked(limit int, now muster.Micros) (out []*rollout.Device) {
	if !slices.ContainsFunc(k.r.Counts, func(c rollout.Counts) bool { return c.Parked > 0 }) {
		return nil
	}
	for _, d := range k.devices {
		if d.Parked() && d.Due <= now {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *rollout.Device) int { return cmp.Or(cmp.Compare(a.Due, b.Due), cmp.Compare(a.Rank, b.Rank)) })
	return out[:min(len(out), limit)]
}

func (k *kept) due(limit, phase int, now muster.Micros) (out []*rollout.Device) {
	for len(k.waiting) > 0 && k.waiting[0].key <= uint64(now) {
		if e := heap.Pop(&k.waiting).(entry); e.dev.State == rollout.Queued && uint64(e.dev.Due) == e.key {
			e.dev.Due = 0
			heap.Push(&k.ready, entry{rankKey(e.dev), e.dev})
		}
	}
	for len(k.ready) > 0 && len(out) < limit && k.ready[0].dev.Phase <= phase {
		e := heap.Pop(&k.ready).(entry)
		if e.dev.State == rollout.Queued && e.dev.Due == 0 && (len(out) == 0 || out[len(out)-1] != e.dev) {
			out = append(out, e.dev)
		}
	}
	return out
}

package trail

import (
	"muster"
	"muster/devices/intake"
)

// Followed is a message in the trace. Those who handle it tell it of each step; it
// may be gone from the trace meanwhile.
type Followed struct {
	shard    *traceShard // whose lock guards the rest
	size     int         // bytes it counts against the trace's bound
	m        Message
	one      [1]Item // backs m.Items: most payloads hold one reading
	readings int
	settled  int    // of them
	worst    string // verdict of those
	dropped  bool
}

var _ intake.Trace = (*Followed)(nil)

// follow copies what is kept of s.
func follow(shard *traceShard, s *Start) *Followed {
	f := &Followed{shard: shard, readings: len(s.Readings), m: Message{
		Kind: s.Kind, By: s.By, QoS: s.QoS, Raw: append([]byte(nil), s.Payload[:min(len(s.Payload), MaxRaw)]...),
		Size: s.Size, Count: len(s.Readings) + len(s.Refused), Received: s.Received, Decoded: s.Decoded,
	}}
	f.size = followedSize + cap(f.m.Raw)
	f.m.Items = f.one[:0]
	if n := min(f.m.Count, maxItems); n > 1 {
		f.m.Items = make([]Item, 0, n)
	}
	for i := range s.Readings {
		if len(f.m.Items) == cap(f.m.Items) {
			break
		}
		f.add(s.Readings[i])
	}
	for _, r := range s.Refused {
		if f.m.Code == "" {
			f.m.Code, f.m.Reason = r.Code, r.Reason
		}
		if len(f.m.Items) < cap(f.m.Items) {
			f.m.Items = append(f.m.Items, Item{Verdict: Rejected, Code: r.Code, Reason: r.Reason})
		}
	}
	return f
}

// add copies one reading. Its layout is shared, and its texts are never changed.
func (f *Followed) add(r muster.Reading) {
	r.Numbers = append([]float64(nil), r.Numbers...)
	f.size += 8 * cap(r.Numbers)
	if len(r.Texts) > 0 {
		r.Texts = append([]string(nil), r.Texts...)
		for _, t := range r.Texts {
			f.size += 16 + len(t)
		}
	}
	f.m.Items = append(f.m.Items, Item{Reading: r, Verdict: Pending})
	if cap(f.m.Items) > 1 {
		f.size += followedSize / 4
	}
}

// Arrived tells when its readings, and then what was refused of it, arrived.
func (f *Followed) Arrived(at []muster.Micros) {
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	for i := range f.m.Items {
		j := i
		if f.m.Items[i].Layout == nil { // refusals follow all readings
			j = i - min(f.readings, len(f.m.Items)) + f.readings
		}
		if j >= 0 && j < len(at) {
			f.m.Items[i].Arrival = at[j]
		}
	}
}

// Step tells that it has come to a step: decoded, durable, acked, stored or dropped.
func (f *Followed) Step(name string, at muster.Micros) {
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	switch name {
	case intake.StepDecoded:
		f.m.Decoded = at
	case "durable":
		f.m.Durable = at
	case intake.StepAcked:
		f.m.Acked = at
	case intake.StepStored:
		f.m.Stored = at
	case intake.StepDropped:
		f.dropped = true
	}
}

// Settled tells what became of its reading i.
func (f *Followed) Settled(i int, verdict string) {
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	f.settle(i, verdict)
}

func (f *Followed) settle(i int, verdict string) {
	if i < len(f.m.Items) && f.m.Items[i].Layout != nil {
		f.m.Items[i].Verdict = verdict
	}
	f.settled++
	if rank(verdict) > rank(f.worst) {
		f.worst = verdict
	}
}

// Refused tells why the whole of it was refused for good.
func (f *Followed) Refused(code, reason string) {
	f.shard.mu.Lock()
	defer f.shard.mu.Unlock()
	f.m.Code, f.m.Reason = code, reason
}

// rank orders the verdicts on parts of a message.
func rank(verdict string) int {
	switch verdict {
	case Stored:
		return 1
	case Duplicate:
		return 2
	case Replaced:
		return 3
	case Rejected:
		return 4
	}
	return 0
}

// view returns the message as it is shown now.
func (f *Followed) view() Message {
	m := f.m
	m.Items = append([]Item(nil), f.m.Items...)
	for i := range m.Items {
		if m.Items[i].Time == 0 {
			m.Items[i].Time = m.Items[i].Arrival
		}
	}
	if m.Code == "" && f.worst == Rejected {
		m.Code, m.Reason = "store", "the database refuses it"
	}
	switch {
	case m.Code != "":
		m.Verdict = Rejected
	case f.dropped:
		m.Verdict = Dropped
	case f.settled < f.readings || m.Stored == 0:
		m.Verdict = Pending
	case f.readings > 0:
		m.Verdict = f.worst
	default:
		m.Verdict = Stored
	}
	return m
}

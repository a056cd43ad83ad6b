package ingest

import (
	"sync/atomic"
	"time"

	"muster"
)

// Tracer follows some messages on their way, so that people can be shown what became
// of them. Its methods must not block.
type Tracer interface {
	// Wants is asked about at most 10 payloads a second of a device, and 10 more that
	// hold something refused.
	Wants(device muster.DeviceID, refused bool, at muster.Micros) bool
	// Begin follows a payload that is wanted.
	Begin(t *Traced) Trace
	// Settled tells what became of a reading whose Trace is not at hand any more,
	// because its frame was read back from the log. Most were never begun.
	Settled(device muster.DeviceID, arrival muster.Micros, verdict string, at muster.Micros)
}

// Traced is a payload that was decoded. All of it is good until Begin returns.
type Traced struct {
	Message  *Message
	Size     int // bytes of the whole payload
	Received muster.Micros
	Decoded  muster.Micros
	Readings []muster.Reading // Arrival is not known yet, Time is 0 for arrival
	Refused  []Refusal
}

// Refusal is why a message of a payload was refused.
type Refusal struct{ Code, Reason string }

// Trace follows one payload. Calls may come in any order, from several goroutines.
type Trace interface {
	// Arrived tells the arrival times of its readings and then of what was refused.
	Arrived(at []muster.Micros)
	// Step tells that the payload has come to a step.
	Step(name string, at muster.Micros)
	// Settled tells what became of reading i.
	Settled(i int, verdict string)
}

// The steps of a payload that a Trace is told of.
const (
	StepDurable = "durable" // in the log
	StepAcked   = "acked"
	StepStored  = "stored" // in the store, rejected ones too
	StepDropped = "dropped"
)

// verdictOf says what became of a reading in the store.
func verdictOf(o Outcome) string {
	switch o {
	case Stored:
		return "stored"
	case Duplicate:
		return "duplicate"
	case Replaced:
		return "replaced"
	default:
		return "rejected"
	}
}

// The most payloads of a device that are traced: so many a second, and at once.
const (
	traceEvery = int64(100 * time.Millisecond / time.Microsecond)
	traceBurst = 10
)

// allowance lets traceBurst payloads through at once and one more each traceEvery: it
// is the time at which the burst is whole again.
type allowance struct{ whole atomic.Int64 }

// take is one load and one comparison for devices over the rate.
func (a *allowance) take(now muster.Micros) bool {
	whole := a.whole.Load()
	if ahead := whole - int64(now); ahead > (traceBurst-1)*traceEvery && ahead <= 2*traceBurst*traceEvery { // else the clock was set back
		return false
	}
	return a.whole.CompareAndSwap(whole, min(max(whole, int64(now)), int64(now)+traceBurst*traceEvery)+traceEvery)
}

// traced is a payload in a frame that somebody follows.
type traced struct {
	trace    Trace
	first, n int // its readings in the frame
	acked    bool
	level    AckLevel
}

// begin starts following what d decoded from m, when somebody wants to.
func (in *Ingest) begin(dev *device, m *Message, d *decoder, received muster.Micros, size int) {
	d.trace = nil
	if in.cfg.Tracer == nil || m.Untraced {
		return
	}
	a := &dev.traceAll
	if len(d.refused) > 0 {
		a = &dev.traceRefused
	}
	if !a.take(received) || !in.cfg.Tracer.Wants(dev.id, len(d.refused) > 0, received) {
		return
	}
	t := &d.traced
	t.Message, t.Size, t.Received, t.Decoded = m, max(size, len(m.Payload)), received, muster.MicrosOf(in.cfg.Now())
	t.Readings, t.Refused = t.Readings[:0], t.Refused[:0]
	for i := range d.messages {
		r := &d.messages[i]
		t.Readings = append(t.Readings, muster.Reading{Device: dev.id, Time: r.time, Layout: r.layout, Numbers: r.numbers, Texts: r.texts})
	}
	for i := range d.refused {
		t.Refused = append(t.Refused, Refusal{d.refused[i].fault.code, d.refused[i].fault.reason})
	}
	d.trace = in.cfg.Tracer.Begin(t)
	d.arrivals = d.arrivals[:0]
	t.Message = nil
}

// step tells t, which may be nil, of a step.
func (in *Ingest) step(t Trace, name string) {
	if t != nil {
		t.Step(name, muster.MicrosOf(in.cfg.Now()))
	}
}

// traceDurable tells those who follow f's payloads that it is in the log, since at,
// and acknowledged, unless that comes later.
func (in *Ingest) traceDurable(f *frame, at muster.Micros) {
	if len(f.traces) == 0 {
		return
	}
	now := muster.MicrosOf(in.cfg.Now())
	for i := range f.traces {
		t := &f.traces[i]
		t.trace.Step(StepDurable, at)
		if t.acked && t.level == LevelDurable {
			t.trace.Step(StepAcked, now)
		}
	}
}

// traceStored tells those who follow w's payloads what became of them. It comes after
// the acknowledgements of level stored.
func (in *Ingest) traceStored(w *work, outcomes []Outcome) {
	if in.cfg.Tracer == nil || len(w.traces)+len(w.back) == 0 {
		return
	}
	now := muster.MicrosOf(in.cfg.Now())
	for i := range w.traces {
		t := &w.traces[i]
		for j, o := range outcomes[t.first : t.first+t.n] {
			t.trace.Settled(j, verdictOf(o))
		}
		t.trace.Step(StepStored, now)
		if t.acked && t.level == LevelStored {
			t.trace.Step(StepAcked, now)
		}
	}
	for _, s := range w.back {
		for i := s.first; i < s.first+s.n; i++ {
			r := &w.readings[i]
			in.cfg.Tracer.Settled(r.Device, r.Arrival, verdictOf(outcomes[i]), now)
		}
	}
}

// span is readings of a work that were read back from the log of this run.
type span struct{ first, n int }

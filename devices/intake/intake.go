package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/lifecycle"
)

// Kind says what a message is.
type Kind uint8

// The kinds of message, by their topics below devices/{id}/.
const (
	Reported        Kind = iota // reported
	Event                       // events/{type}
	Log                         // logs
	Result                      // commands/{cid}/result
	Notify                      // notify/{topic}
	NotificationAck             // notifications/{nid}/ack
	Firmware                    // firmware/status, firmware/cancel/ack

	kinds = 7
)

var kindNames = [kinds]string{"reported", "event", "log", "result", "notify", "notification_ack", "firmware"}

// String returns the kind's name, as metrics and the API show it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// Acker is told once what became of a message, in the order the messages of one
// kind were accepted. It must not block.
type Acker interface {
	Acked(token uint64, err error)
}

// Message is one payload of a device.
type Message struct {
	Kind    Kind
	Device  muster.DeviceID
	By      muster.DeviceID // the gateway that published for Device, else empty
	Topic   string          // canonical; must stay as it is
	Tail    string          // event type, command id, topic or notification id, of firmware status or cancel/ack, else empty; must stay as it is
	Payload []byte          // Accept copies it
	QoS     byte
	Arrival muster.Micros // set by Accept, strictly increasing within a kind unless the clock is set back
	From    Acker         // nil for QoS 0
	Token   uint64

	trace Trace // nil when nobody follows it
}

// Owner keeps the messages of a kind. Take is called by one goroutine, with 1 to
// MaxBatch messages in the order they came, and commits them in one transaction.
// It returns one error per message: nil for one that is kept, an error of kind
// Unavailable or Busy for one that is to be tried again (of all that were in a
// transaction that failed), any other for one that is refused for good, best made by
// Refused. A batch that is refused as a whole, by errors not made by Refused, is
// given again in halves until the messages at fault stand alone. What Take keeps it
// may be given again, with the same Arrival, when it said that the commit failed.
type Owner interface {
	Take(ctx context.Context, ms []Message) []error
}

// Bounds.
const (
	MaxBatch  = 500     // messages in one Take
	MaxQueued = 4096    // messages of a kind that wait; full: see Accept
	MaxBytes  = 8 << 20 // of their payloads
	maxShare  = MaxQueued / 4

	setBack       = 10_000_000       // us that the clock goes back when it was set, and not read twice
	patience      = 20 * time.Second // that Accept waits for room
	patienceQoS0  = time.Second
	takeTimeout   = time.Minute // for one try of an owner
	firstWait     = 50 * time.Millisecond
	lastWait      = 2 * time.Second
	internalTries = 5 // of what fails by a fault of ours, before it is refused
)

// refusal marks an error as made by Refused.
type refusal struct{ code string }

func (r *refusal) Error() string { return r.code }

// Refused returns the Invalid error by which an owner refuses one message for good.
// code is stable and for machines, reason for people and the device.
func Refused(code, reason string) error {
	return &muster.Error{Kind: muster.Invalid, Msg: reason, Err: &refusal{code}}
}

// CodeOf returns the code that err, which refuses a message, is kept under.
func CodeOf(err error) string {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	return muster.KindOf(err).String()
}

// Config is what New needs. Trace, Metrics and kinds without an owner may be nil.
type Config struct {
	Owners map[Kind]Owner
	// Refuse keeps a message that is refused for good where an operator sees it. It
	// must not block.
	Refuse  func(m Message, code, reason string)
	Trace   Tracer
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Now     func() time.Time
}

// Tracer is asked for each message whether it wants to follow it.
type Tracer interface {
	// Begin returns nil when it does not. at is when the message came; it must not
	// keep m. It is called on the connection's goroutine.
	Begin(m *Message, at muster.Micros) Trace
}

// The steps of a message that a Trace is told of.
const (
	StepDecoded = "decoded" // the owner has it before it
	StepStored  = "stored"  // committed, or kept as rejected
	StepAcked   = "acked"
	StepDropped = "dropped" // there was no room for it
)

// Trace follows one message. Its methods must not block.
type Trace interface {
	Step(name string, at muster.Micros)
	Refused(code, reason string)
}

// Intake is the queues and workers of all kinds.
type Intake struct {
	cfg     Config
	workers [kinds]*worker // nil without an owner
	loops   *lifecycle.Group
}

// New returns an Intake that Start brings to life. Messages are accepted before that.
func New(cfg Config) (*Intake, error) {
	in := &Intake{cfg: cfg}
	for k, o := range cfg.Owners {
		if int(k) >= kinds {
			return nil, muster.Errorf(muster.Invalid, "there is no kind of message %d", k)
		}
		in.workers[k] = &worker{kind: k, cfg: &in.cfg, owner: o, queue: newQueue()}
	}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(newMetrics(in)); err != nil {
			return nil, fmt.Errorf("register the metrics of intake: %w", err)
		}
	}
	return in, nil
}

// Start starts the workers.
func (in *Intake) Start() {
	in.loops = lifecycle.NewGroup(in.cfg.Logger)
	for _, w := range in.workers {
		if w != nil {
			in.loops.Go("intake-"+w.kind.String(), w.run)
		}
	}
}

// Stop refuses what comes from now on, and gives the owners until ctx ends to keep
// what was accepted, unless they cannot now. What they have not kept then was not
// acknowledged: its devices send it again.
func (in *Intake) Stop(ctx context.Context) error {
	for _, w := range in.workers {
		if w != nil {
			w.queue.close()
		}
	}
	if in.loops == nil { // never started
		return nil
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !in.idle() && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return in.loops.Stop(ctx)
}

func (in *Intake) idle() bool {
	for _, w := range in.workers {
		if w != nil && !w.failing.Load() && w.queue.snapshot().Queued > 0 {
			return false
		}
	}
	return true
}

// Loops returns the state of the workers, for the System page.
func (in *Intake) Loops() []lifecycle.LoopStatus {
	if in.loops == nil {
		return nil
	}
	return in.loops.Status()
}

// FailLoop is lifecycle.Group.Fail for tests.
func (in *Intake) FailLoop(name, why string) bool { return in.loops != nil && in.loops.Fail(name, why) }

// Takes says whether messages of the kind k have an owner.
func (in *Intake) Takes(k Kind) bool { return int(k) < kinds && in.workers[k] != nil }

// Accept queues m; m.From is told when its owner has kept it or refused it for good.
// While the kind's queue is full (MaxQueued messages or MaxBytes; a quarter of the
// messages for one publisher) it waits, which slows that device down: 20 s, then the
// error is Busy, nothing was taken and m.From is not told. A message of QoS 0 waits
// for 1 s, and not at all while others did so in vain; then it is dropped and
// counted. Unavailable says that nobody takes this kind.
func (in *Intake) Accept(ctx context.Context, m Message) error {
	if !in.Takes(m.Kind) {
		return muster.Errorf(muster.Unavailable, "messages of the kind %s are not taken here", m.Kind)
	}
	q := in.workers[m.Kind].queue
	m.Payload = bytes.Clone(m.Payload)
	at := muster.MicrosOf(in.cfg.Now())
	if in.cfg.Trace != nil {
		m.trace = in.cfg.Trace.Begin(&m, at)
	}
	err := q.put(ctx, &m, at)
	switch {
	case err == nil:
		return nil
	case m.trace != nil:
		m.trace.Step(StepDropped, muster.MicrosOf(in.cfg.Now()))
	}
	if m.QoS == 0 {
		q.drop()
		return nil
	}
	return err
}

// Status is one kind's state, for the System page.
type Status struct {
	Kind    string `json:"kind"`
	Failing bool   `json:"failing"` // the owner cannot keep messages now; they wait
	Ledger
}

// Status returns the state of every kind that has an owner.
func (in *Intake) Status() []Status {
	var out []Status
	for _, w := range in.workers {
		if w != nil {
			out = append(out, Status{w.kind.String(), w.failing.Load(), w.queue.snapshot()})
		}
	}
	return out
}

package ingest

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/internal/lifecycle"
)

// AckLevel says when a message is acknowledged.
type AckLevel string

// The ack levels (DESIGN, promise 1).
const (
	LevelReceived AckLevel = "received" // taken into memory; lost with the process
	LevelDurable  AckLevel = "durable"  // fsynced in the log
	LevelStored   AckLevel = "stored"   // committed in the database
)

// ParseAckLevel returns s as an AckLevel, or an Invalid error.
func ParseAckLevel(s string) (AckLevel, error) {
	switch l := AckLevel(s); l {
	case LevelReceived, LevelDurable, LevelStored:
		return l, nil
	}
	return "", muster.Errorf(muster.Invalid, "ack level %q is not received, durable or stored", s)
}

// Acker is told once what became of a message, in the order the messages of one
// source were accepted. It must not block.
type Acker interface {
	Acked(token uint64, err error)
}

// Message is one payload a device published at a telemetry topic.
type Message struct {
	Device  muster.DeviceID
	By      muster.DeviceID // the gateway that published it, else empty; for the Tracer
	Topic   string          // canonical, as published
	Tail    string          // what follows telemetry/ in the topic, may be empty
	Payload []byte          // copied where kept
	Form    Form            // how Payload is written
	// Unit is what a line's time stamp counts, 0 for nanoseconds.
	Unit time.Duration
	// Omit names the member of the payload's object, or the tag of its line, that says
	// whose it is and is no value. Empty for none.
	Omit  string
	QoS   byte  // 0: may be dropped when there is no room
	From  Acker // nil when nobody waits
	Token uint64
	// Untraced keeps the Tracer out: somebody else shows people what became of it.
	Untraced bool
	// Unkept has nothing kept of what is refused: who sent it has been told often enough.
	Unkept bool
}

// Form is how a payload is written.
type Form uint8

// The forms of a payload.
const (
	FormJSON Form = iota // a JSON text: see docs/ingest.md
	FormLine             // one line of InfluxDB's line protocol
)

// Config is what New needs. Every field but the callbacks must be set.
type Config struct {
	Log     Log
	Store   Store
	Latest  LatestStore
	Level   AckLevel
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Tracer  Tracer // nil when nobody follows messages

	// LevelOf says when messages of a device are acknowledged, empty for Level; nil for all
	// at Level. It is asked at each message, and must not block.
	LevelOf func(muster.DeviceID) AckLevel

	// Known says whether a device is in the registry; nil for all are. It is asked when a
	// device's first message comes, and again after Deleted.
	Known func(muster.DeviceID) bool
	// Erasures and Eraser delete all data of deleted devices; both or neither is set.
	Erasures Erasures
	Eraser   Eraser

	// Observe is called with each frame's readings once they are durable, from one
	// goroutine; it must not block. OnRejected is called for each rejected message.
	Observe    func([]muster.Reading)
	OnRejected func(muster.Rejected)
	// Seen is called at the start with when messages of devices arrived that are read
	// back, more than once for a device and in no order; it must not block.
	Seen func(device muster.DeviceID, at muster.Micros)
}

// Ingest is the pipeline from Accept to the store.
type Ingest struct {
	cfg      Config
	layouts  *Layouts
	fleet    *fleet
	totals   totals
	decoders sync.Pool
	metrics  *metrics

	incarnation string
	boot        string // names this run's frames, so that a repeated append is harmless
	startLast   uint64 // the log's last frame at start
	maxBytes    int64  // the log's bound
	backlogPer  int64  // bytes of a frame found at start, on average

	builder  builder
	total    uint64         // messages in the log so far; the committer's
	frames   uint64         // committed in this run; the committer's
	finished chan committed // committer to finisher; full: the committer waits
	recent   recent
	stored   storedAcks

	cursorMu     sync.Mutex
	writer       Cursor
	latestCursor Cursor
	flushMu      sync.Mutex    // one latest save at a time
	warm         bool          // the latest values were read back; the saver's
	warmed       chan struct{} // closed when warm
	erasing      eraseState
	purged       uint64 // the purger's

	place     atomic.Uint64 // last frame of the current log that the store has
	lastSeq   atomic.Uint64 // last frame in the log
	applied   atomic.Uint64 // last frame whose readings are in the latest values
	unstored  atomic.Int64  // bytes committed in this run and not stored
	storeDown atomic.Bool
	trying    atomic.Int64 // when the append under way began, in ns since 1970; 0 for none

	loops *lifecycle.Group
}

// New returns an Ingest that Start brings to life.
func New(cfg Config) *Ingest {
	in := &Ingest{
		cfg:      cfg,
		layouts:  NewLayouts(),
		fleet:    newFleet(),
		finished: make(chan committed, 4),
		warmed:   make(chan struct{}),
	}
	in.decoders.New = func() any { return &decoder{layouts: in.layouts} }
	in.builder.init()
	in.recent.wake = make(chan struct{}, 1)
	in.metrics = newMetrics(cfg.Metrics, in)
	return in
}

// Start finds its place in the log and starts the loops: the committer, the
// finisher, the writer, the latest saver, the purger and the eraser. It reads the
// latest values back in the background.
func (in *Ingest) Start(ctx context.Context) error {
	if err := in.locate(ctx); err != nil {
		return err
	}
	in.loops = lifecycle.NewGroup(in.cfg.Logger)
	in.loops.Go("ingest-finisher", in.finish)
	in.loops.Go("ingest-committer", in.commit)
	in.loops.Go("ingest-writer", in.write)
	in.loops.Go("ingest-latest", in.saveLatest)
	in.loops.Go("ingest-purger", in.purge)
	if in.cfg.Erasures != nil {
		in.loops.Go("ingest-eraser", in.erase)
	}
	return nil
}

// Stop refuses what comes now, commits what was accepted, gives the writer until
// ctx ends to store what the log holds, and saves the latest values. What is left
// in the log is found at the next start.
func (in *Ingest) Stop(ctx context.Context) error {
	in.builder.close()
	if in.loops == nil { // never started
		return nil
	}
	in.drain(ctx)
	return in.loops.Stop(ctx)
}

// Loops returns the state of the pipeline's loops, for the System page.
func (in *Ingest) Loops() []lifecycle.LoopStatus {
	if in.loops == nil {
		return nil
	}
	return in.loops.Status()
}

// FailLoop is lifecycle.Group.Fail for tests.
func (in *Ingest) FailLoop(name, why string) bool { return in.loops != nil && in.loops.Fail(name, why) }

// Accept decodes m and puts what it holds into the log. It blocks while the log
// has no room (QoS 1 and 2), until ctx ends or for 20 s; the error then is Busy and
// From is not told. QoS 0 is dropped instead, and counted. A device that is not in the
// registry is NotFound, and the message kept as Refuse keeps it.
func (in *Ingest) Accept(ctx context.Context, m Message) error {
	_, err := in.Take(ctx, m)
	return err
}

// Take is Accept that says why the first message of m that breaks a rule was refused,
// the zero Refusal when none was. From is not told of an Unkept payload that holds nothing else.
func (in *Ingest) Take(ctx context.Context, m Message) (Refusal, error) {
	dev, err := in.admit(m.Device)
	if err != nil {
		if muster.KindOf(err) == muster.NotFound && !m.Unkept {
			in.keepStray(m, "device", muster.Public(err), len(m.Payload)) //nolint:contextcheck // it waits for nobody
		}
		return Refusal{}, err
	}
	now := muster.MicrosOf(in.cfg.Now())
	d := in.decoders.Get().(*decoder)
	defer in.decoders.Put(d)
	d.mint = dev.mayMint
	d.read(&m, now)
	refused := d.refusal()
	if m.Unkept {
		d.refused = d.refused[:0]
		if len(d.messages) == 0 {
			return refused, nil
		}
	}
	in.begin(dev, &m, d, now, len(m.Payload))
	if in.shed(m.QoS) {
		in.dropped(dev, len(d.messages)+len(d.refused))
		in.step(d.trace, StepDropped)
		return refused, nil
	}
	return refused, in.enqueue(ctx, dev, &m, d, now)
}

// Refuse keeps a message as rejected that never reached the decoder: a wrong
// topic, or too large. size is its payload's size in bytes when m.Payload is cut. One of
// a device that is not in the registry is kept as of no device.
func (in *Ingest) Refuse(m Message, code, reason string, size int) {
	dev, err := in.admit(m.Device)
	if err != nil {
		in.keepStray(m, code, reason, size)
		return
	}
	in.refuse(dev, &m, code, reason, size)
}

func (in *Ingest) refuse(dev *device, m *Message, code, reason string, size int) {
	now := muster.MicrosOf(in.cfg.Now())
	d := &decoder{refused: []refused{{fault{code: code, reason: reason}, m.Payload}}}
	in.begin(dev, m, d, now, size)
	m.QoS = 0 // there is nobody to slow down
	if in.shed(0) {
		in.dropped(dev, 1)
		in.step(d.trace, StepDropped)
		return
	}
	if err := in.enqueueSized(context.Background(), dev, m, d, now, size); err != nil {
		in.dropped(dev, 1)
	}
}

func (in *Ingest) dropped(dev *device, n int) {
	dev.mu.Lock()
	dev.ledger.drop(uint64(n))
	dev.mu.Unlock()
	in.totals.update(func(l *Ledger) { l.drop(uint64(n)) })
}

// Ledger returns the account of all devices.
func (in *Ingest) Ledger() Ledger { return in.totals.snapshot() }

// DeviceLedger returns the account of one device since the start; what the log
// held at start is recovered for it as the writer reaches it.
func (in *Ingest) DeviceLedger(id muster.DeviceID) Ledger {
	d := in.fleet.find(id)
	if d == nil {
		return Ledger{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ledger
}

// Latest returns the newest value of each key of a device, from memory.
func (in *Ingest) Latest(id muster.DeviceID) (LatestRow, bool) {
	d := in.fleet.find(id)
	if d == nil {
		return LatestRow{Device: id}, false
	}
	row := d.snapshot()
	return row, len(row.Values) > 0
}

// Values appends the newest value of each key of a device to dst, from memory and in the keys' order,
// and returns the device's account as of then, as DeviceLedger does.
func (in *Ingest) Values(id muster.DeviceID, dst []LatestValue) ([]LatestValue, Ledger) {
	d := in.fleet.find(id)
	if d == nil {
		return dst, Ledger{}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.latest.appendTo(dst), d.ledger
}

// EachKey calls visit with the name of each key of which a device has a value, in order.
// visit runs under the device's lock: it must be quick and must not ask ingest.
func (in *Ingest) EachKey(id muster.DeviceID, visit func(key string)) {
	d := in.fleet.find(id)
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.latest.eachName(visit)
}

// Value returns the newest value of a device's key, of any kind, false when there is
// none or it is a hole.
func (in *Ingest) Value(id muster.DeviceID, key string) (muster.Value, bool) {
	d := in.fleet.find(id)
	if d == nil {
		return muster.Value{}, false
	}
	return d.value(key)
}

// Status describes the pipeline for the System page and readiness.
type Status struct {
	StoreDown     bool    `json:"store_down"`
	UnstoredBytes int64   `json:"unstored_bytes"` // in the log, not yet in the store
	LogFill       float64 `json:"log_fill"`       // share of the log's bound that is unstored, 0 to 1
	Level         string  `json:"ack_level"`
	Ledger        Ledger  `json:"ledger"`
}

// Status returns the state of the pipeline now.
func (in *Ingest) Status() Status {
	return Status{
		StoreDown: in.isStoreDown(), UnstoredBytes: in.unstoredBytes(), LogFill: in.fill(),
		Level: string(in.cfg.Level), Ledger: in.Ledger(),
	}
}

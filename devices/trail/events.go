package trail

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"muster"
	"muster/devices/intake"
)

// Bounds of events.
const (
	MaxPayload = 64 << 10            // bytes of an event's payload, or of a message of log lines
	MaxEvents  = 1000                // kept of a device, and up to 100 more until they are trimmed
	EventsAge  = 30 * 24 * time.Hour // how old they get
	maxType    = 64                  // bytes
	maxNoted   = 1024                // events of other rooms that wait to be stored; over it they are dropped and counted
	maxAppend  = 1000                // events in one Append

	eventSlack  = 100
	noteTimeout = 10 * time.Second
)

// EventRate is what a device may send, and what other rooms may note of it.
func EventRate() Rate { return Rate{PerSecond: 10, Burst: 100} }

// EventsConfig is what NewEvents needs. OnEvents may be nil.
type EventsConfig struct {
	Store  Store
	Now    func() time.Time
	Logger *slog.Logger
	// OnEvents is told of events after they are stored, in order; it must not block.
	OnEvents func([]Event)
}

// Events keeps the events of devices. It is the owner of intake's kind Event.
type Events struct {
	cfg     EventsConfig
	rate    *buckets
	noted   *buckets
	notes   chan Event
	dropped atomic.Uint64 // of notes
	trimmer trimmer
}

var _ intake.Owner = (*Events)(nil)

// NewEvents returns Events; Run keeps them within their bounds.
func NewEvents(cfg EventsConfig) *Events {
	e := &Events{cfg: cfg, rate: newBuckets(EventRate()), noted: newBuckets(EventRate()), notes: make(chan Event, maxNoted)}
	e.trimmer = trimmer{
		keep: MaxEvents, slack: eventSlack, trim: cfg.Store.TrimEvents, log: cfg.Logger,
		expire: func(ctx context.Context, limit int) (int, error) {
			return cfg.Store.ExpireEvents(ctx, muster.MicrosOf(cfg.Now().Add(-EventsAge)), limit)
		},
	}
	e.trimmer.init()
	return e
}

// Take implements intake.Owner. Over the rate of a device an event is refused for
// good, with the code rate.
func (e *Events) Take(ctx context.Context, ms []intake.Message) []error {
	errs, list := make([]error, len(ms)), make([]Event, 0, len(ms))
	p := e.rate.plan()
	for i := range ms {
		m := &ms[i]
		if !p.bucket(m.Device, m.Arrival).take() {
			r := EventRate()
			errs[i] = intake.Refused("rate", fmt.Sprintf("more than %d events a second, or %d at once", r.PerSecond, r.Burst))
			continue
		}
		ev, err := eventOf(m)
		if err != nil {
			errs[i] = err
			continue
		}
		list = append(list, ev)
	}
	if err := e.store(ctx, list); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
		return errs
	}
	p.commit()
	return errs
}

// store stores list and tells of what is new.
func (e *Events) store(ctx context.Context, list []Event) error {
	if len(list) == 0 {
		return nil
	}
	fresh, err := e.cfg.Store.AppendEvents(ctx, list)
	if err != nil {
		return err
	}
	added := list[:0:0]
	for i, f := range fresh {
		if f {
			added = append(added, list[i])
			e.trimmer.added(list[i].Device, 1)
		}
	}
	if e.cfg.OnEvents != nil && len(added) > 0 {
		e.cfg.OnEvents(added)
	}
	return nil
}

// eventOf makes the event that m holds.
func eventOf(m *intake.Message) (Event, error) {
	ev := Event{Device: m.Device, Type: m.Tail, Time: m.Arrival, Arrival: m.Arrival, By: m.By}
	if err := checkType(ev.Type); err != nil {
		return ev, intake.Refused("topic", muster.Public(err))
	}
	if len(m.Payload) > MaxPayload {
		return ev, intake.Refused("too_large", fmt.Sprintf("an event has at most %d bytes", MaxPayload))
	}
	var err error
	if ev.Payload, err = asJSON(m.Payload); err != nil {
		return ev, err
	}
	if at, ok := stampIn(ev.Payload); ok {
		ev.Time = at
		if err := checkAge(at, m.Arrival, EventsAge); err != nil {
			return ev, intake.Refused("time", muster.Public(err))
		}
	}
	ev.Mark = markOf(ev.Type, ev.Payload, ev.System)
	return ev, nil
}

// checkAge is muster.CheckStamp, and refuses what would be deleted at once.
func checkAge(at, now muster.Micros, age time.Duration) error {
	if err := muster.CheckStamp(at, now); err != nil {
		return err
	}
	if at < now-muster.Micros(age/time.Microsecond) {
		return muster.Errorf(muster.Invalid, "time stamp %s is older than the %d days that are kept", at.Time().Format(time.RFC3339), age/(24*time.Hour))
	}
	return nil
}

func checkType(s string) error {
	if s == "" || len(s) > maxType {
		return muster.Errorf(muster.Invalid, "the type of an event has 1 to %d characters", maxType)
	}
	for i := range len(s) {
		c := s[i]
		if c != '.' && c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return muster.Errorf(muster.Invalid, "the type of an event holds letters, digits and . _ - only")
		}
	}
	return nil
}

// asJSON returns payload if it is JSON, and as a JSON string if it is text.
func asJSON(payload []byte) (string, error) {
	switch {
	case len(payload) == 0:
		return "null", nil
	case !utf8.Valid(payload):
		return "", intake.Refused("text", "the payload is neither JSON nor text in UTF-8")
	case json.Valid(payload):
		return string(payload), nil
	}
	b, err := json.Marshal(string(payload))
	if err != nil { // a string always marshals
		return "", fmt.Errorf("write text as JSON: %w", err)
	}
	return string(b), nil
}

// stampIn returns the time stamp of a JSON object: its ts or timestamp.
func stampIn(payload string) (muster.Micros, bool) {
	if strings.TrimLeft(payload, " \t\r\n")[0] != '{' {
		return 0, false
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal([]byte(payload), &o); err != nil {
		return 0, false
	}
	for _, key := range []string{"ts", "timestamp"} {
		if at, ok := muster.ParseStamp(o[key]); ok {
			return at, true
		}
	}
	return 0, false
}

func markOf(kind, payload string, system bool) int64 {
	h := fnv.New64a()
	if system {
		_, _ = h.Write([]byte{1}) // a hash takes everything
	}
	_, _ = h.Write([]byte(kind + "\x00" + payload))
	return int64(h.Sum64() & math.MaxInt64)
}

// Append stores events that other rooms know of: Type and Payload (JSON, or empty for
// null) of each, and Time unless it is now. They are marked System. At most 1,000; an
// error means that none is stored.
func (e *Events) Append(ctx context.Context, es []Event) error {
	if len(es) > maxAppend {
		return muster.Errorf(muster.TooLarge, "%d events, at most %d are allowed", len(es), maxAppend)
	}
	list := slices.Clone(es)
	now := muster.MicrosOf(e.cfg.Now())
	for i := range list {
		if err := list[i].system(now); err != nil {
			return err
		}
	}
	return e.store(ctx, list)
}

// system fills in what an event of another room does not say.
func (ev *Event) system(now muster.Micros) error {
	if ev.Payload == "" {
		ev.Payload = "null"
	}
	if err := checkType(ev.Type); err != nil {
		return err
	}
	if len(ev.Payload) > MaxPayload || !utf8.ValidString(ev.Payload) || !json.Valid([]byte(ev.Payload)) {
		return muster.Errorf(muster.Invalid, "the payload of an event is JSON of at most %d bytes", MaxPayload)
	}
	ev.System, ev.Arrival = true, now
	if ev.Time == 0 {
		ev.Time = now
	}
	ev.Mark = markOf(ev.Type, ev.Payload, true)
	return nil
}

// Note has Run append an event soon, for callers that must not wait. Over the rate of
// its device, when too many wait, or when it is none that Append would take, it is
// dropped and counted.
func (e *Events) Note(ev Event) {
	now := muster.MicrosOf(e.cfg.Now())
	p := e.noted.plan()
	if ev.system(now) == nil && p.bucket(ev.Device, now).take() {
		p.commit()
		select {
		case e.notes <- ev:
			return
		default:
		}
	}
	e.dropped.Add(1)
}

// NotesDropped returns how many events of Note were dropped since the start.
func (e *Events) NotesDropped() uint64 { return e.dropped.Load() }

// Trim is the loop that keeps the store within bounds.
func (e *Events) Trim(ctx context.Context) error { return e.trimmer.run(ctx) }

// Run is the loop that stores what Note took.
func (e *Events) Run(ctx context.Context) error {
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case ev := <-e.notes:
			e.appendNotes(ctx, ev)
		case <-sweep.C:
			now := muster.MicrosOf(e.cfg.Now())
			e.rate.sweep(now)
			e.noted.sweep(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// appendNotes appends ev and what else waits.
func (e *Events) appendNotes(ctx context.Context, ev Event) {
	list := []Event{ev}
	for len(list) < maxAppend && len(e.notes) > 0 {
		list = append(list, <-e.notes)
	}
	ctx, cancel := context.WithTimeout(ctx, noteTimeout)
	defer cancel()
	if err := e.Append(ctx, list); err != nil {
		e.dropped.Add(uint64(len(list)))
		e.cfg.Logger.Warn("events of the server's own cannot be stored", "events", len(list), "err", err)
	}
}

// Page returns up to q.Limit events, the newest first, and where the next page begins,
// nil at the end.
func (e *Events) Page(ctx context.Context, q EventQuery) ([]Event, *EventPlace, error) {
	want := q.Limit
	q.Limit++
	found, err := e.cfg.Store.Events(ctx, q)
	if err != nil {
		return nil, nil, fmt.Errorf("read events: %w", err)
	}
	var next *EventPlace
	if len(found) > want {
		found = found[:want]
		last := found[want-1]
		next = &EventPlace{last.Time, last.Mark}
	}
	// Those of one time are ordered by a hash in the store.
	slices.SortStableFunc(found, func(a, b Event) int {
		return cmp.Or(cmp.Compare(b.Time, a.Time), cmp.Compare(b.Arrival, a.Arrival))
	})
	return found, next, nil
}

package trail

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/devices/intake"
)

// Bounds of logs.
const (
	MaxLines = 2000               // kept of a device, and up to 200 more until they are trimmed
	LogsAge  = 7 * 24 * time.Hour // how old they get

	lineSlack   = 200
	sayEvery    = 5 * time.Second // lines that were dropped are said at the latest then
	flushLimit  = 10 * time.Second
	logsChunk   = 100  // rows read at once
	maxScanRows = 4000 // that one page looks at
)

// LineRate is what a device may log.
func LineRate() Rate { return Rate{PerSecond: 50, Burst: 500} }

// LogsConfig is what NewLogs needs.
type LogsConfig struct {
	Store  Store
	Now    func() time.Time
	Logger *slog.Logger
}

// Logs keeps the log lines of devices. It is the owner of intake's kind Log.
type Logs struct {
	cfg     LogsConfig
	rate    *buckets
	turn    chan struct{} // held by the one transaction in flight
	trimmer trimmer
}

var _ intake.Owner = (*Logs)(nil)

// NewLogs returns Logs; Run keeps them within their bounds.
func NewLogs(cfg LogsConfig) *Logs {
	l := &Logs{cfg: cfg, rate: newBuckets(LineRate()), turn: make(chan struct{}, 1)}
	l.trimmer = trimmer{
		keep: MaxLines, slack: lineSlack, trim: cfg.Store.TrimLogs, log: cfg.Logger,
		expire: func(ctx context.Context, limit int) (int, error) {
			return cfg.Store.ExpireLogs(ctx, muster.MicrosOf(cfg.Now().Add(-LogsAge)), limit)
		},
	}
	l.trimmer.init()
	return l
}

// batch is the rows of one transaction, one per device.
type batch struct {
	plan
	rows  []LogRow
	index map[muster.DeviceID]int
}

// add adds a line of a device that arrived at at.
func (b *batch) add(device muster.DeviceID, at muster.Micros, l Line) {
	i, ok := b.index[device]
	if !ok {
		i = len(b.rows)
		b.index[device] = i
		b.rows = append(b.rows, LogRow{Device: device, Arrival: at})
	}
	r := &b.rows[i]
	r.Top = max(r.Top, l.Level)
	r.Lines = append(r.Lines, l)
	r.Count++
}

// say adds the line that says how many were dropped.
func (b *batch) say(device muster.DeviceID, c *bucket, at muster.Micros) {
	if c.refused == 0 {
		return
	}
	r := b.b.rate
	b.add(device, at, Line{Time: at, Level: Warn, Text: fmt.Sprintf("%d lines dropped: more than %d a second, or %d at once", c.refused, r.PerSecond, r.Burst)})
	c.refused = 0
}

func (l *Logs) batch() *batch {
	return &batch{plan: l.rate.plan(), index: map[muster.DeviceID]int{}}
}

// Take implements intake.Owner. Lines over the rate of a device are dropped, and one
// line says how many.
func (l *Logs) Take(ctx context.Context, ms []intake.Message) []error {
	errs := make([]error, len(ms))
	b := l.batch()
	if err := l.enter(ctx); err != nil {
		return spread(errs, err)
	}
	defer l.leave()
	for i := range ms {
		m := &ms[i]
		lines, err := ParseLines(m.Payload, m.Arrival)
		if err != nil {
			errs[i] = err
			continue
		}
		c := b.bucket(m.Device, m.Arrival)
		for _, line := range lines {
			if !c.take() {
				c.refused++
				continue
			}
			b.say(m.Device, c, m.Arrival)
			b.add(m.Device, m.Arrival, line)
		}
	}
	if err := l.store(ctx, b); err != nil {
		return spread(errs, err)
	}
	return errs
}

// spread gives err to all that are not refused.
func spread(errs []error, err error) []error {
	for i := range errs {
		if errs[i] == nil {
			errs[i] = err
		}
	}
	return errs
}

func (l *Logs) enter(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to store log lines: %w", ctx.Err())
	}
}

func (l *Logs) leave() { <-l.turn }

// store stores b. It is called in turn.
func (l *Logs) store(ctx context.Context, b *batch) error {
	for i := range b.rows {
		r := &b.rows[i]
		text, err := json.Marshal(r.Lines)
		if err != nil { // strings and numbers
			return fmt.Errorf("write log lines: %w", err)
		}
		r.Mark = markOf("", string(text), false) & math.MaxInt64
	}
	if len(b.rows) > 0 {
		if err := l.cfg.Store.AppendLogs(ctx, b.rows); err != nil {
			return err
		}
	}
	b.commit()
	for i := range b.rows {
		l.trimmer.added(b.rows[i].Device, b.rows[i].Count)
	}
	return nil
}

// Flush stores what was not said yet of lines that were dropped.
func (l *Logs) Flush(ctx context.Context) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	now := muster.MicrosOf(l.cfg.Now())
	b := l.batch()
	for _, id := range l.rate.sweep(now) {
		c := b.bucket(id, now)
		b.say(id, c, max(now, c.at+1)) // after the lines before it
	}
	return l.store(ctx, b)
}

// Run is the loop that says what was dropped. When it ends it says the rest.
func (l *Logs) Run(ctx context.Context) error {
	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.flush(ctx)
		case <-ctx.Done():
			l.flush(context.WithoutCancel(ctx))
			return nil
		}
	}
}

func (l *Logs) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushLimit)
	defer cancel()
	if err := l.Flush(ctx); err != nil {
		l.cfg.Logger.Warn("that log lines were dropped cannot be said now", "err", err)
	}
}

// Trim is the loop that keeps the store within bounds.
func (l *Logs) Trim(ctx context.Context) error { return l.trimmer.run(ctx) }

// LinePlace is a line's place: its row's arrival and mark, and its index there.
type LinePlace struct {
	Arrival muster.Micros
	Mark    int64
	Index   int
}

// PlacedLine is a line with its place and when it arrived.
type PlacedLine struct {
	Line
	Place LinePlace
}

// PageQuery asks for log lines, the newest first by arrival.
type PageQuery struct {
	Device muster.DeviceID
	Level  Level         // at least as grave
	Text   string        // that the text or the fields contain, without regard to case; empty for all
	From   muster.Micros // arrival
	Before LinePlace     // lines before this place
	Limit  int
}

// Page returns up to q.Limit lines, and where the next page begins, nil at the end. A
// time stamped line that was sent twice shows once on it. It looks at 4,000 rows at
// most, which is more than a device has when it is trimmed.
func (l *Logs) Page(ctx context.Context, q PageQuery) ([]PlacedLine, *LinePlace, error) {
	var out []PlacedLine
	seen := map[Line]bool{}
	text := strings.ToLower(q.Text)
	at := q.Before
	for scanned := 0; scanned < maxScanRows; scanned += logsChunk {
		rows, err := l.cfg.Store.Logs(ctx, LogQuery{
			Device: q.Device, Level: q.Level, From: q.From, Arrival: at.Arrival, Mark: at.Mark, Limit: logsChunk,
		})
		if err != nil {
			return nil, nil, fmt.Errorf("read log lines: %w", err)
		}
		for _, r := range rows {
			for i, line := range slices.Backward(r.Lines) {
				place := LinePlace{r.Arrival, r.Mark, i}
				if !place.before(q.Before) || line.Level < q.Level || !line.contains(text) || line.Stamped && seen[line] {
					continue
				}
				if len(out) == q.Limit {
					return out, &out[len(out)-1].Place, nil
				}
				seen[line] = line.Stamped
				out = append(out, PlacedLine{line, place})
			}
		}
		if len(rows) < logsChunk {
			return out, nil, nil
		}
		last := rows[len(rows)-1]
		at = LinePlace{Arrival: last.Arrival, Mark: last.Mark - 1, Index: math.MaxInt}
	}
	return out, &at, nil
}

func (p LinePlace) before(o LinePlace) bool {
	switch {
	case p.Arrival != o.Arrival:
		return p.Arrival < o.Arrival
	case p.Mark != o.Mark:
		return p.Mark < o.Mark
	}
	return p.Index < o.Index
}

func (l *Line) contains(lower string) bool {
	return lower == "" || strings.Contains(strings.ToLower(l.Text), lower) || strings.Contains(strings.ToLower(l.Fields), lower)
}

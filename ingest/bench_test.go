package ingest_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"muster"
	"muster/devices/trail"
	"muster/ingest"
)

// quick is a log and a store that take everything and keep nothing.
type quick struct{ seq atomic.Uint64 }

func (q *quick) Append(context.Context, string, []byte) (uint64, error) { return q.seq.Add(1), nil }
func (q *quick) Read(context.Context, uint64) ([]byte, error) {
	return nil, muster.Errorf(muster.NotFound, "gone")
}

func (q *quick) State(context.Context) (ingest.LogState, error) {
	return ingest.LogState{Incarnation: "i", First: 1, MaxBytes: 1 << 50}, nil
}
func (q *quick) Purge(context.Context, uint64) error   { return nil }
func (q *quick) Renew(context.Context) (string, error) { return "j", nil }

type sinkStore struct{}

func (sinkStore) Append(_ context.Context, b ingest.Batch) ([]ingest.Outcome, error) {
	return make([]ingest.Outcome, len(b.Readings)), nil
}

func (sinkStore) Cursors(context.Context) (w, l ingest.Cursor, err error)             { return w, l, nil }
func (sinkStore) Sync(context.Context) error                                          { return nil }
func (sinkStore) SaveLatest(context.Context, []ingest.LatestRow, ingest.Cursor) error { return nil }
func (sinkStore) LoadLatest(context.Context) iter.Seq2[ingest.LatestRow, error] {
	return func(func(ingest.LatestRow, error) bool) {}
}

// BenchmarkPipeline takes messages of ten keys from Accept to a store that costs
// nothing. Its clock gives each device the rate that is named.
func BenchmarkPipeline(b *testing.B) {
	for _, devices := range []int{10, 100_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) { pipeline(b, devices, nil) })
		b.Run(fmt.Sprintf("devices=%d,traced", devices), func(b *testing.B) { pipeline(b, devices, tracer{trail.NewTrace(time.Now)}) })
	}
}

// tracer is the trace as the server gives it to ingest.
type tracer struct{ *trail.Trace }

func (t tracer) Begin(m *ingest.Traced) ingest.Trace {
	s := trail.Start{
		Kind: "telemetry", Device: m.Message.Device, Topic: m.Message.Topic, QoS: m.Message.QoS, Payload: m.Message.Payload,
		Size: m.Size, Received: m.Received, Decoded: m.Decoded, Readings: m.Readings,
	}
	for _, r := range m.Refused {
		s.Refused = append(s.Refused, trail.Refusal(r))
	}
	return t.Trace.Begin(&s)
}

func pipeline(b *testing.B, devices int, tracer ingest.Tracer) {
	q := &quick{}
	in := ingest.New(ingest.Config{
		Log: q, Store: sinkStore{}, Latest: sinkStore{}, Level: ingest.LevelDurable, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Tracer: tracer,
	})
	if err := in.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	ms := make([]ingest.Message, devices)
	for i := range ms {
		id := muster.DeviceID(fmt.Sprint("device-", i))
		ms[i] = ingest.Message{Device: id, Topic: "devices/" + string(id) + "/telemetry", QoS: 1, Payload: []byte(
			`{"temperature":21.5,"humidity":40,"pressure":1013.2,"battery":87,"rssi":-71,"a":1,"b":2.5,"c":3,"d":4.25,"e":true}`)}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if err := in.Accept(b.Context(), ms[i%devices]); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.Context()), 20*time.Second)
	defer cancel()
	if err := in.Stop(ctx); err != nil {
		b.Fatal(err)
	}
}

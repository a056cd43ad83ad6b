package sqlite

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"muster"
	"muster/ingest"
)

const (
	benchDevices = 1000
	benchKeys    = 10
)

// benchRows makes batches of readings of 1,000 devices in turn, as a fleet sends them.
type benchRows struct {
	layout *muster.Layout
	rand   *rand.Rand
	ids    []muster.DeviceID
	at     muster.Micros
	n      int
}

func newBenchRows() *benchRows {
	keys := make([]muster.Key, benchKeys)
	for i := range keys {
		keys[i].Name = fmt.Sprintf("metric-%d", i)
	}
	b := &benchRows{layout: muster.NewLayout(keys), rand: rand.New(rand.NewPCG(1, 2)), at: 1_767_225_600_000_000}
	for i := range benchDevices {
		b.ids = append(b.ids, muster.DeviceID(fmt.Sprintf("device-%06d", i)))
	}
	return b
}

func (b *benchRows) next() []muster.Reading {
	out := make([]muster.Reading, ingest.MaxBatch)
	for i := range out {
		nums := make([]float64, benchKeys)
		for j := range nums {
			nums[j] = float64(b.rand.IntN(10_000)) / 10
		}
		b.at += 10_000
		out[i] = muster.Reading{Device: b.ids[b.n%benchDevices], Time: b.at, Arrival: b.at, Layout: b.layout, Numbers: nums}
		b.n++
	}
	return out
}

func points(b *testing.B) {
	b.ReportMetric(float64(b.N)*ingest.MaxBatch*benchKeys/b.Elapsed().Seconds(), "points/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkAppend stores batches of 5,000 readings of 10 keys, from readings as the
// log gives them to committed rows.
func BenchmarkAppend(b *testing.B) {
	s, _ := openTest(b)
	rows := newBenchRows()
	at := ingest.Cursor{Incarnation: "i"}
	first := ingest.Batch{To: at, Readings: rows.next()}
	if _, err := s.Append(context.Background(), first); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		batch := ingest.Batch{From: at, To: ingest.Cursor{Incarnation: "i", Seq: at.Seq + 1}, Readings: rows.next()}
		b.StartTimer()
		if _, err := s.Append(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
		at = batch.To
	}
	points(b)
}

// BenchmarkRawInsert is what BenchmarkAppend is held to: the same rows, encoded
// beforehand, by one prepared INSERT each in one transaction of 5,000, into the same
// schema, and nothing else.
func BenchmarkRawInsert(b *testing.B) {
	s, _ := openTest(b)
	rows := newBenchRows()
	stmt, err := s.write.Prepare(`INSERT INTO telemetry_default (time, device_id, set_id, vals) VALUES (?, ?, ?, ?)`)
	if err != nil {
		b.Fatal(err)
	}
	defer stmt.Close()
	type raw struct {
		time, device, set int64
		vals              []byte
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		var in []raw
		for i, r := range rows.next() {
			var vals []byte
			for _, f := range r.Numbers {
				vals = appendFloat(vals, f)
			}
			in = append(in, raw{int64(r.Time), int64(i%benchDevices) + 1, 1, vals})
		}
		b.StartTimer()
		tx, err := s.write.Begin()
		if err != nil {
			b.Fatal(err)
		}
		bound := tx.Stmt(stmt) //nolint:sqlclosecheck // the commit closes it
		for _, r := range in {
			if _, err := bound.Exec(r.time, r.device, r.set, r.vals); err != nil {
				b.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			b.Fatal(err)
		}
	}
	points(b)
}

// BenchmarkAppendDuplicates appends one batch again and again: a replay.
func BenchmarkAppendDuplicates(b *testing.B) {
	s, _ := openTest(b)
	batch := ingest.Batch{Readings: newBenchRows().next()}
	if _, err := s.Append(context.Background(), batch); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, err := s.Append(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	points(b)
}

// BenchmarkRange reads 6 h of one key of one device that reports every 10 s, beside
// 99 others.
func BenchmarkRange(b *testing.B) {
	s, _ := openTest(b)
	rows := newBenchRows()
	for range 43 { // 100 devices, 6 h
		in := rows.next()
		for i := range in {
			n := rows.n - len(in) + i
			in[i].Device, in[i].Time = rows.ids[n%100], muster.Micros(n/100)*10_000_000
		}
		if _, err := s.Append(context.Background(), ingest.Batch{Readings: in}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		n := 0
		for _, err := range s.Range(context.Background(), ingest.RangeQuery{Device: rows.ids[5], Keys: []string{"metric-3"}, To: 21_600_000_000}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n < 2100 {
			b.Fatalf("%d readings", n)
		}
	}
}

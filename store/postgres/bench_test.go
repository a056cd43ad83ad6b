package postgres

import (
	"bytes"
	"fmt"
	"math"
	"testing"
	"time"

	"muster"
	"muster/ingest"
	"muster/store/postgres/pgtest"
)

// Both benchmarks store 5,000 messages of 10 values a turn, of 1,000 devices, each
// turn in one committed transaction. The figure to compare is points/s.
const (
	benchDevices = 1000
	benchKeys    = 10
	benchStart   = muster.Micros(1_767_225_600_000_000)
)

func onEachEngine(b *testing.B, run func(b *testing.B, dsn string)) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) { run(b, pgtest.Empty(b, pgtest.Server(b, e.env))) })
	}
}

// BenchmarkAppend is the way of every reading: interned, deduplicated, copied into
// the uniquely indexed table with the cursor.
func BenchmarkAppend(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		s := opened(b, dsn)
		batch := benchBatch()
		turn := 0
		for b.Loop() {
			nextBatch(&batch, turn)
			turn++
			if _, err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		reportPoints(b)
	})
}

// BenchmarkAppendDuplicates appends a batch of which each hundredth message was
// stored before: a redelivery after a reconnect.
func BenchmarkAppendDuplicates(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		s := opened(b, dsn)
		batch := benchBatch()
		turn, old := 0, benchStart
		for b.Loop() {
			nextBatch(&batch, turn)
			for i := 0; i < len(batch.Readings) && turn > 0; i += 100 {
				batch.Readings[i].Time = old + muster.Micros(i/benchDevices)*1_000_000
			}
			old = benchStart + muster.Micros(turn)*5_000_000
			turn++
			if _, err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		reportPoints(b)
	})
}

// BenchmarkAppendReplay appends batches that are there already.
func BenchmarkAppendReplay(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		s := opened(b, dsn)
		batch := benchBatch()
		nextBatch(&batch, 0)
		if _, err := s.Append(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			batch.From = batch.To
			batch.To.Seq++
			if _, err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		reportPoints(b)
	})
}

// BenchmarkRawCopy is what the server can take at best: narrow rows without an
// index, encoded beforehand.
func BenchmarkRawCopy(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		c := connect(b, dsn)
		defer closeConn(b, c)
		if _, err := c.Exec(b.Context(), `CREATE TABLE narrow (time timestamptz, device int, metric int, value float8)`); err != nil {
			b.Fatal(err)
		}
		data := narrowRows()
		for b.Loop() {
			if _, err := c.PgConn().CopyFrom(b.Context(), bytes.NewReader(data), `COPY narrow FROM STDIN (FORMAT binary)`); err != nil {
				b.Fatal(err)
			}
		}
		reportPoints(b)
	})
}

// BenchmarkRangeSixHours reads one key of one device of 1,000, a message a minute.
func BenchmarkRangeSixHours(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		s := opened(b, dsn)
		batch := benchBatch()
		for turn := range 72 { // 5 minutes of the fleet a turn
			nextBatch(&batch, turn)
			for i := range batch.Readings {
				batch.Readings[i].Time = benchStart + muster.Micros(turn*5+i/benchDevices)*60_000_000
			}
			if _, err := s.Append(b.Context(), batch); err != nil {
				b.Fatal(err)
			}
		}
		admin(b, dsn, `VACUUM ANALYZE telemetry_default`)
		q := ingest.RangeQuery{Device: "device-0500", Keys: []string{"metric_3"}, To: endTime}
		for b.Loop() {
			n := 0
			for _, err := range s.Range(b.Context(), q) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != 360 {
				b.Fatalf("%d readings, want 360", n)
			}
		}
	})
}

// BenchmarkLoadLatest is a warm start: 100,000 devices with 10 values each.
func BenchmarkLoadLatest(b *testing.B) {
	onEachEngine(b, func(b *testing.B, dsn string) {
		s := opened(b, dsn)
		rows := make([]ingest.LatestRow, 100_000)
		for i := range rows {
			rows[i].Device = muster.DeviceID(fmt.Sprintf("device-%06d", i))
			for k := range benchKeys {
				v := ingest.LatestValue{Time: benchStart, Arrival: benchStart + 1}
				v.Key.Name, v.Num = fmt.Sprintf("metric_%d", k), benchValue(i, k)
				rows[i].Values = append(rows[i].Values, v)
			}
		}
		began := time.Now()
		if err := s.SaveLatest(b.Context(), rows, ingest.Cursor{}); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/save")
		for b.Loop() {
			n := 0
			for _, err := range s.LoadLatest(b.Context()) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != len(rows) {
				b.Fatalf("%d devices, want %d", n, len(rows))
			}
		}
	})
}

func reportPoints(b *testing.B) {
	b.ReportMetric(float64(b.N)*ingest.MaxBatch*benchKeys/b.Elapsed().Seconds(), "points/s")
}

func benchBatch() ingest.Batch {
	keys := make([]muster.Key, benchKeys)
	for i := range keys {
		keys[i].Name = fmt.Sprintf("metric_%d", i)
	}
	layout := muster.NewLayout(keys)
	rs := make([]muster.Reading, ingest.MaxBatch)
	for i := range rs {
		rs[i] = muster.Reading{Device: muster.DeviceID(fmt.Sprintf("device-%04d", i%benchDevices)), Layout: layout, Numbers: make([]float64, benchKeys)}
	}
	return ingest.Batch{Readings: rs}
}

// nextBatch makes batch the messages of five seconds of all devices.
func nextBatch(batch *ingest.Batch, turn int) {
	for i := range batch.Readings {
		r := &batch.Readings[i]
		r.Time = benchStart + muster.Micros(turn*ingest.MaxBatch/benchDevices+i/benchDevices)*1_000_000
		for k := range r.Numbers {
			r.Numbers[k] = benchValue(turn*ingest.MaxBatch+i, k)
		}
	}
	batch.From = batch.To
	batch.To = ingest.Cursor{Incarnation: "bench", Seq: uint64(turn + 1)}
}

func benchValue(i, k int) float64 { return math.Round(200+100*math.Sin(float64(i*7+k))) / 10 }

func narrowRows() []byte {
	data := []byte(copyHeader)
	for i := range ingest.MaxBatch {
		for k := range benchKeys {
			data = be.AppendUint16(data, 4)
			at := benchStart + muster.Micros(i/benchDevices)*1_000_000
			data = be.AppendUint64(be.AppendUint32(data, 8), uint64(at-pgEpoch))
			data = be.AppendUint32(be.AppendUint32(data, 4), uint32(i%benchDevices))
			data = be.AppendUint32(be.AppendUint32(data, 4), uint32(k))
			data = be.AppendUint64(be.AppendUint32(data, 8), math.Float64bits(benchValue(i, k)))
		}
	}
	return append(data, 0xff, 0xff)
}

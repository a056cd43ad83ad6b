package journal_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"muster/broker/journal"
)

// BenchmarkWrite is writes answered after their fsync, on the real log. Each writer
// has a window of answers it waits for; each record replaces the writer's one before.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 100} {
		for _, window := range []int{1, 20} {
			for _, size := range []int{100, 1000} {
				b.Run(fmt.Sprintf("writers=%d/window=%d/bytes=%d", writers, window, size), func(b *testing.B) {
					o := openReal(b, b.TempDir(), 1<<30, 0)
					benchWriters(b, o, writers, window, size)
					st := o.j.Stats()
					b.ReportMetric(float64(st.Records)/float64(max(st.Frames, 1)), "records/frame")
					if st.Errors > 0 {
						b.Errorf("%+v", st)
					}
				})
			}
		}
	}
}

func benchWriters(b *testing.B, o *opened, writers, window, size int) {
	b.ReportAllocs()
	b.SetBytes(int64(size))
	value := random(size - 9)
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			slots := make(chan struct{}, window)
			done := func(error) { <-slots }
			items := [2]*entry{newEntry(uint64(w), value), newEntry(uint64(w), value)}
			drop := [2][]*journal.Item{{&items[1].Item}, {&items[0].Item}}
			encode := items[0].AppendRecord
			for i := range b.N / writers {
				slots <- struct{}{}
				o.j.WriteFunc(encode, &items[i%2].Item, drop[i%2], done)
			}
			for range window {
				slots <- struct{}{}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// BenchmarkReplay is records of 100 bytes read back from the real log.
func BenchmarkReplay(b *testing.B) {
	for _, perFrame := range []int{10, 1000} {
		b.Run(fmt.Sprintf("perframe=%d", perFrame), func(b *testing.B) {
			o := openReal(b, b.TempDir(), 1<<30, 1<<30)
			const frames = 200
			value := random(91)
			for f := range uint64(frames) {
				for k := range uint64(perFrame) {
					o.put(f*uint64(perFrame)+k, value, nil)
				}
				o.flush(b)
			}
			o.halt()
			records := 0
			b.ResetTimer()
			for b.Loop() {
				j, err := journal.New(journal.Config{Log: o.log, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				if err := j.Replay(b.Context(), func(uint64, []byte) error { records++; return nil }); err != nil {
					b.Fatal(err)
				}
			}
			if records != b.N*frames*perFrame {
				b.Errorf("%d records", records)
			}
			b.ReportMetric(float64(records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

// nothing is a log that takes everything at once.
type nothing struct{ seq uint64 }

func (l *nothing) Append(context.Context, string, []byte) (uint64, error) { l.seq++; return l.seq, nil }
func (l *nothing) Read(context.Context, uint64) ([]byte, error)           { return nil, nil }
func (l *nothing) Bounds(context.Context) (first, last uint64, n, most int64, err error) {
	return 1, l.seq, 0, 0, nil
}
func (l *nothing) Purge(context.Context, uint64) error { return nil }

// BenchmarkItem is what the journal itself costs: memory per live item, and time per
// write with a log that costs nothing.
func BenchmarkItem(b *testing.B) {
	j, err := journal.New(journal.Config{Log: &nothing{}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	if err := j.Replay(b.Context(), func(uint64, []byte) error { return nil }); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = j.Run(ctx) })
	items := make([]journal.Item, b.N)
	owner := newEntry(1, random(91))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b.ReportAllocs()
	b.ResetTimer()
	began := time.Now()
	for i := range items {
		items[i].Owner = owner
		j.WriteFunc(owner.AppendRecord, &items[i], nil, nil)
		if j.Full() {
			if err := j.Room(ctx); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := j.Flush(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(began).Nanoseconds())/float64(b.N), "ns/write")
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric((float64(after.HeapAlloc)-float64(before.HeapAlloc))/float64(b.N)+48, "B/item")
	runtime.KeepAlive(items)
	cancel()
	wg.Wait()
}

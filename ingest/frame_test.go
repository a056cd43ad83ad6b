package ingest

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"muster"
)

func drawReading(t *rapid.T, ls *Layouts) muster.Reading {
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d.e", "é", "temperature"}), 1, 5, rapid.ID[string]).Draw(t, "names")
	keys := make([]muster.Key, len(names))
	for i, n := range names {
		keys[i] = muster.Key{Name: n, Kind: muster.ValueKind(rapid.IntRange(0, 2).Draw(t, "kind"))}
	}
	l := ls.Intern(muster.NewLayout(keys))
	r := muster.Reading{
		Device:  muster.DeviceID(rapid.SampledFrom([]string{"d1", "d2", "d3"}).Draw(t, "device")),
		Arrival: muster.Micros(rapid.Int64Range(1, 1<<52).Draw(t, "arrival")),
		Layout:  l,
	}
	r.Time = r.Arrival + muster.Micros(rapid.Int64Range(-1<<50, 1<<40).Draw(t, "skew"))
	for range l.Numbers {
		r.Numbers = append(r.Numbers, rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN())).Draw(t, "v"))
	}
	for range len(l.Keys) - l.Numbers {
		r.Texts = append(r.Texts, fmt.Sprintf("%q", rapid.String().Draw(t, "text")))
	}
	return r
}

func TestFramesReadBackWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ls := NewLayouts()
		w := newFrameWriter()
		var readings []muster.Reading
		var rejected []muster.Rejected
		for range rapid.IntRange(1, 20).Draw(t, "n") {
			if rapid.Bool().Draw(t, "reading") {
				r := drawReading(t, ls)
				w.reading(&r)
				readings = append(readings, r)
				continue
			}
			r := muster.Rejected{
				Device: "d1", Arrival: muster.Micros(rapid.Int64Range(1, 1<<50).Draw(t, "arrival")), Topic: "t", Code: "c",
				Reason: rapid.String().Draw(t, "reason"), Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), Size: 7,
			}
			w.rejected(&r)
			rejected = append(rejected, r)
		}
		gotR, gotJ, info, err := readFrame(w.seal(41), ls.Intern)
		if err != nil {
			t.Fatal(err)
		}
		opts := cmp.Options{cmpopts.EquateNaNs(), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(readings, gotR, opts); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(rejected, gotJ, opts); diff != "" {
			t.Fatal(diff)
		}
		if info.count != len(readings)+len(rejected) || info.total != 41+uint64(info.count) {
			t.Fatalf("header %+v", info)
		}
	})
}

func TestADamagedFrameIsNoticed(t *testing.T) {
	w := newFrameWriter()
	l := muster.NewLayout([]muster.Key{{Name: "a"}})
	w.reading(&muster.Reading{Device: "d", Time: 1, Arrival: 2, Layout: l, Numbers: []float64{1}})
	frame := w.seal(0)
	for i := range frame {
		bad := append([]byte(nil), frame...)
		bad[i] ^= 0x40
		if _, _, _, err := readFrame(bad, NewLayouts().Intern); err == nil {
			t.Errorf("a flipped bit in byte %d went unnoticed", i)
		}
	}
}

// FuzzReadRecords feeds records behind a right header and checksum: no panic, no
// allocation beyond the input's size.
func FuzzReadRecords(f *testing.F) {
	w := newFrameWriter()
	l := muster.NewLayout([]muster.Key{{Name: "a"}, {Name: "b", Kind: muster.JSON}})
	w.reading(&muster.Reading{Device: "d", Time: 1, Arrival: 2, Layout: l, Numbers: []float64{1}, Texts: []string{`"x"`}})
	w.rejected(&muster.Rejected{Device: "d", Arrival: 3, Topic: "t", Code: "c", Reason: "r", Payload: []byte("p"), Size: 1})
	f.Add(w.buf[frameHeader:], 2)
	f.Fuzz(func(_ *testing.T, records []byte, count int) {
		w := newFrameWriter()
		w.buf = append(w.buf, records...)
		w.count = count & 0xffff
		_, _, _, _ = readFrame(w.seal(0), NewLayouts().Intern)
	})
}

func BenchmarkFrame(b *testing.B) {
	names := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	keys := make([]muster.Key, len(names))
	for i, n := range names {
		keys[i].Name = n
	}
	r := muster.Reading{Layout: muster.NewLayout(keys), Numbers: make([]float64, 10), Time: 1e15, Arrival: 1e15}
	ids := make([]muster.DeviceID, 100)
	for i := range ids {
		ids[i] = muster.DeviceID(fmt.Sprint("device-", i))
	}
	b.ReportAllocs()
	w := newFrameWriter()
	for i := 0; b.Loop(); i++ {
		if w.size() > frameTarget {
			w = newFrameWriter()
		}
		r.Device = ids[i%100]
		r.Arrival++
		w.reading(&r)
	}
}

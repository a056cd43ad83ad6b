package twin_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/devices"
	"muster/devices/query"
	"muster/devices/twin"
	"muster/store/control"
)

// kilobyte is a document of about 1 KiB with 24 members at two levels.
func kilobyte(n int) string {
	parts := make([]string, 24)
	for i := range parts {
		parts[i] = fmt.Sprintf(`"setting_%02d":{"value":%d.%02d,"unit":"celsius"}`, i, n%1000, i)
	}
	return "{" + strings.Join(parts, ",") + `,"zone":{"mode":"eco"}}`
}

func (r *rig) many(n int, c func(i int) devices.Spec) {
	r.Helper()
	for from := 0; from < n; from += devices.MaxBatch {
		specs := make([]devices.Spec, min(devices.MaxBatch, n-from))
		for i := range specs {
			specs[i] = c(from + i)
		}
		_, _, err := r.registry.CreateMany(r.Context(), specs)
		must(r, err)
	}
	r.settle()
}

func (r *rig) reportAll(n int, patch func(i int) string) {
	r.Helper()
	for from := 0; from < n; from += 500 {
		batch := make([]twin.Report, min(500, n-from))
		for i := range batch {
			batch[i] = twin.Report{Device: name(from + i), Patch: []byte(patch(from + i))}
		}
		for _, err := range r.twins.ApplyReported(r.Context(), batch) {
			must(r, err)
		}
	}
}

func name(i int) muster.DeviceID { return muster.DeviceID(fmt.Sprintf("device-%06d", i)) }

// A desired change for a group of 10,000 devices that report 1 KiB each: commit, merge,
// compare, tell and write all rows. Goal: under 2 s.
func BenchmarkAChangeForAGroupOf10k(b *testing.B) {
	onEach(b, func(b *testing.B, c *control.Control) {
		const n = 10_000
		r := newRig(b, c)
		r.groups("g")
		r.many(n, func(i int) devices.Spec { return devices.Spec{ID: name(i), Groups: *groupsOf(b, "g")} })
		r.reportAll(n, kilobyte)
		r.patch(twin.Group("g"), kilobyte(1))
		r.changes = 0
		k := 0
		var told time.Duration
		for b.Loop() {
			k++
			began := time.Now()
			r.onTold = func() { told += time.Since(began) }
			if d := r.patch(twin.Group("g"), fmt.Sprintf(`{"setting_00":{"value":%d}}`, 100+k)); d.Changed != n {
				b.Fatalf("%d devices changed", d.Changed)
			}
		}
		if r.changes != k*n {
			b.Fatalf("%d devices were told", r.changes)
		}
		b.ReportMetric(told.Seconds()*1000/float64(k), "ms-until-told")
	})
}

// 500 reports of different devices, 1 KiB documents, one transaction.
func BenchmarkABatchOf500Reports(b *testing.B) {
	onEach(b, func(b *testing.B, c *control.Control) {
		r := newRig(b, c)
		r.many(500, func(i int) devices.Spec { return devices.Spec{ID: name(i)} })
		r.reportAll(500, kilobyte)
		k := 0
		for b.Loop() {
			k++
			r.reportAll(500, func(int) string { return fmt.Sprintf(`{"zone":{"mode":"m%d"}}`, k) })
		}
		b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(500*b.N), "µs/report")
	})
}

// 100,000 twins of 1 KiB reported and a desired document of the fleet: how long Load
// takes, and how much memory a twin takes beside its reported document.
func BenchmarkLoadOf100kTwins(b *testing.B) {
	onEach(b, func(b *testing.B, c *control.Control) {
		const n = 100_000
		r := newRig(b, c)
		r.many(n, func(i int) devices.Spec { return devices.Spec{ID: name(i)} })
		r.patch(twin.Fleet(), `{"zone":{"mode":"eco"},"setting_01":{"value":7}}`)
		r.reportAll(n, kilobyte)
		var before, after runtime.MemStats
		for b.Loop() {
			r.twins = nil
			r.unwatch()
			runtime.GC()
			runtime.ReadMemStats(&before)
			r.twins = twin.New(r.store, r.registry, r.nowFunc, r.log, twin.Options{})
			must(b, r.twins.Load(b.Context()))
			b.StopTimer()
			runtime.GC()
			runtime.ReadMemStats(&after)
			b.StartTimer()
		}
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/twin")
		b.ReportMetric(float64(len(r.get(name(1)).Reported)), "B/document")
	})
}

// What the query language asks of each device of a list, on 1 KiB documents. Goal: at
// most 2 µs a call, without allocating.
func BenchmarkQuestionsOfAQuery(b *testing.B) {
	r := newRig(b, onSQLite(b))
	r.device(name(0))
	r.patch(twin.Device(name(0)), kilobyte(1))
	r.report(name(0), kilobyte(2))
	id := name(0)
	zone, middle := []string{"zone", "mode"}, []string{"setting_12", "unit"}
	b.Run("leaf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v := r.twins.Leaf(id, query.Reported, zone); v != `"eco"` {
				b.Fatal(v)
			}
		}
	})
	b.Run("leaf in the middle", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v := r.twins.Leaf(id, query.Desired, middle); v != `"celsius"` {
				b.Fatal(v)
			}
		}
	})
	b.Run("converged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if converged(r, id) {
				b.Fatal("converged")
			}
		}
	})
	b.Run("diverged", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, differs := r.twins.Difference(id, "setting_23.value"); !differs {
				b.Fatal("not diverged")
			}
		}
	})
}

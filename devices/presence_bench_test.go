package devices_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"muster"
	"muster/devices"
)

// benchFleet is n devices, which are connected.
func benchFleet(b *testing.B, n int) (*rig, []muster.DeviceID) {
	b.Helper()
	g := newRig(b)
	ids := make([]muster.DeviceID, n)
	for from := 0; from < n; from += devices.MaxBatch {
		var specs []devices.Spec
		for i := range min(devices.MaxBatch, n-from) {
			ids[from+i] = muster.DeviceID(fmt.Sprintf("device-%06d", from+i))
			specs = append(specs, devices.Spec{ID: ids[from+i]})
		}
		if _, _, err := g.r.CreateMany(b.Context(), specs); err != nil {
			b.Fatal(err)
		}
	}
	for _, id := range ids {
		g.connect(id)
	}
	return g, ids
}

// BenchmarkObserve is the price of one message, with the devices in random order.
func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		for _, gap := range []muster.Micros{100_000, 60e6} {
			b.Run(fmt.Sprintf("devices=%d/every=%vs", n, float64(gap)/1e6), func(b *testing.B) {
				g, ids := benchFleet(b, n)
				const frame = 1000
				rng := rand.New(rand.NewPCG(1, 2))
				order := rng.Perm(n)
				frames := make([][]muster.Reading, n/frame)
				for f := range frames {
					for i := range frame {
						id := muster.DeviceID([]byte(ids[order[f*frame+i]])) // not the registry's own text
						frames[f] = append(frames[f], muster.Reading{Device: id})
					}
				}
				at, k := micros(0), 0
				b.ReportAllocs()
				for b.Loop() {
					if k == 0 {
						at += gap
					}
					rs := frames[k/frame]
					r := &rs[k%frame]
					r.Arrival, r.Time = at, at
					if k++; k%frame == 0 {
						g.r.Observe(rs)
					}
					k %= n
				}
			})
		}
	}
}

func BenchmarkHeardAmong100kDevices(b *testing.B) {
	g, ids := benchFleet(b, 100_000)
	rng := rand.New(rand.NewPCG(1, 2))
	order := rng.Perm(len(ids))
	at, k := micros(0), 0
	b.ReportAllocs()
	for b.Loop() {
		g.r.Heard(ids[order[k]], at)
		if k++; k == len(order) {
			k, at = 0, at+60e6
		}
	}
}

// BenchmarkAbsence looks at 100k devices whose deadlines have come; none is absent.
func BenchmarkAbsence(b *testing.B) {
	g, ids := benchFleet(b, 100_000)
	for range 7 {
		g.now += 10
		for _, id := range ids {
			g.hear(id)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		g.now += 15
		for _, id := range ids {
			g.r.Heard(id, micros(g.now))
		}
		g.now += 10
		g.r.FindAbsent()
	}
	if n := g.r.Counts()[muster.Status(online)]; n != len(ids) {
		b.Fatalf("%d are online", n)
	}
}

// BenchmarkAGatewayOf10kChildrenIsLost holds the lock for as long as it takes.
func BenchmarkAGatewayOf10kChildrenIsLost(b *testing.B) {
	g := newRig(b, devices.Spec{ID: "g"})
	specs := make([]devices.Spec, 10_000)
	for i := range specs {
		specs[i] = devices.Spec{ID: muster.DeviceID(fmt.Sprintf("c%05d", i)), Parent: "g"}
	}
	if _, _, err := g.r.CreateMany(b.Context(), specs); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		g.now++
		g.connect("g")
		for _, s := range specs {
			g.hear(s.ID)
		}
		g.r.Deliver()
		g.told = nil
		b.StartTimer()
		g.end("g", "disconnected")
	}
}

// BenchmarkMemoryOfPresence shows the bytes that a device's presence takes.
func BenchmarkMemoryOfPresence(b *testing.B) {
	heap := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	const n = 100_000
	for b.Loop() {
		empty := heap()
		g, ids := benchFleet(b, n)
		g.r.Deliver()
		g.told = nil
		if err := g.r.Flush(b.Context(), true); err != nil {
			b.Fatal(err)
		}
		g.m.presence, g.m.history, g.m.devices, g.live = nil, nil, nil, nil
		b.ReportMetric((heap()-empty)/n, "B/device-with-registry-and-connection")
		runtime.KeepAlive(g)
		runtime.KeepAlive(ids)
	}
}

// BenchmarkUpdating tells of 100k devices which of them update, as each start and each minute does: all, and then none.
func BenchmarkUpdating(b *testing.B) {
	g, _ := benchFleet(b, 100_000)
	all := false
	b.ReportAllocs()
	for b.Loop() {
		all = !all
		g.r.SetAllUpdating(func(muster.DeviceID) bool { return all })
	}
}

package operator_test

import (
	"fmt"
	"testing"
	"time"

	"muster"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/sqlite"
)

// BenchmarkStart has a rollout of 100,000 devices, with a canary query, made and running.
func BenchmarkStart(b *testing.B) {
	const n = 100_000
	h, err := sqlite.OpenControl(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	store, err := control.Open(b.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	f := &fleet{now: time.Now}
	for i := range n {
		f.ids = append(f.ids, muster.DeviceID(fmt.Sprintf("dev-%06d", i)))
	}
	c := &catalogue{products: map[string]string{"rel_1": "pump", "rel_2": "pump"}, bad: map[string]bool{}}
	o := operator.New(operator.Parts{Store: store, Reader: store, Fleet: f, Facts: f, Releases: c, Now: time.Now}, operator.NewNoting(store), operator.Options{})
	began := time.Now()
	rounds := 0
	for b.Loop() {
		rounds++
		if r, err := o.Create(b.Context(), ann, spec(starting)); err != nil || r.Status != rollout.Running {
			b.Fatal(r.Status, err)
		}
	}
	b.ReportMetric(time.Since(began).Seconds()/float64(rounds), "s/rollout")
}

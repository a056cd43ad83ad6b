package live_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"muster/dashboard/live"
)

func TestTheMetricsAreTheFiguresOfStats(t *testing.T) {
	s := open(t, newWorld(3), live.Config{})
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(s.g.Metrics())
	p := s.browser("ann")
	p.send(`{"t":"sub","id":1,"ch":"devices"}`)
	p.expect("snapshot")
	s.tick(1)
	p.sync()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		one := f.GetMetric()[0]
		got[f.GetName()] = one.GetGauge().GetValue() + one.GetCounter().GetValue()
	}
	st := s.g.Stats()
	if st.Connections != 1 || st.Rows != 3 || st.Messages == 0 {
		t.Fatalf("stats are %+v", st)
	}
	for name, want := range map[string]float64{
		"connections": 1, "streams": 0, "rows": 3, "messages_total": float64(st.Messages), "sent_bytes_total": float64(st.Bytes),
		"rate_hertz": 5, "failed_total": 0, "overflows_total": 0, "slowed_total": 0, "panics_total": 0, "inbox_faults_total": 0,
	} {
		if is, ok := got["muster_live_"+name]; !ok || is != want {
			t.Errorf("muster_live_%s is %v (%v), want %v", name, is, ok, want)
		}
	}
	if len(got) != 11 {
		t.Errorf("the metrics are %v", got)
	}
}

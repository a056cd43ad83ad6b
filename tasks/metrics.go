package tasks

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Status is one kind on the System page.
type Status struct {
	Kind        string `json:"kind"`
	Running     int    `json:"running"`
	Queued      int    `json:"queued"`
	Concurrency int    `json:"concurrency"`
	Queue       int    `json:"queue"`
	// States is how many tasks that are kept stand in each state.
	States map[State]int `json:"states"`
}

// Stats is the room on the System page.
type Stats struct {
	Kinds       []Status `json:"kinds"`
	Kept        int      `json:"kept"` // tasks
	Shared      int      `json:"shared"`
	Panics      int64    `json:"panics"`
	FileBytes   int64    `json:"file_bytes"`
	MemoryBytes int64    `json:"memory_bytes"`
}

// Stats returns what goes on.
func (t *Tasks) Stats() Stats {
	kinds := t.Kinds()
	t.mu.Lock()
	defer t.mu.Unlock()
	out := Stats{
		Kinds: make([]Status, len(kinds)), Kept: len(t.order), Shared: len(t.memo), Panics: t.panics.Load(),
		FileBytes: t.files.used.Load(), MemoryBytes: t.memory,
	}
	counts := t.count()
	for i, k := range kinds {
		of := t.kinds[k.Name]
		out.Kinds[i] = Status{k.Name, of.running, len(of.queue) + of.starting, k.Concurrency, k.Queue, counts[k.Name]}
	}
	return out
}

// count returns how many tasks of each registered kind are in each state, with the lock
// held; every state is there.
func (t *Tasks) count() map[string]map[State]int {
	out := make(map[string]map[State]int, len(t.kinds))
	for name := range t.kinds {
		out[name] = make(map[State]int, len(States()))
		for _, s := range States() {
			out[name][s] = 0
		}
	}
	for _, j := range t.order {
		if of := out[j.Kind]; of != nil {
			of[j.State]++
		}
	}
	return out
}

// Metrics returns the collector of muster_tasks and muster_tasks_panics_total.
func (t *Tasks) Metrics() prometheus.Collector {
	return &metrics{
		tasks:  t,
		kept:   prometheus.NewDesc("muster_tasks", "Tasks that are kept, by kind and state.", []string{"kind", "state"}, nil),
		panics: prometheus.NewDesc("muster_tasks_panics_total", "Tasks that ended in a panic.", nil, nil),
	}
}

type metrics struct {
	tasks        *Tasks
	kept, panics *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.kept; ch <- m.panics }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.tasks.mu.Lock()
	counts := m.tasks.count()
	m.tasks.mu.Unlock()
	for kind, of := range counts {
		for state, n := range of {
			ch <- prometheus.MustNewConstMetric(m.kept, prometheus.GaugeValue, float64(n), kind, string(state))
		}
	}
	ch <- prometheus.MustNewConstMetric(m.panics, prometheus.CounterValue, float64(m.tasks.panics.Load()))
}

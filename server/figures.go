package server

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"

	"muster/store/sqlite"
)

const (
	sizeEvery = 30 * time.Second // how old the size of the database may be
	sizeTime  = 2 * time.Second  // for asking
)

// engine is what the databases are, and how large.
type engine struct {
	Name       string // sqlite or postgres
	Version    string // of the server, empty for SQLite
	Timescale  string // the extension's version, empty without it
	Licence    string
	Hypertable bool
	size       func(ctx context.Context) (int64, error)
}

func sqliteEngine(dir string) engine {
	return engine{Name: "sqlite", size: func(ctx context.Context) (int64, error) { return sqlite.Size(ctx, dir) }}
}

// databaseSection is the part of the System page about the databases.
type databaseSection struct {
	Engine     string `json:"engine"`
	Version    string `json:"version,omitempty"`
	Timescale  string `json:"timescale,omitempty"`
	Licence    string `json:"licence,omitempty"`
	Hypertable bool   `json:"hypertable"`
	Bytes      int64  `json:"bytes"` // as it was some seconds ago; -1 while that is not known
	Down       bool   `json:"down"`
}

// sizes remembers how large the database is.
type sizes struct {
	ask func(ctx context.Context) (int64, error)
	now func() time.Time

	mu    sync.Mutex
	at    time.Time
	bytes int64
}

// get returns the size as it was some seconds ago, -1 while it is not known.
func (z *sizes) get() int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	now := z.now()
	if !z.at.IsZero() && now.Sub(z.at) < sizeEvery {
		return z.bytes
	}
	ctx, cancel := context.WithTimeout(context.Background(), sizeTime)
	defer cancel()
	z.at, z.bytes = now, -1 // a store that is away is not asked all the time
	if bytes, err := z.ask(ctx); err == nil {
		z.bytes = bytes
	}
	return z.bytes
}

func (s *Server) database() databaseSection {
	e := s.stores.engine
	return databaseSection{
		Engine: e.Name, Version: e.Version, Timescale: e.Timescale, Licence: e.Licence, Hypertable: e.Hypertable,
		Bytes: s.size.get(), Down: s.ingest.Status().StoreDown,
	}
}

// nodeSection is this server, as a part of the System page.
type nodeSection struct {
	ID        string `json:"id"`   // of the data directory, the same over restarts
	Host      string `json:"host"` // its name on the machine
	StartedAt string `json:"started_at"`
	Go        string `json:"go"`
	OS        string `json:"os"`
	Arch      string `json:"arch"`
	CPUs      int    `json:"cpus"`
	Routines  int    `json:"goroutines"`
	Heap      uint64 `json:"heap_bytes"` // in use
	Held      uint64 `json:"held_bytes"` // taken from the system
}

func (s *Server) node() nodeSection {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	host, _ := os.Hostname() // a machine without a name has none
	return nodeSection{
		ID: s.instance, Host: host, StartedAt: s.began.UTC().Format(time.RFC3339Nano), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.GOMAXPROCS(0), Routines: runtime.NumGoroutine(),
		Heap: sample[0].Value.Uint64(), Held: sample[1].Value.Uint64() - sample[2].Value.Uint64(),
	}
}

// timingSection says how long something took, since the start.
type timingSection struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_ms"` // half were not slower; 0 without any
	P99   float64 `json:"p99_ms"`
}

// timed are the histograms of /metrics that the System page shows, by their names there.
func timed() map[string]string {
	return map[string]string{"muster_log_append_seconds": "log", "muster_store_append_seconds": "store"}
}

// timings are how long the log and the store take what they are given.
func (s *Server) timings() map[string]timingSection {
	out := make(map[string]timingSection, len(timed()))
	families, err := s.metrics.Gather()
	if err != nil {
		return out // /metrics says why
	}
	for _, f := range families {
		name, ok := timed()[f.GetName()]
		if !ok || len(f.GetMetric()) == 0 {
			continue
		}
		h := f.GetMetric()[0].GetHistogram()
		buckets := make([]bucket, len(h.GetBucket()))
		for i, b := range h.GetBucket() {
			buckets[i] = bucket{b.GetUpperBound(), b.GetCumulativeCount()}
		}
		n := h.GetSampleCount()
		out[name] = timingSection{n, 1000 * quantile(buckets, n, 0.5), 1000 * quantile(buckets, n, 0.99)}
	}
	return out
}

// bucket says how many observations were not above a bound.
type bucket struct {
	bound float64
	upTo  uint64
}

// quantile estimates a quantile of n observations as Prometheus does: by a line through its bucket.
// What is beyond the last bucket counts as its bound; 0 without any observation.
func quantile(buckets []bucket, n uint64, q float64) float64 {
	if n == 0 {
		return 0
	}
	rank := q * float64(n)
	var below, lower float64
	for _, b := range buckets {
		upTo := float64(b.upTo)
		if upTo >= rank && upTo > below {
			return lower + (b.bound-lower)*(rank-below)/(upTo-below)
		}
		below, lower = upTo, b.bound
	}
	return lower
}

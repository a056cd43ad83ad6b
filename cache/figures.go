package cache

import "github.com/prometheus/client_golang/prometheus"

// Figures are what one cache did and holds.
type Figures struct {
	Name      string
	Hits      uint64
	Misses    uint64
	Evictions uint64 // for want of room
	Entries   int
}

// Ratio is the share of questions that were answered from memory, 0 before the first.
func (f Figures) Ratio() float64 {
	all := f.Hits + f.Misses
	if all == 0 {
		return 0
	}
	return float64(f.Hits) / float64(all)
}

// Shown is a cache on the System page.
type Shown struct {
	Hits      uint64  `json:"hits"`
	Misses    uint64  `json:"misses"`
	Evictions uint64  `json:"evictions"`
	Entries   int     `json:"entries"`
	HitRatio  float64 `json:"hit_ratio"`
}

// Book lists caches, for /metrics and the System page. It is made once and never changed.
type Book struct {
	caches                           []func() Figures
	hits, misses, evictions, entries *prometheus.Desc
}

// NewBook returns the book of caches. Each function must be quick; of two with one name
// /metrics would be refused.
func NewBook(caches ...func() Figures) *Book {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("muster_cache_"+name, help, []string{"cache"}, nil)
	}
	return &Book{
		caches: caches,
		hits:   desc("hits_total", "Questions that a cache answered."), misses: desc("misses_total", "Questions that a cache could not answer."),
		evictions: desc("evictions_total", "Entries thrown out of a cache for want of room."), entries: desc("entries", "Entries in a cache."),
	}
}

// Section returns all figures by the names of the caches.
func (b *Book) Section() map[string]Shown {
	out := make(map[string]Shown, len(b.caches))
	for _, figures := range b.caches {
		f := figures()
		out[f.Name] = Shown{f.Hits, f.Misses, f.Evictions, f.Entries, f.Ratio()}
	}
	return out
}

// Describe implements prometheus.Collector.
func (b *Book) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.hits, b.misses, b.evictions, b.entries} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (b *Book) Collect(out chan<- prometheus.Metric) {
	for _, figures := range b.caches {
		f := figures()
		out <- prometheus.MustNewConstMetric(b.hits, prometheus.CounterValue, float64(f.Hits), f.Name)
		out <- prometheus.MustNewConstMetric(b.misses, prometheus.CounterValue, float64(f.Misses), f.Name)
		out <- prometheus.MustNewConstMetric(b.evictions, prometheus.CounterValue, float64(f.Evictions), f.Name)
		out <- prometheus.MustNewConstMetric(b.entries, prometheus.GaugeValue, float64(f.Entries), f.Name)
	}
}

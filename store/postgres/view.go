package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"muster"
)

// maxLayouts bounds the layouts that readers keep (twice that at most).
const maxLayouts = 20_000

// storedLayout is a metric_set as readers need it.
type storedLayout struct {
	layout  *muster.Layout
	metrics []int32 // of the Number and Bool keys, in order
}

// layouts are the metric sets that readers know, by id. A set never changes.
type layouts struct {
	mu   sync.Mutex
	byID *cache[int32, *storedLayout]
}

func newLayouts() *layouts { return &layouts{byID: newCache[int32, *storedLayout](maxLayouts)} }

// view is what one range sees of a layout.
type view struct {
	layout *muster.Layout
	places []int // of the layout's numbers in what the statement gives; nil for as they are
}

var errRow = errors.New("a telemetry row does not fit its set of keys")

// pick returns the wanted numbers of vals.
func (v *view) pick(vals []float64) ([]float64, error) {
	if v.places == nil {
		if len(vals) != v.layout.Numbers {
			return nil, errRow
		}
		return vals, nil
	}
	if len(v.places) == 0 {
		return nil, nil
	}
	out := make([]float64, len(v.places))
	for i, p := range v.places {
		if p >= len(vals) {
			return nil, errRow
		}
		out[i] = vals[p]
	}
	return out, nil
}

// texts returns the wanted JSON values of extra.
func (v *view) texts(extra []byte) ([]string, error) {
	n := len(v.layout.Keys) - v.layout.Numbers
	if n == 0 {
		return nil, nil
	}
	var byName map[string]json.RawMessage
	if err := json.Unmarshal(extra, &byName); err != nil {
		return nil, fmt.Errorf("read JSON values: %w", err)
	}
	out := make([]string, 0, n)
	for _, k := range v.layout.Keys {
		if k.Kind != muster.JSON {
			continue
		}
		text, ok := byName[k.Name]
		if !ok {
			return nil, errRow
		}
		out = append(out, string(text))
	}
	return out, nil
}

// learn makes the views of the sets that rows have.
func (r *ranger) learn(ctx context.Context, rows []rawRow) error {
	if len(r.views) > 1000 {
		clear(r.views)
	}
	var open []int32
	for i := range rows {
		if id := rows[i].set; id >= 0 && r.views[id] == nil && !slices.Contains(open, id) {
			open = append(open, id)
		}
	}
	if len(open) == 0 {
		return nil
	}
	found, err := r.t.storedLayouts(ctx, open)
	if err != nil {
		return err
	}
	for _, id := range open {
		l := found[id]
		if l == nil {
			return fmt.Errorf("set %d is not in metric_set", id)
		}
		r.views[id] = r.view(l)
	}
	return nil
}

// view cuts a layout to the wanted keys.
func (r *ranger) view(l *storedLayout) *view {
	if r.want == nil {
		return &view{layout: l.layout}
	}
	v := &view{places: []int{}}
	var keys []muster.Key
	n := 0
	for _, k := range l.layout.Keys {
		if r.want[k.Name] {
			keys = append(keys, k)
			if k.Kind != muster.JSON {
				v.places = append(v.places, placeOf(r.numbers, l.metrics[n]))
			}
		}
		if k.Kind != muster.JSON {
			n++
		}
	}
	v.layout = muster.NewLayout(keys)
	return v
}

// placeOf returns where id is in ids, beyond every array when it is not.
func placeOf(ids []int32, id int32) int {
	if i := slices.Index(ids, id); i >= 0 {
		return i
	}
	return math.MaxInt
}

// storedLayouts returns the layouts of the given sets.
func (t *Telemetry) storedLayouts(ctx context.Context, ids []int32) (map[int32]*storedLayout, error) {
	out := make(map[int32]*storedLayout, len(ids))
	var open []int32
	t.layouts.mu.Lock()
	for _, id := range ids {
		if l, ok := t.layouts.byID.get(id); ok {
			out[id] = l
		} else {
			open = append(open, id)
		}
	}
	t.layouts.mu.Unlock()
	if len(open) == 0 {
		return out, nil
	}
	read, err := t.readLayouts(ctx, open)
	if err != nil {
		return nil, fmt.Errorf("read sets of keys: %w", err)
	}
	t.layouts.mu.Lock()
	defer t.layouts.mu.Unlock()
	for id, l := range read {
		t.layouts.byID.put(id, l)
		out[id] = l
	}
	return out, nil
}

func (t *Telemetry) readLayouts(ctx context.Context, ids []int32) (map[int32]*storedLayout, error) {
	out := map[int32]*storedLayout{}
	for _, id := range ids { // a set without keys gives no row below
		out[id] = &storedLayout{layout: &muster.Layout{}}
	}
	rows, err := t.read.Query(ctx, `SELECT s.id, m.id, m.name, m.kind FROM metric_set s
		CROSS JOIN LATERAL unnest(s.metric_ids) WITH ORDINALITY AS u(metric_id, n)
		JOIN metric m ON m.id = u.metric_id WHERE s.id = ANY($1::int[]) ORDER BY s.id, u.n`, ids)
	err = collect(rows, err, func() error {
		var id, metric int32
		var k muster.Key
		if err := rows.Scan(&id, &metric, &k.Name, &k.Kind); err != nil {
			return err
		}
		l := out[id]
		l.layout.Keys = append(l.layout.Keys, k)
		if k.Kind != muster.JSON {
			l.metrics = append(l.metrics, metric)
		}
		return nil
	})
	for _, l := range out {
		l.layout = muster.NewLayout(l.layout.Keys)
	}
	return out, err
}

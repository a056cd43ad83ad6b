package api_test

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster"
	"muster/devices"
)

// pages reads a list to its end, a page at a time, and calls between after each page.
func (r *rig) pages(path string, id func(item map[string]any) string, between func()) []string {
	var out []string
	for cursor := ""; ; {
		at := path
		if cursor != "" {
			at += "&cursor=" + url.QueryEscape(cursor)
		}
		p := r.as("GET", at, nil).wantStatus(r, 200).decode(r)
		for _, item := range p["items"].([]any) {
			out = append(out, id(item.(map[string]any)))
		}
		var more bool
		if cursor, more = p["next"].(string); !more {
			return out
		}
		between()
	}
}

// wantOnce checks that each of stay is in got, and once. What came and went may have come
// again as another: by the order of making, behind the pages that were read.
func wantOnce(t *rapid.T, got, stay []string) {
	times := map[string]int{}
	for _, id := range got {
		times[id]++
	}
	for _, id := range stay {
		if times[id] != 1 {
			t.Fatalf("%s is shown %d times in %v", id, times[id], got)
		}
	}
}

func TestWhatStaysIsOnOnePageOfAListWhateverComesAndGoesMeanwhile(t *testing.T) {
	r := newRig(t)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		create := func(id, name string) {
			if _, _, err := r.registry.Create(r.Context(), devices.Spec{ID: muster.DeviceID(id), Name: name}); err != nil && muster.KindOf(err) != muster.Conflict {
				t.Fatal(err)
			}
		}
		id := func(n int) string { return fmt.Sprintf("r%d-%02d", round, n) }
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"", "a", "b", "ä", "a b"}), 30, 30).Draw(t, "names")
		var stay []string
		for n := 0; n < 30; n += 2 { // the even ones stay, the odd ones come and go
			create(id(n), names[n])
			stay = append(stay, id(n))
		}
		between := func() {
			n := 2*rapid.IntRange(0, 14).Draw(t, "which") + 1
			if rapid.Bool().Draw(t, "comes") {
				create(id(n), names[n])
			} else if err := r.registry.Delete(r.Context(), muster.DeviceID(id(n)), devices.KeepData); err != nil && muster.KindOf(err) != muster.NotFound {
				t.Fatal(err)
			}
		}
		between()
		sort := rapid.SampledFrom([]string{"id", "-id", "name", "-name", "created", "-created", "status"}).Draw(t, "sort")
		limit := rapid.IntRange(1, 9).Draw(t, "limit")
		path := fmt.Sprintf("/api/v1/devices?q=id:r%d-*&sort=%s&limit=%d", round, url.QueryEscape(sort), limit)
		got := r.pages(path, func(d map[string]any) string { return d["id"].(string) }, between)
		wantOnce(t, got, stay)
		for n := range 30 {
			if err := r.registry.Delete(r.Context(), muster.DeviceID(id(n)), devices.KeepData); err != nil && muster.KindOf(err) != muster.NotFound {
				t.Fatal(err)
			}
		}
	})
}

func TestWhatIsStoredStaysOnOnePageOfTelemetryWhateverIsStoredMeanwhile(t *testing.T) {
	r := newRig(t)
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		id := muster.DeviceID(fmt.Sprintf("t%d", round))
		r.device(id)
		var in []muster.Reading
		var stay []string
		for n := range 20 {
			in = append(in, numbers(id, 10*n, "v", float64(n)))
			stay = append(stay, stampAt(10*n))
		}
		r.store(in)
		late := 0
		between := func() {
			late++
			second := 10*rapid.IntRange(-3, 25).Draw(t, "second") + 1 + late%9
			if second > 0 {
				r.store([]muster.Reading{numbers(id, second, "v", float64(late))})
			}
		}
		order := rapid.SampledFrom([]string{"asc", "desc"}).Draw(t, "order")
		path := fmt.Sprintf("/api/v1/devices/%s/telemetry?from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z&order=%s&limit=%d", id, order, rapid.IntRange(1, 7).Draw(t, "limit"))
		got := r.pages(path, func(d map[string]any) string { return d["time"].(string) }, between)
		wantOnce(t, got, stay)
		if !slices.IsSortedFunc(got, func(a, b string) int {
			if order == "desc" {
				a, b = b, a
			}
			return strings.Compare(a, b)
		}) {
			t.Fatalf("out of order: %v", got)
		}
	})
}

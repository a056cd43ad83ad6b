package ui

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// deviceRoutes are what the tabs of a device's page ask for. Without a word of the test they
// are empty; f.extra has a test's own by the same pattern.
func (f *fakeServer) deviceRoutes(mux *http.ServeMux) {
	routes := map[string]http.HandlerFunc{
		"GET /api/v1/devices/{id}/telemetry/chart": f.chart,
		"GET /api/v1/devices/{id}/presence":        f.presence,
		"POST /api/v1/devices/{id}/credentials": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 201, object{"credential": object{"id": "cred_2", "kind": "token", "token": "tok_new", "username": "tok_new"}})
		},
		"GET /api/v1/devices/{id}/telemetry/latest": func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			defer f.mu.Unlock()
			values := object{}
			if d, ok := f.devices[r.PathValue("id")]; ok {
				values = d["values"].(object)
			}
			writeJSON(w, 200, object{"device": r.PathValue("id"), "values": values})
		},
		"GET /api/v1/devices/{id}/twin": func(w http.ResponseWriter, r *http.Request) {
			none := object{"version": 0, "state": object{}}
			writeJSON(w, 200, object{
				"device": r.PathValue("id"), "converged": true, "desired": none, "reported": none, "diverged": []string{}, "diverged_count": 0,
				"levels": []object{}, "meta": object{}, "winners": object{},
			})
		},
		"GET /api/v1/devices/{id}/firmware": func(w http.ResponseWriter, r *http.Request) {
			writeJSON(w, 200, object{"device": r.PathValue("id"), "version": "", "files": []object{}, "actions": []object{}, "waiting": []object{}})
		},
	}
	routes["GET /api/v1/simulation"] = f.simulation(func() {})
	routes["POST /api/v1/simulation"] = f.simulation(func() { f.simulated = 25 })
	routes["DELETE /api/v1/simulation"] = f.simulation(func() { f.simulated = 0 })
	routes["GET /api/v1/logins"] = func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, 200, object{"items": []object{}, "next": nil})
	}
	for _, list := range []string{"commands", "events", "logs", "trace", "credentials", "logins"} {
		routes["GET /api/v1/devices/{id}/"+list] = func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"items": []object{}, "next": nil})
		}
	}
	for pattern, h := range routes {
		if _, ok := f.extra[pattern]; !ok {
			mux.HandleFunc(pattern, f.guarded(h))
		}
	}
}

func (f *fakeServer) simulation(change func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		change()
		writeJSON(w, 200, object{"running": f.simulated > 0, "devices": f.simulated})
	}
}

// chart folds the history as the server does.
func (f *fakeServer) chart(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := r.URL.Query()
	from, err1 := time.Parse(time.RFC3339Nano, q.Get("from"))
	to, err2 := time.Parse(time.RFC3339Nano, q.Get("to"))
	if err1 != nil || err2 != nil {
		problem(w, 422, "invalid", "the page asked "+r.URL.RawQuery)
		return
	}
	f.charts = append(f.charts, to.Sub(from).Round(time.Minute))
	type folded struct {
		t        []int64
		min, max []float64
		gaps     [][]int64
	}
	keys := map[string]*folded{}
	readings := 0
	for _, x := range slices.Backward(f.history[r.PathValue("id")]) {
		at, err := time.Parse(time.RFC3339Nano, x["time"].(string))
		if err != nil || at.Before(from) || !at.Before(to) {
			continue
		}
		readings++
		for key, v := range x["values"].(object) {
			n, ok := v.(float64)
			if !ok {
				continue
			}
			k := keys[key]
			if k == nil {
				k = &folded{gaps: [][]int64{}}
				keys[key] = k
			}
			if last := len(k.t) - 1; last >= 0 && at.UnixMilli()-k.t[last] > 25_000 {
				k.gaps = append(k.gaps, []int64{k.t[last], at.UnixMilli()})
			}
			k.t, k.min, k.max = append(k.t, at.UnixMilli()), append(k.min, n-0.05), append(k.max, n+0.05)
		}
	}
	items := []object{}
	for key, k := range keys {
		items = append(items, object{"key": key, "count": len(k.t), "t": k.t, "min": k.min, "max": k.max, "gaps": k.gaps})
	}
	slices.SortFunc(items, func(a, b object) int { return strings.Compare(a["key"].(string), b["key"].(string)) })
	writeJSON(w, 200, object{
		"device": r.PathValue("id"), "from": q.Get("from"), "to": q.Get("to"), "step_ms": float64(to.Sub(from).Milliseconds()) / 1000,
		"readings": readings, "whole": true, "keys_left": 0, "items": items,
	})
}

// presence has a day with a silence in it.
func (f *fakeServer) presence(w http.ResponseWriter, r *http.Request) {
	now := time.Now().UTC()
	at := func(ago time.Duration) string { return now.Add(-ago).Format(time.RFC3339) }
	writeJSON(w, 200, object{
		"state": "online", "since": at(2 * time.Hour), "last_seen": at(0), "reason": "", "check_in_s": 60, "rhythm_s": 5, "flaps": 0,
		"strip": []object{
			{"state": "online", "from": at(24 * time.Hour), "to": at(7 * time.Hour)},
			{"state": "offline", "from": at(7 * time.Hour), "to": at(6 * time.Hour)},
			{"state": "quiet", "from": at(6 * time.Hour), "to": at(330 * time.Minute)},
			{"state": "online", "from": at(330 * time.Minute), "to": at(0)},
		},
		"uptime_30d": object{"online_s": 2_000_000, "offline_s": 30_000, "unknown_s": 0, "percent": 98.5},
	})
}

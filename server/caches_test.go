package server_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"muster/server/servertest"
)

func TestCachesAreOnTheSystemPageAndInMetrics(t *testing.T) {
	s := servertest.Start(t)
	token := create(t, s, "d")
	_, secret, err := s.CreateKeyForTest(t.Context(), []string{"devices:read"}, "id:d")
	if err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if r := request(t, s, http.MethodGet, "/api/v1/devices/d", secret, ""); r.StatusCode != http.StatusOK {
			t.Fatal(r.Status)
		}
	}
	dial(t, s, "d", token, "").wantLive(t)
	var page struct {
		Sections struct {
			Caches map[string]struct {
				Hits, Misses uint64
				HitRatio     float64 `json:"hit_ratio"`
			}
		}
	}
	call(t, s, http.MethodGet, "/api/v1/system", nil, &page)
	c := page.Sections.Caches["selectors"]
	if c.Hits != 3 || c.Misses != 1 || c.HitRatio != 0.75 {
		t.Errorf("%+v", page.Sections.Caches)
	}
	if _, ok := page.Sections.Caches["topics"]; !ok {
		t.Error("the broker's topics are not there")
	}
	text, err := io.ReadAll(request(t, s, http.MethodGet, "/metrics", "", "").Body)
	if err != nil || !strings.Contains(string(text), `muster_cache_hits_total{cache="selectors"} 3`) {
		t.Errorf("%v in the metrics: %s", err, text)
	}
}

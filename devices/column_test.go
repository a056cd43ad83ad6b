package devices_test

import (
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
)

func TestColumnsAreThoseOfAListAndTelemetry(t *testing.T) {
	got, err := devices.ParseColumns([]string{"id", "seen", "tag:site", "v.a b", "spark.t"})
	want := []devices.Column{{"id", "id", ""}, {"seen", "seen", ""}, {"tag:site", "tag:", "site"}, {"v.a b", "v.", "a b"}, {"spark.t", "spark.", "t"}}
	if d := gocmp.Diff(want, got); d != "" || err != nil {
		t.Error(err, d)
	}
	for _, bad := range [][]string{
		{""},
		{"colour"},
		{"id", "id"},
		{"tag:"},
		{"tag:a b"},
		{"v."},
		{"spark."},
		{"v." + strings.Repeat("x", 257)},
		{"v.a\x00"},
		{"v.\xff"},
		strings.Split(strings.Repeat("x", devices.MaxColumns), ""), append(many("v."), "id"),
	} {
		if _, err := devices.ParseColumns(bad); muster.KindOf(err) != muster.Invalid {
			t.Errorf("%.40q: %v, want invalid", bad, err)
		}
	}
}

// many are as many columns as there may be.
func many(prefix string) []string {
	out := make([]string, devices.MaxColumns)
	for i := range out {
		out[i] = prefix + strings.Repeat("x", i+1)
	}
	return out
}

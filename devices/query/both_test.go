package query_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/devices/query"
)

func TestBothMatchesWhatTheTwoMatch(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"", "", ""},
		{"id:a", "", "id:a"},
		{"", "id:a", "id:a"},
		{"id:a", "name:b", "id:a name:b"},
		{"id:a or id:b", "id:c or id:d", "(id:a or id:b) (id:c or id:d)"},
		{"id:a name:b", "not id:c", "id:a name:b not id:c"},
	} {
		parse := func(q string) *query.Expr {
			e, err := query.Parse(q)
			if err != nil {
				t.Fatal(q, err)
			}
			return e
		}
		if d := cmp.Diff(parse(tt.want).String(), query.Both(parse(tt.a), parse(tt.b)).String()); d != "" {
			t.Errorf("%q and %q: %s", tt.a, tt.b, d)
		}
	}
	if query.Both(nil, nil) != nil {
		t.Error("of nothing it made something")
	}
}

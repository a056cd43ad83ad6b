package muster_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"muster"
)

func TestAnErrorNamesTheMembersOfTheInputThatItIsAbout(t *testing.T) {
	count := muster.InvalidAt("count", "too many: %d", 7)
	for name, tt := range map[string]struct {
		err  error
		want []string
	}{
		"of none":                        {muster.Errorf(muster.Invalid, "x"), nil},
		"of one":                         {count, []string{"count"}},
		"of one within another":          {muster.At(fmt.Errorf("wave: %w", muster.At(count, "0")), "waves"), []string{"waves/0/count"}},
		"of those that do not fit":       {muster.At(muster.Errorf(muster.Conflict, "x"), "token", "secret"), []string{"token", "secret"}},
		"of those, within another":       {muster.At(muster.At(muster.Errorf(muster.Conflict, "x"), "a", "b"), "in"), []string{"in/a", "in/b"}},
		"of what is nobody's but Go's":   {muster.At(io.EOF, "x"), nil},
		"of no error":                    {muster.At(nil, "x"), nil},
		"named anew by who knows better": {muster.At(count, "a", "b"), []string{"a", "b"}},
	} {
		if got := muster.FieldsOf(tt.err); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	at := muster.At(fmt.Errorf("read: %w", muster.Errorf(muster.Busy, "full: %w", io.EOF)), "x")
	if muster.KindOf(at) != muster.Busy || muster.Public(at) != "full: EOF" || !errors.Is(at, io.EOF) {
		t.Errorf("named it is %v: %v", muster.KindOf(at), at)
	}
	if !errors.Is(muster.At(io.EOF, "x"), io.EOF) || muster.At(nil, "x") != nil {
		t.Error("what is no Error is another then")
	}
}

package muster_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"muster"
)

func TestDeviceIDs(t *testing.T) {
	tests := []struct {
		name, id string
		ok       bool
	}{
		{"letters, digits and marks", "aZ9._:-", true},
		{"longest", strings.Repeat("x", 128), true},
		{"too long", strings.Repeat("x", 129), false},
		{"empty", "", false},
		{"slash", "a/b", false},
		{"space", "a b", false},
		{"wildcards", "a+", false},
		{"not ASCII", "é", false},
		{"one point", ".", false},
		{"two points", "..", false},
		{"me", "me", false},
		{"three points", "...", true},
		{"NUL", "a\x00", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id, err := muster.ParseDeviceID(tt.id)
			if tt.ok != (err == nil) || tt.ok && string(id) != tt.id {
				t.Errorf("ParseDeviceID(%q) = %q, %v", tt.id, id, err)
			}
			if err != nil && muster.KindOf(err) != muster.Invalid {
				t.Errorf("kind %s", muster.KindOf(err))
			}
		})
	}
}

func TestErrorsKeepTheirKindAndShowNothingInternal(t *testing.T) {
	cause := errors.New("disk on fire")
	err := fmt.Errorf("save: %w", muster.Errorf(muster.Busy, "the log is full: %w", cause))
	if muster.KindOf(err) != muster.Busy || !errors.Is(err, cause) {
		t.Errorf("kind %s, cause kept: %v", muster.KindOf(err), errors.Is(err, cause))
	}
	if got := muster.Public(err); got != "the log is full: disk on fire" {
		t.Errorf("public text %q", got)
	}
	if got := muster.Public(fmt.Errorf("open /secret/path: %w", cause)); got != "internal error" {
		t.Errorf("an unclassified error shows %q", got)
	}
	if muster.KindOf(cause) != muster.Internal {
		t.Errorf("an unclassified error is %s", muster.KindOf(cause))
	}
}

func TestLayoutsAreCanonical(t *testing.T) {
	l := muster.NewLayout([]muster.Key{{Name: "b"}, {Name: "a", Kind: muster.JSON}, {Name: "a", Kind: muster.Bool}})
	if fmt.Sprint(l.Keys) != "[{a 1} {a 2} {b 0}]" || l.Numbers != 2 {
		t.Errorf("layout %v with %d numbers", l.Keys, l.Numbers)
	}
	r := muster.Reading{Layout: l, Numbers: []float64{1, 2}, Texts: []string{`"x"`}}
	var got []string
	for v := range r.Values {
		got = append(got, fmt.Sprint(v.Key.Name, "=", v.Num, v.Text))
	}
	if strings.Join(got, " ") != `a=1 a=0"x" b=2` {
		t.Errorf("values %v", got)
	}
}

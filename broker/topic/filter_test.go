package topic

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestFiltersMatchAsTheStandardSays(t *testing.T) {
	tests := []struct {
		filter, name string
		want         bool
	}{
		// 4.7.1.2, the multi-level wildcard
		{"sport/tennis/player1/#", "sport/tennis/player1", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/ranking", true},
		{"sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true},
		{"sport/tennis/player1/#", "sport/tennis/player11", false},
		{"sport/#", "sport", true},
		{"#", "any/thing", true},
		{"#", "/", true},
		{"+/#", "sport", true},
		// 4.7.1.3, the single-level wildcard
		{"sport/tennis/+", "sport/tennis/player1", true},
		{"sport/tennis/+", "sport/tennis/player2", true},
		{"sport/tennis/+", "sport/tennis/player1/ranking", false},
		{"sport/+", "sport", false},
		{"sport/+", "sport/", true},
		{"+/tennis/#", "sport/tennis", true},
		{"+/tennis/#", "sport/golf/tennis", false},
		{"sport/+/player1", "sport/tennis/player1", true},
		{"+", "sport", true},
		{"+/+", "/finance", true},
		{"/+", "/finance", true},
		{"+", "/finance", false},
		// 4.7.2, topics that begin with $
		{"#", "$SYS/x", false},
		{"+/#", "$SYS/x", false},
		{"+/monitor/Clients", "$SYS/monitor/Clients", false},
		{"$SYS/#", "$SYS/", true},
		{"$SYS/#", "$SYS", true},
		{"$SYS/monitor/+", "$SYS/monitor/Clients", true},
		{"a/+", "a/$x", true},
		// 4.7.3, semantics
		{"ACCOUNTS", "Accounts", false},
		{"Accounts payable", "Accounts payable", true},
		{"/finance", "finance", false},
		{"a", "a/", false},
		{"a/", "a", false},
		{"a//b", "a/b", false},
		{"a", "a/b", false},
		{"a/b", "a", false},
	}
	for _, tt := range tests {
		if got := Matches(tt.filter, tt.name); got != tt.want {
			t.Errorf("%q matches %q: %v, want %v", tt.filter, tt.name, got, tt.want)
		}
		index, tree := NewIndex[int](8), NewTree[int]()
		index.Subscribe("", tt.filter, 1, Options{})
		tree.Set(tt.name, 1)
		if got := len(index.Match(tt.name).Plain) == 1; got != tt.want {
			t.Errorf("index: %q matches %q: %v, want %v", tt.filter, tt.name, got, tt.want)
		}
		if found, _ := tree.Match(tt.filter, 1); (len(found) == 1) != tt.want {
			t.Errorf("tree: %q matches %q: %v, want %v", tt.filter, tt.name, !tt.want, tt.want)
		}
	}
}

func TestWhatIsInvalidIsRefusedWithItsReason(t *testing.T) {
	const (
		empty = "the topic is empty"
		long  = "the topic has more than 1024 bytes"
		deep  = "the topic has more than 32 levels"
		open  = "the wildcard # may only end a filter"
		alone = "a wildcard must stand alone in its level"
		wild  = "a topic name may have no wildcard"
	)
	tests := []struct{ topic, filter, name string }{
		{"a", "", ""},
		{"/", "", ""},
		{"a b/ü/$c", "", ""},
		{"$SYS/x", "", ""},
		{"", empty, empty},
		{strings.Repeat("x", MaxBytes), "", ""},
		{strings.Repeat("x", MaxBytes+1), long, long},
		{strings.Repeat("/", MaxLevels-1), "", ""},
		{strings.Repeat("/", MaxLevels), deep, deep},
		{strings.Repeat("/", MaxBytes), deep, deep},
		{"a\x00b", "the topic contains the null character", "the topic contains the null character"},
		{"a\xffb", "the topic is not valid UTF-8", "the topic is not valid UTF-8"},
		{"#", "", wild},
		{"+", "", wild},
		{"+/+/#", "", wild},
		{"sport/tennis/#", "", wild},
		{"sport/tennis#", alone, wild},
		{"sport/tennis/#/ranking", open, wild},
		{"#/", open, wild},
		{"sport+", alone, wild},
		{"sport/+x/y", alone, wild},
		{"##", alone, wild},
		{"+#", alone, wild},
	}
	for _, tt := range tests {
		if got := CheckFilter(tt.topic); got != tt.filter {
			t.Errorf("filter %q: %q, want %q", tt.topic, got, tt.filter)
		}
		if got := CheckName(tt.topic); got != tt.name {
			t.Errorf("name %q: %q, want %q", tt.topic, got, tt.name)
		}
	}
}

func TestASharedFilterIsSplitIntoGroupAndFilter(t *testing.T) {
	tests := []struct {
		in, group, filter string
		ok                bool
	}{
		{"$share/consumer1/sport/tennis/+", "consumer1", "sport/tennis/+", true},
		{"$share/consumer1//finance", "consumer1", "/finance", true},
		{"$share/g/#", "g", "#", true},
		{"$share/g/$SYS/#", "g", "$SYS/#", true},
		{"sport/tennis/+", "", "sport/tennis/+", true},
		{"/$share/g/x", "", "/$share/g/x", true},
		{"$shared/g/x", "", "$shared/g/x", true},
		{"$SHARE/g/x", "", "$SHARE/g/x", true},
		{"", "", "", true},
		{"$share", "", "$share", false},
		{"$share/", "", "$share/", false},
		{"$share/g", "", "$share/g", false},
		{"$share/g/", "", "$share/g/", false},
		{"$share//x", "", "$share//x", false},
		{"$share/+/x", "", "$share/+/x", false},
		{"$share/g#/x", "", "$share/g#/x", false},
	}
	for _, tt := range tests {
		group, filter, ok := SplitShare(tt.in)
		if group != tt.group || filter != tt.filter || ok != tt.ok {
			t.Errorf("%q: group %q, filter %q, %v; want %q, %q, %v", tt.in, group, filter, ok, tt.group, tt.filter, tt.ok)
		}
	}
}

func TestAGrantCoversWhatItIncludesAndNothingElse(t *testing.T) {
	tests := []struct {
		wide, narrow     string
		covers, overlaps bool
	}{
		{"#", "a/b/#", true, true},
		{"#", "#", true, true},
		{"#", "+/#", true, true},
		{"+/#", "#", true, true},
		{"+/+/#", "#", false, true},
		{"a/#", "a", true, true},
		{"a/#", "a/#", true, true},
		{"a/#", "a/+/#", true, true},
		{"a/+/#", "a/#", false, true},
		{"a/+", "a/#", false, true},
		{"a/#", "+", false, true},
		{"a/+", "a/b", true, true},
		{"a/b", "a/+", false, true},
		{"a/+/c", "a/b/+", false, true},
		{"a/+/c", "a/b/d", false, false},
		{"a", "a/b", false, false},
		{"a/b", "a", false, false},
		{"+", "+", true, true},
		{"+/b", "a/b", true, true},
		{"#", "$SYS/x", false, false},
		{"+/x", "$SYS/x", false, false},
		{"#", "$SYS/#", false, false},
		{"$SYS/#", "$SYS/x", true, true},
		{"$SYS/#", "#", false, false},
		{"devices/a/#", "devices/+/desired", false, true},
		{"devices/a/#", "devices/a/desired", true, true},
		{"devices/a/#", "devices/ab/desired", false, false},
	}
	for _, tt := range tests {
		if got := Covers(tt.wide, tt.narrow); got != tt.covers {
			t.Errorf("%q covers %q: %v, want %v", tt.wide, tt.narrow, got, tt.covers)
		}
		if a, b := Overlaps(tt.wide, tt.narrow), Overlaps(tt.narrow, tt.wide); a != tt.overlaps || b != tt.overlaps {
			t.Errorf("%q overlaps %q: %v and %v, want %v", tt.wide, tt.narrow, a, b, tt.overlaps)
		}
	}
}

func TestFilterFunctionsAgreeWithTheirReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		compareWithReference(t, drawFilter(t), drawFilter(t), drawName(t))
	})
}

// FuzzFilter checks the grammar, and with it Matches, Overlaps and Covers, against
// plain references on lists of levels.
func FuzzFilter(f *testing.F) {
	for _, s := range [][3]string{
		{"#", "+/#", "a"},
		{"a/+/c", "a/b/+", "a/b/c"},
		{"$SYS/#", "#", "$SYS/x"},
		{"a/#", "a", "a"},
		{"/+", "+/+", "/finance"},
		{"$share/g/a", "a#", "\x00"},
		{"+/b/#", "#/b", "ü//"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, a, b, name string) {
		for _, s := range []string{a, b, name} {
			if got, want := CheckFilter(s) == "", validFilter(s); got != want {
				t.Fatalf("filter %q is valid: %v, want %v", s, got, want)
			}
			if got, want := CheckName(s) == "", validFilter(s) && !strings.ContainsAny(s, "+#"); got != want {
				t.Fatalf("name %q is valid: %v, want %v", s, got, want)
			}
			if group, filter, ok := SplitShare(s); ok && group != "" && s != "$share/"+group+"/"+filter {
				t.Fatalf("%q is split into %q and %q", s, group, filter)
			}
		}
		if CheckFilter(a) == "" && CheckFilter(b) == "" && CheckName(name) == "" {
			compareWithReference(t, a, b, name)
		}
	})
}

type failer interface {
	Fatalf(format string, args ...any)
}

func compareWithReference(t failer, a, b, name string) {
	if got, want := Matches(a, name), plainMatches(a, name); got != want {
		t.Fatalf("%q matches %q: %v, want %v", a, name, got, want)
	}
	if a != b && Overlaps(a, b) != Overlaps(b, a) {
		t.Fatalf("overlap of %q and %q depends on their order", a, b)
	}
	both := Matches(a, name) && Matches(b, name)
	if common, ok := commonName(a, b); Overlaps(a, b) != ok || both && !ok {
		t.Fatalf("%q overlaps %q: %v, common name %q %v, both match %q: %v", a, b, Overlaps(a, b), common, ok, name, both)
	}
	outside := nameOutside(a, b)
	if Covers(a, b) != (outside == "") || Covers(a, b) && Matches(b, name) && !Matches(a, name) {
		t.Fatalf("%q covers %q: %v, name outside %q, given %q", a, b, Covers(a, b), outside, name)
	}
	if !Covers(a, a) || Covers(a, b) && !Overlaps(a, b) {
		t.Fatalf("covers and overlaps of %q and %q disagree", a, b)
	}
}

func validFilter(s string) bool {
	levels := strings.Split(s, "/")
	valid := s != "" && len(s) <= 1024 && len(levels) <= 32 && strings.ToValidUTF8(s, "") == s && !strings.Contains(s, "\x00")
	for i, level := range levels {
		switch {
		case level == "#":
			valid = valid && i == len(levels)-1
		case level != "+":
			valid = valid && !strings.Contains(level, "+") && !strings.Contains(level, "#")
		}
	}
	return valid
}

// plainMatches is Matches on lists of levels.
func plainMatches(filter, name string) bool {
	fs, ns := strings.Split(filter, "/"), strings.Split(name, "/")
	if strings.HasPrefix(name, "$") && (fs[0] == "+" || fs[0] == "#") {
		return false
	}
	if last := len(fs) - 1; fs[last] == "#" {
		if len(ns) < last {
			return false
		}
		fs, ns = fs[:last], ns[:last]
	}
	return slices.EqualFunc(fs, ns, func(f, n string) bool { return f == "+" || f == n })
}

// commonName returns a name that matches both filters, if there is one: it takes
// the literal of either at each level.
func commonName(a, b string) (string, bool) {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	var name []string
	for i := 0; i < max(len(as), len(bs)); i++ {
		x, y := "+", "+"
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		switch {
		case x != "+" && x != "#":
			name = append(name, x)
		case y != "+" && y != "#":
			name = append(name, y)
		case x == "+" && i < len(as) || y == "+" && i < len(bs) || i == 0:
			name = append(name, "x")
		}
	}
	common := strings.Join(name, "/")
	return common, plainMatches(a, common) && plainMatches(b, common)
}

// nameOutside returns a name that matches narrow and not wide, empty when there is
// none: wildcards become levels that neither has, # none, one, two or many of them.
func nameOutside(wide, narrow string) string {
	fresh := strings.Repeat("z", len(wide)+len(narrow)+1)
	stem, open := strings.CutSuffix(strings.ReplaceAll(narrow, "+", fresh), "#")
	tails := []string{""}
	if open {
		tails = []string{fresh, fresh + "/" + fresh, fresh + strings.Repeat("/"+fresh, 40)}
		if parent, ok := strings.CutSuffix(stem, "/"); ok && !plainMatches(wide, parent) {
			return parent + "(the parent)"
		}
	}
	for _, tail := range tails {
		if !plainMatches(wide, stem+tail) {
			return stem + tail
		}
	}
	return ""
}

func drawFilter(t *rapid.T) string {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "+", "$c", "a-"}), 0, 4).Draw(t, "levels")
	if len(levels) == 0 || levels[0] == "" && len(levels) == 1 || rapid.Bool().Draw(t, "open") {
		levels = append(levels, "#")
	}
	return strings.Join(levels, "/")
}

func drawName(t *rapid.T) string {
	levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "c", "$c", "a-", "b0"}), 1, 5).Draw(t, "levels")
	if len(levels) == 1 && levels[0] == "" {
		return "/"
	}
	return strings.Join(levels, "/")
}

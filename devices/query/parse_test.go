package query_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/devices/query"
)

func mustParse(t testing.TB, s string) *query.Expr {
	t.Helper()
	e, err := query.Parse(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return e
}

func TestParseBuildsTheTree(t *testing.T) {
	text := func(f query.Field, op query.Op, s string, pos int) *query.Term {
		return &query.Term{Field: f, Op: op, Value: query.Value{Kind: query.Text, Text: s}, Pos: pos}
	}
	word := func(s string, pos int) *query.Term { return text(query.AnyText, query.Contains, s, pos) }
	number := func(op query.Op, key string, f float64, pos int) *query.Term {
		return &query.Term{Field: query.Telemetry, Path: []string{key}, Op: op, Value: query.Value{Kind: query.Number, Num: f}, Pos: pos}
	}
	tests := []struct {
		name, in string
		want     query.Node
	}{
		{"nothing is every device", "  ", nil},
		{"a word is searched in small letters", "Pump", word("pump", 0)},
		{"a quoted word may hold anything", `"a (b) \"c\" \\ or"`, word(`a (b) "c" \ or`, 0)},
		{"space joins by and", "a b", &query.And{Nodes: []query.Node{word("a", 0), word("b", 2)}}},
		{"and binds stronger than or", "a or b AND c", &query.Or{Nodes: []query.Node{word("a", 0), &query.And{Nodes: []query.Node{word("b", 5), word("c", 11)}}}}},
		{"not binds strongest", "Not a b", &query.And{Nodes: []query.Node{&query.Not{Node: word("a", 4)}, word("b", 6)}}},
		{"parentheses group", "a (b OR c)", &query.And{Nodes: []query.Node{word("a", 0), &query.Or{Nodes: []query.Node{word("b", 3), word("c", 8)}}}}},
		{"like lists become one", "a (b (c))", &query.And{Nodes: []query.Node{word("a", 0), word("b", 3), word("c", 6)}}},
		{"parentheses need no space", "(a)(b)not(c)", &query.And{Nodes: []query.Node{word("a", 1), word("b", 4), &query.Not{Node: word("c", 10)}}}},
		{"android is no keyword", "android orb nothing", &query.And{Nodes: []query.Node{word("android", 0), word("orb", 8), word("nothing", 12)}}},
		{"a colon is =", "profile:therm", text(query.Profile, query.Eq, "therm", 0)},
		{"a value may hold colons and =", "id=AA:BB=CC", text(query.ID, query.Eq, "AA:BB=CC", 0)},
		{"firmware is fw", "firmware!=1.2", text(query.Firmware, query.Ne, "1.2", 0)},
		{"a trailing * is a prefix", "name:ab*", &query.Term{Field: query.Name, Value: query.Value{Kind: query.Prefix, Text: "ab"}}},
		{"* alone is whatever is present", "notes=*", &query.Term{Field: query.Notes, Value: query.Value{Kind: query.Any}}},
		{"a quoted * is itself", `notes="*"`, text(query.Notes, query.Eq, "*", 0)},
		{"a tag with its value", "tag:site=Berlin", &query.Term{Field: query.Tag, Path: []string{"site"}, Value: query.Value{Kind: query.Text, Text: "Berlin"}}},
		{"a tag alone", "tag:site", &query.Term{Field: query.Tag, Path: []string{"site"}, Value: query.Value{Kind: query.Any}}},
		{"contains folds its text", "tag:site~BER", &query.Term{Field: query.Tag, Path: []string{"site"}, Op: query.Contains, Value: query.Value{Kind: query.Text, Text: "ber"}}},
		{"a group", "group:cold-chain", text(query.Group, query.Eq, "cold-chain", 0)},
		{"a status", "status!=silent", text(query.Status, query.Ne, "silent", 0)},
		{"a duration", "seen>1.5h", &query.Term{Field: query.Seen, Op: query.Gt, Value: query.Value{Kind: query.Duration, Micros: 5_400_000_000}}},
		{"a time", "created<2026-01-01T01:00:00.5+01:00", &query.Term{Field: query.Created, Op: query.Lt, Value: query.Value{Kind: query.Time, Micros: 1_767_225_600_500_000}}},
		{"a number", "v.battery<-1.5e1", number(query.Lt, "battery", -15, 0)},
		{"a quoted key", `v."a b\""<=3`, number(query.Le, `a b"`, 3, 0)},
		{"a key alone", "v.net.rssi", &query.Term{Field: query.Telemetry, Path: []string{"net.rssi"}, Value: query.Value{Kind: query.Any}}},
		{"a truth", "v.on=true", &query.Term{Field: query.Telemetry, Path: []string{"on"}, Value: query.Value{Kind: query.Bool, Num: 1}}},
		{"a quoted number is a text", `v.on="1"`, &query.Term{Field: query.Telemetry, Path: []string{"on"}, Value: query.Value{Kind: query.Text, Text: "1"}}},
		{"a twin's path", `twin.reported.net."a.b".x~Eco`, &query.Term{Field: query.Reported, Path: []string{"net", "a.b", "x"}, Op: query.Contains, Value: query.Value{Kind: query.Text, Text: "eco"}}},
		{"the desired side", "twin.desired.mode=eco", &query.Term{Field: query.Desired, Path: []string{"mode"}, Value: query.Value{Kind: query.Text, Text: "eco"}}},
		{"converged", "converged=false", &query.Term{Field: query.Converged, Value: query.Value{Kind: query.Bool}}},
		{"diverged", "diverged:net.mode", text(query.Diverged, query.Eq, "net.mode", 0)},
		{"has", "has:children", text(query.Has, query.Eq, "children", 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := mustParse(t, tt.in)
			if diff := cmp.Diff(tt.want, got.Root); diff != "" {
				t.Errorf("the tree of %s differs (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func TestParseSaysWhatAndWhere(t *testing.T) {
	tests := []struct {
		in       string
		pos, col int
		msg      string // a part of it
		hint     string // a part of it
	}{
		{"statsu=online", 0, 1, `there is no field "statsu"`, "status"},
		{"a naem:x", 2, 3, `there is no field "naem"`, "did you mean name?"},
		{"ö AA:BB", 3, 3, `there is no field "AA"`, "quotes"},
		{"zzzzz=1", 0, 1, `there is no field "zzzzz"`, "quotes"},
		{"status:onlin", 7, 8, `status is never "onlin"`, "did you mean online?"},
		{"has:wheels", 4, 5, `has is never "wheels"`, "it is one of parent, children"},
		{"fw<2", 2, 3, "fw does not take <", "versions have no order"},
		{"profile>a", 7, 8, "profile does not take >", "= != ~"},
		{"tag:a<3", 5, 6, "tag does not take <", "= != ~"},
		{"group~x", 5, 6, "group does not take ~", "= !="},
		{"created=1d", 7, 8, "created does not take =", "< <= > >="},
		{"seen=10m", 5, 6, "a time is compared by", "seen=*"},
		{"seen>10", 5, 6, `"10" is neither a duration nor a time`, "10s, 10m or 10h"},
		{"seen>10y", 5, 6, `"10y" is neither`, "ms s m h d w"},
		{"seen>1h30m", 5, 6, `"1h30m" is neither`, "1.5h"},
		{"seen>-1h", 5, 6, `"-1h" is neither`, ""},
		{"seen>1.h", 5, 6, `"1.h" is neither`, ""},
		{"seen>9999999w", 5, 6, "at most 100 years", ""},
		{"seen:ab*", 5, 6, `"ab*" is neither`, ""},
		{"lat>91", 4, 5, "lat is between -90 and 90", ""},
		{"lon<-180.5", 4, 5, "lon is between -180 and 180", ""},
		{"lat>north", 4, 5, `lat takes degrees, not "north"`, "has:location"},
		{`lat="1"`, 4, 5, `lat takes degrees`, ""},
		{"lat=*", 4, 5, `lat takes degrees`, "has:location"},
		{"lon~1", 3, 4, "lon does not take ~", "= != < <= > >="},
		{"seen<2026-01-01", 5, 6, "is neither a duration nor a time", "2026-01-31T12:00:00Z"},
		{"seen<0001-01-01T00:00:00+10:00", 5, 6, "is neither", ""},
		{"v.x<abc", 4, 5, `< takes a number, not "abc"`, "= != and ~"},
		{`v.x>="5"`, 5, 6, `>= takes a number, not "5"`, ""},
		{"v.x<05", 4, 5, `< takes a number`, ""},
		{"v.x=null", 4, 5, "null is the same as absent", "not"},
		{"v.x=1e999", 4, 5, "beyond what a 64-bit float holds", ""},
		{"v.=1", 2, 3, "a telemetry key", `v."a b"`},
		{`v.""=1`, 2, 3, "a telemetry key", ""},
		{"v." + strings.Repeat("k", 257), 2, 3, "a telemetry key of 1 to 256", ""},
		{`v.a"b"=1`, 3, 4, "an operator or a space is missing", ""},
		{"twin.x=1", 5, 6, `the twin has no side "x"`, "it is one of reported, desired"},
		{"twin.repotred.x=1", 5, 6, `the twin has no side "repotred"`, "did you mean reported?"},
		{"twin.reported=1", 13, 14, "a path follows twin.reported", "twin.reported.mode=eco"},
		{"twin.reported.a..b=1", 16, 17, "a name is missing", ""},
		{"twin.desired." + strings.Repeat("a.", 16) + "b", 45, 46, "at most 16 names", ""},
		{"tag:=x", 4, 5, "the key of a tag has 1 to 64", ""},
		{"tag=x", 3, 4, "follows a colon", "tag:KEY=VALUE"},
		{`tag:"a b"=x`, 4, 5, "the key of a tag has", ""},
		{"group:a/b", 6, 7, "the name of a group has", ""},
		{"converged:yes", 10, 11, "true or false", ""},
		{"diverged:*", 9, 10, "one dotted path", "converged=false"},
		{"name=", 5, 6, "a value is missing", `""`},
		{"name= x", 5, 6, "a value is missing", "no space"},
		{"name =x", 5, 6, "a field is missing before =", "without spaces"},
		{"name==x", 5, 6, "a value cannot begin with =", "the operators are"},
		{"name!x", 4, 5, "= is missing behind !", "!="},
		{"name=<x", 5, 6, "a value cannot begin with <", ""},
		{`name=a"b"`, 6, 7, "a quote inside a value", "quotes"},
		{`name="a"b`, 8, 9, "a space is missing", ""},
		{`"a"b`, 3, 4, "a space is missing", ""},
		{`a"b"`, 1, 2, "a space is missing", ""},
		{`"a"=b`, 0, 1, "the name of a field is not quoted", ""},
		{`"abc`, 0, 1, "is not closed", ""},
		{`x "a\n"`, 4, 5, "may follow a backslash", `\\`},
		{`"\`, 1, 2, "may follow a backslash", ""},
		{"ab*", 2, 3, "takes no *", "name:ab*"},
		{"name=a*b", 5, 6, "* may only end a value", "quotes"},
		{"name~a*", 5, 6, "* goes with = and : only", "quotes"},
		{"id<a*", 3, 4, "* goes with =", "quotes"},
		{"(a", 0, 1, "there is no ) for this (", ""},
		{"x (a (b)", 2, 3, "there is no ) for this (", ""},
		{"a)", 1, 2, "there is no ( for this )", ""},
		{"()", 1, 2, "a term is missing before this )", ""},
		{"a and", 5, 6, "a term is missing here", ""},
		{"not", 3, 4, "a term is missing here", ""},
		{"a or or b", 5, 6, "a term is missing before this word", "quotes"},
		{"and", 0, 1, "a term is missing before this word", ""},
		{"a \xffb", 2, 3, "not UTF-8", ""},
		{"a\x00", 1, 2, "a NUL", ""},
		{strings.Repeat("(", 17) + "a", 16, 17, "nested deeper than 16", ""},
		{strings.Repeat("not ", 17) + "a", 64, 65, "nested deeper than 16", ""},
		{strings.Repeat("a ", 65), 128, 129, "more than 64 terms", ""},
		{strings.Repeat("a", 2049), 2048, 2049, "2049 bytes, at most 2048", ""},
		{`name="` + strings.Repeat(`x`, 2030) + `"not(a)(b)`, 2037, 2038, "a space is missing", ""},
		{strings.Repeat("a(a or a)", 16) + strings.Repeat("x", 1896) + " bbb", 2044, 2045, "written out", ""},
	}
	for _, tt := range tests {
		name := tt.in
		if len(name) > 40 {
			name = name[:40]
		}
		t.Run(name, func(t *testing.T) {
			_, err := query.Parse(tt.in)
			if muster.KindOf(err) != muster.Invalid {
				t.Fatalf("the answer is %v of kind %v, want invalid", err, muster.KindOf(err))
			}
			e, ok := errors.AsType[*query.Error](err)
			if !ok {
				t.Fatalf("%v is no query.Error", err)
			}
			if e.Pos != tt.pos || e.Column != tt.col {
				t.Errorf("%s: at %d, column %d, want %d, column %d", e.Msg, e.Pos, e.Column, tt.pos, tt.col)
			}
			if !strings.Contains(e.Msg, tt.msg) || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("says %q, hint %q; want %q, hint %q", e.Msg, e.Hint, tt.msg, tt.hint)
			}
			if public := muster.Public(err); !strings.Contains(public, e.Msg) || !strings.Contains(public, "column") {
				t.Errorf("the public message is %q", public)
			}
		})
	}
}

func TestCanonicalForm(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{" A  AND b ", "a b"},
		{"a or b c", "a or b and c"},
		{"(a or b) c", "(a or b) c"},
		{"not (a b)", "not (a b)"},
		{"not ((a))", "not a"},
		{"not not a", "not not a"},
		{"((a or (b or c)))", "a or b or c"},
		{`"a b" "AND" "v.x" "*"`, `"a b" "and" "v.x" "*"`},
		{"firmware:1.0", "fw=1.0"},
		{"tag:a:* tag:b!=* tag:c:x*", "tag:a tag:b!=* tag:c=x*"},
		{`v."plain"=1.50 v."a b":*`, `v.plain=1.5 v."a b"`},
		{`v.x="1" v.y="true" v.z="ok" v.w~"1"`, `v.x="1" v.y="true" v.z=ok v.w~1`},
		{"v.x<1e6 v.x<1e-9 v.x<-0", "v.x<1000000 v.x<1e-09 v.x<-0"},
		{"seen>60m seen<90m seen>0.0015s created>7d seen>=0s", "seen>1h seen<90m seen>1.500ms created>1w seen>=0s"},
		{"seen<2026-01-01T01:00:00+01:00", "seen<2026-01-01T00:00:00Z"},
		{`name="" name=":x" name="=x"`, `name="" name=:x name="=x"`},
		{`twin.reported."a"."b.c"=x`, `twin.reported.a."b.c"=x`},
	}
	for _, tt := range tests {
		if got := mustParse(t, tt.in).String(); got != tt.want {
			t.Errorf("%s is written %s, want %s", tt.in, got, tt.want)
		}
	}
}

// ignorePos compares trees but for their positions.
func ignorePos() cmp.Option { return cmpopts.IgnoreFields(query.Term{}, "Pos") }

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`group:cold-chain status!=online v.battery<15 seen>10m`,
		`not (tag:site=Berlin or tag:site:ham*) and "two words" twin.reported."a b".c~X`,
		`v."k \" \\"=true or v.x!="5" created<2026-01-01T00:00:00.123456Z`,
		`has:children diverged:a.b converged=false profile!=* id>=a`, "\u00a0a\u2003b", `seen>0.0001ms`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		e, err := query.Parse(s)
		if err != nil {
			q, ok := errors.AsType[*query.Error](err)
			if !ok || muster.KindOf(err) != muster.Invalid || q.Pos < 0 || q.Pos > len(s) || q.Column < 1 || len(err.Error()) > 1000 {
				t.Fatalf("%q: a bad error: %#v", s, err)
			}
			return
		}
		text := e.String()
		again, err := query.Parse(text)
		if err != nil {
			t.Fatalf("%q: its canonical form %q is refused: %v", s, text, err)
		}
		if diff := cmp.Diff(e, again, ignorePos()); diff != "" {
			t.Fatalf("%q: its canonical form %q differs:\n%s", s, text, diff)
		}
		if third := again.String(); third != text {
			t.Fatalf("%q: written %q, then %q", s, text, third)
		}
	})
}

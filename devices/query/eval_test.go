package query_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices/query"
	"muster/devices/query/querytest"
)

const now, minute = querytest.Now, muster.Micros(60_000_000)

func number(name string, v float64) querytest.Latest {
	return querytest.Latest{Value: muster.Value{Key: muster.Key{Name: name}, Num: v}, Time: now, Arrival: now}
}

func jsonValue(name, text string) querytest.Latest {
	return querytest.Latest{Value: muster.Value{Key: muster.Key{Name: name, Kind: muster.JSON}, Text: text}, Time: now, Arrival: now}
}

// pump is a device with something of everything.
func pump() *querytest.Device {
	return &querytest.Device{
		ID: "pump-1", Parent: "gw", Name: "Cooling Pump Ä", Profile: "pump", Firmware: "1.10", Notes: strings.Repeat("x", 300) + "NEEDLE",
		Created: now - 40*24*60*minute, Tags: map[string]string{"site": "Berlin", "empty": ""}, Groups: []string{"cold"}, Located: true, Lat: 59.91, Lon: -10.75,
		Presence: &querytest.Presence{Presence: muster.Presence{State: muster.PresenceOffline, LastSeen: now - 20*minute}},
		Latest: []querytest.Latest{
			number("t", 21.5), number("hole", math.NaN()), number("inf", math.Inf(1)), jsonValue("mode", `"Eco \u00e9"`), jsonValue("list", `[1]`),
			jsonValue("big", "12345678901234567890"), jsonValue("null", "null"), jsonValue("five", `"5"`), jsonValue("yes", "true"), number("a b", 1),
		},
		Twin: &querytest.Twin{
			Reported: `{"mode":"eco","net":{"rssi":-70,"a.b":{"x":1}},"on":true,"list":[{"a":1}],"none":null}`, Effective: `{"mode":"auto"}`,
			Diverged: []string{"mode", "net.rssi"},
		},
	}
}

func TestEvalAnswersWhatTheLanguageSays(t *testing.T) {
	f := &querytest.Fleet{Devices: []*querytest.Device{pump(), {ID: "bare", Profile: "default", Created: now}}}
	f.Saved = map[string]*query.Expr{"warm": mustParse(t, "v.t>20 group:cold")}
	both, first, second, none := "pump-1 bare", "pump-1", "bare", ""
	tests := []struct{ in, want string }{
		{"", both},
		{"PUMP", first},
		{"cooling", first},
		{"ä", none},
		{"Ä", first},
		{`""`, both},
		{"a", second},
		{`"g p"`, first},
		{"id=pump-1", first},
		{"id=PUMP-1", none},
		{"id:p*", first},
		{"id>=c", first},
		{"id<c", second},
		{"id:*", both},
		{"name=*", first},
		{`name=""`, second},
		{"name!=*", second},
		{"name~PUMP", first},
		{`name<"D"`, both},
		{"notes~needle", first},
		{"notes~needles", none},
		{"profile:pump", first},
		{"profile!=pump", second},
		{"parent:gw", first},
		{`parent=""`, second},
		{"fw=1.10", first},
		{"fw=1.1", none},
		{"fw:1.1*", first},
		{"tag:site=Berlin", first},
		{"tag:site=berlin", none},
		{"tag:site~BERLIN", first},
		{"tag:site!=Berlin", second},
		{"tag:site", first},
		{"tag:none!=x", both},
		{"not tag:none", both},
		{`tag:empty=""`, first},
		{"tag:empty", first},
		{"tag:empty:*", first},
		{"tag:site!=B*", second},
		{"group:cold", first},
		{"group:nowhere", none},
		{"group!=nowhere", both},
		{"group:warm", first},
		{"status=offline", first},
		{"status=never", second},
		{"status=silent", first},
		{"status!=silent", second},
		{"seen>19m", first + " " + second},
		{"seen>20m", second},
		{"seen>=20m", both},
		{"seen<=20m", first},
		{"seen<21m", first},
		{"seen:*", first},
		{"seen<2026-01-01T00:00:00Z", both},
		{"seen>2025-12-31T00:00:00Z", first},
		{"seen>99y", "error"},
		{"seen>3000w", second},
		{"created>30d", first},
		{"created<30d", second},
		{"created>=2026-01-01T00:00:00Z", second},
		{"v.t>21", first},
		{"v.t=21.50", first},
		{"v.t!=21.5", second},
		{"v.t", first},
		{`v.t="21.5"`, none},
		{"v.hole", none},
		{"v.hole!=1", both},
		{"v.inf>1e308", first},
		{`v.mode="Eco é"`, first},
		{"v.mode:Eco*", first},
		{"v.mode~ECO", first},
		{"v.mode~É", none},
		{"v.list", first},
		{"v.list=1", none},
		{"v.list!=1", both},
		{"v.big>1e19", first},
		{"v.big=12345678901234567891", first},
		{"v.null", none},
		{"v.five=5", none},
		{`v.five="5"`, first},
		{"v.yes=true", first},
		{"v.yes=1", first},
		{`v."a b">=1`, first},
		{"v.t<1e9 or v.none>0", first},
		{"v.none<5", none},
		{"not v.none<5", both},
		{"twin.reported.mode=eco", first},
		{"twin.desired.mode=eco", none},
		{"twin.reported.mode!=eco", second},
		{"twin.reported.net.rssi<-60", first},
		{`twin.reported.net."a.b".x=1`, first},
		{"twin.reported.net.a.b.x=1", none},
		{"twin.reported.on=true", first},
		{"twin.reported.on=1", first},
		{"twin.reported.list.0", none},
		{"twin.reported.list", first},
		{"twin.reported.none", none},
		{"twin.reported.net", first},
		{"twin.reported.mode.x", none},
		{"converged=true", second},
		{"converged!=true", first},
		{"diverged:net.rssi", first},
		{"diverged!=mode", second},
		{"has:parent", first},
		{"has:children", none},
		{"has:tags", first},
		{"has:location", first},
		{"lat>=59.91", first},
		{"lat>59.91", none},
		{"lat=59.91", first},
		{"lat!=59.91", second},
		{"lat>=59 lat<60 lon>=-11 lon<-10", first},
		{"lon>=0", none},
		{"not lon>=0", both},
		{"has:notes", first},
		{"has:twin", first},
		{"has:credential", none},
		{"has:connection", none},
		{"has!=tags", second},
		{"p (cooling or bare) not fw:2*", first},
		{"not (id:pump* or id:bare)", none},
	}
	for _, tt := range tests {
		t.Run(tt.in, func(t *testing.T) {
			e, err := query.Parse(tt.in)
			if tt.want == "error" {
				if err == nil {
					t.Errorf("%s is understood", tt.in)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, id := range f.Matches(e) {
				got = append(got, string(id))
			}
			if found := strings.Join(got, " "); found != tt.want {
				t.Errorf("finds %q, want %q", found, tt.want)
			}
		})
	}
}

func TestSilentIsJudgedByTheDevicesOwnRhythm(t *testing.T) {
	tests := []struct {
		state         muster.PresenceState
		ago           muster.Micros
		checkIn, rate int64
		want          bool
	}{
		{muster.PresenceOffline, 20 * minute, 0, 0, true}, // nothing is known: 600 s
		{muster.PresenceOffline, 20*minute - 1, 0, 0, false},
		{muster.PresenceOffline, 10 * minute, 0, 300, true}, // learned
		{muster.PresenceOffline, 10*minute - 1, 0, 300, false},
		{muster.PresenceOffline, 10 * minute, 600, 300, false}, // set by hand
		{muster.PresenceQuiet, 0, 600, 300, true},
		{muster.PresenceOnline, 90 * minute, 0, 0, false},
		{muster.PresenceUnknown, 90 * minute, 0, 0, false},
		{muster.PresenceNever, now, 0, 0, false},
	}
	e := mustParse(t, "status:silent")
	for _, tt := range tests {
		d := &querytest.Device{ID: "d", CheckIn: tt.checkIn, Presence: &querytest.Presence{
			Presence: muster.Presence{State: tt.state, LastSeen: now - tt.ago}, Rhythm: tt.rate,
		}}
		if got := query.Eval(e, (&querytest.Fleet{}).Subject(d), now); got != tt.want {
			t.Errorf("%+v: silent is %v", tt, got)
		}
	}
}

func TestPropertiesOfTheLanguage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := querytest.DrawFleet(t, 5)
		groups := []string{"g1", "g2", "s1", "s2", "s3"}
		text := querytest.DrawQuery(t, groups)
		e, err := query.Parse(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := query.Parse(e.String())
		if err != nil {
			t.Fatalf("%s: its canonical form %s: %v", text, e, err)
		}
		if diff := cmp.Diff(e, again, ignorePos()); diff != "" {
			t.Fatalf("%s: its canonical form differs:\n%s", text, diff)
		}
		expanded, err := query.Expand(e, f.Resolve)
		if err != nil {
			t.Fatalf("expand %s: %v", text, err)
		}
		for _, d := range f.Devices {
			s := f.Subject(d)
			got := query.Eval(e, s, now)
			if query.Eval(expanded, s, now) != got {
				t.Fatalf("%s: with its groups expanded it answers otherwise for %s", text, d.ID)
			}
			if e.Root != nil && query.Eval(&query.Expr{Root: &query.Not{Node: e.Root}}, s, now) == got {
				t.Fatalf("%s: not of it answers the same for %s", text, d.ID)
			}
			for _, term := range query.Necessary(expanded) {
				if got && !query.Eval(&query.Expr{Root: term}, s, now) {
					t.Fatalf("%s matches %s without its necessary %s", text, d.ID, term)
				}
			}
			query.Walk(e, func(term *query.Term) {
				opposite := *term
				switch term.Op {
				case query.Eq:
					opposite.Op = query.Ne
				case query.Ne:
					opposite.Op = query.Eq
				default:
					return
				}
				if query.Eval(&query.Expr{Root: term}, s, now) == query.Eval(&query.Expr{Root: &opposite}, s, now) {
					t.Fatalf("%s and %s answer the same for %s", term, &opposite, d.ID)
				}
			})
		}
	})
}

func TestWhatAPlannerMustKnow(t *testing.T) {
	tests := []struct {
		in        string
		necessary string
		groups    string
		uses      query.Uses
	}{
		{"", "", "", 0},
		{"id=a profile:p (parent:g tag:k=v) group:x name=n", "id=a profile=p parent=g tag:k=v group=x", "x", query.UsesGroups},
		{"id=a or id=b", "", "", 0},
		{`not id=a id!=b id:c* tag:k parent="" id~d`, "", "", 0},
		{"group:b (group:a or group!=b)", "group=b", "a b", query.UsesGroups},
		{"v.x>1", "", "", query.UsesTelemetry},
		{"twin.reported.a or converged=true or diverged:x or has:twin", "", "", query.UsesTwin},
		{"status=online or seen:* or has:connection or seen>2026-01-01T00:00:00Z", "", "", query.UsesPresence},
		{"status=silent", "", "", query.UsesPresence | query.UsesTime},
		{"seen>1m", "", "", query.UsesPresence | query.UsesTime},
		{"created<1d", "", "", query.UsesTime},
		{"has:children has:credential", "", "", query.UsesChildren | query.UsesCredentials},
	}
	for _, tt := range tests {
		e := mustParse(t, tt.in)
		var terms []string
		for _, term := range query.Necessary(e) {
			terms = append(terms, term.String())
		}
		if got := strings.Join(terms, " "); got != tt.necessary {
			t.Errorf("%s: necessary is %q, want %q", tt.in, got, tt.necessary)
		}
		if got := strings.Join(query.Groups(e), " "); got != tt.groups {
			t.Errorf("%s: the groups are %q, want %q", tt.in, got, tt.groups)
		}
		if got := query.UsesOf(e); got != tt.uses {
			t.Errorf("%s: uses %b, want %b", tt.in, got, tt.uses)
		}
	}
}

func TestExpandRefusesCirclesAndExplosions(t *testing.T) {
	saved := map[string]*query.Expr{
		"a": mustParse(t, "group:b"), "b": mustParse(t, "x group:a"), "self": mustParse(t, "not group:self"), "all": mustParse(t, ""),
	}
	for i := range 20 {
		saved[fmt.Sprintf("deep%d", i)] = mustParse(t, fmt.Sprintf("group:deep%d", i+1))
		saved[fmt.Sprintf("wide%d", i)] = mustParse(t, fmt.Sprintf("group:wide%d or group:wide%d", i+1, i+1))
	}
	resolve := func(name string) (*query.Expr, bool) { e, ok := saved[name]; return e, ok }
	for in, want := range map[string]string{
		"group:a":     "the groups a, b refer to each other in a circle",
		"group:self":  "in a circle",
		"group:deep0": "more than 16 deep",
		"group:wide9": "more than 1024 terms",
	} {
		_, err := query.Expand(mustParse(t, in), resolve)
		if muster.KindOf(err) != muster.Invalid || !strings.Contains(muster.Public(err), want) {
			t.Errorf("%s: %v, want %q", in, err, want)
		}
	}
	e, err := query.Expand(mustParse(t, "group!=all or group:deep19 a"), resolve)
	if err != nil || e.String() != "not id=* or group=deep20 and a" {
		t.Errorf("expanded to %s, %v", e, err)
	}
}

func TestEvalAllocatesNothing(t *testing.T) {
	f := &querytest.Fleet{}
	var s query.Subject = slowly{f.Subject(pump()), number("t", 21.5).Value}
	for _, in := range []string{
		"profile:pump status!=online v.t>15", "cool name~PUMP tag:site=Berlin", "seen>10m created>30d group:cold", "twin.reported.mode~ECO has:tags",
	} {
		e := mustParse(t, in)
		if !query.Eval(e, s, now) {
			t.Errorf("%s does not match", in)
		}
		if n := testing.AllocsPerRun(100, func() { query.Eval(e, s, now) }); n > 0 {
			t.Errorf("%s allocates %v times", in, n)
		}
	}
}

// slowly answers for the twin and telemetry without decoding anything.
type slowly struct {
	query.Subject
	value muster.Value
}

func (s slowly) Value(string) (muster.Value, bool) { return s.value, true }
func (s slowly) Twin(query.Field, []string) string { return `"eco"` }
func (s slowly) InGroup(name string) bool          { return slices.Contains([]string{"cold"}, name) }

func BenchmarkEval(b *testing.B) {
	f := &querytest.Fleet{}
	var s query.Subject = slowly{f.Subject(pump()), number("t", 21.5).Value}
	for _, in := range []string{"profile:pump status!=online v.t>15", "cool tag:site=Berlin seen>10m", "twin.reported.mode=eco group:cold fw:1.*"} {
		e, err := query.Parse(in)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(in, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				query.Eval(e, s, now)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := query.Parse("group:cold-chain status!=online v.battery<15 seen>10m"); err != nil {
			b.Fatal(err)
		}
	}
}

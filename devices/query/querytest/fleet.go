package querytest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"muster"
	"muster/devices/query"
)

// Now is the time at which fleets are looked at.
const Now = muster.Micros(1_767_225_600_000_000) // 2026-01-01T00:00:00Z

// Latest is one telemetry value with its times.
type Latest struct {
	muster.Value
	Time, Arrival muster.Micros
}

// Device is one random device. It is a query.Subject through Fleet.Subject.
type Device struct {
	ID, Parent                     muster.DeviceID
	Name, Profile, Firmware, Notes string
	Created                        muster.Micros
	Tags                           map[string]string
	Groups                         []string // the static ones
	Located, Credential            bool
	Lat, Lon                       float64 // when Located
	CheckIn                        int64
	Updating                       bool // a firmware action is under way

	Presence *Presence // nil without a row
	Latest   []Latest
	Twin     *Twin // nil without a row
}

// Presence is a device's presence and rhythm in seconds.
type Presence struct {
	muster.Presence
	Rhythm int64
}

// Twin is a device's twin, its documents as JSON text.
type Twin struct {
	Reported, Effective string
	Converged           bool
	Diverged            []string
}

// Fleet is a random registry.
type Fleet struct {
	Devices []*Device // by id
	Static  []string  // names of groups with members of their own
	Saved   map[string]*query.Expr
}

// Resolve finds a saved query, for query.Expand.
func (f *Fleet) Resolve(name string) (*query.Expr, bool) {
	e, ok := f.Saved[name]
	return e, ok
}

// Matches returns the ids of the devices that Eval finds, by id.
func (f *Fleet) Matches(e *query.Expr) []muster.DeviceID {
	var ids []muster.DeviceID
	for _, d := range f.Devices {
		if query.Eval(e, f.Subject(d), Now) {
			ids = append(ids, d.ID)
		}
	}
	return ids
}

// Subject returns d as the language sees it.
func (f *Fleet) Subject(d *Device) query.Subject { return subject{f, d} }

type subject struct {
	f *Fleet
	d *Device
}

func (s subject) ID() muster.DeviceID                { return s.d.ID }
func (s subject) Name() string                       { return s.d.Name }
func (s subject) Profile() string                    { return s.d.Profile }
func (s subject) Parent() muster.DeviceID            { return s.d.Parent }
func (s subject) Firmware() string                   { return s.d.Firmware }
func (s subject) Notes() string                      { return s.d.Notes }
func (s subject) Created() muster.Micros             { return s.d.Created }
func (s subject) Tag(key string) (v string, ok bool) { v, ok = s.d.Tags[key]; return v, ok }

func (s subject) InGroup(name string) bool {
	if e, ok := s.f.Saved[name]; ok {
		return query.Eval(e, s, Now)
	}
	return slices.Contains(s.d.Groups, name)
}

func (s subject) Presence() (muster.PresenceState, muster.Micros, int64) {
	p := Presence{Presence: muster.Presence{State: muster.PresenceNever}}
	if s.d.Presence != nil {
		p = *s.d.Presence
	}
	switch {
	case s.d.CheckIn > 0:
		return p.State, p.LastSeen, s.d.CheckIn
	case p.Rhythm > 0:
		return p.State, p.LastSeen, p.Rhythm
	}
	return p.State, p.LastSeen, query.DefaultCheckIn
}

// Updating implements query.Subject.
func (s subject) Updating() bool { return s.d.Updating }

func (s subject) Value(key string) (found muster.Value, ok bool) {
	var newest muster.Micros
	for _, l := range s.d.Latest {
		at := min(l.Time, l.Arrival)
		hole := l.Key.Kind != muster.JSON && l.Num != l.Num
		if l.Key.Name == key && !hole && (!ok || at >= newest) {
			found, newest, ok = l.Value, at, true
		}
	}
	return found, ok
}

func (s subject) Twin(side query.Field, path []string) string {
	if s.d.Twin == nil {
		return ""
	}
	doc := json.RawMessage(s.d.Twin.Reported)
	if side == query.Desired {
		doc = json.RawMessage(s.d.Twin.Effective)
	}
	for _, name := range path {
		var members map[string]json.RawMessage
		if !bytes.HasPrefix(doc, []byte("{")) || json.Unmarshal(doc, &members) != nil {
			return ""
		}
		doc = bytes.TrimSpace(members[name])
	}
	return string(doc)
}

func (s subject) Converged() bool { return s.d.Twin == nil || s.d.Twin.Converged }

func (s subject) Diverged(path string) bool {
	return s.d.Twin != nil && slices.Contains(s.d.Twin.Diverged, path)
}

func (s subject) Location() (lat, lon float64, ok bool) { return s.d.Lat, s.d.Lon, s.d.Located }

func (s subject) Has(what string) bool {
	switch what {
	case query.HasChildren:
		return slices.ContainsFunc(s.f.Devices, func(d *Device) bool { return d.Parent == s.d.ID })
	case query.HasTags:
		return len(s.d.Tags) > 0
	case query.HasLocation:
		return s.d.Located
	case query.HasTwin:
		return s.d.Twin != nil && (s.d.Twin.Reported != "{}" || s.d.Twin.Effective != "{}")
	case query.HasCredential:
		return s.d.Credential
	}
	return false
}

// The pools are small, so that queries and devices meet; what they hold is what engines
// are known to see differently.

func ids() []muster.DeviceID {
	return []muster.DeviceID{"A", "AA:BB", "Ab", "a", "a-1", "a.b", "a1", "ab", "dev-1", "dev-10", "dev-2", "true", "z", "Z_"}
}

func texts() []string {
	return []string{
		"a", "Ä", "", " ", "A", "ab", "Ab", "aB c", "AB", "b", "Z", "z", "ä", "a\u0308", "é", "ß", "SS", "İ", "i", "%", "_", "a%b", "a_b",
		`a\b`, `\`, `"`, `a"b`, "'", "a'b", "*", "a*", "1", "1.0", "01", "-1", "true", "null", "or", "x.y", "{}", "[]", "😀", "\uff00", "温度", "a\u00a0b",
	}
}

func profiles() []string { return []string{"default", "p", "P", "thermo"} }

func keys() []string { return []string{"a", "A", "b", "a.b", "a b", `q"u`, `b\s`, "é", "0", "1"} }

func tagKeys() []string { return []string{"a", "A", "b", "a.b", "site"} }

// jsonNumbers are spelled as devices do, also beyond what a float64 holds.
func jsonNumbers() []string {
	return []string{
		"1", "1e400", "0.1", "0", "-0", "0.0", "1.0", "1e0", "-1", "2", "0.10000000000000001", "0.30000000000000004", "0.3", "100", "1E2", "1e+2",
		"9007199254740992", "9007199254740993", "9223372036854775807", "9223372036854775808", "12345678901234567890", "1.7976931348623157e308",
		"5e-324", "1e-400", "-1e-400", "-1e400", "1e-7", "15", "14.999999999999999",
	}
}

// times lie around the limits of the durations that queries have.
func times() []muster.Micros {
	const minute = 60_000_000
	return []muster.Micros{
		1, Now, Now - 1, Now + minute, Now - minute, Now - 10*minute, Now - 10*minute - 1, Now - 20*minute, Now - 20*minute + 1,
		Now - 60*minute, Now - 24*60*minute, Now - 30*24*60*minute,
	}
}

// degrees lie around each other, as closely as engines may see differently.
func degrees() []float64 {
	return []float64{0, 0.1, 0.3, 0.1 + 0.2, -0.1, 59.91, 59.910000000000004, -33.87, 90, -90}
}

func one[T any](t *rapid.T, what string, from []T) T { return rapid.SampledFrom(from).Draw(t, what) }

// some draws one of the first few half of the time, so that devices and queries meet.
func some[T any](t *rapid.T, what string, from []T) T {
	if rapid.Bool().Draw(t, what+" of the first") {
		from = from[:min(3, len(from))]
	}
	return one(t, what, from)
}

func chance(t *rapid.T, what string, percent int) bool {
	return rapid.IntRange(0, 99).Draw(t, what) < percent
}

// DrawFleet draws up to most devices with all that can be asked of them.
func DrawFleet(t *rapid.T, most int) *Fleet {
	f := &Fleet{Static: []string{"g1", "g2"}, Saved: map[string]*query.Expr{}}
	chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(ids()), 1, most, rapid.ID[muster.DeviceID]).Draw(t, "ids")
	slices.Sort(chosen)
	for _, id := range chosen {
		f.Devices = append(f.Devices, drawDevice(t, id, chosen, f.Static))
	}
	for _, name := range []string{"s1", "s2", "s3"} {
		e, err := query.Parse(DrawQuery(t, append(slices.Sorted(maps.Keys(f.Saved)), f.Static...)))
		if err != nil {
			t.Fatalf("a saved query: %v", err)
		}
		f.Saved[name] = e
	}
	return f
}

func drawDevice(t *rapid.T, id muster.DeviceID, all []muster.DeviceID, groups []string) *Device {
	d := &Device{ID: id, Profile: one(t, "profile", profiles()), Created: one(t, "created", times()), Tags: map[string]string{}}
	for _, into := range []*string{&d.Name, &d.Firmware, &d.Notes} {
		if chance(t, "has text", 60) {
			*into = some(t, "text", texts())
		}
	}
	if parent := one(t, "parent", all); parent != id && chance(t, "has parent", 40) {
		d.Parent = parent
	}
	for range rapid.IntRange(0, 3).Draw(t, "tags") {
		d.Tags[one(t, "tag", tagKeys())] = some(t, "tag value", texts())
	}
	for _, g := range groups {
		if chance(t, "member", 40) {
			d.Groups = append(d.Groups, g)
		}
	}
	d.Located, d.Credential = rapid.Bool().Draw(t, "located"), rapid.Bool().Draw(t, "credential")
	if d.Located {
		d.Lat, d.Lon = one(t, "lat", degrees()), one(t, "lon", degrees())
	}
	d.CheckIn = one(t, "check-in", []int64{0, 0, 1, 300, 3600})
	if chance(t, "has presence", 80) {
		d.Presence = &Presence{Rhythm: one(t, "rhythm", []int64{0, 0, 30, 601})}
		d.Presence.State = one(t, "state", []muster.PresenceState{
			muster.PresenceNever, muster.PresenceOnline, muster.PresenceQuiet, muster.PresenceOffline, muster.PresenceOffline, muster.PresenceUnknown,
		})
		d.Presence.LastSeen = one(t, "seen", append(times(), 0, 0))
	}
	d.Updating = chance(t, "updating", 30)
	drawLatest(t, d)
	if chance(t, "has twin", 70) {
		d.Twin = &Twin{Reported: drawDoc(t, 2), Effective: drawDoc(t, 2), Converged: rapid.Bool().Draw(t, "converged")}
		d.Twin.Diverged = rapid.SliceOfNDistinct(rapid.SampledFrom(keys()), 0, 3, rapid.ID[string]).Draw(t, "diverged")
	}
	return d
}

func drawLatest(t *rapid.T, d *Device) {
	type slot = muster.Key
	have := map[slot]bool{}
	for range rapid.IntRange(0, 4).Draw(t, "latest") {
		l := Latest{Time: one(t, "time", times()), Arrival: one(t, "arrival", times())}
		l.Key = muster.Key{Name: some(t, "key", keys()[:5]), Kind: one(t, "kind", []muster.ValueKind{muster.Number, muster.Bool, muster.JSON})}
		if have[l.Key] {
			continue
		}
		have[l.Key] = true
		switch l.Key.Kind {
		case muster.Number:
			l.Num = some(t, "number", numbers())
		case muster.Bool:
			l.Num = one(t, "bool", []float64{0, 1})
		case muster.JSON:
			l.Text = drawJSON(t, 1)
		}
		d.Latest = append(d.Latest, l)
	}
	slices.SortFunc(d.Latest, func(a, b Latest) int { return muster.CompareKeys(a.Key, b.Key) })
}

// drawJSON draws a JSON value nested at most depth deep.
func drawJSON(t *rapid.T, depth int) string {
	switch kind := rapid.IntRange(0, 9).Draw(t, "json"); {
	case kind < 3:
		return some(t, "json number", jsonNumbers())
	case kind < 6:
		return drawString(t, some(t, "json text", texts()))
	case kind < 7:
		return one(t, "json word", []string{"true", "false", "null"})
	case kind < 8:
		return one(t, "json array", []string{"[]", "[1]", `["a"]`, `[{"a":1}]`})
	}
	return drawDoc(t, depth)
}

// drawString spells s as JSON, sometimes with escapes that are not needed.
func drawString(t *rapid.T, s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("spell %q: %v", s, err)
	}
	if chance(t, "escape", 30) {
		return strings.NewReplacer("a", `\u0061`, "é", `\u00e9`, "😀", `\ud83d\ude00`).Replace(string(b))
	}
	return string(b)
}

// drawDoc draws an object nested at most depth deep.
func drawDoc(t *rapid.T, depth int) string {
	names := map[string]bool{}
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		names[some(t, "member", keys())] = true
	}
	members := make([]string, len(names))
	for i, name := range slices.Sorted(maps.Keys(names)) {
		value := `1`
		if depth > 0 {
			value = drawJSON(t, depth-1)
		}
		members[i] = drawString(t, name) + ":" + value
	}
	return "{" + strings.Join(members, ",") + "}"
}

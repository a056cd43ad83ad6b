package bulk_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"muster"
	"muster/devices"
	"muster/devices/bulk"
	"muster/store/control"
	"muster/store/control/controltest"
	"muster/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func registry(t *testing.T) *devices.Registry {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	h, err := sqlite.OpenControl(t.Context(), dir)
	must(t, err)
	store, err := control.Open(t.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
	must(t, err)
	t.Cleanup(func() { must(t, store.Close()) })
	r := devices.NewRegistry(store, time.Now, slog.New(slog.DiscardHandler), devices.Options{})
	must(t, r.Load(t.Context()))
	must(t, r.PutProfile(t.Context(), devices.Profile{Name: "meter"}))
	must(t, r.PutGroup(t.Context(), devices.Group{Name: "cold"}))
	must(t, r.PutGroup(t.Context(), devices.Group{Name: "roof"}))
	return r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, r *devices.Registry, text string, o bulk.Options) bulk.Report {
	t.Helper()
	report, err := bulk.Import(t.Context(), r, strings.NewReader(text), o)
	must(t, err)
	return report
}

const fleet = `id,name,profile,parent,tags,groups,lat,lon,location,check_in_s,notes,credential,tag.rack
m1,"Meter, first",meter,gw,site=a;line=3,cold;roof,50.9,6.96,Hall,60,"two
lines",token,7
gw,,,,,,,,,,,secret,
m2,,meter,gw,,,,,,,,none,
`

func TestAnImportMakesDevicesAndAnExportGivesThemBack(t *testing.T) {
	r := registry(t)
	made := map[muster.DeviceID]devices.Issued{}
	report := load(t, r, fleet, bulk.Options{Format: bulk.CSV, Made: func(_ int, d devices.Device, is devices.Issued) error {
		made[d.ID] = is
		return nil
	}})
	if d := cmp.Diff(bulk.Report{Lines: 3, Created: 3, Refusals: []bulk.Refusal{}}, report); d != "" {
		t.Fatal(d)
	}
	if made["m1"].Token == "" || made["gw"].Password == "" || made["m2"].ID != "" {
		t.Errorf("the credentials are not those asked for: %v", made)
	}
	if id, _, err := r.Authenticate(made["m1"].Token, nil); err != nil || id != "m1" {
		t.Errorf("the token does not let in: %v", err)
	}
	d, err := r.Get("m1")
	must(t, err)
	tags, err := devices.TagsOf(map[string]string{"site": "a", "line": "3", "rack": "7"})
	must(t, err)
	groups, err := devices.GroupsOf([]string{"cold", "roof"})
	must(t, err)
	want := devices.Device{
		ID: "m1", Name: "Meter, first", Created: d.Created, Profile: "meter", Parent: "gw", Tags: tags, Groups: groups,
		Location: devices.Location{Set: true, Lat: 50.9, Lon: 6.96, Label: "Hall"}, CheckIn: 60, Notes: "two\nlines",
	}
	if d := cmp.Diff(want, d); d != "" {
		t.Error(d)
	}
	for _, f := range []bulk.Format{bulk.CSV, bulk.NDJSON} {
		t.Run("as "+string(f), func(t *testing.T) {
			text := export(t, r, f)
			again := load(t, r, text, bulk.Options{Format: f, Update: true})
			if d := cmp.Diff(bulk.Report{Lines: 3, Same: 3, Refusals: []bulk.Refusal{}}, again); d != "" {
				t.Error(d, text)
			}
			other := registry(t)
			if got := load(t, other, text, bulk.Options{Format: f}); got.Created != 3 {
				t.Errorf("elsewhere it makes %d: %v", got.Created, got.Refusals)
			}
			if d := cmp.Diff(withoutTimes(text), withoutTimes(export(t, other, f))); d != "" {
				t.Error(d)
			}
		})
	}
}

func export(t *testing.T, r *devices.Registry, f bulk.Format) string {
	t.Helper()
	var b bytes.Buffer
	w, err := bulk.NewWriter(&b, f)
	must(t, err)
	page, err := r.Select(devices.Selection{Limit: 100})
	must(t, err)
	for _, d := range page.Devices {
		p, _ := r.Presence(d.ID)
		must(t, w.Write(d, p))
	}
	must(t, w.Flush())
	return b.String()
}

// withoutTimes cuts the creation time, which an import does not set.
func withoutTimes(text string) string {
	year := time.Now().UTC().Format("2006-")
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		head, _, _ := strings.Cut(line, year)
		out = append(out, head)
	}
	return strings.Join(out, "\n")
}

func TestLinesThatAreRefusedAreNamedAndNothingIsMade(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []bulk.Refusal
	}{
		{"an id twice", "id\na\na\n", []bulk.Refusal{{3, "a", "this id is on line 2 already"}}},
		{"an id that exists", "id\nold\n", []bulk.Refusal{{2, "old", "a device with this id exists"}}},
		{"an id that cannot be", "id\na b\n", []bulk.Refusal{{2, "", `device id has a character at 1 that is not allowed; letters, digits and . _ : - are`}}},
		{"a line without id", "id,name\n,x\n", []bulk.Refusal{{2, "", "there is no id"}}},
		{"a profile that is not there", "id,profile\na,nope\n", []bulk.Refusal{{2, "a", "there is no such profile"}}},
		{"a group that is not there", "id,groups\na,cold;nope\n", []bulk.Refusal{{2, "a", "there is no group nope"}}},
		{"a parent that is not there", "id,parent\na,nope\n", []bulk.Refusal{{2, "a", "the device that is to be the parent does not exist"}}},
		{"children of a parent that is refused", "id,parent,profile\na,b,\nb,,nope\n", []bulk.Refusal{
			{3, "b", "there is no such profile"}, {2, "a", "the device that is to be the parent does not exist"},
		}},
		{"a circle", "id,parent\na,b\nb,a\n", []bulk.Refusal{
			{2, "a", "a device may have at most 4 ancestors, and not itself among them"},
			{3, "b", "a device may have at most 4 ancestors, and not itself among them"},
		}},
		{"its own parent", "id,parent\na,a\n", []bulk.Refusal{{2, "a", "a device may have at most 4 ancestors, and not itself among them"}}},
		{"too few fields", "id,name\na\n", []bulk.Refusal{{2, "", "1 fields, the header has 2"}}},
		{"a number that is none", "id,check_in_s\na,soon\n", []bulk.Refusal{{2, "a", "check_in_s is not a number of seconds"}}},
		{"half a place", "id,lat\na,1\n", []bulk.Refusal{{2, "a", "lat and lon are not both numbers"}}},
		{"not a place on earth", "id,lat,lon\na,NaN,0\n", []bulk.Refusal{{2, "a", "the latitude is not between -90 and 90"}}},
		{"a token that is taken", "id,token\na,token-of-the-old-device\n", []bulk.Refusal{{2, "a", "this token cannot be used: it is taken"}}},
		{"a token twice", "id,token\na,one-token-for-two-devices\nb,one-token-for-two-devices\n", []bulk.Refusal{{3, "b", "the token is on line 2 already"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := registry(t)
			_, _, err := r.Create(t.Context(), devices.Spec{ID: "old", Credential: devices.Token, Given: "token-of-the-old-device"})
			must(t, err)
			text := tc.text + lastLine(tc.text)
			report := load(t, r, text, bulk.Options{Format: bulk.CSV})
			if d := cmp.Diff(tc.want, report.Refusals); d != "" {
				t.Error(d)
			}
			if report.Created != 0 || r.Count() != 1 {
				t.Errorf("%d devices were made, the report says %d", r.Count()-1, report.Created)
			}
			if part := load(t, r, text, bulk.Options{Format: bulk.CSV, Partial: true}); part.Refused != len(tc.want) || part.Created != report.Lines-len(tc.want) {
				t.Errorf("a partial import made %d and refused %d", part.Created, part.Refused)
			}
			if _, err := r.Get("fine"); err != nil {
				t.Errorf("a partial import did not make the good line: %v", err)
			}
		})
	}
}

// lastLine returns a good line with as many fields as text's header.
func lastLine(text string) string {
	head, _, _ := strings.Cut(text, "\n")
	return "fine" + strings.Repeat(",", strings.Count(head, ",")) + "\n"
}

func TestAListThatCannotBeReadIsRefusedWhole(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		format     bulk.Format
		kind       muster.Kind
	}{
		{"an unknown column", "id,colour\na,red\n", bulk.CSV, muster.Invalid},
		{"a column twice", "id,id\na,b\n", bulk.CSV, muster.Invalid},
		{"no id column", "name\na\n", bulk.CSV, muster.Invalid},
		{"nothing at all", "", bulk.CSV, muster.Invalid},
		{"a quote that does not end", "id\na\n\"b\n", bulk.CSV, muster.Invalid},
		{"a line too long", "id\n" + strings.Repeat("x", bulk.MaxLine+1) + "\n", bulk.CSV, muster.TooLarge},
		{"an NDJSON line too long", `{"id":"` + strings.Repeat("x", bulk.MaxLine+1) + "\"}\n", bulk.NDJSON, muster.TooLarge},
		{"another format", "id\na\n", "xlsx", muster.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := registry(t)
			if _, err := bulk.Import(t.Context(), r, strings.NewReader(tc.text), bulk.Options{Format: tc.format}); err == nil || muster.KindOf(err) != tc.kind {
				t.Errorf("the error is %v, want %v", err, tc.kind)
			}
			if r.Count() != 0 {
				t.Error("a device was made")
			}
		})
	}
}

func TestNDJSONIsReadStrictly(t *testing.T) {
	r := registry(t)
	text := `{"id":"a","tags":{"k":"v"},"groups":["cold"],"location":{"label":"Roof"}}

{"id":"b","colour":"red"}
{"id":"c"} {"id":"d"}
{"id":7}
nonsense
{"id":"e","token":"x","secret":"y"}
`
	report := load(t, r, text, bulk.Options{Format: bulk.NDJSON, Partial: true})
	want := bulk.Report{Lines: 6, Created: 1, Refused: 5, Refusals: []bulk.Refusal{
		{3, "", `not an object of a device: there is no field "colour"`},
		{4, "", "more than one object on a line"},
		{5, "", "not an object of a device: id is not of its type"},
		{6, "", "not an object of a device: broken JSON at byte 2"},
		{7, "e", "a line has a token or a secret, not both"},
	}}
	if d := cmp.Diff(want, report); d != "" {
		t.Error(d)
	}
}

func TestADryRunChangesNothingAndSaysWhatWouldBe(t *testing.T) {
	r := registry(t)
	load(t, r, "id\nm1\n", bulk.Options{Format: bulk.CSV})
	report := load(t, r, fleet, bulk.Options{Format: bulk.CSV, DryRun: true, Update: true})
	if d := cmp.Diff(bulk.Report{DryRun: true, Lines: 3, Created: 2, Updated: 1, Refusals: []bulk.Refusal{}}, report); d != "" {
		t.Error(d)
	}
	if d, _ := r.Get("m1"); r.Count() != 1 || d.Name != "" {
		t.Error("the dry run changed something")
	}
}

func TestAFormulaIsNotHandedToASpreadsheet(t *testing.T) {
	r := registry(t)
	_, _, err := r.Create(t.Context(), devices.Spec{ID: "a", Name: `=HYPERLINK("x")`})
	must(t, err)
	if text := export(t, r, bulk.CSV); !strings.Contains(text, `"'=HYPERLINK(""x"")"`) {
		t.Errorf("the export is %s", text)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(fleet, true)
	f.Add(`{"id":"a","tags":{"k":"v"}}`, false)
	f.Add("id,tag.a\n\"x\n", true)
	f.Fuzz(func(t *testing.T, text string, asCSV bool) {
		format := bulk.NDJSON
		if asCSV {
			format = bulk.CSV
		}
		last := 0
		err := bulk.Read(strings.NewReader(text), format, func(r bulk.Row, line int, refused error) error {
			if line <= last {
				return fmt.Errorf("line %d comes after %d", line, last)
			}
			last = line
			if refused == nil {
				_, err := muster.ParseDeviceID(string(r.ID))
				return err
			}
			return nil
		})
		if err != nil && muster.KindOf(err) == muster.Internal {
			t.Errorf("an error without a kind: %v", err)
		}
	})
}

func BenchmarkImport100k(b *testing.B) {
	var text strings.Builder
	text.WriteString("id,name,profile,tags,groups,credential\n")
	for i := range 100_000 {
		fmt.Fprintf(&text, "dev-%06d,Device %d,meter,site=s%d;row=%d,cold,token\n", i, i, i%50, i%7)
	}
	for b.Loop() {
		b.StopTimer()
		h, err := sqlite.OpenControl(b.Context(), b.TempDir())
		if err != nil {
			b.Fatal(err)
		}
		store, err := control.Open(b.Context(), control.Handles{Write: h.Write, Read: h.Read, Query: h.Query}, control.SQLite())
		if err != nil {
			b.Fatal(err)
		}
		r := devices.NewRegistry(store, time.Now, slog.New(slog.DiscardHandler), devices.Options{})
		err = r.Load(b.Context())
		if err == nil {
			err = r.PutProfile(b.Context(), devices.Profile{Name: "meter"})
		}
		if err == nil {
			err = r.PutGroup(b.Context(), devices.Group{Name: "cold"})
		}
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		report, err := bulk.Import(b.Context(), r, strings.NewReader(text.String()), bulk.Options{Format: bulk.CSV})
		if err != nil || report.Created != 100_000 {
			b.Fatal(err, report)
		}
		b.StopTimer()
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

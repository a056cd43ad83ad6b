package twin_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/devices"
	"muster/devices/query"
	"muster/devices/twin"
	"muster/store/control"
)

var levelsByName = cmp.Comparer(func(a, b twin.Level) bool { return a == b })

func TestLaterLevelsWinKeyByKeyAndTheTwinSaysWhich(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "p"}))
		r.groups("b", "a")
		r.device("d")
		profile := "p"
		r.update("d", devices.Change{Profile: &profile, Groups: groupsOf(t, "a", "b")})
		r.patch(twin.Fleet(), `{"all":{"one":1,"two":1,"three":1,"four":1,"five":1},"empty":{}}`)
		r.patch(twin.Group("b"), `{"all":{"four":4}}`)
		r.patch(twin.Profile("p"), `{"all":{"two":2,"three":2,"four":2,"five":2}}`)
		at := r.now
		r.patch(twin.Group("a"), `{"all":{"three":3,"four":3,"five":3}}`)
		r.patch(twin.Device("d"), `{"all":{"five":5},"list":[1]}`)
		r.report("d", `{"all":{"one":1.0,"two":2},"empty":{"more":1},"own":true}`)

		for range 2 {
			got := r.get("d")
			want := twin.Twin{
				Device: "d", Desired: []byte(`{"all":{"five":5,"four":4,"one":1,"three":3,"two":2},"empty":{},"list":[1]}`), Version: 5,
				Reported: []byte(`{"all":{"one":1.0,"two":2},"empty":{"more":1},"own":true}`), ReportedVersion: 6,
				Levels: []twin.Desired{
					{Level: twin.Fleet(), State: []byte(`{"all":{"five":1,"four":1,"one":1,"three":1,"two":1},"empty":{}}`), Version: 1},
					{Level: twin.Profile("p"), State: []byte(`{"all":{"five":2,"four":2,"three":2,"two":2}}`), Version: 3},
					{Level: twin.Group("a"), State: []byte(`{"all":{"five":3,"four":3,"three":3}}`), Version: 4},
					{Level: twin.Group("b"), State: []byte(`{"all":{"four":4}}`), Version: 2},
					{Level: twin.Device("d"), State: []byte(`{"all":{"five":5},"list":[1]}`), Version: 5},
				},
				Winners: []twin.Winner{
					{"all.five", twin.Device("d")},
					{"all.four", twin.Group("b")},
					{"all.one", twin.Fleet()},
					{"all.three", twin.Group("a")},
					{"all.two", twin.Profile("p")},
					{"empty", twin.Fleet()},
					{"list", twin.Device("d")},
				},
				Times: map[string]twin.KeyTimes{
					"all":   {muster.MicrosOf(at.Add(2 * time.Second)), muster.MicrosOf(at.Add(3 * time.Second))},
					"empty": {muster.MicrosOf(at.Add(-2 * time.Second)), muster.MicrosOf(at.Add(3 * time.Second))},
					"list":  {DesiredAt: muster.MicrosOf(at.Add(2 * time.Second))},
					"own":   {ReportedAt: muster.MicrosOf(at.Add(3 * time.Second))},
				},
				Diverged: []string{"all.five", "all.four", "all.three", "list"}, DivergedCount: 4,
			}
			if d := cmp.Diff(want, got, levelsByName); d != "" {
				t.Error(d)
			}
			r.restart()
		}
		r.report("d", `{"all":{"five":5,"four":4,"three":3},"list":[1.0]}`)
		if tw := r.get("d"); !tw.Converged || tw.Diverged != nil || !converged(r, "d") {
			t.Errorf("it has not converged: %v", tw.Diverged)
		}
	})
}

func TestAVersionIsNeverGivenTwice(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("d")
		if v := r.patch(twin.Device("d"), `{"a":1}`).Version; v != 1 {
			t.Errorf("the first version is %d", v)
		}
		if v := r.patch(twin.Device("d"), `{"a":1}`).Version; v != 1 {
			t.Errorf("a patch that changes nothing gives version %d", v)
		}
		r.report("d", `{"a":1}`)
		must(t, r.registry.Delete(t.Context(), "d", devices.KeepData))
		r.told = map[muster.DeviceID]twin.Change{}
		r.restart()
		r.device("d")
		if tw := r.get("d"); tw.Version != 0 || tw.ReportedVersion != 0 || string(tw.Desired) != "{}" || r.twins.HasTwin("d") {
			t.Errorf("a new device has the twin of the old one: %+v", tw)
		}
		if v := r.patch(twin.Device("d"), `{"a":1}`).Version; v != 3 {
			t.Errorf("after a restart the version is %d", v)
		}
	})
}

func TestADeletedDevicesTwinIsGoneAtOnce(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("d")
		r.patch(twin.Device("d"), `{"a":1}`)
		must(t, r.registry.Delete(t.Context(), "d", devices.KeepData))
		if _, ok := r.twins.DesiredPayload("d"); ok || r.twins.HasTwin("d") {
			t.Error("it is there")
		}
		_, err := r.twins.Get("d")
		wantKind(t, err, muster.NotFound)
		_, err = r.twins.PatchDesired(t.Context(), twin.Device("d"), []byte(`{"a":1}`), nil)
		wantKind(t, err, muster.NotFound)
		wantKind(t, r.twins.ApplyReported(t.Context(), []twin.Report{{Device: "d", Patch: []byte(`{}`)}})[0], muster.NotFound)
	})
}

func TestAChangeAgainstAnOldVersionIsStale(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("d")
		is := func(v int64) func(twin.Versions) bool {
			return func(have twin.Versions) bool { return have.Document == v }
		}
		_, err := r.twins.PatchDesired(t.Context(), twin.Device("d"), []byte(`{"a":1}`), is(7))
		wantKind(t, err, muster.Stale)
		d, err := r.twins.PatchDesired(t.Context(), twin.Device("d"), []byte(`{"a":1}`), is(0))
		must(t, err)
		_, err = r.twins.PutDesired(t.Context(), twin.Device("d"), []byte(`{"a":2}`), is(0))
		wantKind(t, err, muster.Stale)
		if err == nil || !strings.Contains(err.Error(), "version 1 now") {
			t.Errorf("the error does not name the version: %v", err)
		}
		_, err = r.twins.PutDesired(t.Context(), twin.Device("d"), []byte(`{"b":2}`), is(d.Version))
		must(t, err)
		f := r.patch(twin.Fleet(), `{"a":1}`)
		_, err = r.twins.DeleteDesired(t.Context(), twin.Fleet(), is(f.Version-1))
		wantKind(t, err, muster.Stale)
		_, err = r.twins.PatchDesired(t.Context(), twin.Device("d"), []byte(`{"c":3}`), func(v twin.Versions) bool { return v.Effective == f.Version })
		must(t, err)
		if got := string(r.get("d").Desired); got != `{"a":1,"b":2,"c":3}` {
			t.Errorf("desired is %s", got)
		}
	})
}

func TestWhatLevelsRefuse(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.groups("g")
		r.device("d")
		r.update("d", devices.Change{Groups: groupsOf(t, "g")})
		big := `{"x":"` + strings.Repeat("x", 40_000) + `"}`
		r.patch(twin.Fleet(), big)
		for _, tt := range []struct {
			name  string
			level twin.Level
			patch string
			kind  muster.Kind
		}{
			{"a group that does not exist", twin.Group("none"), `{}`, muster.NotFound},
			{"a profile that does not exist", twin.Profile("none"), `{}`, muster.NotFound},
			{"a device that does not exist", twin.Device("none"), `{}`, muster.NotFound},
			{"no JSON", twin.Fleet(), `{`, muster.Invalid},
			{"an array", twin.Fleet(), `[]`, muster.Invalid},
			{"more than 64 KiB", twin.Fleet(), `{"y":"` + strings.Repeat("x", 30_000) + `"}`, muster.TooLarge},
			{"more than 64 KiB with the levels below", twin.Group("g"), `{"y":"` + strings.Repeat("x", 30_000) + `"}`, muster.TooLarge},
			{"more than 64 KiB for the device", twin.Device("d"), `{"y":"` + strings.Repeat("x", 30_000) + `"}`, muster.TooLarge},
		} {
			before := r.get("d")
			_, err := r.twins.PatchDesired(t.Context(), tt.level, []byte(tt.patch), nil)
			if err == nil || muster.KindOf(err) != tt.kind {
				t.Errorf("%s: %v", tt.name, err)
			}
			if d := cmp.Diff(before, r.get("d"), levelsByName); d != "" {
				t.Errorf("%s changes the twin: %s", tt.name, d)
			}
		}
		// The default profile has no row, and is there.
		if d := r.patch(twin.Profile(devices.DefaultProfile), `{"p":1}`); d.Changed != 1 || d.Devices != 1 {
			t.Errorf("the default profile's document changes %d devices of %d", d.Changed, d.Devices)
		}
	})
}

func TestABatchOfReportsIsKeptButForThoseThatAreRefused(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("a", "b")
		batch := []twin.Report{
			{Device: "a", Patch: []byte(`{"x":1,"firmware":"1.0"}`)},
			{Device: "none", Patch: []byte(`{"x":1}`)},
			{Device: "a", Patch: []byte(`{"x":`)},
			{Device: "a", Patch: []byte(`{"y":2,"x":null}`)},
			{Device: "b", Patch: []byte(`{"big":"` + strings.Repeat("x", twin.MaxDocument) + `"}`)},
			{Device: "b", Patch: []byte(`{"firmware":{"version":"2.0"}}`)},
		}
		kinds := []muster.Kind{0, muster.NotFound, muster.Invalid, 0, muster.TooLarge, 0}
		for i, err := range r.twins.ApplyReported(t.Context(), batch) {
			if (err == nil) != (kinds[i] == 0) || err != nil && muster.KindOf(err) != kinds[i] {
				t.Errorf("report %d: %v", i, err)
			}
		}
		check := func() {
			t.Helper()
			if a, b := string(r.get("a").Reported), string(r.get("b").Reported); a != `{"firmware":"1.0","y":2}` || b != `{"firmware":{"version":"2.0"}}` {
				t.Errorf("a reports %s, b %s", a, b)
			}
			for id, want := range map[muster.DeviceID]string{"a": "1.0", "b": "2.0"} {
				if d, err := r.registry.Get(id); err != nil || d.Firmware != want {
					t.Errorf("the registry has firmware %q for %s, want %s", d.Firmware, id, want)
				}
			}
		}
		check()
		r.restart()
		check()
		r.store.set(1, false)
		errs := r.twins.ApplyReported(t.Context(), []twin.Report{{Device: "a", Patch: []byte(`{"y":3}`)}, {Device: "b", Patch: []byte(`{"z":`)}, {Device: "b", Patch: []byte(`{"firmware":"3"}`)}})
		if errs[0] == nil || errs[2] == nil || muster.KindOf(errs[1]) != muster.Invalid {
			t.Errorf("a broken store gives %v", errs)
		}
		check()
		r.report("b", `{"firmware":null,"fw_version":"4"}`)
		if d, _ := r.registry.Get("b"); d.Firmware != "4" {
			t.Errorf("fw_version gives firmware %q", d.Firmware)
		}
		r.report("b", `{"fw_version":"bad\nversion"}`)
		if d, _ := r.registry.Get("b"); d.Firmware != "4" {
			t.Errorf("a version with a new line gives firmware %q", d.Firmware)
		}
		r.report("b", `{"fw_version":null}`)
		if d, _ := r.registry.Get("b"); d.Firmware != "" {
			t.Errorf("no version gives firmware %q", d.Firmware)
		}
	})
}

func TestAnEqualReportCostsNoWrite(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("a")
		r.report("a", `{"x":1}`)
		before := r.get("a")
		r.store.set(1, false)
		r.report("a", `{"x":1,"y":null}`)
		if d := cmp.Diff(before, r.get("a"), levelsByName); d != "" {
			t.Error(d)
		}
	})
}

func TestAGroupThatIsDeletedTakesItsDocumentAlong(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.groups("g")
		r.device("d")
		r.update("d", devices.Change{Groups: groupsOf(t, "g")})
		r.patch(twin.Group("g"), `{"a":1}`)
		must(t, r.registry.DeleteGroup(t.Context(), "g"))
		r.groups("g")
		// Before anybody settles, the new group has nothing of the old one.
		if _, err := r.registry.Update(t.Context(), "d", devices.Change{Groups: groupsOf(t, "g")}); err != nil {
			t.Fatal(err)
		}
		r.settle()
		for range 2 {
			if tw := r.get("d"); string(tw.Desired) != "{}" || tw.Version != 2 || r.told["d"].Version != 2 {
				t.Errorf("the device is told %s at %d", tw.Desired, tw.Version)
			}
			if l, err := r.twins.Level(twin.Group("g")); err != nil || l.Version != 0 || string(l.State) != "{}" {
				t.Errorf("the new group has %s at %d, %v", l.State, l.Version, err)
			}
			r.restart()
		}
		must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "p"}))
		r.patch(twin.Profile("p"), `{"a":1}`)
		must(t, r.registry.DeleteProfile(t.Context(), "p"))
		_, err := r.twins.Level(twin.Profile("p"))
		wantKind(t, err, muster.NotFound)
		must(t, r.registry.PutProfile(t.Context(), devices.Profile{Name: "p"}))
		r.settle()
		if l, err := r.twins.Level(twin.Profile("p")); err != nil || l.Version != 0 {
			t.Errorf("the new profile has version %d, %v", l.Version, err)
		}
	})
}

func TestAGroupMadeAnewIsToldApartHoweverLateTheWordOfItsDevicesComes(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.groups("g")
		r.device("d")
		r.update("d", devices.Change{Groups: groupsOf(t, "g")})
		r.patch(twin.Group("g"), `{"old":1}`)
		r.unwatch()
		must(t, r.registry.DeleteGroup(t.Context(), "g"))
		r.groups("g")
		r.patch(twin.Group("g"), `{"new":1}`)
		_, err := r.registry.Update(t.Context(), "d", devices.Change{Groups: groupsOf(t, "g")})
		must(t, err)
		r.twins.DevicesChanged([]muster.DeviceID{"d"})
		r.settle()
		if got := string(r.get("d").Desired); got != `{"new":1}` {
			t.Errorf("the device is told %s", got)
		}
	})
}

func TestAVersionThatWasToldIsThereAfterACrashThoughNothingElseChanged(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("own", "none")
		r.patch(twin.Device("own"), `{"a":1}`)
		r.patch(twin.Fleet(), `{"a":1}`)
		r.store.set(2, false) // the level is committed, the rows are not
		r.patch(twin.Fleet(), `{"a":2}`)
		r.store.set(1, false)
		if err := r.twins.Settle(t.Context()); err == nil {
			t.Fatal("the store took the rows")
		}
		r.store.set(2, false)
		r.patch(twin.Fleet(), `{"a":1}`) // the same as in the rows, but newer
		before := r.told
		r.restart()
		for id, told := range before {
			if tw := r.get(id); tw.Version != told.Version || string(tw.Desired) != told.Next {
				t.Errorf("%s was told %s at %d and is at %d with %s", id, told.Next, told.Version, tw.Version, tw.Desired)
			}
		}
		wantRows(t, r)
	})
}

func TestWhatACrashLeavesUndoneIsDoneAtTheNextStart(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.groups("g")
		r.device("a", "b", "c")
		r.update("a", devices.Change{Groups: groupsOf(t, "g")})
		r.patch(twin.Device("b"), `{"own":1}`)
		r.patch(twin.Group("g"), `{"x":1}`)
		was := r.get("a").Version

		// A level that was committed, and nothing of what follows.
		r.store.set(2, false)
		d := r.patch(twin.Fleet(), `{"y":2}`)
		if d.Devices != 3 || d.Changed != 3 {
			t.Errorf("%d devices changed of %d", d.Changed, d.Devices)
		}
		want := map[muster.DeviceID]string{"a": `{"x":1,"y":2}`, "b": `{"own":1,"y":2}`, "c": `{"y":2}`}
		checkAll := func(version int64) {
			t.Helper()
			for id, state := range want {
				if tw := r.get(id); string(tw.Desired) != state || tw.Version < version {
					t.Errorf("%s is told %s at %d", id, tw.Desired, tw.Version)
				}
			}
			wantRows(t, r)
		}
		r.twins = nil // crash
		r.restart()
		checkAll(d.Version)

		// A device that left its group, and whose twin did not hear of it.
		r.unwatch()
		_, err := r.registry.Update(t.Context(), "a", devices.Change{Groups: groupsOf(t)})
		must(t, err)
		r.restart()
		want["a"] = `{"y":2}`
		checkAll(was + 1)
		if v := r.get("a").Version; v <= d.Version {
			t.Errorf("the version of another document is %d after %d", v, d.Version)
		}
	})
}

// wantRows checks that the store has what memory has.
func wantRows(t testing.TB, r *rig) {
	t.Helper()
	rows := map[muster.DeviceID]twin.Row{}
	must(t, r.control.LoadTwins(t.Context(), func(row twin.Row) error { rows[row.Device] = row; return nil }))
	r.registry.Each(func(d devices.Device) bool {
		tw := r.get(d.ID)
		row, ok := rows[d.ID]
		exists := row.Version > 0 || row.Reported.Version > 0
		if r.twins.HasTwin(d.ID) != (orEmpty(row.Effective) != "{}" || orEmpty(row.Reported.Text) != "{}") || ok && !exists && row.Effective != "{}" {
			t.Errorf("%s: row %v, twin %v", d.ID, row, r.twins.HasTwin(d.ID))
		}
		if !exists {
			return true
		}
		got := []any{row.Version, row.Effective, orEmpty(row.Reported.Text), row.Reported.Version, row.Converged, row.Diverged, row.DivergedCount}
		want := []any{tw.Version, string(tw.Desired), string(tw.Reported), tw.ReportedVersion, tw.Converged, tw.Diverged, tw.DivergedCount}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the row of %s is not its twin: %s", d.ID, diff)
		}
		own, err := r.twins.Level(twin.Device(d.ID))
		if err != nil || own.Version != row.Desired.Version || string(own.State) != orEmpty(row.Desired.Text) {
			t.Errorf("the own level of %s is %s at %d, its row has %s at %d", d.ID, own.State, own.Version, row.Desired.Text, row.Desired.Version)
		}
		return true
	})
}

func orEmpty(s string) string {
	if s == "" {
		return "{}"
	}
	return s
}

func TestLeavesAndDivergedPathsAreFoundInPlace(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("d", "none")
		var many []string
		for i := range 100 {
			many = append(many, fmt.Sprintf(`"k%02d":%d`, i, i))
		}
		r.patch(twin.Device("d"), `{"a":{"b.c":"x","d":{}},"many":{`+strings.Join(many, ",")+`}}`)
		r.report("d", `{"a":{"d":{"e":1}},"mode":"eco","q\"\\":1}`)
		for _, tt := range []struct {
			side query.Field
			path []string
			want string
		}{
			{query.Desired, []string{"a", "b.c"}, `"x"`},
			{query.Desired, []string{"a", "b", "c"}, ``},
			{query.Desired, []string{"many", "k07"}, `7`},
			{query.Desired, []string{"mode"}, ``},
			{query.Reported, []string{"mode"}, `"eco"`},
			{query.Reported, []string{"a", "d"}, `{"e":1}`},
			{query.Reported, []string{`q"\`}, `1`},
			{query.Reported, nil, ``},
		} {
			if got := r.twins.Leaf("d", tt.side, tt.path); got != tt.want {
				t.Errorf("%s is %s, want %s", tt.path, got, tt.want)
			}
		}
		tw := r.get("d")
		if len(tw.Diverged) != twin.MaxDiverged || tw.DivergedCount != 101 || tw.Diverged[0] != `a."b.c"` || tw.Diverged[63] != "many.k62" {
			t.Errorf("%d paths of %d: %v", len(tw.Diverged), tw.DivergedCount, tw.Diverged)
		}
		for path, want := range map[string]bool{
			`a."b.c"`: true, `a.d`: false, `a`: false, `many.k00`: true, `many.k62`: true, `many.k63`: false, `mode`: false, `nothing`: false, ``: false, `"a"."b.c"`: false, `a.b.c`: false,
		} {
			if _, got := r.twins.Difference("d", path); got != want {
				t.Errorf("diverged at %s: %v", path, got)
			}
		}
		if ok, differs := r.twins.Difference("none", "a"); differs || !ok || converged(r, "d") {
			t.Error("convergence is wrong")
		}
	})
}

func converged(r *rig, id muster.DeviceID) bool {
	ok, _ := r.twins.Difference(id, "")
	return ok
}

func TestAttributesAreTopLevelMembers(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.device("d", "none")
		r.patch(twin.Device("d"), `{"a":1,"b":{"c":2},"q\"":3}`)
		r.report("d", `{"x":1,"y":2}`)
		for _, tt := range []struct {
			id                muster.DeviceID
			client, shared    []string
			reported, desired string
		}{
			{"d", nil, nil, `{"x":1,"y":2}`, `{"a":1,"b":{"c":2},"q\"":3}`},
			{"d", []string{"y", "z"}, []string{`q"`, "b"}, `{"y":2}`, `{"b":{"c":2},"q\"":3}`},
			{"d", []string{}, []string{"z"}, `{}`, `{}`},
			{"none", nil, nil, `{}`, `{}`},
		} {
			reported, desired, err := r.twins.Attributes(tt.id, tt.client, tt.shared)
			if err != nil || string(reported) != tt.reported || string(desired) != tt.desired {
				t.Errorf("%v and %v give %s and %s, %v", tt.client, tt.shared, reported, desired, err)
			}
		}
		_, _, err := r.twins.Attributes("nobody", nil, nil)
		wantKind(t, err, muster.NotFound)
	})
}

func TestChangesByManyAtOnceAreAllKept(t *testing.T) {
	onEach(t, func(t *testing.T, c *control.Control) {
		r := newRig(t, c)
		r.groups("g")
		const n = 8
		for i := range n {
			r.device(muster.DeviceID(fmt.Sprint("d", i)))
		}
		var wg sync.WaitGroup
		for i := range n {
			id := muster.DeviceID(fmt.Sprint("d", i))
			wg.Go(func() {
				for k := range 10 {
					errs := r.twins.ApplyReported(t.Context(), []twin.Report{{Device: id, Patch: fmt.Appendf(nil, `{"n":%d}`, k)}})
					_, err := r.twins.PatchDesired(t.Context(), twin.Fleet(), fmt.Appendf(nil, `{"f%d":%d}`, i, k), nil)
					groups := groupsOf(t)
					if k%2 == 0 {
						groups = groupsOf(t, "g")
					}
					_, err2 := r.registry.Update(t.Context(), id, devices.Change{Groups: groups})
					_, err3 := r.twins.PatchDesired(t.Context(), twin.Group("g"), fmt.Appendf(nil, `{"g":%d}`, k), nil)
					for _, err := range []error{errs[0], err, err2, err3} {
						if err != nil {
							t.Error(err)
						}
					}
					_ = r.twins.Leaf(id, query.Desired, []string{"g"})
					_ = r.twins.Stats()
				}
			})
		}
		wg.Wait()
		r.settle()
		for i := range n {
			id := muster.DeviceID(fmt.Sprint("d", i))
			if got, want := string(r.get(id).Desired), `{"f0":9,"f1":9,"f2":9,"f3":9,"f4":9,"f5":9,"f6":9,"f7":9}`; got != want {
				t.Errorf("%s is told %s", id, got)
			}
		}
		wantRows(t, r)
		if s := r.twins.Stats(); s.Twins != n || s.Levels != 2 || s.Diverged != n || s.Behind != 0 || s.Version == 0 {
			t.Errorf("stats are %+v", s)
		}
	})
}

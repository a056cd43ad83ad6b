package control_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"muster"
	"muster/devices"
	"muster/devices/twin"
	"muster/store/control"
)

// heldTwins is all that a store has of twins.
type heldTwins struct {
	Last   int64
	Levels []twin.LevelRow
	Twins  []twin.Row
}

func twinsIn(t *testing.T, c *control.Control) (h heldTwins) {
	t.Helper()
	var err error
	h.Last, err = c.LastTwinVersion(t.Context())
	wantNil(t, err)
	wantNil(t, c.LoadTwinLevels(t.Context(), func(r twin.LevelRow) error { h.Levels = append(h.Levels, r); return nil }))
	wantNil(t, c.LoadTwins(t.Context(), func(r twin.Row) error { h.Twins = append(h.Twins, r); return nil }))
	return h
}

func wantTwins(t *testing.T, c *control.Control, want heldTwins) {
	t.Helper()
	sameLevel := cmp.Comparer(func(a, b twin.Level) bool { return a == b })
	if d := cmp.Diff(want, twinsIn(t, c), sameLevel, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(twin.Row{}, "Created")); d != "" {
		t.Error(d)
	}
}

func onlyErr(_ []muster.DeviceID, err error) error { return err }

func wantGone(t *testing.T, c *control.Control, rows []twin.Row, last int64, want ...muster.DeviceID) {
	t.Helper()
	gone, err := c.SaveTwins(t.Context(), rows, last)
	wantNil(t, err)
	if d := cmp.Diff(want, gone, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("devices that are gone (-want +got):\n%s", d)
	}
}

func document(text string, version int64, at ...muster.Micros) twin.Document {
	return twin.Document{Text: text, Version: version, At: at}
}

func TestTwinsAreKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		wantTwins(t, c, heldTwins{})
		var ds []devices.Device
		for i := range 100 {
			ds = append(ds, devices.Device{ID: muster.DeviceID(fmt.Sprintf("d%02d", i)), Created: muster.Micros(i), Profile: devices.DefaultProfile})
		}
		wantNil(t, c.InsertDevices(t.Context(), ds, nil))
		none := document("{}", 0)
		own := twin.Row{
			Device: "d00", Created: 0, Version: 9_007_199_254_740_993, Effective: `{"a":1.50,"b":-0,"é\"\n":1e5}`,
			Desired: document(`{"a":1.50,"b":-0,"é\"\n":1e5}`, 3, 1, 2, 3), Reported: document(`{"z":1E400}`, 4, 9),
			Diverged: []string{"a", `"x.y"`, `<&>`, "é"}, DivergedCount: 70,
		}
		alike := func(id int) twin.Row {
			return twin.Row{Device: ds[id].ID, Created: ds[id].Created, Version: 5, Effective: `{"a":2}`, Diverged: []string{"a"}, DivergedCount: 1, Desired: none, Reported: none}
		}
		wantGone(t, c, []twin.Row{own}, 10)
		want := heldTwins{Last: 10, Twins: []twin.Row{own}}
		wantTwins(t, c, want)
		// Many that come to the same, and one that does not; documents stay.
		rows := []twin.Row{}
		for i := 1; i < 100; i++ {
			rows = append(rows, alike(i))
		}
		rows[7].Effective, rows[7].Converged, rows[7].Diverged, rows[7].DivergedCount = `{}`, true, nil, 0
		own.Version, own.Effective, own.Diverged, own.DivergedCount = own.Version+1, `{"a":2}`, []string{"a"}, 1
		wantNil(t, c.SaveEffective(t.Context(), append(rows, own), 9)) // the newest version never goes back
		want.Twins = append([]twin.Row{own}, rows...)
		wantTwins(t, c, want)

		// Rows of devices that are gone, or came anew, are left out.
		gone, anew := alike(1), alike(2)
		gone.Device, anew.Created, anew.Effective = "none", 77, `{"wrong":1}`
		wantGone(t, c, []twin.Row{gone, alike(3), anew}, 11, "none", anew.Device)
		wantNil(t, c.SaveEffective(t.Context(), []twin.Row{gone, anew}, 11))
		want.Last = 11
		wantTwins(t, c, want)

		wantNil(t, c.DeleteDevices(t.Context(), []muster.DeviceID{"d00", "d99"}))
		want.Twins = want.Twins[1:99]
		wantTwins(t, c, want)
		wantTwins(t, e.control(t), want)
	})
}

func TestADocumentOfALevelLivesAsLongAsItsGroupOrProfile(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		put := func(at twin.Level, version int64) error {
			return c.PutTwinLevel(t.Context(), twin.LevelRow{Level: at, Document: document(`{"a":1}`, version, 5)}, version)
		}
		wantKind(t, put(twin.Group("g"), 1), muster.NotFound)
		wantKind(t, put(twin.Profile("p"), 2), muster.NotFound)
		if h := twinsIn(t, c); h.Last != 0 || len(h.Levels) != 0 {
			t.Errorf("what was refused is kept: %+v", h)
		}
		wantNil(t, c.PutGroup(t.Context(), devices.Group{Name: "g"}))
		wantNil(t, c.PutProfile(t.Context(), devices.Profile{Name: "p"}))
		for i, at := range []twin.Level{twin.Fleet(), twin.Group("g"), twin.Profile(devices.DefaultProfile), twin.Profile("p"), twin.Fleet()} {
			wantNil(t, put(at, int64(i+1)))
		}
		row := func(at twin.Level, version int64) twin.LevelRow {
			return twin.LevelRow{Level: at, Document: document(`{"a":1}`, version, 5)}
		}
		wantTwins(t, c, heldTwins{Last: 5, Levels: []twin.LevelRow{row(twin.Fleet(), 5), row(twin.Group("g"), 2), row(twin.Profile(devices.DefaultProfile), 3), row(twin.Profile("p"), 4)}})
		wantNil(t, c.DeleteGroup(t.Context(), "g"))
		wantNil(t, c.DeleteProfile(t.Context(), "p"))
		wantTwins(t, c, heldTwins{Last: 5, Levels: []twin.LevelRow{row(twin.Fleet(), 5), row(twin.Profile(devices.DefaultProfile), 3)}})
	})
}

func TestNothingOfATwinIsKeptWhenAWriteFails(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		wantNil(t, c.InsertDevices(t.Context(), []devices.Device{{ID: "d", Profile: devices.DefaultProfile}}, nil))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		row := twin.Row{Device: "d", Version: 1, Effective: `{"a":"` + strings.Repeat("x", 100) + `"}`}
		for what, err := range map[string]error{
			"whole rows":         onlyErr(c.SaveTwins(ctx, []twin.Row{row}, 1)),
			"effective ones":     c.SaveEffective(ctx, []twin.Row{row}, 1),
			"a level's document": c.PutTwinLevel(ctx, twin.LevelRow{Level: twin.Fleet(), Document: document("{}", 1)}, 1),
		} {
			if muster.KindOf(err) != muster.Unavailable {
				t.Errorf("%s: %v", what, err)
			}
		}
		wantTwins(t, c, heldTwins{})
	})
}

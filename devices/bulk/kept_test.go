package bulk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/devices"
	"muster/devices/bulk"
)

// shelf keeps what an import needs to go on, and dies at a step.
type shelf struct {
	plan  []byte
	mark  []byte
	made  []bulk.Made
	until int // steps it lives for
}

var errDied = errors.New("the process died")

func (s *shelf) Plan() ([]byte, error)      { return s.plan, nil }
func (s *shelf) KeepPlan(plan []byte) error { s.plan = plan; return nil }

func (s *shelf) Step(ctx context.Context, m bulk.Mark, made []bulk.Made, do func(context.Context) error) error {
	if s.until--; s.until < 0 {
		return errDied
	}
	if err := do(ctx); err != nil {
		return err
	}
	s.made = append(s.made, made...)
	var err error
	s.mark, err = json.Marshal(m)
	return err
}

// inLives imports text in several lives, each of which ends after some steps.
func inLives(t *testing.T, r *devices.Registry, text string, o bulk.Options, lives func() int) (bulk.Report, *shelf) {
	t.Helper()
	s := &shelf{}
	o.Keeper = s
	for range 100 {
		s.until = lives()
		from, err := bulk.Resume(s.mark)
		must(t, err)
		report, err := bulk.ImportFrom(t.Context(), r, strings.NewReader(text), o, from)
		if err == nil {
			return report, s
		}
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
	}
	t.Fatal("it does not get any further")
	return bulk.Report{}, nil
}

func TestAnImportInManyLivesDoesEachLineOnce(t *testing.T) {
	var text strings.Builder
	text.WriteString("id,parent,tags,credential\nold1,,a=1,\nold2,,,\n")
	for i := range 1200 { // children before their gateways
		fmt.Fprintf(&text, "c%04d,g%d,n=%d,%s\n", i, i%3, i, []string{"token", "secret", "none"}[i%3])
	}
	text.WriteString("g0,,,\ng1,,,\ng2,,,\nbad,nobody,,\nold1,,,\n")
	for _, life := range []int{1, 2, 100} {
		t.Run(fmt.Sprintf("%d steps each", life), func(t *testing.T) {
			r := registry(t)
			_, _, err := r.CreateMany(t.Context(), []devices.Spec{{ID: "old1"}, {ID: "old2"}})
			must(t, err)
			report, s := inLives(t, r, text.String(), bulk.Options{Format: bulk.CSV, Update: true, Partial: true, Batch: 500}, func() int { return life })
			want := bulk.Report{Lines: 1207, Created: 1203, Updated: 1, Same: 1, Refused: 2, Refusals: []bulk.Refusal{
				{Line: 1207, ID: "old1", Detail: "this id is on line 2 already"},
				{Line: 1206, ID: "bad", Detail: "the device that is to be the parent does not exist"},
			}}
			report.Refusals[0].Line, want.Refusals[0].Line = 0, 0
			report.Refusals[1].Line, want.Refusals[1].Line = 0, 0
			if d := cmp.Diff(want, report); d != "" {
				t.Error(d)
			}
			if r.Count() != 1205 || len(s.made) != 1203 {
				t.Errorf("%d devices, %d made", r.Count(), len(s.made))
			}
			for _, m := range s.made {
				id, secret := m.Credential.Username, m.Credential.Password
				if m.Credential == (devices.Issued{}) {
					if cs, err := r.Credentials(m.ID); err != nil || len(cs) > 0 {
						t.Fatalf("%s has %v without one handed out", m.ID, cs)
					}
					continue
				}
				var password []byte
				if secret != "" {
					password = []byte(secret)
				}
				if got, _, err := r.Authenticate(id, password); err != nil || got != m.ID {
					t.Fatalf("what was handed out for %s does not let in: %v", m.ID, err)
				}
			}
		})
	}
}

func TestAnImportInManyLivesSaysWhatOneLifeWouldSay(t *testing.T) {
	whole, parts := registry(t), registry(t)
	rapid.Check(t, func(rt *rapid.T) {
		lines := rapid.SliceOfN(rapid.IntRange(0, 12), 1, 12).Draw(rt, "lines")
		var text strings.Builder
		text.WriteString("id,parent,name\n")
		for _, n := range lines {
			fmt.Fprintf(&text, "d%d,%s,%s\n", n, []string{"", "d1", "d2", "nobody"}[n%4], []string{"", "name"}[n%2])
		}
		o := bulk.Options{Format: bulk.CSV, Update: rapid.Bool().Draw(rt, "update"), Partial: true}
		for _, r := range []*devices.Registry{whole, parts} {
			wipe(t, r)
			_, _, err := r.CreateMany(t.Context(), []devices.Spec{{ID: "d3"}, {ID: "d5", Name: "name"}})
			must(t, err)
		}
		want := load(t, whole, text.String(), o)
		life := rapid.IntRange(1, 3)
		got, _ := inLives(t, parts, text.String(), o, func() int { return life.Draw(rt, "life") })
		if d := cmp.Diff(want, got); d != "" {
			rt.Errorf("%s\n%s", text.String(), d)
		}
		if d := cmp.Diff(withoutTimes(export(t, whole, bulk.CSV)), withoutTimes(export(t, parts, bulk.CSV))); d != "" {
			rt.Error(d)
		}
	})
}

// wipe deletes every device.
func wipe(t *testing.T, r *devices.Registry) {
	t.Helper()
	page, err := r.Select(devices.Selection{Limit: 100})
	must(t, err)
	var ids []muster.DeviceID
	for _, d := range page.Devices {
		ids = append(ids, d.ID)
	}
	must(t, r.DeleteMany(t.Context(), ids, devices.KeepData))
}

func TestDevicesAreChangedAndDeletedInManyLives(t *testing.T) {
	r := registry(t)
	var specs []devices.Spec
	var ids []muster.DeviceID
	for i := range 700 {
		id := muster.DeviceID(fmt.Sprintf("d%04d", i))
		specs, ids = append(specs, devices.Spec{ID: id}), append(ids, id)
	}
	_, _, err := r.CreateMany(t.Context(), specs)
	must(t, err)
	name := "named"
	_, err = r.Update(t.Context(), "d0003", devices.Change{Name: &name})
	must(t, err)
	must(t, r.DeleteMany(t.Context(), []muster.DeviceID{"d0100", "d0650"}, devices.KeepData))
	gone := []bulk.ActRefusal{{ID: "d0100", Detail: "there is no such device"}, {ID: "d0650", Detail: "there is no such device"}}
	report, err := bulk.Update(t.Context(), r, ids, devices.Change{Name: &name}, mustMark(t, ids), bulk.Steps{Batch: 500, Do: plainStep})
	must(t, err)
	if d := cmp.Diff(bulk.Acted{Matched: 700, Changed: 697, Refused: 2, Refusals: gone}, report); d != "" {
		t.Error(d)
	}
	var mark []byte
	for life := 0; ; life++ { // each ends after the first step that is kept
		from, err := bulk.ResumeAct(mark, ids)
		must(t, err)
		report, err = bulk.Delete(t.Context(), r, ids, devices.KeepData, from, bulk.Steps{Batch: 500, Do: func(ctx context.Context, m bulk.ActMark, do func(context.Context) error) error {
			if err := do(ctx); err != nil {
				return err
			}
			if mark, err = json.Marshal(m); err != nil {
				return err
			}
			return errDied
		}})
		if err == nil {
			break
		}
		if !errors.Is(err, errDied) || life > 100 {
			t.Fatal(life, err)
		}
	}
	if d := cmp.Diff(bulk.Acted{Matched: 700, Changed: 698, Refused: 2, Refusals: gone}, report); d != "" || r.Count() != 0 {
		t.Error(r.Count(), d)
	}
}

func plainStep(ctx context.Context, _ bulk.ActMark, do func(context.Context) error) error {
	return do(ctx)
}

func mustMark(t *testing.T, ids []muster.DeviceID) bulk.ActMark {
	t.Helper()
	m, err := bulk.ResumeAct(nil, ids)
	must(t, err)
	return m
}

package operator_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/audit"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// offersOf counts the offers in a rollout's log.
func (r *rig) offersOf(t *rapid.T, id string) (n int) {
	q := operator.LogQuery{Rollout: id, Limit: 1000}
	for {
		page, err := r.store.RolloutLog(r.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			if e.To == "offered" {
				n++
			}
		}
		if len(page) < q.Limit {
			return n
		}
		q.After = page[len(page)-1].Number
	}
}

// checkCounts compares what a rollout counts with its rows.
func (r *rig) checkCounts(t *rapid.T, id string) rollout.Rollout {
	d, err := r.store.Rollout(r.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	rows := make([]rollout.Counts, len(d.Counts))
	inFlight := 0
	for _, x := range r.devices(id) {
		rows[x.Phase].By[x.State]++
		switch {
		case x.Failing:
			rows[x.Phase].Failing++
		case x.State == rollout.Rebooting && x.Soaking:
			rows[x.Phase].Soaking++
		}
		if x.Late == rollout.LateInstalled && !x.State.InFlight() {
			rows[x.Phase].Late++
		}
		if x.State == rollout.Skipped && (x.Reason == rollout.Denied || x.Reason == rollout.Blocked) {
			rows[x.Phase].Missed++
		}
		if x.State == rollout.Skipped && x.Reason == rollout.Ineligible {
			rows[x.Phase].Unfit++
		}
		if x.State.InFlight() {
			inFlight++
		}
	}
	if !slices.Equal(rows, d.Counts) {
		t.Fatalf("it counts %+v, its rows give %+v", d.Counts, rows)
	}
	return d
}

func TestWhateverPeopleDoTheCountsAreThoseOfTheRowsAndAStoppedRolloutOffersNothing(t *testing.T) {
	const n = 24
	r := sqliteRig(t, n, operator.Options{})
	ctx := audit.With(t.Context(), audit.Actor{Kind: audit.User, ID: "usr_ann"}, r.now)
	rapid.Check(t, func(t *rapid.T) {
		stop := rollout.Threshold{Absolute: rapid.IntRange(1, 5).Draw(t, "absolute")}
		s := spec(starting, func(s *operator.Spec) {
			s.Plan.Concurrent = rapid.IntRange(1, 9).Draw(t, "concurrent")
			s.Plan.Attempts, s.Plan.RetryAfter = rapid.IntRange(1, 3).Draw(t, "attempts"), time.Second
			s.Plan.Phases[0].Failure, s.Plan.Phases[1].Failure = stop, stop
			s.Supersede = rapid.SampledFrom([]rollout.Supersede{rollout.Wait, rollout.Replace}).Draw(t, "supersede")
		})
		var ids []string
		stopped := map[string]int{} // offers of those that do not run
		create := func(t *rapid.T) {
			if len(ids) == 3 {
				return
			}
			d, err := r.operator.Create(ctx, ann, s)
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, d.ID)
		}
		create(t)
		one := func(t *rapid.T) string { return rapid.SampledFrom(ids).Draw(t, "rollout") }
		verb := func(do func(t *rapid.T, id string) error) func(*rapid.T) {
			return func(t *rapid.T) {
				if err := do(t, one(t)); err != nil && muster.KindOf(err) != muster.Conflict {
					t.Fatal(err)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"create": create,
			"pause":  verb(func(_ *rapid.T, id string) error { _, err := r.operator.Pause(ctx, id); return err }),
			"resume": verb(func(t *rapid.T, id string) error {
				_, err := r.operator.Resume(ctx, id, rapid.Bool().Draw(t, "skip"))
				return err
			}),
			"approve":   verb(func(_ *rapid.T, id string) error { _, err := r.operator.Approve(ctx, id); return err }),
			"supersede": verb(func(_ *rapid.T, id string) error { _, err := r.operator.Supersede(ctx, ann, id); return err }),
			"abort": verb(func(t *rapid.T, id string) error {
				if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
					return nil
				}
				_, err := r.operator.Abort(ctx, id, rapid.Bool().Draw(t, "force"))
				return err
			}),
			"edit": verb(func(t *rapid.T, id string) error {
				_, err := r.operator.Edit(ctx, ann, id, operator.Change{Plan: func(p *rollout.Plan) { p.Concurrent = rapid.IntRange(1, 9).Draw(t, "cap") }})
				return err
			}),
			"tick": func(t *rapid.T) {
				r.at = r.at.Add(time.Duration(rapid.IntRange(1, 9).Draw(t, "seconds")) * time.Second)
				if err := r.director.Tick(r.Context()); err != nil {
					t.Fatal(err)
				}
			},
			"report": func(t *rapid.T) {
				var list []director.Report
				for range rapid.IntRange(1, 12).Draw(t, "reports") {
					e := rapid.SampledFrom([]rollout.Event{
						rollout.SaysDownloading, rollout.SaysInstalling, rollout.SeesTarget, rollout.SeesTarget, rollout.SaysFailed, rollout.SeesOther, rollout.SaysDenied,
					}).Draw(t, "event")
					id := muster.DeviceID(fmt.Sprintf("dev-%06d", rapid.IntRange(0, n-1).Draw(t, "device")))
					list = append(list, director.Report{Device: id, Fact: rollout.Fact{Event: e}})
				}
				for _, err := range r.director.Reports(r.Context(), list) {
					if k := muster.KindOf(err); err != nil && k != muster.NotFound && k != muster.Conflict && k != muster.Stale {
						t.Fatal(err)
					}
				}
			},
			"": func(t *rapid.T) {
				for _, id := range ids {
					d, offers := r.checkCounts(t, id), r.offersOf(t, id)
					if before, was := stopped[id]; was && d.Status != rollout.Running && offers > before {
						t.Fatalf("%d offers after it was %s", offers-before, d.Status)
					}
					delete(stopped, id)
					if d.Status != rollout.Running {
						stopped[id] = offers
					}
				}
			},
		})
		for _, id := range ids { // the next world has none of these
			_, _ = r.operator.Abort(ctx, id, true) // one that is through is refused
		}
		if err := r.director.Tick(r.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

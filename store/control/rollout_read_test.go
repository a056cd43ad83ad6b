package control_test

import (
	"cmp"
	"slices"
	"testing"

	"muster"
	"muster/firmware/director"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
)

func TestRolloutsTheirDevicesAndLogsAreReadByThePage(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store, err := control.Open(t.Context(), e.open(t), e.dialect)
		wantNil(t, err)
		defer func() { _ = store.Close() }()
		step := func(id string, event rollout.Event, at muster.Micros, ids ...muster.DeviceID) {
			t.Helper()
			wantNil(t, store.Decide(t.Context(), id, director.Fence{}, at, director.Select{IDs: ids}, func(r *rollout.Rollout, list []*rollout.Device) (out []rollout.Change, _ error) {
				for _, d := range list {
					c, err := rollout.Step(r, d, rollout.Fact{Event: event, Reason: rollout.Ineligible, Detail: "why\x00not"}, at)
					wantNil(t, err)
					out = append(out, c)
				}
				return out, nil
			}))
		}
		var all []rollout.Device
		for i, name := range []string{"a", "b", "c"} {
			r, devices := rolloutOf(name, 20, 20)
			r.Release, r.Product, r.Name = "rel_"+name, "pump", "it's "+name+"\x00"
			r.Record = rollout.Record{Note: "n", CreatedBy: rollout.Person{ID: "ann"}, Approvals: []rollout.Approval{{By: rollout.Person{ID: "bob"}, At: 3}}, Forgiven: []int{1, 2}}
			if i == 2 {
				r.Status = rollout.Aborted
			}
			wantNil(t, store.InsertRollout(t.Context(), r, devices))
			all = devices
		}
		first, err := store.Rollouts(t.Context(), operator.Query{Limit: 2})
		wantNil(t, err)
		rest, err := store.Rollouts(t.Context(), operator.Query{Limit: 2, Before: first[1].Number})
		wantNil(t, err)
		aborted, err := store.Rollouts(t.Context(), operator.Query{Limit: 9, Status: rollout.Aborted})
		wantNil(t, err)
		named, err := store.Rollouts(t.Context(), operator.Query{Limit: 9, Release: "rel_b"})
		wantNil(t, err)
		if len(first) != 2 || first[0].ID != "c" || len(rest) != 1 || rest[0].ID != "a" || len(aborted) != 1 || aborted[0].ID != "c" || len(named) != 1 || named[0].ID != "b" {
			t.Errorf("%v, %v, %v, %v", first, rest, aborted, named)
		}
		if r := named[0]; r.Product != "pump" || r.Note != "n" || r.Approvals[0].By.ID != "bob" || !slices.Equal(r.Forgiven, []int{1, 2}) || r.Name != "it's b" && r.Name != "it's b\uFFFD" {
			t.Errorf("%+v", r)
		}
		_, err = store.Rollout(t.Context(), "none")
		if muster.KindOf(err) != muster.NotFound || err == nil {
			t.Errorf("one that is not there: %v", err)
		}

		ids := []muster.DeviceID{all[2].ID, all[5].ID, all[7].ID}
		step("a", rollout.Offer, 10, ids...)
		step("a", rollout.SaysInstalling, 11, ids[0])
		step("a", rollout.Exclude, 12, all[9].ID)
		step("a", rollout.SeesTarget, 13, ids[1])
		devices := func(q operator.DeviceQuery) (out []muster.DeviceID) {
			t.Helper()
			found, err := store.RolloutMembers(t.Context(), q)
			wantNil(t, err)
			for _, d := range found {
				out = append(out, d.ID)
			}
			return out
		}
		for _, c := range []struct {
			name string
			q    operator.DeviceQuery
			want []muster.DeviceID
		}{
			{"of a state", operator.DeviceQuery{Rollout: "a", State: "offered", Phase: -1, Limit: 9}, ids[2:]},
			{"of a reason", operator.DeviceQuery{Rollout: "a", Reason: rollout.Ineligible, Phase: -1, Limit: 9}, []muster.DeviceID{all[9].ID}},
			{"one", operator.DeviceQuery{Rollout: "a", Device: ids[0], Phase: -1, Limit: 9}, ids[:1]},
			{"the first page", operator.DeviceQuery{Rollout: "a", Phase: -1, Limit: 2}, []muster.DeviceID{all[0].ID, all[1].ID}},
			{"the page behind", operator.DeviceQuery{Rollout: "a", Phase: -1, Limit: 2, After: all[1].ID}, []muster.DeviceID{all[2].ID, all[3].ID}},
			{"of none", operator.DeviceQuery{Rollout: "none", Phase: -1, Limit: 2}, nil},
		} {
			if got := devices(c.q); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
		sample := func(state rollout.State, phase, limit int) (out []rollout.Device) {
			t.Helper()
			out, err := store.RolloutSample(t.Context(), "a", state, phase, limit)
			wantNil(t, err)
			return out
		}
		byRank := func(a, b rollout.Device) int { return cmp.Compare(a.Rank, b.Rank) }
		if s := sample(rollout.Queued, -1, 5); len(s) != 5 || !slices.IsSortedFunc(s, byRank) || slices.IsSortedFunc(s, func(a, b rollout.Device) int { return cmp.Compare(a.ID, b.ID) }) {
			t.Errorf("a sample is %+v", s)
		}
		if s := append(sample(rollout.Queued, 0, 99), sample(rollout.Queued, 1, 99)...); len(s) != 16 || len(sample(rollout.Installing, -1, 9)) != 1 || len(sample(rollout.Queued, -1, 0)) != 0 {
			t.Errorf("samples of both phases have %d", len(s))
		}
		if canaries := devices(operator.DeviceQuery{Rollout: "a", Phase: 0, Limit: 9}); len(canaries) != 2 {
			t.Errorf("the canaries are %v", canaries)
		}

		log, err := store.RolloutLog(t.Context(), operator.LogQuery{Rollout: "a", Limit: 4})
		wantNil(t, err)
		more, err := store.RolloutLog(t.Context(), operator.LogQuery{Rollout: "a", After: log[3].Number, Limit: 9})
		wantNil(t, err)
		own, err := store.RolloutLog(t.Context(), operator.LogQuery{Rollout: "a", Device: ids[1], Limit: 9})
		wantNil(t, err)
		if len(log) != 4 || len(more) != 2 || log[0].Number != 1 || more[1].Number != 6 || len(own) != 2 || own[1].Event != "target_version" || own[1].From != "offered" || own[1].To != "rebooting" || own[1].At != 13 {
			t.Errorf("%+v, %+v, %+v", log, more, own)
		}
		last, err := store.RolloutLog(t.Context(), operator.LogQuery{Rollout: "a", Newest: true, Limit: 4})
		wantNil(t, err)
		oldest, err := store.RolloutLog(t.Context(), operator.LogQuery{Rollout: "a", Newest: true, After: last[3].Number, Limit: 9})
		wantNil(t, err)
		if len(last) != 4 || last[0].Number != 6 || last[3].Number != 3 || len(oldest) != 2 || oldest[0].Number != 2 || oldest[1].Number != 1 {
			t.Errorf("the newest first: %+v, %+v", last, oldest)
		}
		reasons, err := store.RolloutReasons(t.Context(), "a", 9)
		wantNil(t, err)
		if !slices.Equal(reasons, []operator.ReasonCount{{State: "skipped", Reason: rollout.Ineligible, Devices: 1}}) {
			t.Errorf("%+v", reasons)
		}
		got, err := store.GotRelease(t.Context(), "a", "", 9)
		wantNil(t, err)
		overlap, err := store.Overlap(t.Context(), "a", "b", 99)
		wantNil(t, err)
		older, err := store.OlderRollouts(t.Context(), "pump", first[0].Number, 9)
		wantNil(t, err)
		if !slices.Equal(got, ids[:3]) || len(overlap) != 17 || len(older) != 2 || older[0].ID != "a" {
			t.Errorf("%v, %d, %v", got, len(overlap), older)
		}
		of, err := store.RolloutsOf(t.Context(), ids[0], 9)
		wantNil(t, err)
		if len(of) != 3 || of[0].Device.Rollout != "c" || of[1].Device.Rollout != "b" || of[2].Device.Rollout != "a" || of[2].Device.State != rollout.Installing || of[2].Release != "rel_a" || of[0].Status != rollout.Aborted {
			t.Errorf("%+v", of)
		}
	})
}

func TestADraftGetsItsDevicesAtOnceOrNotAtAllAndIsDeletedWhole(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		store, err := control.Open(t.Context(), e.open(t), e.dialect)
		wantNil(t, err)
		defer func() { _ = store.Close() }()
		r, devices := rolloutOf("r", 20, 3)
		counts, upto := r.Counts, r.Upto
		r.Status, r.Counts, r.Upto = rollout.Draft, nil, nil
		wantNil(t, store.InsertRollout(t.Context(), r, nil))
		refuse := func(*rollout.Rollout, []*rollout.Device) ([]rollout.Change, error) {
			return nil, muster.Errorf(muster.Stale, "changed")
		}
		if err := store.EnlistRollout(t.Context(), "r", devices, refuse); muster.KindOf(err) != muster.Stale || err == nil {
			t.Errorf("a refusal: %v", err)
		}
		list := operator.DeviceQuery{Rollout: "r", Phase: -1, Limit: 99}
		if found, err := store.RolloutMembers(t.Context(), list); err != nil || len(found) != 0 {
			t.Errorf("%d devices are kept, %v", len(found), err)
		}
		wantNil(t, store.EnlistRollout(t.Context(), "r", devices, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
			r.Counts, r.Upto, r.Status = counts, upto, rollout.Running
			return nil, nil
		}))
		found, err := store.RolloutMembers(t.Context(), list)
		wantNil(t, err)
		now, err := store.Rollout(t.Context(), "r")
		wantNil(t, err)
		if len(found) != 20 || found[3].Rank != devices[3].Rank || now.Status != rollout.Running || now.Version != r.Version+1 || !slices.Equal(now.Counts, counts) {
			t.Errorf("%d devices, %+v", len(found), now)
		}
		no := func(*rollout.Rollout) error { return muster.Errorf(muster.Conflict, "it runs") }
		if err := store.DeleteRollout(t.Context(), "r", no); muster.KindOf(err) != muster.Conflict || err == nil {
			t.Errorf("a refusal: %v", err)
		}
		wantNil(t, store.DeleteRollout(t.Context(), "r", func(*rollout.Rollout) error { return nil }))
		if found, err := store.RolloutMembers(t.Context(), list); err != nil || len(found) != 0 {
			t.Errorf("%d devices are left, %v", len(found), err)
		}
		if err := store.EnlistRollout(t.Context(), "r", nil, refuse); muster.KindOf(err) != muster.NotFound || err == nil {
			t.Errorf("one that is gone: %v", err)
		}
	})
}

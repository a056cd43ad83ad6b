package control_test

import (
	"context"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
	"muster/firmware/operator"
	"muster/firmware/rollout"
	"muster/store/control"
	"muster/store/control/controltest"
)

// life is what may happen to a truth, all of it as it should.
type life struct {
	*truth
	releases, rollouts, keys []string
	deleted                  map[muster.DeviceID]bool
	made                     int
}

// may fails for what is no refusal.
func (l *life) may(t *rapid.T, err error) {
	switch muster.KindOf(err) {
	case muster.Conflict, muster.NotFound, muster.Stale, muster.Forbidden:
	default:
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (l *life) catalogue(t *rapid.T) {
	ctx := l.ctx()
	one := func() string { return rapid.SampledFrom(l.releases).Draw(t, "release") }
	var err error
	switch rapid.IntRange(0, 9).Draw(t, "verb") {
	case 0:
		if l.made++; l.made < 12 {
			l.keys = append(l.keys, l.key("another").ID)
		}
	case 1:
		_, err = l.catalog.RevokeKey(ctx, rapid.SampledFrom(l.keys[1:]).Draw(t, "key"), "lost", "usr_ann") // the first stays good
	case 2:
		_, err = l.catalog.SetThreshold(ctx, rapid.IntRange(1, 2).Draw(t, "threshold"))
	case 3:
		_, err = l.catalog.Deprecate(ctx, one(), "usr_ann")
	case 4:
		_, err = l.catalog.Revoke(ctx, one(), "it bricks", "usr_ann")
	case 5:
		err = l.catalog.Delete(ctx, one())
	case 6:
		a := l.image()
		err = l.catalog.DeleteArtifact(ctx, a.SHA256)
	case 7:
		_, err = l.catalog.Publish(ctx, one(), "usr_ann")
	}
	l.may(t, err)
}

func (l *life) begin(t *rapid.T) {
	if len(l.rollouts) > 5 {
		return
	}
	r, err := l.operator.Create(l.ctx(), rollout.Person{ID: "usr_ann"}, l.spec(rapid.SampledFrom(l.releases[:2]).Draw(t, "release"), func(s *operator.Spec) {
		s.Start = rapid.Bool().Draw(t, "start")
		s.Membership = rapid.SampledFrom([]rollout.Membership{rollout.Snapshot, rollout.Dynamic}).Draw(t, "membership")
		s.Supersede = rapid.SampledFrom([]rollout.Supersede{rollout.Wait, rollout.Replace}).Draw(t, "supersede")
		s.Plan.Phases[0].Gate = rapid.SampledFrom([]rollout.Gate{rollout.Auto, rollout.Manual}).Draw(t, "gate")
		s.Plan.OnFailure = rapid.SampledFrom([]rollout.Outcome{rollout.Pauses, rollout.Aborts}).Draw(t, "outcome")
		s.Plan.Attempts = rapid.IntRange(1, 3).Draw(t, "attempts")
		s.Plan.Deadlines.Installing = 20 * time.Second
	}))
	l.may(t, err)
	if err == nil {
		l.rollouts = append(l.rollouts, r.ID)
	}
}

func (l *life) operate(t *rapid.T) {
	id, ctx, by := rapid.SampledFrom(l.rollouts).Draw(t, "rollout"), l.ctx(), rollout.Person{ID: "usr_bob"}
	var err error
	switch rapid.IntRange(0, 9).Draw(t, "verb") {
	case 0:
		_, err = l.operator.Pause(ctx, id)
	case 1, 2:
		_, err = l.operator.Resume(ctx, id, rapid.Bool().Draw(t, "skip"))
	case 3:
		_, err = l.operator.Abort(ctx, id, rapid.Bool().Draw(t, "force"))
	case 4:
		_, err = l.operator.Approve(ctx, id)
	case 5:
		_, err = l.operator.Start(ctx, by, id)
	case 6:
		_, err = l.operator.Edit(ctx, by, id, operator.Change{Plan: func(p *rollout.Plan) { p.Concurrent = rapid.IntRange(1, 9).Draw(t, "cap") }})
	case 7:
		_, err = l.operator.Supersede(ctx, by, id)
	case 8:
		_, err = l.operator.Agree(ctx, by, id, "fine")
	case 9:
		if rapid.Bool().Draw(t, "back") {
			err = l.operator.Delete(ctx, id)
			break
		}
		var r rollout.Rollout
		if r, err = l.operator.Rollback(ctx, by, id, operator.Spec{Release: l.releases[0], Supersede: rollout.Replace, Start: true}); err == nil {
			l.rollouts = append(l.rollouts, r.ID)
		}
	}
	l.may(t, err)
}

func (l *life) devices(t *rapid.T) {
	var ids []muster.DeviceID
	for range rapid.IntRange(1, 10).Draw(t, "reports") {
		ids = append(ids, rapid.SampledFrom(l.ids).Draw(t, "device"))
	}
	l.says(rapid.SampledFrom([]rollout.Event{
		rollout.SaysDownloading, rollout.SaysDownloaded, rollout.SaysInstalling, rollout.SaysRebooting, rollout.SeesTarget, rollout.SeesTarget, rollout.SaysFailed,
		rollout.SeesOther, rollout.SaysDenied, rollout.SaysCanceled,
	}).Draw(t, "event"), ids...)
}

// leave deletes a device, or erases it with its data; what is in flight at it ends.
func (l *life) leave(t *rapid.T) {
	id := rapid.SampledFrom(l.ids[8:]).Draw(t, "device")
	if l.deleted[id] {
		return
	}
	l.deleted[id] = true
	del := l.store.DeleteDevices
	if rapid.Bool().Draw(t, "erase") {
		del = func(c context.Context, ids []muster.DeviceID) error {
			return l.store.EraseDevices(c, ids, muster.MicrosOf(l.at))
		}
	}
	l.may(t, del(l.ctx(), []muster.DeviceID{id}))
	l.may(t, l.directors[0].Leave(l.itself(), []muster.DeviceID{id}))
}

// keep is the upkeep of a minute: who joined, whether the counts are right, what is old.
func (l *life) keep(t *rapid.T) {
	open, err := l.store.Open(l.ctx(), 100)
	l.may(t, err)
	for i := range open {
		wrong, err := l.store.RecountRollout(l.itself(), open[i].ID)
		l.may(t, err)
		if wrong {
			t.Fatalf("the counts of %s were wrong", open[i].ID)
		}
		if open[i].Membership == rollout.Dynamic && open[i].Status == rollout.Running {
			late := muster.DeviceID("late-" + rapid.StringMatching(`[a-c]`).Draw(t, "joiner"))
			_, err = l.store.JoinRollout(l.itself(), open[i].ID, []rollout.Device{{Rollout: open[i].ID, ID: late, Rank: rollout.Rank(open[i].Seed, late)}})
			l.may(t, err)
		}
		l.may(t, l.operator.TakeBack(l.itself(), &open[i]))
	}
	_, _, last, err := l.store.FeedState(l.ctx())
	l.may(t, err)
	_, err = l.store.TrimFeed(l.ctx(), last, 100)
	l.may(t, err)
}

func TestWhateverHappensAsItShouldTheDoctorFindsNothing(t *testing.T) {
	run := func(t *rapid.T, x *truth) {
		l := &life{truth: x, deleted: map[muster.DeviceID]bool{}}
		l.keys = append(l.keys, l.key("first").ID, l.key("second").ID)
		for _, v := range []string{"1.0.0", "2.0.0", "2.1.0"} {
			l.releases = append(l.releases, l.published(v).ID)
		}
		l.releases = append(l.releases, l.draft("3.0.0").ID)
		l.begin(t)
		t.Repeat(map[string]func(*rapid.T){
			"catalogue": l.catalogue,
			"begin":     l.begin,
			"operate": func(t *rapid.T) {
				if len(l.rollouts) > 0 {
					l.operate(t)
				}
			},
			"devices":       l.devices,
			"more devices":  l.devices,
			"leave":         l.leave,
			"keep":          l.keep,
			"seal":          func(*rapid.T) { l.seal() },
			"a tick":        func(t *rapid.T) { l.tick(0, rapid.IntRange(1, 6).Draw(t, "seconds")) },
			"one more tick": func(t *rapid.T) { l.tick(0, rapid.IntRange(1, 30).Draw(t, "seconds")) },
			"a takeover":    func(*rapid.T) { l.tick(1, 11) },
			"a crash":       func(*rapid.T) { l.truth.begin(0) },
			"look":          l.look,
		})
		l.look(t)
		l.seal()
		l.look(t)
	}
	onEach(t, func(t *testing.T, e engine) {
		if e.postgres { // a life there, many on the other: a new database takes its time
			lives(t, 1, func(r *rapid.T) { run(r, openTruth(t, e.control(t), t.TempDir())) })
			return
		}
		lives(t, 25, func(r *rapid.T) { run(r, openTruth(t, fresh(t), t.TempDir())) })
	})
}

// lives runs at most so many.
func lives(t *testing.T, most int, run func(*rapid.T)) {
	n := 0
	rapid.Check(t, func(r *rapid.T) {
		if n++; n <= most || t.Failed() {
			run(r)
		}
	})
}

func (l *life) look(t *rapid.T) {
	if found := l.found(); len(found) > 0 {
		t.Fatalf("it finds %v", found)
	}
}

// fresh is a new store on SQLite.
func fresh(t *testing.T) *control.Control {
	t.Helper()
	dir := t.TempDir()
	controltest.Fill(t, dir)
	return onSQLite(dir).control(t)
}

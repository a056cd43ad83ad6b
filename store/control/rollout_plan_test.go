package control_test

import (
	"fmt"
	"regexp"
	"testing"

	"muster"
	"muster/firmware/director"
	"muster/firmware/rollout"
	"muster/store/control"
)

// TestTheDirectorReadsWhatIsDueAndNoMore has a large rollout: a round must not read all of it.
func TestTheDirectorReadsWhatIsDueAndNoMore(t *testing.T) {
	scans := regexp.MustCompile(`Seq Scan on rollout_device|SCAN rollout_device$|Sort|TEMP B-TREE FOR ORDER`)
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		r, _ := rolloutOf("r", 20, 20)
		devices := make([]rollout.Device, 5000)
		for i := range devices {
			id := muster.DeviceID(fmt.Sprintf("many-%05d", i))
			devices[i] = rollout.Device{Rollout: "r", ID: id, Rank: rollout.Rank("s", id)}
		}
		wantNil(t, c.InsertRollout(t.Context(), r, devices))
		for name, q := range map[string]struct {
			index, statement string
			args             []any
		}{
			"who is due":     {"rollout_device_due", control.DueQuery, []any{"r", 0, 1, 100}},
			"who is overdue": {"rollout_device_deadline", control.OverdueQuery, []any{"r", 1, 100}},
			"who updates":    {"rollout_device_flight", control.AllBusyQuery, nil},
		} {
			plan := planOf(t, e, c, q.statement, q.args...)
			if scans.MatchString(plan) || !regexp.MustCompile(q.index).MatchString(plan) {
				t.Errorf("%s is read so:\n%s", name, plan)
			}
		}
	})
}

func TestACoordinatorThatLostItsLeaseChangesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		r, devices := rolloutOf("r", 20, 20)
		r.Owner, r.Epoch = "n2", 7
		wantNil(t, c.InsertRollout(t.Context(), r, devices))
		for _, f := range []director.Fence{{Owner: "n1", Epoch: 7}, {Owner: "n2", Epoch: 6}, {Owner: "n2", Epoch: 7}} {
			asked := false
			err := c.Decide(t.Context(), "r", f, 1, director.Select{}, func(r *rollout.Rollout, _ []*rollout.Device) ([]rollout.Change, error) {
				asked, r.Status = true, rollout.Paused
				return nil, nil
			})
			now, readErr := c.Rollout(t.Context(), "r")
			wantNil(t, readErr)
			if holds := f.Owner == "n2" && f.Epoch == 7; asked != holds || (err == nil) != holds || err != nil && muster.KindOf(err) != muster.Stale || (now.Status == rollout.Paused) != holds {
				t.Errorf("%+v: asked %v, %v, it is %s", f, asked, err, now.Status)
			}
		}
	})
}

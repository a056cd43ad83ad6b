package control_test

import (
	"fmt"
	"regexp"
	"testing"

	"muster"
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
		} {
			plan := planOf(t, e, c, q.statement, q.args...)
			if scans.MatchString(plan) || !regexp.MustCompile(q.index).MatchString(plan) {
				t.Errorf("%s is read so:\n%s", name, plan)
			}
		}
	})
}

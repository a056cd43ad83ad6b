package control_test

import (
	"testing"
	"time"

	"muster/audit"
	"muster/firmware/rollout"
)

func TestWhateverIsDoneToARolloutsLogIsFound(t *testing.T) {
	for name, c := range map[string]struct{ tamper, found string }{
		"nothing":            {"", ""},
		"a changed outcome":  {`UPDATE rollout_log SET after = 'confirmed', event = 'soaked' WHERE number = 11`, "its log was changed at or before row 12"},
		"a changed device":   {`UPDATE rollout_log SET device = 'stranger' WHERE number = 3`, "its log was changed at or before row 10"},
		"a changed time":     {`UPDATE rollout_log SET at = at + 1 WHERE number = 12`, "its log was changed at or before row 12"},
		"a deleted row":      {`DELETE FROM rollout_log WHERE number = 5`, "of its log, row 5 is missing"},
		"the newest deleted": {`DELETE FROM rollout_log WHERE number = 12`, "of its log, row 12 is missing"},
		"a log that was cut": {`UPDATE rollout SET log = 10`, "its log was set back"},
		"a row behind it": {
			`INSERT INTO rollout_log SELECT rollout, 99, device, action, attempt, event, before, 'confirmed', reason, detail, at, late FROM rollout_log WHERE number = 3`,
			"its log has 1 rows that were put there by somebody else",
		},
		"a row before it": {
			`INSERT INTO rollout_log SELECT rollout, 0, device, action, attempt, event, before, 'confirmed', reason, detail, at, late FROM rollout_log WHERE number = 3`,
			"its log has 1 rows that were put there by somebody else",
		},
		"a log of no rollout": {
			`INSERT INTO rollout_log SELECT 'other', number, device, action, attempt, event, before, after, reason, detail, at, late FROM rollout_log WHERE number = 3`,
			"there is no such rollout, and there is a log of it",
		},
		"a changed state": {
			`UPDATE rollout_device SET state = 'confirmed' WHERE device = 'dev-000004'`,
			"1 of its devices are not where its log says: dev-000004 is confirmed (action 257), and its log ends with queued (action 257)",
		},
		"states that were never logged, and ranks, pages long": {
			`WITH RECURSIVE k(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 1100)
			INSERT INTO rollout_device SELECT rollout, device || '-' || n, rank, phase, CASE WHEN n > 1098 THEN 'skipped' ELSE 'queued' END, '', '', 0, 0, 0, 0, FALSE, 0, 0, '', 0, 0, FALSE, 0, 0, 0, ''
			FROM rollout_device, k`,
			"11000 of its devices are not where its log says: dev-000000-1 does not have the rank that the rollout's seed gives it",
		},
		"a changed action": {
			`UPDATE rollout_device SET action = 511 WHERE device = 'dev-000005'`,
			"1 of its devices are not where its log says: dev-000005 is offered (action 511), and its log ends with offered (action 257)",
		},
		"a device that went":  {`DELETE FROM rollout_device WHERE device = 'dev-000004'`, "1 devices of its log are in it no more, the first is dev-000004"},
		"a rollout that went": {`DELETE FROM rollout`, "it is gone, and its log was vouched for"},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, e engine) {
				if e.postgres && name != "nothing" && name != "a changed outcome" && name != "a changed state" && name != "a device that went" {
					return // a new database each: these show that the engine keeps what is chained, and finds what is not
				}
				x := openCounter(t, e, 10)
				now := func() time.Time { return x.at }
				seal := func(want int) {
					t.Helper()
					ctx := audit.With(t.Context(), audit.Actor{Kind: audit.System, Name: "rollouts"}, now)
					if n, err := x.store.SealRollouts(ctx, 100); err != nil || n != want {
						t.Fatalf("%d are sealed, %v; want %d", n, err, want)
					}
				}
				seal(1)
				seal(0)
				o := x.is("dev-000004", "offered", false)
				x.says("dev-000004", rollout.Fact{Event: rollout.SaysDownloading, Action: o.Action})
				x.says("dev-000004", rollout.Fact{Event: rollout.SaysFailed, Action: o.Action, Detail: "no \x00 space"})
				seal(1)
				if c.tamper != "" {
					if _, err := x.handles.Write.ExecContext(t.Context(), c.tamper); err != nil {
						t.Fatal(err)
					}
				}
				got := ""
				n, err := x.store.VerifyRollouts(t.Context(), func(_, what string) { got += what })
				if err != nil || n != 12 || got != c.found {
					t.Errorf("of %d rows %q is found, %v; want %q", n, got, err, c.found)
				}
			})
		})
	}
}

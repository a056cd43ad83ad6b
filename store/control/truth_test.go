package control_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"muster"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// lived makes a truth in which everything is that can be tampered with: keys good and revoked, releases in all
// states, a rollout that runs with devices in many states, one that stopped itself, and a draft.
func lived(t *testing.T, e engine) *truth {
	t.Helper()
	x := openTruth(t, e.control(t), t.TempDir())
	key := x.key("build")
	x.key("spare")
	_, err := x.catalog.SetThreshold(x.ctx(), 2)
	x.nil(err)
	bad := x.published("1.0.1")
	x.draft("3.0.0")
	good := x.published("2.0.0")
	old := x.published("1.0.0")
	_, err = x.catalog.Deprecate(x.ctx(), old.ID, "usr_ann")
	x.nil(err)
	r := x.rollout(good.ID, starts, func(s *operator.Spec) {
		s.Plan.Phases = s.Plan.Phases[1:]
		s.Plan.Phases[0].Failure = rollout.Threshold{}
	})
	x.tick(0, 1)
	x.says(rollout.SeesTarget, x.ids...)
	x.seal()
	x.tick(0, 5) // some are confirmed, the next are offered it
	d := x.devicesOf(r.ID, rollout.Offered)
	x.says(rollout.SaysDownloading, d[0])
	x.says(rollout.SaysFailed, d[1])
	x.says(rollout.SeesTarget, d[2])
	_, err = x.operator.Create(x.ctx(), rollout.Person{ID: "usr_ann"}, x.spec(good.ID))
	x.nil(err)
	_, err = x.catalog.Revoke(x.ctx(), bad.ID, "it bricks", "usr_ann")
	x.nil(err)
	_, err = x.catalog.RevokeKey(x.ctx(), key.ID, "it was lost", "usr_ann")
	x.nil(err)
	x.seal()
	if found := x.found(); len(found) > 0 {
		t.Fatalf("before anything was tampered with it finds %v", found)
	}
	return x
}

// devicesOf are those of a rollout in a state.
func (x *truth) devicesOf(id string, s rollout.State) (out []muster.DeviceID) {
	x.t.Helper()
	list, err := x.store.RolloutMembers(context.Background(), operator.DeviceQuery{Rollout: id, Phase: -1, Limit: 1000})
	x.nil(err)
	for i := range list {
		if list[i].State == s {
			out = append(out, list[i].ID)
		}
	}
	return out
}

// tampering is one statement for each column, which must be found; or why a column is not covered, behind a "-".
type tampering map[string]string

const running = `(SELECT MIN(id) FROM rollout WHERE status = 'running')`

func rolloutSet(text string) string {
	return `UPDATE rollout SET ` + text + ` WHERE id = ` + running
}

func deviceSet(text, where string) string {
	return `UPDATE rollout_device SET ` + text + ` WHERE device = (SELECT MIN(device) FROM rollout_device WHERE ` + where + `)`
}

func releaseSet(text string) string {
	return `UPDATE firmware_release SET ` + text + ` WHERE id = (SELECT MIN(id) FROM firmware_release WHERE state = 'revoked')`
}

func keySet(text string) string {
	return `UPDATE firmware_key SET ` + text + ` WHERE revoked > 0`
}

func artifactSet(text string) string {
	return `UPDATE firmware_artifact SET ` + text + ` WHERE number = 1`
}

func logSet(text string) string { return `UPDATE rollout_log SET ` + text + ` WHERE number = 3` }

func auditSet(text string) string { return `UPDATE audit SET ` + text + ` WHERE seq = 14` }

func sealSet(text string) string {
	return `UPDATE audit_seal SET ` + text + ` WHERE last = (SELECT MIN(last) FROM audit_seal)`
}

// tamperings has every column of the tables that say what firmware goes where, and why.
func tamperings() map[string]tampering {
	return map[string]tampering{
		"firmware_policy": {
			"id": `UPDATE firmware_policy SET id = 2`, "threshold": `UPDATE firmware_policy SET threshold = 1`, "revision": `UPDATE firmware_policy SET revision = revision + 1`,
		},
		"firmware_key": {
			"id": keySet(`id = 'ff' || id`), "name": keySet(`name = 'other'`), "pem": keySet(`pem = (SELECT k.pem FROM firmware_key k WHERE k.revoked = 0)`),
			"created_by": keySet(`created_by = 'usr_eve'`), "created": keySet(`created = created + 1`), "revoked": keySet(`revoked = 0`),
			"revoked_by": keySet(`revoked_by = 'usr_eve'`), "reason": keySet(`reason = ''`), "revision": keySet(`revision = revision + 1`),
		},
		"firmware_artifact": {
			"sha256": artifactSet(`sha256 = 'ff' || substr(sha256, 3)`), "number": artifactSet(`number = 99`), "sha1": artifactSet(`sha1 = md5`), "md5": artifactSet(`md5 = ''`),
			"size": artifactSet(`size = size + 1`), "filename": artifactSet(`filename = 'other.bin'`), "image": artifactSet(`image = '{"format":"raw","version":"9.9.9"}'`),
			"created_by": artifactSet(`created_by = 'usr_eve'`), "created": artifactSet(`created = created - 1`),
		},
		"firmware_release": {
			"id": releaseSet(`id = 'rel_other'`), "number": releaseSet(`number = 99`), "product": releaseSet(`product = 'valve'`), "version": releaseSet(`version = '9.9.9'`),
			"channel": releaseSet(`channel = 'beta'`), "state": releaseSet(`state = 'published'`), "manifest": releaseSet(`manifest = replace(manifest, '1.0.1', '1.0.2')`),
			"signatures": releaseSet(`signatures = '[]'`), "notes": releaseSet(`notes = replace(notes, 'nn', 'mm')`), "reason": releaseSet(`reason = ''`),
			"created_by": releaseSet(`created_by = 'usr_eve'`), "published_by": releaseSet(`published_by = 'usr_eve'`), "ended_by": releaseSet(`ended_by = 'usr_eve'`),
			"created": releaseSet(`created = created + 1`), "published": releaseSet(`published = published + 1`), "ended": releaseSet(`ended = 0`), "revision": releaseSet(`revision = 9`),
		},
		"firmware_file": {
			"sha256":  `UPDATE firmware_file SET sha256 = 'ff' || substr(sha256, 3) WHERE release = (SELECT MIN(release) FROM firmware_file)`,
			"release": `UPDATE firmware_file SET release = 'rel_other' WHERE release = (SELECT MIN(release) FROM firmware_file)`,
		},
		"rollout":        rolloutTamperings(),
		"rollout_device": deviceTamperings(),
		"rollout_log": {
			"rollout": logSet(`rollout = 'other'`), "number": logSet(`number = 999`), "device": logSet(`device = 'stranger'`), "action": logSet(`action = action + 1`),
			"attempt": logSet(`attempt = 9`), "event": logSet(`event = 'silence'`), "before": logSet(`before = 'skipped'`), "after": logSet(`after = 'confirmed'`),
			"reason": logSet(`reason = 'x'`), "detail": logSet(`detail = 'x'`), "at": logSet(`at = at + 1`), "late": logSet(`late = NULL`),
		},
		"audit": {
			"seq": auditSet(`seq = 9999`), "at": auditSet(`at = at + 1`), "actor_kind": auditSet(`actor_kind = 'key'`), "actor": auditSet(`actor = 'usr_eve'`),
			"actor_name": auditSet(`actor_name = 'Eve'`), "address": auditSet(`address = '::1'`), "request": auditSet(`request = 'x'`), "action": auditSet(`action = 'device.list'`),
			"object": auditSet(`object = 'devices/x'`), "before": auditSet(`before = '{}'`), "after": auditSet(`after = '{"x":1}'`), "mac": auditSet(`mac = ''`),
		},
		"audit_seal": {
			"last": sealSet(`last = last - 1`), "first": sealSet(`first = first + 1`), "hash": sealSet(`hash = 'aa' || substr(hash, 3)`), "signed": sealSet(`signed = signed + 1`),
			"at": "-when a run was sealed: each of its records has its own time under the seal",
		},
	}
}

func rolloutTamperings() tampering {
	return tampering{
		"id": rolloutSet(`id = 'other'`), "number": rolloutSet(`number = 99`), "name": rolloutSet(`name = 'x'`), "release": rolloutSet(`release = 'rel_x'`),
		"rollback": rolloutSet(`rollback = 'rel_x'`), "query": rolloutSet(`query = 'canary'`), "membership": rolloutSet(`membership = 'dynamic'`), "seed": rolloutSet(`seed = 't'`),
		"plan": rolloutSet(`plan = replace(plan, '"concurrent":8', '"concurrent":800')`), "status": rolloutSet(`status = 'completed'`), "reason": rolloutSet(`reason = 'operator'`),
		"start_at": rolloutSet(`start_at = 5`), "phase": rolloutSet(`phase = 1`), "phase_at": rolloutSet(`phase_at = phase_at - 1`), "passed": rolloutSet(`passed = 1`),
		"waiting": rolloutSet(`waiting = NOT waiting`), "counts": rolloutSet(`counts = replace(counts, '"failing":1', '"failing":0')`), "upto": rolloutSet(`upto = '[7]'`),
		"unended": rolloutSet(`unended = 0`), "log": rolloutSet(`log = log + 1`), "chain": rolloutSet(`chain = ''`), "sealed": rolloutSet(`sealed = sealed - 1`),
		"record":   rolloutSet(`record = replace(record, '"started_by":{"id":"usr_ann"', '"started_by":{"id":"usr_eve"')`),
		"product":  rolloutSet(`product = 'valve'`),
		"security": rolloutSet(`security = 0`),
		"tokens":   "-what of the rate is left: it moves with each offer, and the cap on devices in flight holds without it",
		"owner":    "-the lease: it moves every few seconds, and who has it wrongly can do only what the plan says",
		"epoch":    "-the lease, as owner",
		"expires":  "-the lease, as owner",
		"version":  "-counts writes, leases among them, for If-Match alone",
	}
}

func deviceTamperings() tampering {
	return tampering{
		"rollout": deviceSet(`rollout = 'other'`, `state = 'confirmed'`), "device": deviceSet(`device = 'stranger'`, `state = 'confirmed'`), "rank": deviceSet(`rank = rank + 1`, `true`),
		"phase": deviceSet(`phase = phase + 1`, `true`), "state": deviceSet(`state = 'confirmed'`, `state = 'downloading'`), "reason": deviceSet(`reason = ''`, `failures > 0`),
		"detail": deviceSet(`detail = 'x'`, `failures > 0`), "action": deviceSet(`action = action + 256`, `action > 0`), "attempt": deviceSet(`attempt = 7`, `attempt = 1`),
		"failures": deviceSet(`failures = 0`, `failures > 0`), "failing": deviceSet(`failing = FALSE`, `failures > 0`), "soaking": deviceSet(`soaking = FALSE`, `state = 'rebooting'`),
		"late":     deviceSet(`late = 'installed'`, `state = 'downloading'`),
		"seq":      "-the device's own count of its reports: it says which to take for old, and moves with each",
		"repeats":  "-how often it began again in the attempt: it moves with its reports",
		"progress": "-what it says of its download, for people",
		"came":     "-what it said of its version: a patch of another image does not have the release's digest",
		"due":      "-when it is looked at next: at most a minute late, for all that wait are looked at then",
		"deadline": "-until when it may be silent, or soaks: it moves with each report",
		"updated":  "-when it was heard last, for people",
		"retry":    "-when it is tried again: it is not offered more often than its plan says, which its failures count",
		"soaked":   "-as deadline",
	}
}

func TestWhateverColumnIsTamperedWithIsFound(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		x := lived(t, e)
		all := tamperings()
		for _, table := range slices.Sorted(maps.Keys(all)) {
			columns, rows := x.keep(table)
			for _, column := range columns {
				do, known := all[table][column]
				if !known {
					t.Errorf("nothing says how the column %s of %s is tampered with, or why it is not covered", column, table)
				}
				if !known || strings.HasPrefix(do, "-") {
					continue
				}
				result, err := x.store.Database().ExecContext(t.Context(), do)
				x.nil(err)
				if n, err := result.RowsAffected(); n == 0 || err != nil {
					t.Errorf("%s changes no row, %v", do, err)
				}
				if found := x.found(); len(found) == 0 {
					t.Errorf("%s is not found", do)
				}
				x.put(table, columns, rows)
			}
			for column := range all[table] {
				if !slices.Contains(columns, column) {
					t.Errorf("%s has no column %s", table, column)
				}
			}
			if found := x.found(); len(found) > 0 {
				t.Fatalf("after %s was put back it finds %v", table, found)
			}
		}
	})
}

// keep reads a table, put puts it back.
func (x *truth) keep(table string) (columns []string, all [][]any) {
	x.t.Helper()
	rows, err := x.store.Database().QueryContext(context.Background(), `SELECT * FROM `+table)
	x.nil(err)
	defer rows.Close()
	columns, err = rows.Columns()
	x.nil(err)
	for rows.Next() {
		row, to := make([]any, len(columns)), make([]any, len(columns))
		for i := range row {
			to[i] = &row[i]
		}
		x.nil(rows.Scan(to...))
		all = append(all, row)
	}
	x.nil(rows.Err())
	return columns, all
}

func (x *truth) put(table string, columns []string, rows [][]any) {
	x.t.Helper()
	run := func(text string, args ...any) {
		_, err := x.store.Database().ExecContext(context.Background(), text, args...)
		x.nil(err)
	}
	run(`DELETE FROM ` + table)
	for _, row := range rows {
		places := make([]string, len(row))
		for i := range places {
			places[i] = fmt.Sprintf("$%d", i+1)
		}
		run(`INSERT INTO `+table+` (`+strings.Join(columns, ", ")+`) VALUES (`+strings.Join(places, ", ")+`)`, row...)
	}
}

// TestWhatWasPutThereOrTakenIsFoundAndSoIsWhatMusterBuiltOnIt has what no column alone shows.
func TestWhatWasPutThereOrTakenIsFoundAndSoIsWhatMusterBuiltOnIt(t *testing.T) {
	for name, c := range map[string]struct {
		do    string
		after func(x *truth)
		want  string
	}{
		"a key added": {`INSERT INTO firmware_key SELECT 'feed', 'evil', pem, created_by, created, 0, '', '', 1 FROM firmware_key WHERE revoked > 0`, nil, "firmware/keys/feed: it is there, and the audit log knows nothing of it"},
		"a key gone":  {`DELETE FROM firmware_key WHERE revoked > 0`, nil, "it is gone, and the audit log's record"},
		"a release gone": {
			`DELETE FROM firmware_release WHERE state = 'draft'`, nil, "it is gone, and the audit log's record",
		},
		"a draft of a rollout gone": {`DELETE FROM rollout WHERE status = 'draft'`, nil, "it is gone, and the audit log's record"},
		"approvals": {
			`UPDATE rollout SET record = replace(record, '"edited_by"', '"approvals":[{"by":{"id":"usr_bob"},"at":5}],"edited_by"')`, nil, "approvals: not as the audit log's record",
		},
		"forgiven failures": {
			`UPDATE rollout SET record = replace(record, '"edited_by"', '"forgiven":[5],"edited_by"')`, nil, "forgiven: not as the audit log's record",
		},
		"a threshold that was lowered and then set by a person": {
			`UPDATE firmware_policy SET threshold = 1`,
			func(x *truth) { _, err := x.catalog.SetThreshold(x.ctx(), 2); x.nil(err) },
			"does not begin as record",
		},
		"a rollout that was tampered with and then paused": {
			`UPDATE rollout SET plan = replace(plan, '"concurrent":8', '"concurrent":800') WHERE status = 'running'`,
			func(x *truth) {
				open, err := x.store.Open(x.ctx(), 10)
				x.nil(err)
				for i := range open {
					if open[i].Status == rollout.Running {
						_, err := x.operator.Pause(x.ctx(), open[i].ID)
						x.nil(err)
					}
				}
			},
			"plan: record",
		},
	} {
		t.Run(name, func(t *testing.T) {
			onEach(t, func(t *testing.T, e engine) {
				x := lived(t, e)
				run(t, x.store, c.do)
				if c.after != nil {
					c.after(x)
				}
				x.seal()
				if found := x.found(); !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, c.want) }) {
					t.Errorf("%q is not in %v", c.want, found)
				}
			})
		})
	}
}

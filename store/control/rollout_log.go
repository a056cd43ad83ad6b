package control

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"muster/audit"
	"muster/firmware/rollout"
)

// logEnd is where a rollout's log ends: how many rows it has, and their chain.
type logEnd struct {
	rows  int64
	chain string
}

// logRow is a row of rollout_log, in the order of its columns without the rollout's id. Its
// JSON is what is chained. Rows from before late was kept are without it.
type logRow []any

// add appends a row: its chain is the SHA-256, in hex, of the one before, and of the row.
func (e *logEnd) add(row logRow) error {
	text, err := json.Marshal(row)
	if err != nil {
		return fmt.Errorf("encode a row of a rollout's log: %w", err)
	}
	sum := sha256.Sum256(append([]byte(e.chain+"\n"), text...))
	e.chain = hex.EncodeToString(sum[:])
	return nil
}

// logRollout appends one row for each change of a state, and for what a device did late.
func (c *Control) logRollout(ctx context.Context, tx *sql.Tx, id string, end *logEnd, changes []rollout.Change) error {
	rows := make([][]any, 0, len(changes))
	for i := range changes {
		ch := &changes[i]
		if !ch.Logged() {
			continue
		}
		end.rows++
		row := logRow{end.rows, string(ch.Device), int64(ch.Action), int64(ch.Attempt), ch.Event.String(), ch.From.String(), ch.To.String(), string(ch.Reason), plain(ch.Detail), int64(ch.At), string(ch.Known)}
		if err := end.add(row); err != nil {
			return err
		}
		rows = append(rows, append([]any{id}, row...))
	}
	_, err := c.bulk(ctx, tx, `INSERT INTO rollout_log (rollout, number, device, action, attempt, event, before, after, reason, detail, at, late)
		SELECT v.value ->> 0, CAST(v.value ->> 1 AS BIGINT), v.value ->> 2, CAST(v.value ->> 3 AS BIGINT), CAST(v.value ->> 4 AS BIGINT), v.value ->> 5, v.value ->> 6, v.value ->> 7,
		v.value ->> 8, v.value ->> 9, CAST(v.value ->> 10 AS BIGINT), v.value ->> 11 FROM`, ``, rows)
	return err
}

// rolloutSealed is the action of the audit records that vouch for rollouts' logs.
const rolloutSealed = "rollout.log"

// logSeal is what an audit record says of a rollout's log.
type logSeal struct {
	Rows  int64  `json:"rows"`
	Chain string `json:"chain"`
}

func rolloutPath(id string) string { return "rollouts/" + id }

// SealRollouts notes where the logs of at most limit rollouts end, in one transaction with
// the audit records that vouch for it, and returns how many there were. ctx has the trail
// of who is asking.
func (c *Control) SealRollouts(ctx context.Context, limit int) (n int, err error) {
	const grown = ` FROM rollout WHERE log > sealed`
	if err := c.list(ctx, "look for rollouts' logs", `SELECT COUNT(*)`+grown, nil, func(rows *sql.Rows) error { return rows.Scan(&n) }); err != nil || n == 0 {
		return 0, err
	}
	err = c.change(ctx, "seal rollouts' logs", func(ctx context.Context, tx *sql.Tx) error {
		ends := map[string]logSeal{}
		var ids []string
		err := read(ctx, tx, `SELECT id, log, chain`+grown+` ORDER BY id LIMIT $1`+c.dialect.hold, []any{limit}, func(rows *sql.Rows) error {
			var id string
			var s logSeal
			err := rows.Scan(&id, &s.Rows, &s.Chain)
			ids, ends[id] = append(ids, id), s
			return err
		})
		if err != nil {
			return err
		}
		for _, id := range ids {
			audit.Note(ctx, rolloutSealed, rolloutPath(id), nil, ends[id])
			if _, err := exec(ctx, tx, `UPDATE rollout SET sealed = $2 WHERE id = $1`, id, ends[id].Rows); err != nil {
				return err
			}
		}
		n = len(ids)
		return nil
	})
	return n, err
}

// verifyRows bounds the rows that are read at a time.
const verifyRows = 5000

// VerifyRollouts reads the logs of all rollouts, and calls found with each that is not what
// its audit records vouch for, and then with each whose devices are not where its log says,
// or that does not count them right. It returns how
// many rows they vouch for.
func (c *Control) VerifyRollouts(ctx context.Context, found func(rollout, what string)) (vouched int64, err error) {
	ends := map[string]*logEnd{}
	bad := map[string]bool{}
	wrong := func(id, what string) {
		if !bad[id] {
			bad[id] = true
			found(id, what)
		}
	}
	last, err := c.AuditLast(ctx)
	if err != nil {
		return 0, err
	}
	for seq := int64(0); seq < last; {
		records, err := c.AuditAfter(ctx, seq, verifyRows)
		if err != nil {
			return vouched, err
		}
		if len(records) == 0 {
			break
		}
		for i := range records {
			if records[i].Action != rolloutSealed {
				continue
			}
			n, err := c.verifySeal(ctx, &records[i], ends, wrong)
			if err != nil {
				return vouched, err
			}
			vouched += n
		}
		seq = records[len(records)-1].Seq
	}
	if err := c.verifyEnds(ctx, ends, wrong); err != nil {
		return vouched, err
	}
	if err := c.verifyStanding(ctx, wrong); err != nil {
		return vouched, err
	}
	return vouched, c.verifyCounts(ctx, wrong)
}

// verifySeal reads the rows that a record vouches for, and returns how many there should be.
func (c *Control) verifySeal(ctx context.Context, record *audit.Record, ends map[string]*logEnd, wrong func(id, what string)) (int64, error) {
	id := record.Object[len(rolloutPath("")):]
	var seal logSeal
	if err := json.Unmarshal(record.After, &seal); err != nil {
		wrong(id, "an audit record about its log cannot be read")
		return 0, nil //nolint:nilerr // that is what was found
	}
	end := ends[id]
	if end == nil {
		end = &logEnd{}
		ends[id] = end
	}
	want := seal.Rows - end.rows
	for end.rows < seal.Rows {
		n, err := c.chainRows(ctx, id, end, min(verifyRows, seal.Rows-end.rows))
		if err != nil {
			return want, err
		}
		if n == 0 {
			wrong(id, fmt.Sprintf("of its log, row %d is missing", end.rows+1))
			end.rows = seal.Rows
		}
	}
	if end.chain != seal.Chain {
		wrong(id, fmt.Sprintf("its log was changed at or before row %d", seal.Rows))
		end.chain = seal.Chain
	}
	return want, nil
}

// chainRows adds the next rows of a log to its end, and returns how many there are in order.
func (c *Control) chainRows(ctx context.Context, id string, end *logEnd, limit int64) (n int, err error) {
	err = c.list(ctx, "read a rollout's log", `SELECT number, device, action, attempt, event, before, after, reason, detail, at, late FROM rollout_log
		WHERE rollout = $1 AND number > $2 ORDER BY number LIMIT $3`, []any{id, end.rows, limit}, func(rows *sql.Rows) error {
		var number, action, attempt, at int64
		var device, event, before, after, reason, detail string
		var late sql.NullString
		if err := rows.Scan(&number, &device, &action, &attempt, &event, &before, &after, &reason, &detail, &at, &late); err != nil {
			return err
		}
		if number != end.rows+1 {
			return nil
		}
		n++
		end.rows++
		row := logRow{number, device, action, attempt, event, before, after, reason, detail, at}
		if late.Valid {
			row = append(row, late.String)
		}
		return end.add(row)
	})
	return n, err
}

// verifyEnds looks whether the rollouts' own ends are behind what is vouched for, or are not those of their logs, and whether
// there are rows that no rollout knows of.
func (c *Control) verifyEnds(ctx context.Context, ends map[string]*logEnd, wrong func(id, what string)) error {
	seen := map[string]bool{}
	own := map[string]logEnd{}
	// One statement: a server may be writing.
	err := c.list(ctx, "read rollouts", `SELECT r.id, r.log, r.chain, r.sealed, (SELECT COUNT(*) FROM rollout_log l WHERE l.rollout = r.id AND (l.number > r.log OR l.number < 1)),
		COALESCE((SELECT a.after FROM audit a WHERE a.object = 'rollouts/' || r.id AND a.action = '`+rolloutSealed+`' ORDER BY a.seq DESC LIMIT 1), '{}') FROM rollout r`, nil,
		func(rows *sql.Rows) error {
			var id string
			var is logEnd
			var strange, sealed int64
			var newest string
			if err := rows.Scan(&id, &is.rows, &is.chain, &sealed, &strange, &newest); err != nil {
				return err
			}
			seen[id] = true
			var seal logSeal
			if json.Unmarshal([]byte(newest), &seal) != nil {
				seal.Rows = -1
			}
			switch end := ends[id]; {
			case end != nil && is.rows < end.rows:
				wrong(id, "its log was set back")
			case strange > 0:
				wrong(id, fmt.Sprintf("its log has %d rows that were put there by somebody else", strange))
			case sealed != seal.Rows:
				wrong(id, fmt.Sprintf("it says that %d rows of its log are vouched for, and the audit log has %d", sealed, seal.Rows))
			default:
				own[id] = is
			}
			return nil
		})
	for id, is := range own {
		if err == nil {
			err = c.verifyOwnEnd(ctx, id, ends[id], is, wrong)
		}
	}
	if err == nil {
		err = c.list(ctx, "read rollouts' logs", `SELECT DISTINCT rollout FROM rollout_log WHERE rollout NOT IN (SELECT id FROM rollout)`, nil, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			if ends[id] == nil {
				wrong(id, "there is no such rollout, and there is a log of it")
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(func(yield func(string) bool) {
		for id := range ends {
			if !seen[id] && !yield(id) {
				return
			}
		}
	}) {
		wrong(id, "it is gone, and its log was vouched for")
	}
	return nil
}

// verifyOwnEnd goes on from what is vouched for to where a rollout itself says that its log ends.
func (c *Control) verifyOwnEnd(ctx context.Context, id string, vouched *logEnd, is logEnd, wrong func(id, what string)) error {
	end := logEnd{}
	if vouched != nil {
		end = *vouched
	}
	for end.rows < is.rows {
		n, err := c.chainRows(ctx, id, &end, min(verifyRows, is.rows-end.rows))
		if err != nil {
			return err
		}
		if n == 0 {
			wrong(id, fmt.Sprintf("of its log, row %d is missing", end.rows+1))
			return nil
		}
	}
	if end.chain != is.chain {
		wrong(id, "it says that its log ends otherwise than it does")
	}
	return nil
}

package control

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"muster"
	"muster/devices"
	"muster/devices/twin"
)

// LastTwinVersion implements twin.Store.
func (c *Control) LastTwinVersion(ctx context.Context) (last int64, err error) {
	const doing = "load the last version of twins"
	err = c.each(ctx, doing, `SELECT last FROM twin_version`, func(rows *sql.Rows) error {
		return failed(doing, rows.Scan(&last))
	})
	return last, err
}

// gaveOut keeps the newest version that was given out.
func gaveOut(ctx context.Context, tx *sql.Tx, last int64) error {
	_, err := exec(ctx, tx, `UPDATE twin_version SET last = $1 WHERE last < $2`, last, last)
	return err
}

// LoadTwinLevels implements twin.Store.
func (c *Control) LoadTwinLevels(ctx context.Context, each func(twin.LevelRow) error) error {
	const doing = "load the levels of twins"
	return c.each(ctx, doing, `SELECT name, document, version, at FROM twin_level ORDER BY name`, func(rows *sql.Rows) error {
		var row twin.LevelRow
		var name, at string
		err := rows.Scan(&name, &row.Text, &row.Version, &at)
		if err == nil {
			row.Level, err = twin.ParseLevel(name)
		}
		if err == nil {
			row.At, err = parseTimes(at)
		}
		if err != nil {
			return failed(doing, err)
		}
		return each(row)
	})
}

// LoadTwins implements twin.Store, in bytewise order of device.
func (c *Control) LoadTwins(ctx context.Context, each func(twin.Row) error) error {
	const doing = "load the twins"
	return c.each(ctx, doing, `SELECT `+twinColumns+` FROM twin ORDER BY device`, func(rows *sql.Rows) error {
		var r twin.Row
		var desiredAt, reportedAt, diverged string
		err := rows.Scan(&r.Device, &r.Version, &r.Effective, &r.Desired.Text, &r.Desired.Version, &desiredAt,
			&r.Reported.Text, &r.Reported.Version, &reportedAt, &r.Converged, &diverged, &r.DivergedCount)
		if err == nil {
			r.Desired.At, err = parseTimes(desiredAt)
		}
		if err == nil {
			r.Reported.At, err = parseTimes(reportedAt)
		}
		if err != nil {
			return failed(doing, err)
		}
		if err := json.Unmarshal([]byte(diverged), &r.Diverged); err != nil {
			return failed(doing, fmt.Errorf("paths: %w", err))
		}
		return each(r)
	})
}

// times writes points in time with commas between.
func times(at []muster.Micros) string {
	b := make([]byte, 0, 17*len(at))
	for i, m := range at {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(m), 10)
	}
	return string(b)
}

func parseTimes(s string) ([]muster.Micros, error) {
	if s == "" {
		return nil, nil
	}
	out := make([]muster.Micros, 0, strings.Count(s, ",")+1)
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("times: %w", err)
		}
		out = append(out, muster.Micros(n))
	}
	return out, nil
}

// PutTwinLevel implements twin.Store.
func (c *Control) PutTwinLevel(ctx context.Context, row twin.LevelRow, last int64) error {
	return c.change(ctx, "put a level of twins", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockLevel(ctx, tx, row.Level.String()); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `INSERT INTO twin_level (name, document, version, at) VALUES ($1, $2, $3, $4)
			ON CONFLICT (name) DO UPDATE SET document = excluded.document, version = excluded.version, at = excluded.at`,
			row.Level.String(), row.Text, row.Version, times(row.At))
		if err != nil {
			return err
		}
		return gaveOut(ctx, tx, last)
	})
}

// lockLevel answers NotFound when the profile or group of a level is not there, and else
// keeps others from deleting it until the transaction ends. The fleet and the default
// profile have no row and are always there.
func lockLevel(ctx context.Context, tx *sql.Tx, level string) error {
	kind, name, _ := strings.Cut(level, ":")
	var query string
	switch {
	case kind == "group":
		query = `UPDATE device_group SET name = name WHERE name = $1`
	case kind == "profile" && name != devices.DefaultProfile:
		query = `UPDATE profile SET name = name WHERE name = $1`
	default:
		return nil
	}
	n, err := exec(ctx, tx, query, name)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.NotFound, "there is no %s %q", kind, name)
	}
	return err
}

// deleteTwinLevel deletes the document of a level that goes away.
func deleteTwinLevel(ctx context.Context, tx *sql.Tx, level twin.Level) error {
	_, err := exec(ctx, tx, `DELETE FROM twin_level WHERE name = $1`, level.String())
	return err
}

const twinColumns = `device, version, effective, desired, desired_version, desired_at, reported, reported_version, reported_at,
	converged, diverged, diverged_count`

func twinRow(r *twin.Row) []any {
	return []any{
		string(r.Device), decimal(r.Created), strconv.FormatInt(r.Version, 10), r.Effective,
		bit(r.Converged), divergedText(r.Diverged), strconv.Itoa(r.DivergedCount),
		document(r.Desired), strconv.FormatInt(r.Desired.Version, 10), times(r.Desired.At),
		document(r.Reported), strconv.FormatInt(r.Reported.Version, 10), times(r.Reported.At),
	}
}

// effectiveWidth is how many values of twinRow follow from the levels; they come first.
const effectiveWidth = 7

// bit is a boolean that both engines cast from text.
func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

func divergedText(paths []string) string {
	if len(paths) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(paths) // texts always can be
	return string(b)
}

// document is what is kept of one that never was, too.
func document(d twin.Document) string { return cmp.Or(d.Text, "{}") }

const (
	// The device is the same as when the row was made: its id and its time of creation.
	twinSource   = ` AS v JOIN device d ON d.id = v.column1 AND d.created = CAST(v.column2 AS BIGINT) WHERE TRUE `
	twinDerived  = `v.column1, CAST(v.column3 AS BIGINT), v.column4, CAST(v.column5 AS BOOLEAN), v.column6, CAST(v.column7 AS BIGINT)`
	twinConflict = ` ON CONFLICT (device) DO UPDATE SET version = excluded.version, effective = excluded.effective,
		converged = excluded.converged, diverged = excluded.diverged, diverged_count = excluded.diverged_count`
)

// SaveTwins implements twin.Store.
func (c *Control) SaveTwins(ctx context.Context, rows []twin.Row, last int64) (gone []muster.DeviceID, err error) {
	list := make([][]any, len(rows))
	for i := range rows {
		list[i] = twinRow(&rows[i])
	}
	const insert = insertEffective + twinDerived + `, v.column8, CAST(v.column9 AS BIGINT), v.column10,
		v.column11, CAST(v.column12 AS BIGINT), v.column13 FROM (VALUES `
	const conflict = twinConflict + `, desired = excluded.desired, desired_version = excluded.desired_version,
		desired_at = excluded.desired_at, reported = excluded.reported, reported_version = excluded.reported_version,
		reported_at = excluded.reported_at`
	err = c.changeOfDevices(ctx, "save twins", func(ctx context.Context, tx *sql.Tx) error {
		written, err := upsertTwins(ctx, tx, list, insert, conflict)
		if err != nil {
			return err
		}
		if gone = nil; written < int64(len(rows)) {
			if gone, err = goneOf(ctx, tx, rows); err != nil {
				return err
			}
		}
		return gaveOut(ctx, tx, last)
	})
	return gone, err
}

// goneOf returns the devices of rows that are not there, or are others now.
func goneOf(ctx context.Context, tx *sql.Tx, rows []twin.Row) (gone []muster.DeviceID, err error) {
	keys := make([][]any, len(rows))
	for i := range rows {
		keys[i] = []any{string(rows[i].Device)}
	}
	there := make(map[muster.DeviceID]muster.Micros, len(rows))
	err = inChunks(1, keys, func(args []any, n int) error {
		return births(ctx, tx, there, `SELECT id, created FROM device WHERE id IN (`+places(n)+`)`, args)
	})
	for i := range rows {
		if at, ok := there[rows[i].Device]; !ok || at != rows[i].Created {
			gone = append(gone, rows[i].Device)
		}
	}
	return gone, err
}

// births puts the devices that query selects into there, with when they were created.
func births(ctx context.Context, tx *sql.Tx, there map[muster.DeviceID]muster.Micros, query string, args []any) error {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("look for devices: %w", err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	for rows.Next() {
		var id muster.DeviceID
		var at muster.Micros
		if err := rows.Scan(&id, &at); err != nil {
			return fmt.Errorf("read a device: %w", err)
		}
		there[id] = at
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for devices: %w", err)
	}
	return nil
}

// SaveEffective implements twin.Store. After a change of a level many rows get the
// same: what they share is sent once for many.
func (c *Control) SaveEffective(ctx context.Context, rows []twin.Row, last int64) error {
	list := make([][]any, len(rows))
	same := make(map[[effectiveWidth - 2]string][][]any)
	for i := range rows {
		list[i] = twinRow(&rows[i])[:effectiveWidth]
		same[shared(list[i])] = append(same[shared(list[i])], list[i][:2])
	}
	list = slices.DeleteFunc(list, func(row []any) bool { return len(same[shared(row)]) >= minShared })
	return c.changeOfDevices(ctx, "save effective documents", func(ctx context.Context, tx *sql.Tx) error {
		for of, devices := range same {
			if len(devices) < minShared {
				continue
			}
			if err := saveShared(ctx, tx, of, devices); err != nil {
				return err
			}
		}
		if _, err := upsertTwins(ctx, tx, list, insertEffective+twinDerived+noDocuments, twinConflict); err != nil {
			return err
		}
		return gaveOut(ctx, tx, last)
	})
}

// minShared is how many rows are worth a statement of their own.
const minShared = 16

const (
	insertEffective = `INSERT INTO twin (device, version, effective, converged, diverged, diverged_count,
		desired, desired_version, desired_at, reported, reported_version, reported_at) SELECT `
	noDocuments = `, '{}', 0, '', '{}', 0, '' FROM (VALUES `
)

// shared returns what of a row more devices may have.
func shared(row []any) (of [effectiveWidth - 2]string) {
	for i, v := range row[2:] {
		of[i], _ = v.(string) // all are
	}
	return of
}

func saveShared(ctx context.Context, tx *sql.Tx, of [effectiveWidth - 2]string, devices [][]any) error {
	return inChunks(2, devices, func(args []any, n int) error {
		for _, v := range of {
			args = append(args, v)
		}
		columns := fmt.Sprintf(`v.column1, CAST($%d AS BIGINT), CAST($%d AS TEXT), CAST($%d AS BOOLEAN), CAST($%d AS TEXT), CAST($%d AS BIGINT)`,
			2*n+1, 2*n+2, 2*n+3, 2*n+4, 2*n+5)
		_, err := exec(ctx, tx, insertEffective+columns+noDocuments+tuples(n, 2)+`)`+twinSource+twinConflict, args...)
		return err
	})
}

// upsertTwins returns how many rows it has written.
func upsertTwins(ctx context.Context, tx *sql.Tx, list [][]any, insert, conflict string) (written int64, err error) {
	if len(list) == 0 {
		return 0, nil
	}
	width := len(list[0])
	err = inChunks(width, list, func(args []any, n int) error {
		done, err := exec(ctx, tx, insert+tuples(n, width)+`)`+twinSource+conflict, args...)
		written += done
		return err
	})
	return written, err
}

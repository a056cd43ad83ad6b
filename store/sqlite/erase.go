package sqlite

import (
	"context"
	"fmt"

	"muster"
)

// eraseRows is how many rows one Erase deletes at most: other writes wait meanwhile.
const eraseRows = 2000

// rowTables hold rows by device_id.
var rowTables = [...]string{"telemetry_default"}

// Erase implements ingest.Eraser. Rejected messages go first, then the readings by
// device id, and the device's id at last. The space is used again; the file does not
// shrink.
func (t *Telemetry) Erase(ctx context.Context, device muster.DeviceID) (left bool, err error) {
	rejected := 0
	err = t.update(ctx, func(u *update) (err error) {
		left, rejected, err = u.erase(string(device))
		return err
	}, func() {
		t.rejected -= rejected
		delete(t.names.devices, device)
	})
	if err != nil {
		return true, failed("erase a device", err)
	}
	return left, nil
}

// erase returns too how many rejected messages it deleted.
func (u *update) erase(device string) (left bool, rejected int, err error) {
	if err := u.bury(device); err != nil {
		return true, 0, err
	}
	room := eraseRows
	rejected, err = u.delete(`DELETE FROM rejected WHERE id IN (SELECT id FROM rejected WHERE device = ? LIMIT ?)`, device, room)
	if room -= rejected; err != nil || room == 0 {
		return true, rejected, err
	}
	for _, table := range rowTables {
		n, err := u.delete(`DELETE FROM `+table+` WHERE rowid IN (SELECT r.rowid FROM erased_device e
			JOIN `+table+` r ON r.device_id = e.device_id WHERE e.name = ? LIMIT ?)`, device, room)
		if room -= n; err != nil || room == 0 {
			return true, rejected, err
		}
	}
	_, err = u.delete(`DELETE FROM erased_device WHERE name = ?`, device)
	return false, rejected, err
}

// bury takes the device's name off its rows, so that nothing finds them any more, and
// deletes its latest values.
func (u *update) bury(device string) error {
	for _, query := range []string{
		`INSERT INTO erased_device (device_id, name) SELECT id, name FROM device WHERE name = ?`,
		`DELETE FROM device WHERE name = ?`,
		`DELETE FROM latest WHERE device_id IN (SELECT device_id FROM erased_device WHERE name = ?)`,
	} {
		if _, err := u.delete(query, device); err != nil {
			return err
		}
	}
	return nil
}

// delete runs one statement and returns how many rows it changed.
func (u *update) delete(query string, args ...any) (int, error) {
	res, err := u.tx.ExecContext(u.quiet, query, args...)
	if err != nil {
		return 0, fmt.Errorf("delete rows: %w", err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

package control

import (
	"context"
	"database/sql"

	"muster"
)

// lockDevice answers NotFound when there is no device id, and else keeps others
// from deleting it or giving it credentials until the transaction ends: an update
// that changes nothing locks the row on both engines.
func lockDevice(ctx context.Context, tx *sql.Tx, id muster.DeviceID) error {
	n, err := exec(ctx, tx, `UPDATE device SET id = id WHERE id = $1`, string(id))
	if err == nil && n == 0 {
		err = muster.Errorf(muster.NotFound, "there is no device %q", id)
	}
	return err
}

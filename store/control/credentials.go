package control

import (
	"context"
	"database/sql"
	"encoding/hex"

	"muster"
	"muster/devices"
)

const (
	credentialColumns = "id, device, kind, hash, created, expires, label, last_used, ca, revoked" //nolint:gosec // names of columns
	credentialWidth   = 10

	//nolint:gosec // names of columns
	credentialUpdate = ` ON CONFLICT (id) DO UPDATE SET expires = excluded.expires, label = excluded.label,
		last_used = excluded.last_used, ca = excluded.ca, revoked = excluded.revoked`
)

// LoadCredentials implements devices.Store, in bytewise order of id.
func (c *Control) LoadCredentials(ctx context.Context, each func(devices.Credential) error) error {
	const doing = "load the credentials"
	return c.each(ctx, doing, `SELECT `+credentialColumns+` FROM credential ORDER BY id`, func(rows *sql.Rows) error {
		var cr devices.Credential
		var hash string
		err := rows.Scan(&cr.ID, &cr.Device, &cr.Kind, &hash, &cr.Created, &cr.Expires, &cr.Label, &cr.LastUsed, &cr.CA, &cr.Revoked)
		if err == nil {
			cr.Hash, err = parseHash(hash)
		}
		if err != nil {
			return failed(doing, err)
		}
		return each(cr)
	})
}

func credentialRow(c devices.Credential) []any {
	return []any{
		c.ID, string(c.Device), string(c.Kind), hex.EncodeToString(c.Hash[:]), int64(c.Created), int64(c.Expires), c.Label,
		int64(c.LastUsed), c.CA, int64(c.Revoked),
	}
}

// ReplaceCredentials implements devices.CredentialStore.
func (c *Control) ReplaceCredentials(ctx context.Context, put []devices.Credential, drop []string) error {
	dropped := make([][]any, len(drop))
	for i, id := range drop {
		dropped[i] = []any{id}
	}
	rows := make([][]any, len(put))
	for i, cr := range put {
		rows[i] = credentialRow(cr)
	}
	return c.change(ctx, "change credentials", func(ctx context.Context, tx *sql.Tx) error {
		locked := map[muster.DeviceID]bool{}
		for _, cr := range put {
			if locked[cr.Device] {
				continue
			}
			locked[cr.Device] = true
			if err := lockDevice(ctx, tx, cr.Device); err != nil {
				return err
			}
		}
		if err := deleteOf(ctx, tx, "credential", "id", dropped); err != nil {
			return err
		}
		return inChunks(credentialWidth, rows, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO credential (`+credentialColumns+`) VALUES `+tuples(n, credentialWidth)+credentialUpdate, args...)
			return err
		})
	})
}

// SaveCredentials implements devices.CredentialStore. The ids in cs differ.
func (c *Control) SaveCredentials(ctx context.Context, cs []devices.Credential) error {
	rows := make([][]any, len(cs))
	for i, cr := range cs {
		rows[i] = []any{
			cr.ID, string(cr.Device), string(cr.Kind), hex.EncodeToString(cr.Hash[:]), decimal(cr.Created), decimal(cr.Expires),
			cr.Label, decimal(cr.LastUsed), cr.CA, decimal(cr.Revoked),
		}
	}
	return c.changeOfDevices(ctx, "save credentials", func(ctx context.Context, tx *sql.Tx) error {
		return inChunks(credentialWidth, rows, func(args []any, n int) error {
			_, err := exec(ctx, tx, `INSERT INTO credential (`+credentialColumns+`)
				SELECT v.column1, v.column2, v.column3, v.column4, CAST(v.column5 AS BIGINT), CAST(v.column6 AS BIGINT), v.column7,
				CAST(v.column8 AS BIGINT), v.column9, CAST(v.column10 AS BIGINT)
				FROM (VALUES `+tuples(n, credentialWidth)+`) AS v WHERE v.column2 IN (SELECT id FROM device)
				AND (v.column9 = '' OR v.column10 <> '0' OR v.column9 IN (SELECT id FROM certificate_authority))`+credentialUpdate, args...)
			return err
		})
	})
}

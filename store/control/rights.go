package control

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/twin"
)

// LoadProfiles implements devices.Store, in bytewise order of name.
func (c *Control) LoadProfiles(ctx context.Context, each func(devices.Profile) error) error {
	const doing = "load the profiles"
	const query = `SELECT name, publish, subscribe, level, message_rate, byte_rate, create_children FROM profile ORDER BY name`
	return c.each(ctx, doing, query, func(rows *sql.Rows) error {
		var p devices.Profile
		var publish, subscribe []byte
		err := rows.Scan(&p.Name, &publish, &subscribe, &p.Level, &p.MessageRate, &p.ByteRate, &p.CreateChildren)
		if err == nil {
			p.Publish, p.Subscribe, err = parseLists(publish, subscribe)
		}
		if err != nil {
			return failed(doing, err)
		}
		return each(p)
	})
}

// PutProfile implements devices.Store.
func (c *Control) PutProfile(ctx context.Context, p devices.Profile) error {
	publish, subscribe, err := lists(p.Publish, p.Subscribe)
	if err != nil {
		return err
	}
	return c.change(ctx, "put a profile", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO profile (name, publish, subscribe, level, message_rate, byte_rate, create_children)
			VALUES ($1, $2, $3, $4, $5, $6, $7)
			ON CONFLICT (name) DO UPDATE SET publish = excluded.publish, subscribe = excluded.subscribe,
			level = excluded.level, message_rate = excluded.message_rate, byte_rate = excluded.byte_rate,
			create_children = excluded.create_children`,
			p.Name, publish, subscribe, p.Level, p.MessageRate, p.ByteRate, p.CreateChildren)
		return err
	})
}

// DeleteProfile implements devices.Store.
func (c *Control) DeleteProfile(ctx context.Context, name string) error {
	const doing = "delete a profile"
	return c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		if err := deleteTwinLevel(ctx, tx, twin.Profile(name)); err != nil {
			return err
		}
		n, err := exec(ctx, tx, `DELETE FROM profile WHERE name = $1`, name)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s: there is no %q", doing, name)
		}
		if err != nil {
			return err
		}
		for _, table := range []string{"certificate_authority", "profile_provisioning"} {
			n, err := exec(ctx, tx, `UPDATE `+table+` SET profile = profile WHERE profile = $1`, name)
			if err != nil {
				return err
			}
			if n > 0 {
				return muster.Errorf(muster.Conflict, "devices can still join with the profile: end its provisioning, and give authorities another")
			}
		}
		// The condition on the default is the index's.
		n, err = exec(ctx, tx, `UPDATE device SET id = id WHERE profile = $1 AND profile <> 'default'`, name)
		if err == nil && n > 0 {
			err = muster.Errorf(muster.Conflict, "%s: %d devices have %q", doing, n, name)
		}
		return err
	})
}

// ServiceAccounts implements accounts.Store, in bytewise order of id.
func (c *Control) ServiceAccounts(ctx context.Context) ([]accounts.ServiceAccount, error) {
	const doing = "load the service accounts"
	const query = `SELECT id, name, hash, publish, subscribe, disabled, created, expires FROM service_account ORDER BY id`
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.ServiceAccount
	err := c.each(ctx, doing, query, func(rows *sql.Rows) error {
		var s accounts.ServiceAccount
		var hash string
		var publish, subscribe []byte
		err := rows.Scan(&s.ID, &s.Name, &hash, &publish, &subscribe, &s.Disabled, &s.Created, &s.Expires)
		if err == nil {
			s.Hash, err = parseHash(hash)
		}
		if err == nil {
			s.Publish, s.Subscribe, err = parseLists(publish, subscribe)
		}
		out = append(out, s)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// InsertServiceAccount implements accounts.Store.
func (c *Control) InsertServiceAccount(ctx context.Context, s accounts.ServiceAccount) error {
	publish, subscribe, err := lists(s.Publish, s.Subscribe)
	if err != nil {
		return err
	}
	row := []any{s.ID, s.Name, hex.EncodeToString(s.Hash[:]), publish, subscribe, s.Disabled, int64(s.Created), int64(s.Expires)}
	return c.change(ctx, "insert a service account", func(ctx context.Context, tx *sql.Tx) error {
		const columns = "id, name, hash, publish, subscribe, disabled, created, expires"
		return insertAll(ctx, tx, "service_account", columns, len(row), [][]any{row})
	})
}

// UpdateServiceAccount implements accounts.Store.
func (c *Control) UpdateServiceAccount(ctx context.Context, s accounts.ServiceAccount) error {
	const doing = "update a service account"
	publish, subscribe, err := lists(s.Publish, s.Subscribe)
	if err != nil {
		return err
	}
	return c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `UPDATE service_account SET publish = $1, subscribe = $2, disabled = $3 WHERE id = $4`,
			publish, subscribe, s.Disabled, s.ID)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s: there is no %q", doing, s.ID)
		}
		return err
	})
}

// DeleteServiceAccount implements accounts.Store.
func (c *Control) DeleteServiceAccount(ctx context.Context, id string) error {
	return c.deleteOne(ctx, "delete a service account", `DELETE FROM service_account WHERE id = $1`, id)
}

// lists returns two lists as the JSON text that the columns take.
func lists(publish, subscribe []string) (p, s string, err error) {
	a, err := json.Marshal(append([]string{}, publish...))
	if err != nil {
		return "", "", fmt.Errorf("encode the filters: %w", err)
	}
	b, err := json.Marshal(append([]string{}, subscribe...))
	if err != nil {
		return "", "", fmt.Errorf("encode the filters: %w", err)
	}
	return string(a), string(b), nil
}

// parseLists reads what lists wrote; an empty list comes back as nil.
func parseLists(p, s []byte) (publish, subscribe []string, err error) {
	if err := json.Unmarshal(p, &publish); err != nil {
		return nil, nil, fmt.Errorf("the filters to publish: %w", err)
	}
	if err := json.Unmarshal(s, &subscribe); err != nil {
		return nil, nil, fmt.Errorf("the filters to subscribe: %w", err)
	}
	return append([]string(nil), publish...), append([]string(nil), subscribe...), nil
}

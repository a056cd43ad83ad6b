package control

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"muster"
	"muster/accounts"
)

// APIKeys implements accounts.Store, in bytewise order of id.
func (c *Control) APIKeys(ctx context.Context) ([]accounts.APIKey, error) {
	const doing = "load the API keys"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.APIKey
	err := c.each(ctx, doing, `SELECT id, name, hash, scopes, selector, owner, created, expires, last_used FROM api_key ORDER BY id`, func(rows *sql.Rows) error {
		var k accounts.APIKey
		var hash string
		var scopes []byte
		err := rows.Scan(&k.ID, &k.Name, &hash, &scopes, &k.Selector, &k.Owner, &k.Created, &k.Expires, &k.LastUsed)
		if err == nil {
			k.Hash, err = parseHash(hash)
		}
		if err == nil {
			err = json.Unmarshal(scopes, &k.Scopes)
		}
		out = append(out, k)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// InsertAPIKey implements accounts.Store.
func (c *Control) InsertAPIKey(ctx context.Context, k accounts.APIKey) error {
	scopes, err := json.Marshal(append([]string{}, k.Scopes...))
	if err != nil {
		return fmt.Errorf("encode the scopes: %w", err)
	}
	row := []any{k.ID, k.Name, hex.EncodeToString(k.Hash[:]), string(scopes), k.Selector, k.Owner, int64(k.Created), int64(k.Expires), int64(k.LastUsed)}
	return c.change(ctx, "insert an API key", func(ctx context.Context, tx *sql.Tx) error {
		return insertAll(ctx, tx, "api_key", "id, name, hash, scopes, selector, owner, created, expires, last_used", len(row), [][]any{row})
	})
}

// DeleteAPIKey implements accounts.Store.
func (c *Control) DeleteAPIKey(ctx context.Context, id string) error {
	return c.changeBeside(ctx, "delete an API key", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `DELETE FROM api_key WHERE id = $1`, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "there is no API key %q", id)
		}
		if err != nil {
			return err
		}
		return forgetMembers(ctx, tx, [][]any{{id}})
	})
}

func (c *Control) deleteOne(ctx context.Context, doing, query, id string) error {
	return c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, query, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s: there is no %q", doing, id)
		}
		return err
	})
}

// Sessions implements accounts.Store, in bytewise order of id.
func (c *Control) Sessions(ctx context.Context) ([]accounts.Session, error) {
	const doing = "load the sessions"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.Session
	err := c.each(ctx, doing, `SELECT id, hash, role, api_key, account, agent, address, seen, created, expires FROM session ORDER BY id`, func(rows *sql.Rows) error {
		var s accounts.Session
		var hash string
		err := rows.Scan(&s.ID, &hash, &s.Role, &s.Key, &s.User, &s.Agent, &s.Address, &s.Seen, &s.Created, &s.Expires)
		if err == nil {
			s.Hash, err = parseHash(hash)
		}
		out = append(out, s)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteSession implements accounts.Store.
func (c *Control) DeleteSession(ctx context.Context, id string) error {
	return c.deleteOne(ctx, "delete a session", `DELETE FROM session WHERE id = $1`, id)
}

// Setting implements accounts.Store.
func (c *Control) Setting(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var value string
	err := c.db.Read.QueryRowContext(ctx, `SELECT value FROM setting WHERE name = $1`, name).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return value, failed("read a setting", err)
}

// SetSetting implements accounts.Store.
func (c *Control) SetSetting(ctx context.Context, name, value string) error {
	return c.change(ctx, "keep a setting", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO setting (name, value) VALUES ($1, $2)
			ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
		return err
	})
}

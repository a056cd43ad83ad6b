package control

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"muster/accounts"
)

// Users implements accounts.Store, in bytewise order of id.
func (c *Control) Users(ctx context.Context) ([]accounts.UserRecord, error) {
	const doing = "load the users"
	const query = `SELECT id, email, name, role, password, totp, totp_step, recovery, confirmed, disabled, created, last_login, networks
		FROM account ORDER BY id`
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.UserRecord
	err := c.each(ctx, doing, query, func(rows *sql.Rows) error {
		var u accounts.UserRecord
		var recovery, networks []byte
		err := rows.Scan(&u.ID, &u.Email, &u.Name, &u.Role, &u.Password, &u.TOTP, &u.TOTPStep, &recovery,
			&u.Confirmed, &u.Disabled, &u.Created, &u.LastLogin, &networks)
		if err == nil {
			err = errors.Join(json.Unmarshal(recovery, &u.Recovery), json.Unmarshal(networks, &u.Networks))
		}
		if len(u.Networks) == 0 {
			u.Networks = nil
		}
		if len(u.Recovery) == 0 {
			u.Recovery = nil
		}
		out = append(out, u)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Identities implements accounts.Store, in bytewise order of issuer and subject.
func (c *Control) Identities(ctx context.Context) ([]accounts.Identity, error) {
	const doing = "load the identities"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.Identity
	err := c.each(ctx, doing, `SELECT issuer, subject, account, created FROM account_identity ORDER BY issuer, subject`, func(rows *sql.Rows) error {
		var i accounts.Identity
		err := rows.Scan(&i.Issuer, &i.Subject, &i.User, &i.Created)
		out = append(out, i)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Tokens implements accounts.Store, in order of hash.
func (c *Control) Tokens(ctx context.Context) ([]accounts.Token, error) {
	const doing = "load the tokens of links"
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var out []accounts.Token
	err := c.each(ctx, doing, `SELECT hash, kind, account, email, created, expires FROM account_token ORDER BY hash`, func(rows *sql.Rows) error {
		var t accounts.Token
		var hash string
		err := rows.Scan(&hash, &t.Kind, &t.User, &t.Email, &t.Created, &t.Expires)
		if err == nil {
			t.Hash, err = parseHash(hash)
		}
		out = append(out, t)
		return failed(doing, err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// WriteAccounts implements accounts.Store.
func (c *Control) WriteAccounts(ctx context.Context, b accounts.Batch) error {
	return c.changeBeside(ctx, "change accounts", func(ctx context.Context, tx *sql.Tx) error {
		for _, d := range b.DropTokens {
			const query = `DELETE FROM account_token WHERE account = $1 AND ($2 = '' OR kind = $2)`
			if _, err := exec(ctx, tx, query, d.User, d.Kind); err != nil {
				return err
			}
		}
		for _, d := range b.EndSessions {
			if err := endSessions(ctx, tx, d); err != nil {
				return err
			}
		}
		for _, u := range b.Users {
			if err := putUser(ctx, tx, u); err != nil {
				return err
			}
		}
		if err := insertLinks(ctx, tx, b.Identities, b.Tokens); err != nil {
			return err
		}
		for _, s := range b.Sessions {
			if err := putSession(ctx, tx, s); err != nil {
				return err
			}
		}
		for _, id := range b.DropUsers {
			if err := dropUser(ctx, tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}

func endSessions(ctx context.Context, tx *sql.Tx, d accounts.SessionsOf) error {
	_, err := exec(ctx, tx, `DELETE FROM session WHERE account = $1 AND id <> $2`, d.User, d.Except)
	if err != nil {
		return err
	}
	_, err = exec(ctx, tx, `DELETE FROM session WHERE id <> $2 AND api_key IN (SELECT id FROM api_key WHERE owner = $1)`, d.User, d.Except)
	return err
}

func putUser(ctx context.Context, tx *sql.Tx, u accounts.UserRecord) error {
	recovery, err := json.Marshal(append([]string{}, u.Recovery...))
	if err != nil {
		return fmt.Errorf("encode the recovery codes: %w", err)
	}
	networks, err := json.Marshal(append([]accounts.SeenNetwork{}, u.Networks...))
	if err != nil {
		return fmt.Errorf("encode the networks of a user: %w", err)
	}
	_, err = exec(ctx, tx, `INSERT INTO account (id, email, name, role, password, totp, totp_step, recovery, confirmed, disabled, created, last_login, networks)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (id) DO UPDATE SET email = excluded.email, name = excluded.name, role = excluded.role,
		password = excluded.password, totp = excluded.totp, totp_step = excluded.totp_step, recovery = excluded.recovery,
		confirmed = excluded.confirmed, disabled = excluded.disabled, last_login = excluded.last_login, networks = excluded.networks`,
		u.ID, u.Email, u.Name, u.Role, u.Password, u.TOTP, u.TOTPStep, string(recovery), u.Confirmed, u.Disabled,
		int64(u.Created), int64(u.LastLogin), string(networks))
	return err
}

func insertLinks(ctx context.Context, tx *sql.Tx, identities []accounts.Identity, tokens []accounts.Token) error {
	rows := make([][]any, 0, len(identities))
	for _, i := range identities {
		rows = append(rows, []any{i.Issuer, i.Subject, i.User, int64(i.Created)})
	}
	if err := insertAll(ctx, tx, "account_identity", "issuer, subject, account, created", 4, rows); err != nil {
		return err
	}
	rows = make([][]any, 0, len(tokens))
	for _, t := range tokens {
		rows = append(rows, []any{hex.EncodeToString(t.Hash[:]), t.Kind, t.User, t.Email, int64(t.Created), int64(t.Expires)})
	}
	return insertAll(ctx, tx, "account_token", "hash, kind, account, email, created, expires", 6, rows)
}

func putSession(ctx context.Context, tx *sql.Tx, s accounts.Session) error {
	_, err := exec(ctx, tx, `INSERT INTO session (id, hash, role, api_key, account, agent, address, seen, created, expires)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, role = excluded.role, account = excluded.account,
		agent = excluded.agent, address = excluded.address, seen = excluded.seen, expires = excluded.expires`,
		s.ID, hex.EncodeToString(s.Hash[:]), s.Role, s.Key, s.User, s.Agent, s.Address, int64(s.Seen), int64(s.Created), int64(s.Expires))
	return err
}

func dropUser(ctx context.Context, tx *sql.Tx, id string) error {
	if err := endSessions(ctx, tx, accounts.SessionsOf{User: id}); err != nil {
		return err
	}
	gone := [][]any{{id}} // with his keys
	err := read(ctx, tx, `SELECT id FROM api_key WHERE owner = $1 ORDER BY id`, []any{id}, func(rows *sql.Rows) error {
		var key string
		err := rows.Scan(&key)
		gone = append(gone, []any{key})
		return err
	})
	if err != nil {
		return err
	}
	if err := forgetSubjects(ctx, tx, gone); err != nil {
		return err
	}
	for _, query := range []string{
		`DELETE FROM api_key WHERE owner = $1`,
		`DELETE FROM account_token WHERE account = $1`,
		`DELETE FROM saved_view WHERE account = $1`,
		`DELETE FROM account_identity WHERE account = $1`,
		`DELETE FROM account WHERE id = $1`,
	} {
		if _, err := exec(ctx, tx, query, id); err != nil {
			return err
		}
	}
	return nil
}

// TouchAPIKeys implements accounts.Store.
func (c *Control) TouchAPIKeys(ctx context.Context, used []accounts.Use) error {
	return c.change(ctx, "keep when API keys were used", func(ctx context.Context, tx *sql.Tx) error {
		for _, u := range used {
			if _, err := exec(ctx, tx, `UPDATE api_key SET last_used = $1 WHERE id = $2`, int64(u.Seen), u.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// TouchSessions implements accounts.Store.
func (c *Control) TouchSessions(ctx context.Context, used []accounts.Use) error {
	return c.change(ctx, "keep when sessions were used", func(ctx context.Context, tx *sql.Tx) error {
		for _, u := range used {
			if _, err := exec(ctx, tx, `UPDATE session SET seen = $1, expires = $2 WHERE id = $3`, int64(u.Seen), int64(u.Expires), u.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

package control

import (
	"context"
	"crypto/x509"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"

	"muster"
	"muster/devices"
	"muster/devices/join"
)

// Authorities implements join.AuthorityStore, in bytewise order of id.
func (c *Control) Authorities(ctx context.Context) (out []join.Authority, err error) {
	const doing = "load the certificate authorities"
	const query = `SELECT id, name, certificate, profile, jit, created, proof, code, verified FROM certificate_authority ORDER BY id`
	err = c.load(ctx, doing, query, func(rows *sql.Rows) error {
		var a join.Authority
		var text string
		err := rows.Scan(&a.ID, &a.Name, &text, &a.Profile, &a.JIT, &a.Created, &a.Proof, &a.Code, &a.Verified)
		if err != nil {
			return fmt.Errorf("read a row: %w", err)
		}
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return fmt.Errorf("the certificate of %s: %w", a.ID, err)
		}
		if a.Cert, err = x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("the certificate of %s: %w", a.ID, err)
		}
		out = append(out, a)
		return nil
	})
	return out, err
}

// load is each within callTimeout, for what is small.
func (c *Control) load(ctx context.Context, doing, query string, scan func(rows *sql.Rows) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.each(ctx, doing, query, func(rows *sql.Rows) error { return failed(doing, scan(rows)) })
}

// PutAuthority implements join.AuthorityStore.
func (c *Control) PutAuthority(ctx context.Context, a join.Authority) error {
	return c.change(ctx, "put a certificate authority", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockProfile(ctx, tx, a.Profile); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `INSERT INTO certificate_authority (id, name, certificate, profile, jit, created, proof, code, verified)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (id) DO UPDATE SET name = excluded.name, profile = excluded.profile, jit = excluded.jit, verified = excluded.verified`,
			a.ID, a.Name, base64.StdEncoding.EncodeToString(a.Cert.Raw), a.Profile, a.JIT, int64(a.Created), string(a.Proof), a.Code, int64(a.Verified))
		return err
	})
}

// lockProfile answers Invalid when there is no profile of that name, and else keeps
// others from deleting it until the transaction ends. The default one has no row.
func lockProfile(ctx context.Context, tx *sql.Tx, name string) error {
	if name == devices.DefaultProfile {
		return nil
	}
	n, err := exec(ctx, tx, `UPDATE profile SET name = name WHERE name = $1`, name)
	if err == nil && n == 0 {
		err = muster.Errorf(muster.Invalid, "there is no profile %q", name)
	}
	return err
}

// DeleteAuthority implements join.AuthorityStore.
func (c *Control) DeleteAuthority(ctx context.Context, id string) error {
	const doing = "delete a certificate authority"
	return c.change(ctx, doing, func(ctx context.Context, tx *sql.Tx) error {
		// The third condition is the index's.
		if _, err := exec(ctx, tx, `DELETE FROM credential WHERE ca = $1 AND revoked = 0 AND ca <> ''`, id); err != nil {
			return err
		}
		n, err := exec(ctx, tx, `DELETE FROM certificate_authority WHERE id = $1`, id)
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "%s: there is no %q", doing, id)
		}
		return err
	})
}

// Provisionings implements join.ProvisioningStore, in bytewise order of profile.
func (c *Control) Provisionings(ctx context.Context) (out []join.Provisioning, err error) {
	const query = `SELECT profile, strategy, key, hash, created FROM profile_provisioning ORDER BY profile`
	err = c.load(ctx, "load the provisionings", query, func(rows *sql.Rows) error {
		var p join.Provisioning
		var hash string
		err := rows.Scan(&p.Profile, &p.Strategy, &p.Key, &hash, &p.Created)
		if err == nil {
			p.Hash, err = parseHash(hash)
		}
		out = append(out, p)
		return err
	})
	return out, err
}

// PutProvisioning implements join.ProvisioningStore.
func (c *Control) PutProvisioning(ctx context.Context, p join.Provisioning) error {
	return c.change(ctx, "put a provisioning", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockProfile(ctx, tx, p.Profile); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `INSERT INTO profile_provisioning (profile, strategy, key, hash, created) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (profile) DO UPDATE SET strategy = excluded.strategy, key = excluded.key, hash = excluded.hash, created = excluded.created`,
			p.Profile, string(p.Strategy), p.Key, hex.EncodeToString(p.Hash[:]), int64(p.Created))
		return err
	})
}

// DeleteProvisioning implements join.ProvisioningStore.
func (c *Control) DeleteProvisioning(ctx context.Context, profile string) error {
	return c.deleteOne(ctx, "delete a provisioning", `DELETE FROM profile_provisioning WHERE profile = $1`, profile)
}

// ClaimCodes implements join.ClaimStore, in bytewise order of device.
func (c *Control) ClaimCodes(ctx context.Context) (out []join.ClaimCode, err error) {
	const query = `SELECT device, hash, created, expires FROM claim_code ORDER BY device`
	err = c.load(ctx, "load the claim codes", query, func(rows *sql.Rows) error {
		var code join.ClaimCode
		var hash string
		err := rows.Scan(&code.Device, &hash, &code.Created, &code.Expires)
		if err == nil {
			code.Hash, err = parseHash(hash)
		}
		out = append(out, code)
		return err
	})
	return out, err
}

// PutClaimCode implements join.ClaimStore.
func (c *Control) PutClaimCode(ctx context.Context, code join.ClaimCode) error {
	return c.change(ctx, "put a claim code", func(ctx context.Context, tx *sql.Tx) error {
		if err := lockDevice(ctx, tx, code.Device); err != nil {
			return err
		}
		_, err := exec(ctx, tx, `INSERT INTO claim_code (device, hash, created, expires) VALUES ($1, $2, $3, $4)
			ON CONFLICT (device) DO UPDATE SET hash = excluded.hash, created = excluded.created, expires = excluded.expires`,
			string(code.Device), hex.EncodeToString(code.Hash[:]), int64(code.Created), int64(code.Expires))
		return err
	})
}

// DeleteClaimCodes implements join.ClaimStore.
func (c *Control) DeleteClaimCodes(ctx context.Context, ids []muster.DeviceID) error {
	rows := make([][]any, len(ids))
	for i, id := range ids {
		rows[i] = []any{string(id)}
	}
	return c.change(ctx, "delete claim codes", func(ctx context.Context, tx *sql.Tx) error {
		return deleteOf(ctx, tx, "claim_code", "device", rows)
	})
}

// AdoptionKeys implements join.AdoptionStore, in bytewise order of id.
func (c *Control) AdoptionKeys(ctx context.Context) (out []join.AdoptionKey, err error) {
	const query = `SELECT id, name, hash, created, expires FROM adoption_key ORDER BY id`
	err = c.load(ctx, "load the adoption keys", query, func(rows *sql.Rows) error {
		var k join.AdoptionKey
		var hash string
		err := rows.Scan(&k.ID, &k.Name, &hash, &k.Created, &k.Expires)
		if err == nil {
			k.Hash, err = parseHash(hash)
		}
		out = append(out, k)
		return err
	})
	return out, err
}

// InsertAdoptionKey implements join.AdoptionStore.
func (c *Control) InsertAdoptionKey(ctx context.Context, k join.AdoptionKey) error {
	row := []any{k.ID, k.Name, hex.EncodeToString(k.Hash[:]), int64(k.Created), int64(k.Expires)}
	return c.change(ctx, "insert an adoption key", func(ctx context.Context, tx *sql.Tx) error {
		return insertAll(ctx, tx, "adoption_key", "id, name, hash, created, expires", len(row), [][]any{row})
	})
}

// DeleteAdoptionKey implements join.AdoptionStore.
func (c *Control) DeleteAdoptionKey(ctx context.Context, id string) error {
	return c.deleteOne(ctx, "delete an adoption key", `DELETE FROM adoption_key WHERE id = $1`, id)
}

// Blocks implements join.AdoptionStore.
func (c *Control) Blocks(ctx context.Context) (out []join.Block, err error) {
	const query = `SELECT hash, label, created FROM adoption_block ORDER BY hash`
	err = c.load(ctx, "load the blocked clients", query, func(rows *sql.Rows) error {
		var b join.Block
		var hash string
		err := rows.Scan(&hash, &b.Label, &b.Created)
		if err == nil {
			b.Hash, err = parseHash(hash)
		}
		out = append(out, b)
		return err
	})
	return out, err
}

// InsertBlock implements join.AdoptionStore.
func (c *Control) InsertBlock(ctx context.Context, b join.Block) error {
	return c.change(ctx, "block a client", func(ctx context.Context, tx *sql.Tx) error {
		_, err := exec(ctx, tx, `INSERT INTO adoption_block (hash, label, created) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			hex.EncodeToString(b.Hash[:]), b.Label, int64(b.Created))
		return err
	})
}

// DeleteBlock implements join.AdoptionStore.
func (c *Control) DeleteBlock(ctx context.Context, hash [32]byte) error {
	return c.change(ctx, "unblock a client", func(ctx context.Context, tx *sql.Tx) error {
		n, err := exec(ctx, tx, `DELETE FROM adoption_block WHERE hash = $1`, hex.EncodeToString(hash[:]))
		if err == nil && n == 0 {
			err = muster.Errorf(muster.NotFound, "the client is not blocked")
		}
		return err
	})
}

package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"muster"
	"muster/firmware/catalog"
)

var _ catalog.Store = (*Control)(nil)

const (
	artifactColumns = `sha256, number, sha1, md5, size, filename, image, created_by, created`
	releaseColumns  = `id, number, product, version, channel, state, manifest, signatures, notes, reason, created_by, published_by, ended_by, created, published,
	ended, revision`
	keyColumns = `id, name, pem, created_by, created, revoked, revoked_by, reason, revision`

	// mostOthers bounds the releases of one version, each for hardware of its own.
	mostOthers = 1000
	// mostNamed is how many releases that name an image are told.
	mostNamed = 10
)

func artifactOf(scan func(...any) error) (a catalog.Artifact, err error) {
	var image string
	if err := scan(&a.SHA256, &a.Number, &a.SHA1, &a.MD5, &a.Size, &a.Filename, &image, &a.CreatedBy, &a.Created); err != nil {
		return a, err
	}
	if err := json.Unmarshal([]byte(image), &a.Image); err != nil {
		return a, fmt.Errorf("read the artifact %s: %w", a.SHA256, err)
	}
	return a, nil
}

func releaseOf(scan func(...any) error) (r catalog.Release, err error) {
	var manifest, signatures string
	err = scan(&r.ID, &r.Number, &r.Product, &r.Version, &r.Channel, &r.State, &manifest, &signatures, &r.Notes, &r.Reason, &r.CreatedBy, &r.PublishedBy,
		&r.EndedBy, &r.Created, &r.Published, &r.Ended, &r.Revision)
	if err != nil {
		return r, err
	}
	r.Manifest = []byte(manifest)
	if err := json.Unmarshal([]byte(signatures), &r.Signatures); err != nil {
		return r, fmt.Errorf("read the release %s: %w", r.ID, err)
	}
	return r, nil
}

func signingKeyOf(scan func(...any) error) (k catalog.Key, err error) {
	err = scan(&k.ID, &k.Name, &k.PEM, &k.CreatedBy, &k.Created, &k.Revoked, &k.RevokedBy, &k.Reason, &k.Revision)
	return k, err
}

// FirmwareArtifact implements catalog.Reader.
func (c *Control) FirmwareArtifact(ctx context.Context, sha256 string) (a catalog.Artifact, err error) {
	err = c.list(ctx, "look for an artifact", `SELECT `+artifactColumns+` FROM firmware_artifact WHERE sha256 = $1`, []any{sha256}, func(rows *sql.Rows) (err error) {
		a, err = artifactOf(rows.Scan)
		return err
	})
	if err == nil && a.SHA256 == "" {
		err = muster.Errorf(muster.NotFound, "there is no such artifact")
	}
	return a, err
}

// FirmwareArtifacts implements catalog.Lister.
func (c *Control) FirmwareArtifacts(ctx context.Context, before int64, limit int) (out []catalog.Artifact, err error) {
	query := `SELECT ` + artifactColumns + ` FROM firmware_artifact WHERE CAST($1 AS BIGINT) = 0 OR number < $1 ORDER BY number DESC LIMIT $2`
	err = c.list(ctx, "list artifacts", query, []any{before, limit}, func(rows *sql.Rows) error {
		a, err := artifactOf(rows.Scan)
		out = append(out, a)
		return err
	})
	return out, err
}

// FirmwareRelease implements catalog.Reader.
func (c *Control) FirmwareRelease(ctx context.Context, id string) (r catalog.Release, err error) {
	err = c.list(ctx, "look for a release", `SELECT `+releaseColumns+` FROM firmware_release WHERE id = $1`, []any{id}, func(rows *sql.Rows) (err error) {
		r, err = releaseOf(rows.Scan)
		return err
	})
	if err == nil && r.ID == "" {
		err = muster.Errorf(muster.NotFound, "there is no such release")
	}
	return r, err
}

// FirmwareReleases implements catalog.Lister.
func (c *Control) FirmwareReleases(ctx context.Context, f catalog.Filter) (out []catalog.Release, err error) {
	query := `SELECT ` + releaseColumns + ` FROM firmware_release WHERE (CAST($1 AS BIGINT) = 0 OR number < $1) AND ($2 = '' OR product = $2) AND ($3 = '' OR state = $3)
		ORDER BY number DESC LIMIT $4`
	err = c.list(ctx, "list releases", query, []any{f.Before, f.Product, string(f.State), f.Limit}, func(rows *sql.Rows) error {
		r, err := releaseOf(rows.Scan)
		out = append(out, r)
		return err
	})
	return out, err
}

// FirmwareTrust implements catalog.Reader. One query sees one moment.
func (c *Control) FirmwareTrust(ctx context.Context) (p catalog.Policy, keys []catalog.Key, err error) {
	query := `SELECT p.threshold, p.revision, k.id, k.name, k.pem, k.created_by, k.created, k.revoked, k.revoked_by, k.reason, k.revision
		FROM firmware_policy p LEFT JOIN firmware_key k ON p.id = 1 ORDER BY k.id`
	err = c.list(ctx, "read the keys of firmware", query, nil, func(rows *sql.Rows) error {
		var id, name, pem, by, revokedBy, reason sql.NullString
		var created, revoked, revision sql.NullInt64
		if err := rows.Scan(&p.Threshold, &p.Revision, &id, &name, &pem, &by, &created, &revoked, &revokedBy, &reason, &revision); err != nil {
			return fmt.Errorf("read a key: %w", err)
		}
		if id.Valid {
			keys = append(keys, catalog.Key{
				ID: id.String, Name: name.String, PEM: pem.String, CreatedBy: by.String, Created: muster.Micros(created.Int64),
				Revoked: muster.Micros(revoked.Int64), RevokedBy: revokedBy.String, Reason: reason.String, Revision: revision.Int64,
			})
		}
		return nil
	})
	return p, keys, err
}

// DecideFirmware implements catalog.Decider.
func (c *Control) DecideFirmware(ctx context.Context, about catalog.About, decide func(catalog.View) (catalog.Decision, error)) error {
	return c.change(ctx, "change the catalogue of firmware", func(ctx context.Context, tx *sql.Tx) error {
		v, err := c.firmwareView(ctx, tx, about)
		if err != nil {
			return err
		}
		d, err := decide(v)
		if err != nil {
			return err //nolint:wrapcheck // the decision is the caller's own
		}
		return keepFirmware(ctx, tx, about, &d)
	})
}

// firmwareView reads what a decision sees, after it holds the row that all of them do.
func (c *Control) firmwareView(ctx context.Context, tx *sql.Tx, about catalog.About) (v catalog.View, err error) {
	err = read(ctx, tx, `SELECT threshold, revision FROM firmware_policy WHERE id = 1`+c.dialect.hold, nil, func(rows *sql.Rows) error {
		return rows.Scan(&v.Policy.Threshold, &v.Policy.Revision)
	})
	if err != nil {
		return v, err
	}
	err = read(ctx, tx, `SELECT `+keyColumns+` FROM firmware_key ORDER BY id`, nil, func(rows *sql.Rows) error {
		k, err := signingKeyOf(rows.Scan)
		v.Keys = append(v.Keys, k)
		return err
	})
	if err == nil {
		err = read(ctx, tx, `SELECT (SELECT value FROM counter WHERE name = 'release') + 1, (SELECT value FROM counter WHERE name = 'artifact') + 1`, nil, func(rows *sql.Rows) error {
			return rows.Scan(&v.NextRelease, &v.NextArtifact)
		})
	}
	if err == nil && about.Artifact != "" {
		err = viewArtifact(ctx, tx, about.Artifact, &v)
	}
	if err == nil && about.Release != "" {
		err = viewRelease(ctx, tx, about.Release, &v)
	}
	return v, err
}

func viewArtifact(ctx context.Context, tx *sql.Tx, sha256 string, v *catalog.View) error {
	err := read(ctx, tx, `SELECT `+artifactColumns+` FROM firmware_artifact WHERE sha256 = $1`, []any{sha256}, func(rows *sql.Rows) error {
		a, err := artifactOf(rows.Scan)
		v.Artifact = &a
		return err
	})
	if err != nil {
		return err
	}
	return read(ctx, tx, `SELECT release FROM firmware_file WHERE sha256 = $1 ORDER BY release LIMIT $2`, []any{sha256, mostNamed}, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		v.Named = append(v.Named, id)
		return err
	})
}

func viewRelease(ctx context.Context, tx *sql.Tx, id string, v *catalog.View) error {
	err := read(ctx, tx, `SELECT `+releaseColumns+` FROM firmware_release WHERE id = $1`, []any{id}, func(rows *sql.Rows) error {
		r, err := releaseOf(rows.Scan)
		v.Release = &r
		return err
	})
	if err != nil || v.Release == nil {
		return err
	}
	v.Files = map[string]catalog.Artifact{}
	err = read(ctx, tx, `SELECT `+artifactColumns+` FROM firmware_artifact WHERE sha256 IN (SELECT sha256 FROM firmware_file WHERE release = $1)`, []any{id}, func(rows *sql.Rows) error {
		a, err := artifactOf(rows.Scan)
		v.Files[a.SHA256] = a
		return err
	})
	if err != nil {
		return err
	}
	err = read(ctx, tx, `SELECT `+releaseColumns+` FROM firmware_release WHERE product = $1 AND version = $2 AND id <> $3 AND state <> 'draft' ORDER BY number LIMIT $4`,
		[]any{v.Release.Product, v.Release.Version, id, mostOthers}, func(rows *sql.Rows) error {
			r, err := releaseOf(rows.Scan)
			v.Others = append(v.Others, r)
			return err
		})
	if err != nil {
		return err
	}
	return read(ctx, tx, `SELECT 1 FROM rollout WHERE release = $1 OR rollback = $1 LIMIT 1`, []any{id}, func(*sql.Rows) error {
		v.Rolled = true
		return nil
	})
}

func keepFirmware(ctx context.Context, tx *sql.Tx, about catalog.About, d *catalog.Decision) (err error) {
	if d.Drop {
		err = dropFirmware(ctx, tx, about)
	}
	if err == nil && d.Artifact != nil {
		err = insertArtifact(ctx, tx, d.Artifact)
	}
	if err == nil && d.Release != nil {
		err = putRelease(ctx, tx, d.Release, d.Files)
	}
	if k := d.Key; err == nil && k != nil {
		row := []any{k.ID, k.Name, k.PEM, k.CreatedBy, int64(k.Created), int64(k.Revoked), k.RevokedBy, k.Reason, k.Revision}
		_, err = exec(ctx, tx, `INSERT INTO firmware_key (`+keyColumns+`) VALUES `+tuples(1, len(row))+` ON CONFLICT (id) DO UPDATE SET
			revoked = excluded.revoked, revoked_by = excluded.revoked_by, reason = excluded.reason, revision = excluded.revision`, row...)
	}
	if p := d.Policy; err == nil && p != nil {
		_, err = exec(ctx, tx, `UPDATE firmware_policy SET threshold = $1, revision = $2 WHERE id = 1`, p.Threshold, p.Revision)
	}
	return err
}

func dropFirmware(ctx context.Context, tx *sql.Tx, about catalog.About) error {
	if about.Artifact != "" {
		_, err := exec(ctx, tx, `DELETE FROM firmware_artifact WHERE sha256 = $1`, about.Artifact)
		return err
	}
	if _, err := exec(ctx, tx, `DELETE FROM firmware_file WHERE release = $1`, about.Release); err != nil {
		return err
	}
	_, err := exec(ctx, tx, `DELETE FROM firmware_release WHERE id = $1`, about.Release)
	return err
}

// countOne returns the next number of a counter.
func countOne(ctx context.Context, tx *sql.Tx, name string) (n int64, err error) {
	err = tx.QueryRowContext(ctx, `UPDATE counter SET value = value + 1 WHERE name = $1 RETURNING value`, name).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("number an %s: %w", name, err)
	}
	return n, nil
}

func insertArtifact(ctx context.Context, tx *sql.Tx, a *catalog.Artifact) (err error) {
	image, err := json.Marshal(a.Image)
	if err != nil {
		return fmt.Errorf("encode the artifact %s: %w", a.SHA256, err)
	}
	if a.Number, err = countOne(ctx, tx, "artifact"); err != nil {
		return err
	}
	row := []any{a.SHA256, a.Number, a.SHA1, a.MD5, a.Size, a.Filename, string(image), a.CreatedBy, int64(a.Created)}
	_, err = exec(ctx, tx, `INSERT INTO firmware_artifact (`+artifactColumns+`) VALUES `+tuples(1, len(row)), row...)
	return err
}

func putRelease(ctx context.Context, tx *sql.Tx, r *catalog.Release, files []string) (err error) {
	isNew := r.Number == 0
	if isNew {
		if r.Number, err = countOne(ctx, tx, "release"); err != nil {
			return err
		}
	}
	signatures, err := json.Marshal(r.Signatures)
	if err != nil {
		return fmt.Errorf("encode the release %s: %w", r.ID, err)
	}
	row := []any{
		r.ID, r.Number, r.Product, r.Version, r.Channel, string(r.State), string(r.Manifest), string(signatures), r.Notes, r.Reason, r.CreatedBy, r.PublishedBy,
		r.EndedBy, int64(r.Created), int64(r.Published), int64(r.Ended), r.Revision,
	}
	_, err = exec(ctx, tx, `INSERT INTO firmware_release (`+releaseColumns+`) VALUES `+tuples(1, len(row))+` ON CONFLICT (id) DO UPDATE SET
		channel = excluded.channel, state = excluded.state, signatures = excluded.signatures, notes = excluded.notes, reason = excluded.reason,
		published_by = excluded.published_by, ended_by = excluded.ended_by, published = excluded.published, ended = excluded.ended, revision = excluded.revision`, row...)
	if err != nil || !isNew {
		return err
	}
	rows := make([][]any, len(files))
	for i, f := range files {
		rows[i] = []any{f, r.ID}
	}
	return insertAll(ctx, tx, "firmware_file", "sha256, release", 2, rows)
}

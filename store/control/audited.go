package control

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"muster/audit"
	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/operator"
)

// audited is a kind of things of which audit records have all that is kept.
type audited struct {
	prefix  string // of their objects
	table   string // with the ids in the column id
	id      string
	columns string
	// read reads a row, and returns the thing's id and its view.
	read func(scan func(...any) error) (id string, view any, err error)
	// unnoted says whether a thing may be as it is without any record: as it came with the schema.
	unnoted func(view any) bool
	// loose are members that change between two records, of which check says which must not have; next says that is
	// is how the next record begins, and not how the thing is.
	loose []string
	check func(was, is json.RawMessage, next bool) []string
	// advice is what to do about one that is not as it was recorded.
	advice string
}

// whole is the condition on a record that it has a whole view, or says that there is no thing any more.
const whole = ` action NOT IN ('` + rolloutSealed + `', '` + rolloutRecounted + `') AND (before <> 'null' OR after <> 'null') `

// auditedKinds are all kinds.
func auditedKinds() []audited {
	return []audited{auditedPolicy(), auditedKeys(), auditedReleases(), auditedArtifacts(), auditedRollouts()}
}

func auditedPolicy() audited {
	return audited{
		prefix: catalog.PolicyPath, table: "(SELECT * FROM firmware_policy WHERE id = 1)", id: "''", columns: "threshold, revision",
		read: func(scan func(...any) error) (string, any, error) {
			var p catalog.Policy
			err := scan(&p.Threshold, &p.Revision)
			return "", catalog.ViewOfPolicy(&p), err
		},
		unnoted: func(view any) bool { return view == catalog.PolicyView{Threshold: 0, Revision: 1} },
		loose:   []string{"threshold"}, check: thresholdLowered,
		advice: "set it again (PUT /api/v1/firmware/policy), and look whether a release was published meanwhile",
	}
}

// thresholdLowered compares thresholds: a server that was configured with a higher one has that before a change.
func thresholdLowered(was, is json.RawMessage, next bool) []string {
	var a, b catalog.PolicyView
	if json.Unmarshal(was, &a) == nil && json.Unmarshal(is, &b) == nil && (b.Threshold == a.Threshold || next && b.Threshold > a.Threshold) {
		return nil
	}
	return []string{"threshold"}
}

func auditedKeys() audited {
	return audited{
		prefix: catalog.KeyPath(""), table: "firmware_key", id: "id", columns: keyColumns,
		read: func(scan func(...any) error) (string, any, error) {
			k, err := signingKeyOf(scan)
			return k.ID, catalog.ViewOfKey(&k), err
		},
		advice: "revoke the key if its signatures are not to count, stop the rollouts of releases that it signed, and put the database back from a backup",
	}
}

func auditedReleases() audited {
	return audited{
		prefix: catalog.ReleasePath(""), table: "firmware_release", id: "id", columns: releaseColumns,
		read: func(scan func(...any) error) (string, any, error) {
			r, err := releaseOf(scan)
			return r.ID, catalog.ViewOfRelease(&r), err
		},
		advice: "revoke the release, stop its rollouts, and make it anew from the manifest that you signed, or put the database back from a backup",
	}
}

func auditedArtifacts() audited {
	return audited{
		prefix: catalog.ArtifactPath(""), table: "firmware_artifact", id: "sha256", columns: artifactColumns,
		read: func(scan func(...any) error) (string, any, error) {
			a, err := artifactOf(scan)
			return a.SHA256, catalog.ViewOfArtifact(&a), err
		},
		advice: "delete the artifact and upload the image again, or put the database back from a backup",
	}
}

func auditedRollouts() audited {
	return audited{
		prefix: rolloutPath(""), table: "rollout", id: "id", columns: rolloutColumns,
		read: func(scan func(...any) error) (string, any, error) {
			r, err := rolloutOf(scan)
			return r.ID, operator.ViewOf(&r), err
		},
		loose: operator.Loose(), check: rolloutLoosened,
		advice: "pause or abort the rollout, look at what it did (its log), and put the database back from a backup",
	}
}

func rolloutLoosened(was, is json.RawMessage, _ bool) (out []string) {
	var a, b operator.View
	var named map[string]json.RawMessage
	if json.Unmarshal(was, &named) != nil || json.Unmarshal(was, &a) != nil || json.Unmarshal(is, &b) != nil {
		return nil // a member is cut: the others are compared
	}
	for _, member := range operator.Loosened(&a, &b) {
		if _, is := named[member]; is || member == "telemetry" {
			out = append(out, member)
		}
	}
	return out
}

// differs returns the members of a thing that are not as a view has them.
func (k *audited) differs(was, is json.RawMessage, next bool) []string {
	out := audit.Differs(was, is, k.loose...)
	if k.check != nil && !audit.Absent(was) && !audit.Absent(is) {
		out = append(out, k.check(was, is, next)...)
	}
	return out
}

// VerifyAudited holds all things of which audit records have what is kept (the policy, keys, releases and artifacts
// of firmware, rollouts) against those records, and calls found with each thing that is not as the newest
// says, that is there or gone without one, and with each record that begins otherwise than the one before it
// ended. It returns how many things there are. It reads in bounded steps, changes nothing, and may be run beside a server. Whether
// the records are genuine audit.Verify says.
func (c *Control) VerifyAudited(ctx context.Context, found func(object, what string)) (things int64, err error) {
	for _, k := range auditedKinds() {
		n, err := c.verifyThings(ctx, &k, found)
		if err != nil {
			return things, err
		}
		things += n
		if err := c.verifyGone(ctx, &k, found); err != nil {
			return things, err
		}
		if err := c.verifyHistory(ctx, &k, found); err != nil {
			return things, err
		}
	}
	return things, c.verifyFiles(ctx, found)
}

// auditedPage is how many things are read at a time: each may have a plan or a manifest.
const auditedPage = 200

// verifyThings holds each thing against its newest record. One statement sees both, for a server may be writing.
func (c *Control) verifyThings(ctx context.Context, k *audited, found func(object, what string)) (n int64, err error) {
	query := `SELECT ` + k.columns + `, COALESCE(a.seq, 0), COALESCE(a.action, ''), COALESCE(a.after, '') FROM (SELECT ` + k.id + ` AS thing_id, t.* FROM ` + k.table + ` t) t
		LEFT JOIN audit a ON a.seq = (SELECT n.seq FROM audit n WHERE n.object = '` + k.prefix + `' || thing_id AND ` + strings.NewReplacer("action", "n.action", "before", "n.before", "after", "n.after").Replace(whole) + ` ORDER BY n.seq DESC LIMIT 1)
		WHERE thing_id > $1 ORDER BY thing_id LIMIT $2`
	if k.id == "''" { // one row
		query = strings.Replace(query, "thing_id > $1", "thing_id >= $1", 1)
	}
	last := ""
	for page := auditedPage; page == auditedPage; {
		page = 0
		err := c.list(ctx, "hold "+k.prefix+" against the audit log", query, []any{last, auditedPage}, func(rows *sql.Rows) error {
			var seq int64
			var action, after string
			id, view, err := k.read(func(to ...any) error { return rows.Scan(append(to, &seq, &action, &after)...) })
			if id > last {
				last = id
			}
			page++
			object := k.prefix + id
			switch {
			case err != nil && id == "" && k.id != "''":
				return err
			case err != nil: // it cannot be decoded: nobody writes that
				found(object, "what is kept of it cannot be read: the database was changed; "+k.advice)
				return nil //nolint:nilerr // that is what was found
			}
			k.hold(object, view, seq, action, json.RawMessage(after), found)
			return nil
		})
		n += int64(page)
		if err != nil {
			return n, err
		}
	}
	if n == 0 && k.id == "''" {
		found(k.prefix, "its row is gone: nothing can be signed, published or offered; put the database back from a backup")
	}
	return n, nil
}

// hold compares one thing with its newest record.
func (k *audited) hold(object string, view any, seq int64, action string, after json.RawMessage, found func(object, what string)) {
	switch {
	case seq == 0 && k.unnoted != nil && k.unnoted(view):
	case seq == 0:
		found(object, "it is there, and the audit log knows nothing of it: it was put there past Muster; "+k.advice)
	case audit.Absent(after):
		found(object, fmt.Sprintf("it is there, though record %d (%s) says that it was deleted; %s", seq, action, k.advice))
	default:
		if members := k.differs(after, audit.Whole(view), false); len(members) > 0 {
			found(object, fmt.Sprintf("%s: not as the audit log's record %d (%s) has it, so the database was changed past Muster; %s", strings.Join(members, ", "), seq, action, k.advice))
		}
	}
}

// verifyGone looks for things whose newest record does not say that they were deleted, and that are not there.
func (c *Control) verifyGone(ctx context.Context, k *audited, found func(object, what string)) error {
	if k.id == "''" {
		return nil // see verifyThings
	}
	query := fmt.Sprintf(`SELECT a.object, a.seq, a.action FROM audit a WHERE a.object > $1 AND a.object < $2 AND a.after <> 'null' AND %s
		AND substr(a.object, %d) NOT LIKE '%%/%%' AND NOT EXISTS (SELECT 1 FROM %s t WHERE t.%s = substr(a.object, %d))
		AND NOT EXISTS (SELECT 1 FROM audit n WHERE n.object = a.object AND n.seq > a.seq AND %s) ORDER BY a.object LIMIT $3`,
		strings.NewReplacer("action", "a.action", "before", "a.before", "after", "a.after").Replace(whole), len(k.prefix)+1, k.table, k.id, len(k.prefix)+1,
		strings.NewReplacer("action", "n.action", "before", "n.before", "after", "n.after").Replace(whole))
	last := k.prefix
	for page := auditedPage; page == auditedPage; {
		page = 0
		err := c.list(ctx, "look for what was deleted of "+k.prefix, query, []any{last, behind(k.prefix), auditedPage}, func(rows *sql.Rows) error {
			var seq int64
			var action string
			err := rows.Scan(&last, &seq, &action)
			if page++; err == nil {
				found(last, fmt.Sprintf("it is gone, and the audit log's record %d (%s) has it: it was deleted past Muster; put the database back from a backup", seq, action))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// behind is what comes after all texts with a prefix that ends with a slash.
func behind(prefix string) string { return strings.TrimSuffix(prefix, "/") + "0" }

// verifyHistory looks whether each record of a thing begins where the one before ended: what was changed past
// Muster and then by it again is in the newest record as it was changed.
func (c *Control) verifyHistory(ctx context.Context, k *audited, found func(object, what string)) error {
	query := `SELECT object, seq, action, before, after FROM audit WHERE (object, seq) > ($1, $2) AND object < $3 AND ` + whole + ` ORDER BY object, seq LIMIT $4`
	from, to := k.prefix, behind(k.prefix)
	if k.id == "''" {
		from, to = k.prefix, k.prefix+" "
	}
	var object string
	var seq int64
	var was json.RawMessage
	var wasSeq int64
	at := from
	for page := auditedPage; page == auditedPage; {
		page = 0
		err := c.list(ctx, "read the audit log of "+k.prefix, query, []any{at, seq, to, auditedPage}, func(rows *sql.Rows) error {
			var action, before, after string
			if err := rows.Scan(&at, &seq, &action, &before, &after); err != nil {
				return err
			}
			page++
			if at != object {
				object, was, wasSeq = at, nil, 0
			}
			if members := k.differs(was, json.RawMessage(before), true); !audit.Absent(was) && len(members) > 0 {
				found(object, fmt.Sprintf("%s: record %d (%s) of the audit log does not begin as record %d ended, so the database was changed past Muster between the two; %s",
					strings.Join(members, ", "), seq, action, wasSeq, k.advice))
			}
			was, wasSeq = json.RawMessage(after), seq
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyFiles looks whether the images that releases are known to name are those of their manifests.
func (c *Control) verifyFiles(ctx context.Context, found func(object, what string)) error {
	const query = `SELECT r.id, r.manifest, COALESCE(f.sha256, '') FROM (SELECT id, manifest FROM firmware_release WHERE id > $1 ORDER BY id LIMIT $2) r
		LEFT JOIN firmware_file f ON f.release = r.id ORDER BY r.id, f.sha256`
	last := ""
	for more := true; more; {
		more = false
		manifests, files := map[string]string{}, map[string][]string{}
		err := c.list(ctx, "look which images releases name", query, []any{last, auditedPage}, func(rows *sql.Rows) error {
			var manifest, file string
			if err := rows.Scan(&last, &manifest, &file); err != nil {
				return err
			}
			more = true
			manifests[last] = manifest
			if file != "" {
				files[last] = append(files[last], file)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for id, text := range manifests {
			m, err := firmware.ParseManifest([]byte(text))
			if err == nil && !slices.Equal(slices.Sorted(slices.Values(files[id])), catalog.Digests(m)) {
				found(catalog.ReleasePath(id), "the images that it is known to name are not those of its manifest: they could be deleted while it is offered; put the database back from a backup")
			}
		}
	}
	return c.list(ctx, "look for images of no release", `SELECT release, COUNT(*) FROM firmware_file WHERE release NOT IN (SELECT id FROM firmware_release) GROUP BY release`, nil, func(rows *sql.Rows) error {
		var id string
		var n int64
		err := rows.Scan(&id, &n)
		if err == nil {
			found(catalog.ReleasePath(id), fmt.Sprintf("there is no such release, and it is known to name %d images: they were put there past Muster", n))
		}
		return err
	})
}

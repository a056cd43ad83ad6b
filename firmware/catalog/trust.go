package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/audit"
	"muster/firmware"
	"muster/internal/precondition"
)

// Trust is what releases are judged by, as of one moment.
type Trust struct {
	Policy Policy
	Keys   []Key // by id
	now    time.Time
}

// Trust returns the policy and the keys.
func (c *Catalog) Trust(ctx context.Context) (Trust, error) {
	p, keys, err := c.store.FirmwareTrust(ctx)
	if err != nil {
		return Trust{}, err //nolint:wrapcheck // the store says what it was doing
	}
	return c.trust(p, keys), nil
}

func (c *Catalog) trust(p Policy, keys []Key) Trust {
	p.Least, p.Unsigned = c.least, c.insecure
	p.Threshold = max(p.Threshold, p.Least)
	return Trust{Policy: p, Keys: keys, now: c.now()}
}

// trusted are the keys as package firmware takes them.
func (t *Trust) trusted() ([]firmware.TrustedKey, error) {
	out := make([]firmware.TrustedKey, len(t.Keys))
	for i := range t.Keys {
		pub, err := firmware.ParsePublic([]byte(t.Keys[i].PEM))
		if err != nil {
			return nil, fmt.Errorf("read the key %s: %w", t.Keys[i].ID, err)
		}
		out[i] = firmware.TrustedKey{ID: t.Keys[i].ID, Key: pub, Revoked: t.Keys[i].Revoked != 0}
	}
	return out, nil
}

// enough says whether a release has the signatures that it needs and is not out of date:
// Conflict when not, for that is how things are and not what was asked.
func (t *Trust) enough(m *firmware.Manifest, sigs []firmware.Signature) error {
	if t.Policy.Unsigned {
		if !m.Expires.IsZero() && !t.now.Before(m.Expires) {
			return muster.Errorf(muster.Conflict, "the manifest is out of date")
		}
		return nil
	}
	keys, err := t.trusted()
	if err != nil {
		return err
	}
	if err := firmware.Verify(m, sigs, keys, t.Policy.Threshold, t.now); err != nil {
		if muster.KindOf(err) == muster.Invalid {
			return muster.Errorf(muster.Conflict, "%s", muster.Public(err))
		}
		return err
	}
	return nil
}

// Offerable says whether a release may be offered to devices: nil, or a Conflict that says
// why not.
func (t *Trust) Offerable(r *Release) error {
	switch r.State {
	case Published, Deprecated:
	case Draft:
		return muster.Errorf(muster.Conflict, "the release is a draft")
	case Revoked:
		return muster.Errorf(muster.Conflict, "the release was revoked")
	}
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return fmt.Errorf("read the manifest of release %s: %w", r.ID, err)
	}
	return t.enough(m, r.Signatures)
}

// Offerable says whether a release may be offered to devices now: it is published, or deprecated, its manifest is
// not out of date, and enough keys that are not revoked signed it. Conflict when not, NotFound
// when there is none. It reads the store, so that a key revoked by another process counts at
// once: ask once for a round of offers.
func (c *Catalog) Offerable(ctx context.Context, release string) error {
	r, err := c.Release(ctx, release)
	if err != nil {
		return err
	}
	t, err := c.Trust(ctx)
	if err != nil {
		return err
	}
	return t.Offerable(&r)
}

// Startable says whether a rollout may begin with a release: it is Offerable and not
// deprecated.
func (c *Catalog) Startable(ctx context.Context, release string) error {
	r, err := c.Release(ctx, release)
	if err != nil {
		return err
	}
	if r.State == Deprecated {
		return muster.Errorf(muster.Conflict, "the release is deprecated")
	}
	t, err := c.Trust(ctx)
	if err != nil {
		return err
	}
	return t.Offerable(&r)
}

// Keys returns all keys, those that were revoked too, by id.
func (c *Catalog) Keys(ctx context.Context) ([]Key, error) {
	_, keys, err := c.store.FirmwareTrust(ctx)
	return keys, err //nolint:wrapcheck // the store says what it was doing
}

// Key returns a key; NotFound when there is none.
func (c *Catalog) Key(ctx context.Context, id string) (Key, error) {
	keys, err := c.Keys(ctx)
	if err != nil {
		return Key{}, err
	}
	if at := keyAt(keys, id); at >= 0 {
		return keys[at], nil
	}
	return Key{}, errNoKey()
}

func keyAt(keys []Key, id string) int {
	return slices.IndexFunc(keys, func(k Key) bool { return k.ID == id })
}

func errNoKey() error { return muster.Errorf(muster.NotFound, "there is no such key") }

// checkText refuses a text that is too long, or empty where it must not be.
func checkText(at, text string, most int, needed bool) error {
	switch {
	case needed && strings.TrimSpace(text) == "":
		return muster.InvalidAt(at, "%s is empty", at)
	case len(text) > most:
		return muster.InvalidAt(at, "%s has %d bytes, at most %d are allowed", at, len(text), most)
	case strings.IndexByte(text, 0) >= 0:
		return muster.InvalidAt(at, "%s has a zero byte", at)
	}
	return nil
}

// AddKey has releases be signed with a public key, given in PEM. Conflict when it is there, and also when it was
// revoked: that is for ever.
func (c *Catalog) AddKey(ctx context.Context, name string, text []byte, by string) (k Key, err error) {
	if err := checkText("name", name, maxName, true); err != nil {
		return Key{}, err
	}
	pub, err := firmware.ParsePublic(text)
	if err != nil {
		return Key{}, muster.At(err, "pem")
	}
	canonical, err := firmware.PublicPEM(pub)
	if err != nil {
		return Key{}, fmt.Errorf("write a key: %w", err)
	}
	k = Key{ID: firmware.KeyID(pub), Name: name, PEM: string(canonical), CreatedBy: by, Created: c.at(), Revision: 1}
	err = c.store.DecideFirmware(ctx, About{}, func(v View) (Decision, error) {
		at := keyAt(v.Keys, k.ID)
		switch {
		case at >= 0 && v.Keys[at].Revoked != 0:
			return Decision{}, muster.Errorf(muster.Conflict, "the key was revoked, and stays so")
		case at >= 0:
			return Decision{}, muster.Errorf(muster.Conflict, "the key is there already")
		case len(v.Keys) >= MaxKeys:
			return Decision{}, muster.Errorf(muster.Conflict, "there have been %d keys, which is the most", MaxKeys)
		}
		audit.Note(ctx, "firmware_key.create", KeyPath(k.ID), nil, ViewOfKey(&k))
		return Decision{Key: &k}, nil
	})
	if err != nil {
		return Key{}, err //nolint:wrapcheck // it says what is wrong
	}
	return k, nil
}

// RevokeKey has a key's signatures count no more, for ever. A release that has too few without
// them is not Offerable any more. Conflict when it was revoked before.
func (c *Catalog) RevokeKey(ctx context.Context, id, reason, by string) (k Key, err error) {
	if err := checkText("reason", reason, MaxReason, true); err != nil {
		return Key{}, err
	}
	err = c.store.DecideFirmware(ctx, About{}, func(v View) (Decision, error) {
		at := keyAt(v.Keys, id)
		if at < 0 {
			return Decision{}, errNoKey()
		}
		before := v.Keys[at]
		if err := precondition.Check(ctx, before); err != nil {
			return Decision{}, err //nolint:wrapcheck // the request's own condition
		}
		if before.Revoked != 0 {
			return Decision{}, muster.Errorf(muster.Conflict, "the key was revoked before")
		}
		k = before
		k.Revoked, k.RevokedBy, k.Reason, k.Revision = c.at(), by, reason, k.Revision+1
		audit.Note(ctx, "firmware_key.revoke", KeyPath(id), ViewOfKey(&before), ViewOfKey(&k))
		return Decision{Key: &k}, nil
	})
	if err != nil {
		return Key{}, err //nolint:wrapcheck // it says what is wrong
	}
	return k, nil
}

// SetThreshold has n keys have to sign, at least as many as the server's configuration wants.
func (c *Catalog) SetThreshold(ctx context.Context, n int) (p Policy, err error) {
	if n < c.least || n > firmware.MaxSignatures {
		return Policy{}, muster.InvalidAt("threshold", "threshold is not between %d, which this server is configured with, and %d", c.least, firmware.MaxSignatures)
	}
	err = c.store.DecideFirmware(ctx, About{}, func(v View) (Decision, error) {
		before := c.trust(v.Policy, nil).Policy
		if err := precondition.Check(ctx, before); err != nil {
			return Decision{}, err //nolint:wrapcheck // the request's own condition
		}
		p = before
		if n == v.Policy.Threshold {
			audit.Nothing(ctx)
			return Decision{}, nil
		}
		p.Threshold, p.Revision = n, before.Revision+1
		audit.Note(ctx, "firmware_policy.update", PolicyPath, ViewOfPolicy(&before), ViewOfPolicy(&p))
		return Decision{Policy: &p}, nil
	})
	if err != nil {
		return Policy{}, err //nolint:wrapcheck // it says what is wrong
	}
	return p, nil
}

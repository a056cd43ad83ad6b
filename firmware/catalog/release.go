package catalog

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"muster"
	"muster/audit"
	"muster/firmware"
	"muster/internal/precondition"
)

const releasePrefix = "rel_"

// Digests returns the SHA-256 of the images that a manifest names, sorted, each once.
func Digests(m *firmware.Manifest) []string {
	out := make([]string, 0, len(m.Files))
	for _, f := range m.Files {
		out = append(out, f.SHA256)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Spec is a release to be made. Manifest is JSON in whatever form; only its canonical one is kept.
type Spec struct {
	Manifest   []byte
	Signatures []firmware.Signature
	Channel    string
	Notes      string
	By         string
}

// Create makes a draft. Its images may come later. Invalid for a manifest that is not one,
// word by word, and for a signature that is not good or of a key that is not known.
func (c *Catalog) Create(ctx context.Context, s Spec) (Release, error) {
	m, err := firmware.ParseManifest(s.Manifest)
	if err != nil {
		return Release{}, muster.At(err, "manifest")
	}
	text, err := m.Bytes()
	if err != nil {
		return Release{}, fmt.Errorf("write the manifest: %w", err)
	}
	if err := checkParts(s.Channel, s.Notes); err != nil {
		return Release{}, err
	}
	r := Release{
		ID: releasePrefix + rand.Text(), Product: m.Product, Version: m.Version, Channel: s.Channel, State: Draft, Manifest: text,
		Notes: s.Notes, CreatedBy: s.By, Created: c.at(), Revision: 1,
	}
	err = c.store.DecideFirmware(ctx, About{}, func(v View) (Decision, error) {
		t := c.trust(v.Policy, v.Keys)
		if err := t.sign(&r, m, s.Signatures); err != nil {
			return Decision{}, err
		}
		noted := r
		noted.Number = v.NextRelease
		audit.Note(ctx, "release.create", ReleasePath(r.ID), nil, ViewOfRelease(&noted))
		return Decision{Release: &r, Files: Digests(m)}, nil
	})
	if err != nil {
		return Release{}, err //nolint:wrapcheck // it says what is wrong
	}
	return r, nil
}

func checkParts(channel, notes string) error {
	if channel != "" {
		if err := firmware.CheckName("channel", channel); err != nil {
			return err
		}
	}
	return checkText("notes", notes, MaxNotes, false)
}

// sign puts signatures beside those that r has, in the place of those of the same keys.
func (t *Trust) sign(r *Release, m *firmware.Manifest, sigs []firmware.Signature) error {
	keys, err := t.trusted()
	if err != nil {
		return err
	}
	signed := firmware.Signed{Signatures: slices.Clone(r.Signatures)}
	for i, s := range sigs {
		at := slices.IndexFunc(keys, func(k firmware.TrustedKey) bool { return k.ID == s.Key })
		switch field := fmt.Sprintf("signatures/%d", i); {
		case at < 0:
			return muster.InvalidAt(field, "the signature is of a key that is not known here: add the key first")
		case keys[at].Revoked:
			return muster.InvalidAt(field, "the signature is of a key that was revoked")
		case firmware.Verify(m, []firmware.Signature{s}, keys, 1, m.Created) != nil:
			return muster.InvalidAt(field, "the signature is not one of this manifest")
		}
		signed.Add(s)
	}
	if len(signed.Signatures) > firmware.MaxSignatures {
		return muster.InvalidAt("signatures", "there are %d signatures, at most %d are allowed", len(signed.Signatures), firmware.MaxSignatures)
	}
	r.Signatures = signed.Signatures
	return nil
}

// Release returns a release; NotFound when there is none.
func (c *Catalog) Release(ctx context.Context, id string) (Release, error) {
	if !isID(id) {
		return Release{}, errNoRelease()
	}
	return c.store.FirmwareRelease(ctx, id) //nolint:wrapcheck // the store says what it was doing
}

// isID says whether a text may be the id of a release.
func isID(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) < 0
}

// Releases returns the releases that f chooses, the newest first.
func (c *Catalog) Releases(ctx context.Context, f Filter) ([]Release, error) {
	return c.store.FirmwareReleases(ctx, f) //nolint:wrapcheck // the store says what it was doing
}

// decide changes a release by change, which is given its manifest, and returns it. What
// change leaves as it is is not kept again.
func (c *Catalog) decide(ctx context.Context, id, action string, change func(v *View, r *Release, m *firmware.Manifest) error) (r Release, err error) {
	if !isID(id) {
		return Release{}, errNoRelease()
	}
	err = c.store.DecideFirmware(ctx, About{Release: id}, func(v View) (Decision, error) {
		if v.Release == nil {
			return Decision{}, errNoRelease()
		}
		before := *v.Release
		if err := precondition.Check(ctx, before); err != nil {
			return Decision{}, err //nolint:wrapcheck // the request's own condition
		}
		m, err := firmware.ParseManifest(before.Manifest)
		if err != nil {
			return Decision{}, fmt.Errorf("read the manifest of release %s: %w", id, err)
		}
		r = before
		if err := change(&v, &r, m); err != nil {
			return Decision{}, err
		}
		if same(&before, &r) {
			audit.Nothing(ctx)
			return Decision{}, nil
		}
		r.Revision++
		audit.Note(ctx, action, ReleasePath(id), ViewOfRelease(&before), ViewOfRelease(&r))
		return Decision{Release: &r}, nil
	})
	if err != nil {
		return Release{}, err //nolint:wrapcheck // it says what is wrong
	}
	return r, nil
}

func errNoRelease() error { return muster.Errorf(muster.NotFound, "there is no such release") }

func same(a, b *Release) bool {
	return a.State == b.State && a.Channel == b.Channel && a.Notes == b.Notes && a.Reason == b.Reason &&
		slices.EqualFunc(a.Signatures, b.Signatures, func(x, y firmware.Signature) bool { return x.Key == y.Key && bytes.Equal(x.Sig, y.Sig) })
}

// ReleaseChange says what of a draft is to be otherwise; what is nil stays.
type ReleaseChange struct{ Channel, Notes *string }

// Change changes a draft; Conflict for any other release.
func (c *Catalog) Change(ctx context.Context, id string, ch ReleaseChange) (Release, error) {
	return c.decide(ctx, id, "release.update", func(_ *View, r *Release, _ *firmware.Manifest) error {
		if r.State != Draft {
			return errImmutable(r.State)
		}
		if ch.Channel != nil {
			r.Channel = *ch.Channel
		}
		if ch.Notes != nil {
			r.Notes = *ch.Notes
		}
		return checkParts(r.Channel, r.Notes)
	})
}

func errImmutable(s State) error {
	return muster.Errorf(muster.Conflict, "the release is %s: only a draft may be changed", s)
}

// Sign adds signatures to a release. That of a published one changes nothing of it but who signed it: so it
// can be offered again after a key was revoked. Conflict for a revoked release.
func (c *Catalog) Sign(ctx context.Context, id string, sigs []firmware.Signature) (Release, error) {
	return c.decide(ctx, id, "release.sign", func(v *View, r *Release, m *firmware.Manifest) error {
		if r.State == Revoked {
			return errImmutable(r.State)
		}
		t := c.trust(v.Policy, v.Keys)
		return t.sign(r, m, sigs)
	})
}

// Publish makes a draft a release that stays as it is. Conflict, with why, when it is no
// draft, when too few keys signed it, when an image is missing or is by its bytes not what the
// manifest says, and when the version is published already for some of the same hardware.
func (c *Catalog) Publish(ctx context.Context, id, by string) (Release, error) {
	if err := c.look(ctx, id); err != nil {
		return Release{}, err
	}
	return c.decide(ctx, id, "release.publish", func(v *View, r *Release, m *firmware.Manifest) error {
		if r.State != Draft {
			return muster.Errorf(muster.Conflict, "the release is %s already", r.State)
		}
		t := c.trust(v.Policy, v.Keys)
		if err := t.enough(m, r.Signatures); err != nil {
			return err
		}
		if err := c.checkFiles(m, v.Files); err != nil {
			return err
		}
		if err := unique(m, v.Others); err != nil {
			return err
		}
		r.State, r.Published, r.PublishedBy = Published, c.at(), by
		return nil
	})
}

// look has the images of a release looked at, before a transaction asks for them: a look takes as long as reading does.
func (c *Catalog) look(ctx context.Context, id string) error {
	r, err := c.Release(ctx, id)
	if err != nil {
		return err
	}
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return fmt.Errorf("read the manifest of release %s: %w", id, err)
	}
	for _, digest := range Digests(m) {
		c.here(digest) // what is wrong the transaction says
	}
	return nil
}

// Deprecate has no rollout begin with a release any more.
func (c *Catalog) Deprecate(ctx context.Context, id, by string) (Release, error) {
	return c.decide(ctx, id, "release.deprecate", func(_ *View, r *Release, _ *firmware.Manifest) error {
		if r.State != Published {
			return muster.Errorf(muster.Conflict, "the release is %s, and only a published one is deprecated", r.State)
		}
		r.State, r.Ended, r.EndedBy = Deprecated, c.at(), by
		return nil
	})
}

// Revoke has a release offered to nobody any more, for ever.
func (c *Catalog) Revoke(ctx context.Context, id, reason, by string) (Release, error) {
	if err := checkText("reason", reason, MaxReason, true); err != nil {
		return Release{}, err
	}
	return c.decide(ctx, id, "release.revoke", func(_ *View, r *Release, _ *firmware.Manifest) error {
		if r.State != Published && r.State != Deprecated {
			return muster.Errorf(muster.Conflict, "the release is %s, and only a published one is revoked", r.State)
		}
		r.State, r.Reason, r.Ended, r.EndedBy = Revoked, reason, c.at(), by
		return nil
	})
}

// Delete deletes a draft that no rollout has; Conflict for any other release.
func (c *Catalog) Delete(ctx context.Context, id string) error {
	if !isID(id) {
		return errNoRelease()
	}
	return c.store.DecideFirmware(ctx, About{Release: id}, func(v View) (Decision, error) { //nolint:wrapcheck // it says what is wrong
		if v.Release == nil {
			return Decision{}, errNoRelease()
		}
		if err := precondition.Check(ctx, *v.Release); err != nil {
			return Decision{}, err //nolint:wrapcheck // the request's own condition
		}
		switch {
		case v.Rolled:
			return Decision{}, muster.Errorf(muster.Conflict, "a rollout has the release")
		case v.Release.State != Draft:
			return Decision{}, muster.Errorf(muster.Conflict, "the release is %s: only a draft may be deleted", v.Release.State)
		}
		audit.Note(ctx, "release.delete", ReleasePath(id), ViewOfRelease(v.Release), nil)
		return Decision{Drop: true}, nil
	})
}

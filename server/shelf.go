package server

import (
	"context"
	"fmt"

	"muster/firmware"
	"muster/firmware/catalog"
	"muster/firmware/desk"
	"muster/firmware/operator"
	"muster/firmware/target"
)

// shelf is the catalogue as the desk and the fleet know it.
type shelf struct{ *catalog.Catalog }

// Known implements target.Catalogue.
func (s shelf) Known(ctx context.Context, id string) (target.Release, error) {
	r, err := s.Catalog.Release(ctx, id)
	if err != nil {
		return target.Release{}, err //nolint:wrapcheck // it says what it was doing
	}
	trust, err := s.Trust(ctx)
	if err != nil {
		return target.Release{}, err //nolint:wrapcheck // likewise
	}
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return target.Release{}, fmt.Errorf("read the manifest of release %s: %w", id, err)
	}
	return target.Release{Manifest: m, Signed: trust.Offerable(&r) == nil, Withdrawn: r.State == catalog.Revoked, Outdated: r.State == catalog.Deprecated}, nil
}

// Release implements desk.Releases.
func (s shelf) Release(ctx context.Context, id string) (desk.Release, error) {
	r, err := s.Catalog.Release(ctx, id)
	if err != nil {
		return desk.Release{}, err //nolint:wrapcheck // it says what it was doing
	}
	trust, err := s.Trust(ctx)
	if err != nil {
		return desk.Release{}, err //nolint:wrapcheck // likewise
	}
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return desk.Release{}, fmt.Errorf("read the manifest of release %s: %w", id, err)
	}
	out := desk.Release{ID: id, Withdrawn: trust.Offerable(&r) != nil, Manifest: m, Signed: firmware.Signed{Manifest: r.Manifest, Signatures: r.Signatures}}
	for i := range m.Files {
		a, err := s.Artifact(ctx, m.Files[i].SHA256)
		if err != nil {
			return desk.Release{}, fmt.Errorf("look up an image of release %s: %w", id, err)
		}
		out.Files = append(out.Files, desk.File{Filename: m.Files[i].Filename, Size: a.Size, SHA256: a.SHA256, SHA1: a.SHA1, MD5: a.MD5})
	}
	return out, nil
}

// sizeOf returns how many bytes the images of a release have together. Conflict when it may not be offered now.
func (s shelf) sizeOf(ctx context.Context, id string) (size int64, err error) {
	r, err := s.Catalog.Release(ctx, id)
	if err != nil {
		return 0, err //nolint:wrapcheck // it says what it was doing
	}
	trust, err := s.Trust(ctx)
	if err != nil {
		return 0, err //nolint:wrapcheck // likewise
	}
	if err := trust.Offerable(&r); err != nil {
		return 0, err //nolint:wrapcheck // likewise
	}
	m, err := manifestOf(&r)
	if err != nil {
		return 0, err
	}
	for i := range m.Files {
		size += m.Files[i].Size
	}
	return size, nil
}

// stock is the catalogue as those who begin rollouts know it.
type stock struct{ *catalog.Catalog }

// Known implements operator.Releases.
func (s stock) Known(ctx context.Context, id string) (operator.Release, error) {
	r, err := s.Release(ctx, id)
	if err != nil {
		return operator.Release{}, err //nolint:wrapcheck // it says what it was doing
	}
	m, err := firmware.ParseManifest(r.Manifest)
	if err != nil {
		return operator.Release{}, fmt.Errorf("read the manifest of release %s: %w", id, err)
	}
	return operator.Release{Product: m.Product, Security: int64(m.Security)}, nil
}

// The seams that are filled here.
var (
	_ operator.Releases = stock{}
	_ target.Catalogue  = shelf{}
	_ desk.Releases     = shelf{}
)

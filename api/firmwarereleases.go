package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/firmware"
	"muster/firmware/catalog"
)

// FirmwareReleases keeps releases of firmware.
type FirmwareReleases interface {
	ReleaseReader
	ReleaseWriter
	ReleasePublisher
}

// ReleaseReader finds releases.
type ReleaseReader interface {
	Release(ctx context.Context, id string) (catalog.Release, error)
	Releases(ctx context.Context, f catalog.Filter) ([]catalog.Release, error)
}

// ReleaseWriter makes, changes and deletes drafts.
type ReleaseWriter interface {
	Create(ctx context.Context, s catalog.Spec) (catalog.Release, error)
	Change(ctx context.Context, id string, c catalog.ReleaseChange) (catalog.Release, error)
	Delete(ctx context.Context, id string) error
}

// ReleasePublisher moves releases from state to state, and adds signatures.
type ReleasePublisher interface {
	Sign(ctx context.Context, id string, sigs []firmware.Signature) (catalog.Release, error)
	Publish(ctx context.Context, id, by string) (catalog.Release, error)
	Deprecate(ctx context.Context, id, by string) (catalog.Release, error)
	Revoke(ctx context.Context, id, reason, by string) (catalog.Release, error)
}

// releaseBytes bounds the body of a release: a manifest, signatures and notes.
const releaseBytes = 256 << 10

const releasesPath = "/firmware/releases"

type firmwareSignature struct {
	Key string `json:"key" maxLength:"64" doc:"The key's id" example:"a53013b1ad3cd1f73ef79a5a4e0ea3b1"`
	Sig []byte `json:"sig" maxLength:"128" doc:"Ed25519 over the text muster-firmware-manifest-v1, a line feed and the manifest in the form of RFC 8785"`
}

// firmwareRelease is a release as it is shown.
type firmwareRelease struct {
	ID          string              `json:"id" example:"rel_J7WQ2VZKPN4XA3MBTCYHD5RE6U"`
	Product     string              `json:"product" example:"pump-controller"`
	Version     string              `json:"version" example:"2.0.0"`
	Channel     string              `json:"channel" doc:"Empty for none" example:"stable"`
	State       string              `json:"state" enum:"draft,published,deprecated,revoked"`
	Notes       string              `json:"notes"`
	Reason      string              `json:"reason,omitempty" doc:"Why it was revoked"`
	Manifest    json.RawMessage     `json:"manifest" doc:"What the release is, an object: docs/firmware.md"`
	Signatures  []firmwareSignature `json:"signatures" nullable:"false"`
	Offerable   bool                `json:"offerable" doc:"Whether it may be offered to devices now"`
	Problem     string              `json:"problem,omitempty" doc:"Why it may not be offered"`
	Revision    int64               `json:"revision"`
	CreatedBy   string              `json:"created_by" doc:"Id of the user or key"`
	CreatedAt   string              `json:"created_at" format:"date-time"`
	PublishedBy string              `json:"published_by,omitempty"`
	PublishedAt *string             `json:"published_at" format:"date-time"`
	EndedBy     string              `json:"ended_by,omitempty" doc:"Who deprecated or revoked it last"`
	EndedAt     *string             `json:"ended_at" format:"date-time"`
}

type newRelease struct {
	Manifest   json.RawMessage     `json:"manifest" doc:"What the release is, an object as muster firmware manifest makes it"`
	Signatures []firmwareSignature `json:"signatures,omitempty" maxItems:"16" nullable:"false"`
	Channel    string              `json:"channel,omitempty" maxLength:"64" example:"stable"`
	Notes      string              `json:"notes,omitempty" maxLength:"16384" doc:"For people"`
}

type changedRelease struct {
	Channel *string `json:"channel,omitempty" maxLength:"64" nullable:"false" doc:"Empty for none"`
	Notes   *string `json:"notes,omitempty" maxLength:"16384" nullable:"false"`
}

// ReleasePath is the part of an input that names a release. It is exported because huma looks
// into exported embedded fields only.
type ReleasePath struct {
	Release string `path:"release" maxLength:"64" doc:"The release's id"`
}

// ReleaseStep is the input of what changes a release. It is exported because huma looks into
// exported embedded fields only.
type ReleaseStep struct {
	ReleasePath
	Conditions
}

func releaseTag(r catalog.Release) string { return strconv.FormatInt(r.Revision, 10) }

func firmwareReleaseOf(r *catalog.Release, t *catalog.Trust) (firmwareRelease, error) {
	out := firmwareRelease{
		ID: r.ID, Product: r.Product, Version: r.Version, Channel: r.Channel, State: string(r.State), Notes: r.Notes, Reason: r.Reason,
		Manifest: json.RawMessage(r.Manifest), Signatures: make([]firmwareSignature, len(r.Signatures)), Revision: r.Revision, CreatedBy: r.CreatedBy,
		CreatedAt: stamp(r.Created), PublishedBy: r.PublishedBy, PublishedAt: stampOrNull(r.Published), EndedBy: r.EndedBy, EndedAt: stampOrNull(r.Ended),
	}
	for i, s := range r.Signatures {
		out.Signatures[i] = firmwareSignature(s)
	}
	err := t.Offerable(r)
	switch {
	case err == nil:
		out.Offerable = true
	case muster.KindOf(err) == muster.Conflict:
		out.Problem = muster.Public(err)
	default:
		return out, err
	}
	return out, nil
}

func signaturesOf(list []firmwareSignature) []firmware.Signature {
	out := make([]firmware.Signature, len(list))
	for i, s := range list {
		out[i] = firmware.Signature(s)
	}
	return out
}

// releaseAnswer shows one, as a document.
func (a *API) releaseAnswer(ctx context.Context, r catalog.Release, err error) (*body[firmwareRelease], error) {
	if err != nil {
		return nil, err
	}
	t, err := a.Firmware.Trust(ctx)
	if err != nil {
		return nil, err
	}
	shown, err := firmwareReleaseOf(&r, &t)
	if err != nil {
		return nil, err
	}
	documented(ctx, releaseTag(r))
	return &body[firmwareRelease]{shown}, nil
}

func (a *API) firmwareReleaseRoutes(tags []string) {
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-releases", Method: http.MethodGet, Path: releasesPath, Tags: tags, Summary: "List releases of firmware, the newest first",
	}, a.listReleases)
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "create-release", Method: http.MethodPost, Path: releasesPath, DefaultStatus: http.StatusCreated, Tags: tags, MaxBodyBytes: releaseBytes,
		Summary: "Make a draft of a release", Description: "Of the manifest its canonical form is kept, for ever the same: what that would leave out is refused. The images that it " +
			"names may be uploaded later. Signatures are of keys that are known here.",
	}, a.createRelease)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-release", Method: http.MethodGet, Path: releasesPath + "/{release}", Tags: tags, Summary: "Get a release", Errors: []int{404},
	}, func(ctx context.Context, in *ReleasePath) (*body[firmwareRelease], error) {
		r, err := a.Firmware.Release(ctx, in.Release)
		return a.releaseAnswer(ctx, r, err)
	})
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "change-release", Method: http.MethodPatch, Path: releasesPath + "/{release}", Tags: tags, Summary: "Change a draft",
		Description: "What is absent stays. A release that was published stays as it is: 409.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ReleaseStep
		Body changedRelease
	},
	) (*body[firmwareRelease], error) {
		ctx, err := bound(ctx, in.Conditions, releaseTag)
		if err != nil {
			return nil, err
		}
		r, err := a.Firmware.Change(ctx, in.Release, catalog.ReleaseChange{Channel: in.Body.Channel, Notes: in.Body.Notes})
		return a.releaseAnswer(ctx, r, err)
	})
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "delete-release", Method: http.MethodDelete, Path: releasesPath + "/{release}", Tags: tags, Summary: "Delete a draft",
		Description: "A release that was published, or that a rollout has, stays: 409.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *ReleaseStep) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, releaseTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Firmware.Delete(ctx, in.Release)
	})
	a.releaseStepRoutes(tags)
}

func (a *API) listReleases(ctx context.Context, in *struct {
	Newest
	Product string `query:"product" maxLength:"64" doc:"Only those of this product"`
	State   string `query:"state" enum:"draft,published,deprecated,revoked" doc:"Only those in this state"`
},
) (*body[page[firmwareRelease]], error) {
	before, err := in.before()
	if err != nil {
		return nil, err
	}
	if in.Product != "" {
		if err := firmware.CheckName("product", in.Product); err != nil {
			return nil, err
		}
	}
	found, err := a.Firmware.Releases(ctx, catalog.Filter{Product: in.Product, State: catalog.State(in.State), Before: before, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	t, err := a.Firmware.Trust(ctx)
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(r *catalog.Release) string { return strconv.FormatInt(r.Number, 10) })
	items := make([]firmwareRelease, len(found))
	for i := range found {
		if items[i], err = firmwareReleaseOf(&found[i], &t); err != nil {
			return nil, err
		}
	}
	return list(items, next), nil
}

// madeRelease is the answer to who makes a release.
type madeRelease struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     firmwareRelease
}

func (a *API) createRelease(ctx context.Context, in *body[newRelease]) (*madeRelease, error) {
	b := &in.Body
	r, err := a.Firmware.Create(ctx, catalog.Spec{
		Manifest: b.Manifest, Signatures: signaturesOf(b.Signatures), Channel: b.Channel, Notes: b.Notes, By: ownerOf(requestOf(ctx)).ID,
	})
	shown, err := a.releaseAnswer(ctx, r, err)
	if err != nil {
		return nil, err
	}
	return &madeRelease{prefix + releasesPath + "/" + r.ID, versionTag(r.Revision), shown.Body}, nil
}

// releaseStepRoutes are the verbs of one release.
func (a *API) releaseStepRoutes(tags []string) {
	path := releasesPath + "/{release}"
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "sign-release", Method: http.MethodPost, Path: path + "/signatures", DefaultStatus: http.StatusOK, Tags: tags, Summary: "Add signatures to a release",
		Description: "Each is of a key that is known here and not revoked. One of the same key as before takes its place. A published release takes them " +
			"too, so that it may be offered again after a key was revoked.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ReleaseStep
		Body struct {
			Signatures []firmwareSignature `json:"signatures" minItems:"1" maxItems:"16" nullable:"false"`
		}
	},
	) (*body[firmwareRelease], error) {
		ctx, err := bound(ctx, in.Conditions, releaseTag)
		if err != nil {
			return nil, err
		}
		r, err := a.Firmware.Sign(ctx, in.Release, signaturesOf(in.Body.Signatures))
		return a.releaseAnswer(ctx, r, err)
	})
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "publish-release", Method: http.MethodPost, Path: path + "/publish", DefaultStatus: http.StatusOK, Tags: tags, Summary: "Publish a draft",
		Description: "It stays as it is from then on. 409 says what is missing: enough good signatures, an image, one that is by its bytes what the manifest says, or a version that is " +
			"not published yet for some of the same hardware.", Errors: []int{404, 409},
	}, a.releaseStep(func(ctx context.Context, in *ReleaseStep, by string) (catalog.Release, error) {
		return a.Firmware.Publish(ctx, in.Release, by)
	}))
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "deprecate-release", Method: http.MethodPost, Path: path + "/deprecate", DefaultStatus: http.StatusOK, Tags: tags,
		Summary: "Have no rollout begin with a release any more", Description: "Rollouts that are under way go on.", Errors: []int{404, 409},
	}, a.releaseStep(func(ctx context.Context, in *ReleaseStep, by string) (catalog.Release, error) {
		return a.Firmware.Deprecate(ctx, in.Release, by)
	}))
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "revoke-release", Method: http.MethodPost, Path: path + "/revoke", DefaultStatus: http.StatusOK, Tags: tags,
		Summary: "Have a release offered to nobody any more, for ever", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ReleaseStep
		Body firmwareReason
	},
	) (*body[firmwareRelease], error) {
		ctx, err := bound(ctx, in.Conditions, releaseTag)
		if err != nil {
			return nil, err
		}
		r, err := a.Firmware.Revoke(ctx, in.Release, in.Body.Reason, ownerOf(requestOf(ctx)).ID)
		return a.releaseAnswer(ctx, r, err)
	})
}

type firmwareReason struct {
	Reason string `json:"reason" minLength:"1" maxLength:"500" doc:"Why, for people" example:"it does not start on revision 1.2"`
}

// releaseStep is the handler of a step without a body.
func (a *API) releaseStep(do func(ctx context.Context, in *ReleaseStep, by string) (catalog.Release, error)) func(context.Context, *ReleaseStep) (*body[firmwareRelease], error) {
	return func(ctx context.Context, in *ReleaseStep) (*body[firmwareRelease], error) {
		ctx, err := bound(ctx, in.Conditions, releaseTag)
		if err != nil {
			return nil, err
		}
		r, err := do(ctx, in, ownerOf(requestOf(ctx)).ID)
		return a.releaseAnswer(ctx, r, err)
	}
}

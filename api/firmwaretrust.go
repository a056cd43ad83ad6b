package api

import (
	"context"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
	"muster/firmware/catalog"
)

// FirmwareTrust keeps the keys that releases are signed with, and how many must have signed.
type FirmwareTrust interface {
	Trust(ctx context.Context) (catalog.Trust, error)
	KeyBook
	SetThreshold(ctx context.Context, n int) (catalog.Policy, error)
}

// KeyBook keeps the public keys of releases.
type KeyBook interface {
	Key(ctx context.Context, id string) (catalog.Key, error)
	AddKey(ctx context.Context, name string, pem []byte, by string) (catalog.Key, error)
	RevokeKey(ctx context.Context, id, reason, by string) (catalog.Key, error)
}

// firmwareKey is a key as it is shown.
type firmwareKey struct {
	ID        string  `json:"id" example:"a53013b1ad3cd1f73ef79a5a4e0ea3b1"`
	Name      string  `json:"name" example:"build server"`
	PEM       string  `json:"pem" doc:"The public key"`
	CreatedBy string  `json:"created_by" doc:"Id of the user or key"`
	CreatedAt string  `json:"created_at" format:"date-time"`
	RevokedBy string  `json:"revoked_by,omitempty"`
	RevokedAt *string `json:"revoked_at" format:"date-time" doc:"null while its signatures count"`
	Reason    string  `json:"reason,omitempty" doc:"Why it was revoked"`
}

func firmwareKeyOf(k *catalog.Key) firmwareKey {
	return firmwareKey{k.ID, k.Name, k.PEM, k.CreatedBy, stamp(k.Created), k.RevokedBy, stampOrNull(k.Revoked), k.Reason}
}

func firmwareKeyTag(k catalog.Key) string { return strconv.FormatInt(k.Revision, 10) }

type newFirmwareKey struct {
	Name string `json:"name" minLength:"1" maxLength:"100" doc:"For people"`
	PEM  string `json:"pem" minLength:"1" maxLength:"4096" doc:"A public key of Ed25519 as muster firmware keygen writes it"`
}

// firmwarePolicy is what a release must have, as it is shown.
type firmwarePolicy struct {
	Threshold int  `json:"threshold" doc:"How many keys that are not revoked must have signed a release"`
	Least     int  `json:"least" doc:"Below which it cannot be set: the server's configuration"`
	Unsigned  bool `json:"unsigned" doc:"Releases need no signature: the server was started with --insecure-unsigned"`
	Keys      int  `json:"keys" doc:"How many keys count"`
}

func firmwarePolicyOf(p catalog.Policy, keys []catalog.Key) firmwarePolicy {
	out := firmwarePolicy{Threshold: p.Threshold, Least: p.Least, Unsigned: p.Unsigned}
	for i := range keys {
		if keys[i].Revoked == 0 {
			out.Keys++
		}
	}
	return out
}

func firmwarePolicyTag(p catalog.Policy) string { return strconv.FormatInt(p.Revision, 10) }

// SigningKeyPath is the part of an input that names a key of firmware. It is exported because
// huma looks into exported embedded fields only.
type SigningKeyPath struct {
	Key string `path:"signing_key" maxLength:"64" doc:"The key's id"`
}

const signingKeysPath = "/firmware/keys"

func (a *API) firmwareTrustRoutes(tags []string) {
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-signing-keys", Method: http.MethodGet, Path: signingKeysPath, Tags: tags,
		Summary: "List the public keys that releases are signed with, by id", Description: "All of them, at most 64; those that were revoked too.",
	}, func(ctx context.Context, _ *struct{}) (*body[page[firmwareKey]], error) {
		t, err := a.Firmware.Trust(ctx)
		if err != nil {
			return nil, err
		}
		items := make([]firmwareKey, len(t.Keys))
		for i := range t.Keys {
			items[i] = firmwareKeyOf(&t.Keys[i])
		}
		return list(items, ""), nil
	})
	a.addSigningKeyRoute(tags)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-signing-key", Method: http.MethodGet, Path: signingKeysPath + "/{signing_key}", Tags: tags, Summary: "Get a public key", Errors: []int{404},
	}, func(ctx context.Context, in *SigningKeyPath) (*body[firmwareKey], error) {
		k, err := a.Firmware.Key(ctx, in.Key)
		return signingKeyAnswer(ctx, k, err)
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "revoke-signing-key", Method: http.MethodPost, Path: signingKeysPath + "/{signing_key}/revoke", DefaultStatus: http.StatusOK, Tags: tags,
		Summary:     "Have a key's signatures count no more, for ever",
		Description: "A release that has too few without them is offered to nobody any more, until other keys sign it.", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		SigningKeyPath
		Conditions
		Body firmwareReason
	},
	) (*body[firmwareKey], error) {
		ctx, err := bound(ctx, in.Conditions, firmwareKeyTag)
		if err != nil {
			return nil, err
		}
		k, err := a.Firmware.RevokeKey(ctx, in.Key, in.Body.Reason, ownerOf(requestOf(ctx)).ID)
		return signingKeyAnswer(ctx, k, err)
	})
	a.firmwarePolicyRoutes(tags)
}

func signingKeyAnswer(ctx context.Context, k catalog.Key, err error) (*body[firmwareKey], error) {
	if err != nil {
		return nil, err
	}
	documented(ctx, firmwareKeyTag(k))
	return &body[firmwareKey]{firmwareKeyOf(&k)}, nil
}

// madeSigningKey is the answer to who adds a key.
type madeSigningKey struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     firmwareKey
}

func (a *API) addSigningKeyRoute(tags []string) {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "add-signing-key", Method: http.MethodPost, Path: signingKeysPath, DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Add a public key that releases are signed with", Description: "The secret one stays where releases are made.", Errors: []int{409},
	}, func(ctx context.Context, in *body[newFirmwareKey]) (*madeSigningKey, error) {
		k, err := a.Firmware.AddKey(ctx, in.Body.Name, []byte(in.Body.PEM), ownerOf(requestOf(ctx)).ID)
		if err != nil {
			return nil, err
		}
		return &madeSigningKey{prefix + signingKeysPath + "/" + k.ID, versionTag(k.Revision), firmwareKeyOf(&k)}, nil
	})
}

func (a *API) firmwarePolicyRoutes(tags []string) {
	const path = "/firmware/policy"
	answer := func(ctx context.Context, p catalog.Policy, keys []catalog.Key) *body[firmwarePolicy] {
		documented(ctx, firmwarePolicyTag(p))
		return &body[firmwarePolicy]{firmwarePolicyOf(p, keys)}
	}
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-firmware-policy", Method: http.MethodGet, Path: path, Tags: tags, Summary: "Get what a release must have to be offered",
	}, func(ctx context.Context, _ *struct{}) (*body[firmwarePolicy], error) {
		t, err := a.Firmware.Trust(ctx)
		if err != nil {
			return nil, err
		}
		return answer(ctx, t.Policy, t.Keys), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "put-firmware-policy", Method: http.MethodPut, Path: path, Tags: tags, Summary: "Say how many keys must have signed a release",
		Description: "It counts at once, for releases that are published too.",
	}, func(ctx context.Context, in *struct {
		Conditions
		Body struct {
			Threshold int `json:"threshold" minimum:"1" maximum:"16"`
		}
	},
	) (*body[firmwarePolicy], error) {
		ctx, err := bound(ctx, in.Conditions, firmwarePolicyTag)
		if err != nil {
			return nil, err
		}
		p, err := a.Firmware.SetThreshold(ctx, in.Body.Threshold)
		if err != nil {
			return nil, err
		}
		t, err := a.Firmware.Trust(ctx)
		if err != nil {
			return nil, err
		}
		return answer(ctx, p, t.Keys), nil
	})
}

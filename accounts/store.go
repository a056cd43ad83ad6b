package accounts

import (
	"context"

	"muster"
)

// APIKey lets a program in. The key itself ("mst_...") is shown once; Hash is its
// SHA-256.
type APIKey struct {
	ID      string // "key_..."
	Name    string
	Hash    [32]byte
	Scopes  []string
	Created muster.Micros
	Expires muster.Micros // 0 for never
}

// Session is one signed-in browser. Hash is the SHA-256 of its cookie's value.
type Session struct {
	ID      string // "ses_..."
	Hash    [32]byte
	Role    string // viewer, operator or admin
	Key     string // id of the API key it was made with, and which it ends with; empty for none
	Created muster.Micros
	Expires muster.Micros
}

// Store keeps accounts. Insert methods answer Conflict when the id is taken,
// update and delete methods NotFound.
type Store interface {
	APIKeys(ctx context.Context) ([]APIKey, error)
	InsertAPIKey(ctx context.Context, k APIKey) error
	DeleteAPIKey(ctx context.Context, id string) error
	ServiceAccounts(ctx context.Context) ([]ServiceAccount, error)
	InsertServiceAccount(ctx context.Context, s ServiceAccount) error
	// UpdateServiceAccount replaces the lists and Disabled of the account s.ID.
	UpdateServiceAccount(ctx context.Context, s ServiceAccount) error
	DeleteServiceAccount(ctx context.Context, id string) error
	Sessions(ctx context.Context) ([]Session, error)
	InsertSession(ctx context.Context, s Session) error
	DeleteSession(ctx context.Context, id string) error
	// Setting returns the value kept under name, empty when there is none.
	Setting(ctx context.Context, name string) (string, error)
	SetSetting(ctx context.Context, name, value string) error
}

package accounts

import (
	"context"

	"muster"
)

// APIKey lets a program in. The key itself ("mst_...") is shown once; Hash is its
// SHA-256.
type APIKey struct {
	ID       string // "key_..."
	Name     string
	Hash     [32]byte
	Scopes   []string
	Selector string // device query of the devices it is about; empty for all
	Owner    string // id of the user it ends with, and than whom it may not more; empty for none
	Created  muster.Micros
	Expires  muster.Micros // 0 for never
	LastUsed muster.Micros // to the second, stored every minute; 0 for never
}

// Session is one signed-in browser. Hash is the SHA-256 of its cookie's value.
type Session struct {
	ID      string // "ses_..."
	Hash    [32]byte
	Role    string        // viewer, operator or admin; of a user's session, what it was at the beginning
	Key     string        // id of the API key it was made with, and which it ends with; empty for none
	User    string        // id of the user whose it is, and whose role it has; empty for none
	Agent   string        // what the browser called itself, at most 200 bytes
	Address string        // where it was made from
	Seen    muster.Micros // last used, to the minute
	Created muster.Micros
	Expires muster.Micros
}

// UserRecord is a user as the store keeps him.
type UserRecord struct {
	ID       string // "usr_..."
	Email    string // unique, in lower case
	Name     string
	Role     string
	Password string // PHC string of argon2id; empty for none
	TOTP     string // the sealed secret in base64; empty when there is no second factor
	// TOTPStep is the last time step (of 30 s since 1970) whose code was used: it and
	// those before are refused.
	TOTPStep  int64
	Recovery  []string // SHA-256 in hexadecimal of the recovery codes that are left
	Confirmed bool
	Disabled  bool
	Created   muster.Micros
	LastLogin muster.Micros // 0 for never
	Networks  []SeenNetwork // where he signed in from lately, at most 8
}

// Identity says that a person at an OpenID provider is a user.
type Identity struct {
	Issuer, Subject string // together unique
	User            string
	Created         muster.Micros
}

// Token is the other half of a one-time link. Hash is the SHA-256 of the half in the
// link.
type Token struct {
	Hash    [32]byte
	Kind    string // invite, confirm, reset or email
	User    string
	Email   string // the address it confirms; empty when it is about none
	Created muster.Micros
	Expires muster.Micros
}

// SessionsOf is every session of a user, and every one made with a key that he owns,
// but the one with the id Except.
type SessionsOf struct{ User, Except string }

// TokensOf is the tokens of a user of one kind, or all when Kind is empty.
type TokensOf struct{ User, Kind string }

// Batch is changes that are written together or not at all, in the order of its
// fields.
type Batch struct {
	DropTokens  []TokensOf
	EndSessions []SessionsOf
	Users       []UserRecord // inserted, or replaced by id
	Identities  []Identity   // inserted
	Tokens      []Token      // inserted
	Sessions    []Session    // inserted, or replaced by id
	// DropUsers are deleted with their identities, tokens and sessions, the API keys they
	// own, and the sessions made with those.
	DropUsers []string
}

// Use says when an API key or session was used last. Expires is a session's new end.
type Use struct {
	ID            string
	Seen, Expires muster.Micros
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
	DeleteSession(ctx context.Context, id string) error
	Users(ctx context.Context) ([]UserRecord, error)
	Identities(ctx context.Context) ([]Identity, error)
	Tokens(ctx context.Context) ([]Token, error)
	// WriteAccounts makes all changes of b in one transaction.
	WriteAccounts(ctx context.Context, b Batch) error
	// TouchAPIKeys and TouchSessions keep when things were used; what is gone is left out.
	TouchAPIKeys(ctx context.Context, used []Use) error
	TouchSessions(ctx context.Context, used []Use) error
	// Setting returns the value kept under name, empty when there is none.
	Setting(ctx context.Context, name string) (string, error)
	SetSetting(ctx context.Context, name, value string) error
}

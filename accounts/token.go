package accounts

import (
	"crypto/rand"
	"crypto/sha256"
	"time"

	"muster"
)

// The pages that links lead to, before the token. Showing them must change nothing:
// mail scanners follow links.
const (
	PathInvite  = "/invite/"
	PathConfirm = "/confirm/"
	PathReset   = "/reset/"
)

// The kinds of Token.
const (
	tokenInvite  = "invite"
	tokenConfirm = "confirm"
	tokenReset   = "reset"
	tokenEmail   = "email" // confirms another address, which becomes the user's
)

const (
	inviteTime  = 7 * 24 * time.Hour
	confirmTime = 24 * time.Hour
	resetTime   = time.Hour
)

// addToken puts into b a new token of 130 random bits for the user, in the place of the
// one of its kind before, and returns its text.
func (a *Accounts) addToken(b *Batch, kind, user, email string, life time.Duration) string {
	text := rand.Text()
	now := a.now()
	b.DropTokens = append(b.DropTokens, TokensOf{User: user, Kind: kind})
	b.Tokens = append(b.Tokens, Token{
		Hash: sha256.Sum256([]byte(text)), Kind: kind, User: user, Email: email,
		Created: muster.MicrosOf(now), Expires: muster.MicrosOf(now.Add(life)),
	})
	return text
}

// redeem returns the token of this text, if it is of one of kinds, and whose it is. One
// that is unknown, used, expired or of a disabled user is NotFound.
func (a *Accounts) redeem(text string, kinds ...string) (Token, UserRecord, error) {
	if len(text) > maxSecret {
		return Token{}, UserRecord{}, errLink()
	}
	at := muster.MicrosOf(a.now())
	a.mu.RLock()
	defer a.mu.RUnlock()
	t, ok := a.tokens[sha256.Sum256([]byte(text))]
	r := a.users[t.User]
	for _, kind := range kinds {
		if ok && t.Kind == kind && at < t.Expires && r.ID != "" && !r.Disabled {
			return t, r, nil
		}
	}
	return Token{}, UserRecord{}, errLink()
}

func errLink() error {
	return muster.Errorf(muster.NotFound, "this link is not valid: it was used, has expired or was replaced by a newer one")
}

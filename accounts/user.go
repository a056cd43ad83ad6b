package accounts

import (
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	// MaxUsers is the most users there may be at once.
	MaxUsers = 10_000
	// MaxEmail is the longest e-mail address, in bytes.
	MaxEmail = 160

	maxUserName = 200 // bytes
	userPrefix  = "usr_"
)

// User is a person as admins may see him: without any hash or secret.
type User struct {
	ID           string // "usr_..."
	Email        string // unique, in lower case
	Name         string
	Role         string // viewer, operator or admin
	Confirmed    bool   // the e-mail is known to reach him
	Disabled     bool   // lets him in no way
	HasPassword  bool   // false for who was invited and is not here yet, or comes by a provider only
	SecondFactor bool   // a code is asked for besides the password
	External     bool   // has an identity of an OpenID provider
	Created      muster.Micros
	LastLogin    muster.Micros // 0 for never
}

// NewUser describes a user to be made. Without a password he is invited.
type NewUser struct{ Email, Name, Role, Password string }

// UserChange says what of a user is to be another; nil leaves a part as it is.
type UserChange struct {
	Email, Name, Role *string
	Disabled          *bool
	// If, when set, is asked with the user as he is, while nobody else changes him: its
	// error ends the change. It must not call Accounts.
	If func(User) error
}

// Client is where a request of a browser comes from.
type Client struct {
	Address string // IP, a port is left out
	Agent   string // what the browser calls itself
}

const maxAgent = 200 // bytes

// agent is what is kept of Agent.
func (c Client) agent() string {
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return -1
		}
		return r
	}, c.Agent[:min(len(c.Agent), 4*maxAgent)])
	for i := range s {
		if i > maxAgent-utf8.UTFMax {
			return s[:i]
		}
	}
	return s
}

// canonical is how an e-mail address is compared.
func canonical(email string) string { return strings.ToLower(strings.TrimSpace(email)) }

// CheckEmail returns the address as it is kept, or Invalid: it must be a bare address
// (RFC 5322, addr-spec) of printable ASCII, at most MaxEmail bytes. What looks alike
// in other scripts can so never be taken for it.
func CheckEmail(email string) (string, error) {
	s := canonical(email)
	if s == "" || len(s) > MaxEmail {
		return "", muster.Errorf(muster.Invalid, "an e-mail address has 1 to %d characters", MaxEmail)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return "", muster.Errorf(muster.Invalid, "an e-mail address has printable ASCII characters only, and no space")
		}
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || a.Name != "" {
		return "", muster.Errorf(muster.Invalid, "the e-mail address is not spelled like name@example.com")
	}
	return s, nil
}

// CheckUserName returns Invalid unless name is plain text of at most 200 bytes.
func CheckUserName(name string) error {
	switch {
	case len(name) > maxUserName:
		return muster.InvalidAt("name", "the name has %d bytes, at most %d are allowed", len(name), maxUserName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return muster.InvalidAt("name", "the name is not plain text")
	}
	return nil
}

func checkRole(role string) error {
	if roleScopes(role) == nil {
		return muster.InvalidAt("role", "the role is not viewer, operator or admin")
	}
	return nil
}

// usable says whether the user can come in when he is not disabled.
func (r UserRecord) usable(identities int) bool {
	return !r.Disabled && (r.Password != "" || identities > 0)
}

func (r UserRecord) title() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Email
}

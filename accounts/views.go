package accounts

import (
	"time"

	"muster"
)

// What the audit log says of things: no hash and no secret.

// note is a change that is to be in the audit log.
type note struct {
	action, object string
	before, after  any
}

type userView struct {
	Email        string `json:"email"`
	Name         string `json:"name,omitempty"`
	Role         string `json:"role"`
	Confirmed    bool   `json:"confirmed"`
	Disabled     bool   `json:"disabled"`
	HasPassword  bool   `json:"has_password"`
	SecondFactor bool   `json:"second_factor"`
}

func viewOfUser(r UserRecord) userView {
	return userView{
		Email: r.Email, Name: r.Name, Role: r.Role, Confirmed: r.Confirmed, Disabled: r.Disabled,
		HasPassword: r.Password != "", SecondFactor: r.TOTP != "",
	}
}

type sessionView struct {
	User    string `json:"user,omitempty"`
	APIKey  string `json:"api_key,omitempty"`
	Role    string `json:"role"`
	Address string `json:"address,omitempty"`
	Agent   string `json:"agent,omitempty"`
}

func viewOfSession(s Session) sessionView {
	return sessionView{User: s.User, APIKey: s.Key, Role: s.Role, Address: s.Address, Agent: s.Agent}
}

type keyView struct {
	Name     string   `json:"name"`
	Scopes   []string `json:"scopes"`
	Selector string   `json:"selector,omitempty"`
	Owner    string   `json:"owner,omitempty"`
	Expires  string   `json:"expires_at,omitempty"`
}

func viewOfKey(k APIKey) keyView {
	v := keyView{Name: k.Name, Scopes: k.Scopes, Selector: k.Selector, Owner: k.Owner}
	if k.Expires != 0 {
		v.Expires = stamp(k.Expires)
	}
	return v
}

type serviceView struct {
	Name      string   `json:"name"`
	Publish   []string `json:"publish,omitempty"`
	Subscribe []string `json:"subscribe,omitempty"`
	Disabled  bool     `json:"disabled"`
	Expires   string   `json:"expires_at,omitempty"`
}

func viewOfService(s ServiceAccount) serviceView {
	v := serviceView{Name: s.Name, Publish: s.Publish, Subscribe: s.Subscribe, Disabled: s.Disabled}
	if s.Expires != 0 {
		v.Expires = stamp(s.Expires)
	}
	return v
}

type identityView struct {
	Issuer  string `json:"issuer"`
	Subject string `json:"subject"`
}

func stamp(at muster.Micros) string { return at.Time().UTC().Format(time.RFC3339Nano) }

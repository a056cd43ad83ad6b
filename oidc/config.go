package oidc

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/accounts"
)

// CallbackPath is where the provider sends browsers back to: it is to be registered there
// after the address of the dashboard.
const CallbackPath = "/api/v1/oidc/callback"

// Sealer encrypts what a browser keeps between Start and Finish. bind is authenticated.
type Sealer interface {
	Seal(plain []byte, bind string) ([]byte, error)
	Open(sealed []byte, bind string) ([]byte, error)
}

// Config says who the provider is. Issuer, ClientID, URL, Sealer and Now must be set.
type Config struct {
	Issuer       string // as the provider spells it: https, or http on this machine
	ClientID     string
	ClientSecret string // empty for a public client
	Label        string // what the button says; the issuer's host when empty
	// RoleClaim names the claim with the user's groups: a text or a list, with dots between
	// the steps into objects. When it is set the provider decides about roles: who is in
	// none of RoleMap's groups is a viewer. When it is empty roles are given here.
	RoleClaim string
	RoleMap   map[string]string // from group to viewer, operator or admin; the highest counts
	URL       func() string     // how browsers reach the dashboard, without a slash at the end
	Sealer    Sealer
	Now       func() time.Time
}

// Check returns Invalid for a Config that cannot work.
func (c *Config) Check() error {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return muster.Errorf(muster.Invalid, "the OpenID issuer is not spelled like https://id.example.com")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !local(u.Hostname())) {
		return muster.Errorf(muster.Invalid, "the OpenID issuer is not https: its keys could be anybody's")
	}
	if c.ClientID == "" {
		return muster.Errorf(muster.Invalid, "the OpenID client id is missing")
	}
	if len(c.RoleMap) > 0 && c.RoleClaim == "" {
		return muster.Errorf(muster.Invalid, "groups of the OpenID provider are mapped to roles, and the claim with them is not named")
	}
	for _, role := range c.RoleMap {
		if rank(role) == 0 {
			return muster.Errorf(muster.Invalid, "a group of the OpenID provider is mapped to %.40q, which is no role", role)
		}
	}
	return nil
}

// local says whether host is this machine.
func local(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// rank orders the roles; 0 for what is none.
func rank(role string) int {
	return 1 + slices.Index([]string{accounts.Viewer, accounts.Operator, accounts.Admin}, role)
}

// name is what the button says.
func (c *Config) name() string {
	if c.Label != "" {
		return c.Label
	}
	u, err := url.Parse(c.Issuer)
	if err != nil { // Check has looked
		return c.Issuer
	}
	return u.Hostname()
}

// role is the role that the groups of a user mean.
func (c *Config) role(claims map[string]any) string {
	if c.RoleClaim == "" {
		return ""
	}
	best := accounts.Viewer
	for _, group := range groups(claims, c.RoleClaim) {
		if role := c.RoleMap[group]; rank(role) > rank(best) {
			best = role
		}
	}
	return best
}

// groups reads the claim name, whose own name may have dots in it.
func groups(claims map[string]any, name string) []string {
	v, ok := claims[name]
	if !ok {
		first, rest, dotted := strings.Cut(name, ".")
		inner, isObject := claims[first].(map[string]any)
		if !dotted || !isObject {
			return nil
		}
		return groups(inner, rest)
	}
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var out []string
		for _, g := range v {
			if s, ok := g.(string); ok {
				out = append(out, s)
			}
		}
		return out
	default:
		return nil
	}
}

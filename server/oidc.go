package server

import (
	"muster"
	"muster/accounts"
	"muster/api"
	"muster/oidc"
)

// OIDCConfig says by which OpenID provider people may sign in; by none when Issuer is empty.
type OIDCConfig struct {
	Issuer       string // as the provider spells it
	ClientID     string
	ClientSecret string
	Name         string   // what the button says; the issuer's host when empty
	RoleClaim    string   // the claim with the user's groups; roles are given here when empty
	Admin        []string // the groups of admins
	Operator     []string // and of operators; who is in none is a viewer
	Create       bool     // who is not known here becomes a user
	LinkEmail    bool     // who has a verified e-mail is the user who has it here
}

// config is c for the provider.
func (c *OIDCConfig) config() oidc.Config {
	roles := map[string]string{}
	for _, group := range c.Operator {
		roles[group] = accounts.Operator
	}
	for _, group := range c.Admin {
		roles[group] = accounts.Admin
	}
	return oidc.Config{
		Issuer: c.Issuer, ClientID: c.ClientID, ClientSecret: c.ClientSecret, Label: c.Name, RoleClaim: c.RoleClaim, RoleMap: roles,
	}
}

func (c *OIDCConfig) check() error {
	if c.Issuer == "" {
		if c.ClientID != "" || c.RoleClaim != "" || len(c.Admin) > 0 || len(c.Operator) > 0 || c.Create || c.LinkEmail {
			return muster.Errorf(muster.Invalid, "oidc-issuer is missing beside the other settings of the OpenID provider")
		}
		return nil
	}
	cfg := c.config()
	return cfg.Check()
}

// buildOIDC makes the provider by which people sign in, nil when there is none.
func (s *Server) buildOIDC() (api.Provider, error) {
	if s.cfg.OIDC.Issuer == "" {
		return nil, nil
	}
	cfg := s.cfg.OIDC.config()
	cfg.URL, cfg.Sealer, cfg.Now = s.URL, s.vault, s.cfg.Now
	p, err := oidc.New(cfg)
	if err != nil {
		return nil, err
	}
	s.openID = p
	return p, nil
}

package server

import (
	"context"

	"muster"
	"muster/accounts"
	"muster/devices/query"
)

// buildAccounts makes the accounts, and has what they end cut where it is in use.
func (s *Server) buildAccounts() {
	s.accounts = accounts.New(s.stores.control, s.cfg.Now, s.cfg.Logger, accounts.Config{
		URL: s.URL, Sealer: s.vault,
		CheckSelector: func(selector string) error { _, err := query.Parse(selector); return err },
		CreateUsers:   s.cfg.OIDC.Create, LinkByEmail: s.cfg.OIDC.LinkEmail,
	})
	s.accounts.OnEnded(func(principal string) {
		s.live.Revoke(principal)
		s.web.Revoke(principal)
		s.tasks.Recheck()
	})
	s.accounts.OnRights(s.recheckAccounts)
	s.accounts.OnServiceDeleted(func(name string) { s.broker.Forget("", name) })
}

// ensureAdmins loads the accounts and makes those that the configuration names.
func (s *Server) ensureAdmins(ctx context.Context) (err error) {
	if err := s.accounts.Load(ctx); err != nil {
		return err
	}
	if err := s.once.Load(ctx); err != nil {
		return err //nolint:wrapcheck // it says what was being done
	}
	if s.cfg.AdminKey != "" {
		if err := s.accounts.EnsureAdminKey(ctx, s.cfg.AdminKey); err != nil {
			return err
		}
	}
	if s.cfg.AdminEmail != "" {
		if err := s.accounts.EnsureAdminUser(ctx, s.cfg.AdminEmail, s.cfg.AdminPassword); err != nil {
			return err
		}
	}
	s.setup, err = s.accounts.SetupToken(ctx)
	return err
}

// checkAdmin refuses half an admin user, and one that breaks a rule.
func (c *Config) checkAdmin() error {
	if (c.AdminEmail == "") != (c.AdminPassword == "") {
		return muster.Errorf(muster.Invalid, "admin-email and admin-password must be given together")
	}
	if c.AdminEmail == "" {
		return nil
	}
	email, err := accounts.CheckEmail(c.AdminEmail)
	if err != nil {
		return err
	}
	return accounts.CheckPassword(c.AdminPassword, email, "")
}

package main

import (
	"context"

	"muster"
	"muster/client"
)

// sessionsCmd is muster user sessions.
type sessionsCmd struct {
	List   sessionsList   `cmd:"" help:"List sessions, newest first."`
	Revoke sessionsRevoke `cmd:"" help:"End one session, or all of a user; they work nowhere from then on."`
}

type sessionsList struct {
	remote
	User string `arg:"" optional:"" help:"E-mail or id of the user; everybody's when absent."`
}

// Run lists sessions, page by page.
func (s *sessionsList) Run(ctx context.Context, c *console) error {
	api, err := s.open()
	if err != nil {
		return err
	}
	q := client.ListSessionsParams{Limit: 1000}
	if s.User != "" {
		who := named{s.User}
		u, err := who.find(ctx, &s.remote, api)
		if err != nil {
			return err
		}
		q.User = u.ID
	}
	found, err := pages(maxListed, func(_ int64, cursor string) ([]client.Session, *string, error) {
		q.Cursor = cursor
		page, err := api.ListSessions(ctx, &q)
		if err != nil {
			return nil, nil, err
		}
		return page.Items, page.Next, nil
	})
	if err != nil {
		return s.refused(err)
	}
	return s.print(c, found, func(row func(...any)) {
		row("ID", "USER", "NAME", "ROLE", "ADDRESS", "LAST SEEN", "AGENT")
		for i := range found {
			x := &found[i]
			row(x.ID, x.User, x.Name, x.Role, x.Address, x.LastSeenAt, x.Agent)
		}
	})
}

type sessionsRevoke struct {
	remote
	Session string `arg:"" optional:"" help:"The session's id, ses_..."`
	Of      string `help:"All sessions of this user, in the place of one." placeholder:"USER"`
}

// Run ends sessions.
func (s *sessionsRevoke) Run(ctx context.Context, c *console) error {
	if (s.Session == "") == (s.Of == "") {
		return muster.Errorf(muster.Invalid, "give the id of a session, or --of with a user")
	}
	api, err := s.open()
	if err != nil {
		return err
	}
	if s.Session != "" {
		return s.done(c, api.EndSession(ctx, s.Session, nil), "revoked "+s.Session)
	}
	who := named{s.Of}
	u, err := who.find(ctx, &s.remote, api)
	if err != nil {
		return err
	}
	return s.done(c, api.EndSessions(ctx, &client.EndSessionsParams{User: u.ID}), "revoked the sessions of "+shown(u.Email))
}

package server

import (
	"context"

	"muster"
	"muster/dashboard/live"
)

// things says what here:{kind}/{id} may name, to those who may open its page.
type things struct{ *Server }

// Shows implements live.Things.
func (t things) Shows(ctx context.Context, who live.Principal, kind, id string) (err error) {
	switch kind {
	case "groups":
		_, err = t.registry.Group(id)
	case "topics":
		_, err = t.notify.Topic(who.Who, id)
	case "webhooks":
		if !who.Admin {
			return muster.Errorf(muster.Forbidden, "webhooks are for admins")
		}
		_, err = t.webhooks.Get(id)
	case "rollouts", "firmware":
		if !who.Firmware {
			return muster.Errorf(muster.Forbidden, "this needs the scope firmware:read")
		}
		if kind == "firmware" {
			_, err = t.firmware.Release(ctx, id)
		} else {
			_, err = t.rollouts.operator.Progress(ctx, id)
		}
	default:
		return muster.Errorf(muster.NotFound, "there is no such channel")
	}
	return err //nolint:wrapcheck // it says what is not there
}

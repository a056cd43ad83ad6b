package desk

import (
	"context"

	"muster"
)

// Consents know what people at devices said.
type Consents interface {
	// Consent returns the zero Consent for a device at which nobody said anything.
	Consent(ctx context.Context, device muster.DeviceID) (Consent, error)
}

// Consent is what people at a device want, where the server asks them before it has the device
// install.
type Consent struct {
	Action    int32 // newest that they want; 0 for none
	Auto      bool  // they want all that is offered
	Initiator string
	Remark    string
	Since     muster.Micros // of Auto
}

// Wants says whether people want an action.
func (c *Consent) Wants(action int32) bool { return c.Auto || c.Action == action }

// Waits says whether people at a device are still to want an action: until then no door gives its image. It is
// so whatever the device says that it does.
func (d *Desk) Waits(ctx context.Context, device muster.DeviceID, action int32) (bool, error) {
	if d.consents == nil {
		return false, nil
	}
	c, err := d.consents.Consent(ctx, device)
	return err == nil && !c.Wants(action), err //nolint:wrapcheck // the store says what it was doing
}

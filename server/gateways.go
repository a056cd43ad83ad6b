package server

import (
	"context"
	"time"

	"muster"
	"muster/audit"
	"muster/broker"
	"muster/broker/thingsboard"
	"muster/devices"
	"muster/devices/join"
	"muster/devices/twin"
	"muster/ingest"
)

// maxBrought is the most devices that a gateway may bring; more are made by people.
const maxBrought = 10_000

// children brings the devices behind gateways. It is a broker.Children.
type children struct {
	registry *devices.Registry
	join     *join.Join
	now      func() time.Time
}

// Adopt implements broker.Children. A device that can sign in by itself, or is about to
// register itself, is not taken.
func (c children) Adopt(ctx context.Context, gateway muster.DeviceID, child thingsboard.Child) error {
	ctx = audit.With(ctx, audit.Actor{Kind: audit.Device, ID: string(gateway)}, c.now)
	d, err := c.registry.Get(child.Device)
	switch {
	case err == nil && d.Parent == gateway:
		return nil
	case err == nil && d.Parent != "":
		return muster.Errorf(muster.Forbidden, "the device %s belongs to another gateway", child.Device)
	case err == nil:
		if p, err := c.join.Provisioning(d.Profile); err == nil && p.Strategy == join.Preprovisioned {
			return muster.Errorf(muster.Forbidden, "the device %s waits to register itself and belongs to no gateway", child.Device)
		}
		return c.registry.TakeChild(ctx, child.Device, gateway)
	}
	if have, err := c.registry.Children(gateway); err != nil || len(have) >= maxBrought {
		return muster.Errorf(muster.Forbidden, "a gateway may bring at most %d devices", maxBrought)
	}
	spec := devices.Spec{ID: child.Device, Parent: gateway}
	if child.Name != string(child.Device) {
		spec.Name = child.Name
	}
	if _, err := c.registry.Profile(child.Profile); err == nil {
		spec.Profile = child.Profile
	}
	_, _, err = c.registry.Create(ctx, spec)
	return err
}

// Behind implements broker.Children.
func (c children) Behind(gateway muster.DeviceID) []muster.DeviceID {
	ids, err := c.registry.Children(gateway)
	if err != nil {
		return nil // deleted this moment
	}
	return ids
}

// Present implements broker.Children.
func (c children) Present(gateway, child muster.DeviceID, on bool) {
	if on {
		c.registry.ChildConnected(gateway, child)
		return
	}
	c.registry.ChildDisconnected(gateway, child)
}

// requests answers what ThingsBoard's devices ask the server itself, but for the limits
// of their sessions, which the broker knows.
type requests struct {
	twins *twin.Twins
	join  *join.Join
	in    *ingest.Ingest

	firmware *updates
}

const (
	requestTime  = 10 * time.Second
	claimDefault = 24 * time.Hour // of a device that names no time
)

// accept says whether m is a request, and answers it.
func (r requests) accept(ctx context.Context, m broker.Message) bool {
	if m.Kind != broker.KindRequest || m.Ask == nil {
		return false
	}
	if m.Ask.Kind == thingsboard.AskPart {
		r.firmware.part(ctx, m)
		return true
	}
	reply, err := r.answer(ctx, m.Ask)
	switch {
	case err != nil:
		r.in.Refuse(message(m), muster.KindOf(err).String(), muster.Public(err), len(m.Payload)) //nolint:contextcheck // it waits for nobody
	case reply.Topic != "":
		m.Client.Reply(reply.Topic, reply.Payload) // a client that does not listen any more needs no answer
	}
	return true
}

func (r requests) answer(ctx context.Context, ask *thingsboard.Request) (thingsboard.Reply, error) {
	switch ask.Kind {
	case thingsboard.AskAttributes:
		reported, desired, err := r.twins.Attributes(ask.Device, wanted(ask.Client, ask.AllClient), wanted(ask.Shared, ask.AllShared))
		if err != nil {
			return thingsboard.Reply{}, err
		}
		if desired, err = r.firmware.shared(ctx, ask, desired); err != nil {
			return thingsboard.Reply{}, err
		}
		return ask.Attributes(reported, desired)
	case thingsboard.AskClaim:
		ctx, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		within := ask.Duration
		if within <= 0 {
			within = claimDefault
		}
		return thingsboard.Reply{}, r.join.Offer(ctx, ask.Device, ask.Secret, min(within, join.MaxClaimTime))
	default:
		return thingsboard.Reply{}, muster.Errorf(muster.Invalid, "this request is not answered here")
	}
}

// wanted is which keys Attributes is asked for: nil for all.
func wanted(keys []string, all bool) []string {
	if all {
		return nil
	}
	return append([]string{}, keys...)
}

var _ broker.Children = children{}

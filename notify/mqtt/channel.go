package mqtt

import (
	"context"
	"time"

	"muster"
	"muster/notify/outbox"
)

// Publisher brings a payload to a device.
type Publisher interface {
	// Publish brings what was made at created, 0 for now, and returns whether the device took the payload: it acknowledged the message. A
	// device that is not connected, or not subscribed, takes nothing, which is no error.
	// NotFound when there is no such device, or it is younger than created: what
	// was for another that had its id is not for it. Invalid and TooLarge when it can never be
	// published; other errors may be over later. It ends with ctx.
	Publish(ctx context.Context, device muster.DeviceID, created muster.Micros, payload []byte) (taken bool, err error)
}

// Channel sends deliveries to devices. It is safe for concurrent use.
type Channel struct {
	publisher Publisher
	now       func() time.Time
}

var _ outbox.Channel = (*Channel)(nil)

// New returns the channel "mqtt", which publishes over p. A delivery's Target is the
// device's id, its Body the payload.
func New(p Publisher, now func() time.Time) *Channel { return &Channel{p, now} }

// Name implements outbox.Channel.
func (c *Channel) Name() string { return "mqtt" }

// Deliver implements outbox.Channel. Those of one fold go one after another, as messages of
// their own; when one of them fails all are sent again, and the device knows them by their
// ids. Later when the device is not there.
func (c *Channel) Deliver(ctx context.Context, ds []outbox.Delivery) outbox.Attempt {
	began := c.now()
	a := outbox.Attempt{At: muster.MicrosOf(began), Verdict: outbox.Delivered, Reference: ds[0].Content}
	for i := range ds {
		a.Verdict, a.Error = c.publish(ctx, &ds[i])
		a.Alone = a.Verdict == outbox.Again // the broker is in this process: one device's trouble is no other's
		if a.Verdict != outbox.Delivered {
			break
		}
	}
	a.Duration = max(c.now().Sub(began), time.Nanosecond)
	return a
}

func (c *Channel) publish(ctx context.Context, d *outbox.Delivery) (outbox.Verdict, string) {
	if ctx.Err() != nil {
		return outbox.Again, "there was no time left"
	}
	device, err := muster.ParseDeviceID(d.Target)
	if err != nil {
		return outbox.Dead, "the target is no device: " + muster.Public(err)
	}
	taken, err := c.publisher.Publish(ctx, device, d.Created, d.Body)
	if err != nil {
		return verdict(err), failure(ctx, err)
	}
	if !taken {
		return outbox.Later, "the device is not connected, or not subscribed"
	}
	return outbox.Delivered, ""
}

func verdict(err error) outbox.Verdict {
	switch muster.KindOf(err) {
	case muster.NotFound:
		return outbox.Dropped
	case muster.Invalid, muster.TooLarge, muster.Forbidden:
		return outbox.Dead
	default:
		return outbox.Again
	}
}

func failure(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return "the device did not acknowledge in time"
	}
	return "it could not be published: " + muster.Public(err)
}

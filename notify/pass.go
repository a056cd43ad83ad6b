package notify

import (
	"context"
	"slices"

	"muster"
	"muster/notify/outbox"
)

// Pass says what becomes of deliveries that are about to go out: a subscription counts as it is then,
// of each of a digest for itself. While it is muted news is dropped; in its quiet hours what is not
// severe enough waits for their end. Nothing goes to who lost the topic. It implements outbox.Config's Pass.
func (n *Notify) Pass(ctx context.Context, ds []outbox.Delivery) ([]outbox.Pass, error) {
	out := make([]outbox.Pass, len(ds))
	for i := range ds {
		p, err := n.pass(ctx, &ds[i])
		if err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}

func (n *Notify) pass(ctx context.Context, d *outbox.Delivery) (outbox.Pass, error) {
	if d.Notification == "" || d.Channel != ChannelEmail && d.Channel != ChannelMQTT {
		return outbox.Pass{}, nil
	}
	l, err := DecodeLetter(d.Body)
	if err != nil {
		return outbox.Pass{}, nil //nolint:nilerr // the channel says that it is not understood
	}
	to := subjectOf(d)
	if !n.shown(to, l.Topic) {
		return outbox.Pass{Drop: "who it is for does not see its topic any more"}, nil
	}
	if !l.Subscribed {
		return outbox.Pass{}, nil
	}
	s, err := n.store.Subscription(ctx, l.Topic, to)
	over := l.State == Resolved // the end of what one was told, which he gets however his subscription is by now
	if muster.KindOf(err) == muster.NotFound {
		return dropUnless(over, "who it is for has unsubscribed"), nil
	}
	if err != nil {
		return outbox.Pass{}, err //nolint:wrapcheck // the store says what it was doing
	}
	now := n.now()
	if now < s.Muted {
		return dropUnless(over, "the subscription is muted"), nil
	}
	if !s.names(d.Channel) {
		return dropUnless(over, "the subscription does not name the channel any more"), nil
	}
	return outbox.Pass{Hold: s.quietUntil(d.Channel, l.Severity, now)}, nil
}

func dropUnless(over bool, why string) outbox.Pass {
	if over {
		return outbox.Pass{}
	}
	return outbox.Pass{Drop: why}
}

func (s *Subscription) names(channel string) bool {
	return slices.ContainsFunc(s.Channels, func(v Via) bool { return v.Channel == channel })
}

// quietUntil is the end of the quiet hours of a channel that hold back what is so severe at now, 0 for none.
func (s *Subscription) quietUntil(channel string, severity Severity, now muster.Micros) muster.Micros {
	for i := range s.Channels {
		v := &s.Channels[i]
		if v.Channel != channel || v.Quiet == nil || severity >= v.Quiet.Except {
			continue
		}
		if end := muster.MicrosOf(v.Quiet.after(now.Time())); end > now {
			return end
		}
	}
	return 0
}

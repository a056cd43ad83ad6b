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
	v, named := s.via(d.Channel)
	if !named {
		return dropUnless(over, "the subscription does not name the channel any more"), nil
	}
	severity := Severity(d.Severity) // as it is now: the letter is of when it was told
	if severity < v.Severity && !over {
		return outbox.Pass{Drop: "the subscription asks for what is more severe by now"}, nil
	}
	return outbox.Pass{Hold: v.quietUntil(severity, now)}, nil
}

func dropUnless(over bool, why string) outbox.Pass {
	if over {
		return outbox.Pass{}
	}
	return outbox.Pass{Drop: why}
}

// via returns the channel of a name; ok is false when the subscription does not name it.
func (s *Subscription) via(channel string) (v Via, ok bool) {
	i := slices.IndexFunc(s.Channels, func(v Via) bool { return v.Channel == channel })
	if i < 0 {
		return Via{}, false
	}
	return s.Channels[i], true
}

// quietUntil is the end of the quiet hours that hold back what is so severe at now, 0 for none.
func (v *Via) quietUntil(severity Severity, now muster.Micros) muster.Micros {
	if v.Quiet == nil || severity >= v.Quiet.Except {
		return 0
	}
	if end := muster.MicrosOf(v.Quiet.after(now.Time())); end > now {
		return end
	}
	return 0
}

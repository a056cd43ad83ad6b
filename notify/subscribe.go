package notify

import (
	"context"
	"hash/maphash"
	"slices"
	"time"

	"muster"
	"muster/audit"
	"muster/internal/precondition"
	"muster/notify/outbox"
)

const (
	maxDigest = 24 * time.Hour
	minDigest = time.Second
	maxMute   = 366 * 24 * time.Hour
	dayLength = 24 * 60 // minutes
)

// SubscriptionSpec is a subscription as it is to be.
type SubscriptionSpec struct {
	Channels []Via
	Muted    muster.Micros
}

// Subscribe makes or replaces a subject's subscription to a topic: everybody may his own
// where he sees the topic, its owners that of anybody. Invalid when s breaks a rule, Busy
// when there are too many.
func (n *Notify) Subscribe(ctx context.Context, who Who, ref string, subject Subject, s SubscriptionSpec) (Subscription, error) {
	t, err := n.findForSubject(who, ref, subject)
	if err != nil {
		return Subscription{}, err
	}
	if t.ID == SystemTopic {
		return Subscription{}, muster.Errorf(muster.Invalid, "what Muster itself has to say comes without a subscription")
	}
	now := n.now()
	if err := n.checkSubscription(subject, s, now); err != nil {
		return Subscription{}, err
	}
	out := Subscription{Topic: t.ID, Subject: subject, Channels: s.Channels, Muted: s.Muted, Version: 1, Created: now, Updated: now}
	err = n.subscribing(ctx, t.ID, subject, func(ctx context.Context) error {
		var was, current any
		old, err := n.store.Subscription(ctx, t.ID, subject)
		switch {
		case err == nil:
			current, was = old, subscriptionView{old.Channels, old.Muted}
			out.Created, out.Version = old.Created, old.Version+1
		case muster.KindOf(err) != muster.NotFound:
			return err //nolint:wrapcheck // the store says what it was doing
		}
		if err := precondition.Check(ctx, current); err != nil {
			return err //nolint:wrapcheck // the caller's own
		}
		audit.Note(ctx, "subscription.put", subscriptionObject(t.ID, subject), was, subscriptionView(s))
		return n.store.PutSubscription(ctx, out, releases(&out, now)...) //nolint:wrapcheck // likewise
	})
	if err != nil {
		return Subscription{}, err
	}
	return out, nil
}

// releases says when what waits for the hours of a subscription goes out at the latest, as they are from now on.
func releases(s *Subscription, now muster.Micros) (out []Release) {
	target := string(s.Subject)
	if id, ok := s.Subject.Device(); ok {
		target = string(id)
	}
	for i := range s.Channels {
		v := &s.Channels[i]
		for severity := Info; severity <= Critical; severity++ {
			d := outbox.Delivery{Due: now}
			v.hold(&d, severity)
			out = append(out, Release{Channel: v.Channel, Target: target, Severity: severity, Due: d.Due})
		}
	}
	return out
}

// subscribing runs fn in turn with the other changes of a subscription.
func (n *Notify) subscribing(ctx context.Context, topic string, s Subject, fn func(ctx context.Context) error) error {
	return inTurn(ctx, n.marking[maphash.String(n.seed, topic+" "+string(s))%stripes], fn)
}

// subscriptionView is a subscription in the audit log.
type subscriptionView struct {
	Channels []Via         `json:"channels"`
	Muted    muster.Micros `json:"muted_until"`
}

func subscriptionObject(topic string, s Subject) string {
	return "subscriptions/" + topic + "/" + string(s)
}

// findForSubject returns a topic whose subscription of subject who may see and change.
func (n *Notify) findForSubject(who Who, ref string, subject Subject) (Topic, error) {
	if subject != "" && subject == who.Subject() {
		return n.find(who, ref)
	}
	if !storable(string(subject)) {
		return Topic{}, muster.Errorf(muster.NotFound, "there is no such subscriber")
	}
	return n.findFor(who, ref, RoleOwner)
}

// Unsubscribe ends a subscription, or returns NotFound. One's own may be ended when one does
// not see the topic any more, by the topic's id alone: its name, which may be new, is not to be guessed.
func (n *Notify) Unsubscribe(ctx context.Context, who Who, ref string, subject Subject) error {
	t, err := n.findForSubject(who, ref, subject)
	if err != nil && subject != "" && subject == who.Subject() {
		if hidden, ok := n.topic(ref); ok && hidden.ID == ref {
			if _, none := n.store.Subscription(ctx, hidden.ID, subject); none == nil {
				t, err = hidden, nil
			}
		}
	}
	if err != nil {
		return err
	}
	return n.subscribing(ctx, t.ID, subject, func(ctx context.Context) error {
		old, err := n.store.Subscription(ctx, t.ID, subject)
		if err != nil {
			return err //nolint:wrapcheck // the store says what it was doing
		}
		if err := precondition.Check(ctx, old); err != nil {
			return err //nolint:wrapcheck // the caller's own
		}
		audit.Note(ctx, "subscription.delete", subscriptionObject(t.ID, subject), subscriptionView{old.Channels, old.Muted}, nil)
		return n.store.DeleteSubscription(ctx, t.ID, subject) //nolint:wrapcheck // likewise
	})
}

// Subscription returns a subject's subscription to a topic.
func (n *Notify) Subscription(ctx context.Context, who Who, ref string, subject Subject) (Subscription, error) {
	t, err := n.findForSubject(who, ref, subject)
	if err != nil {
		return Subscription{}, err
	}
	return n.store.Subscription(ctx, t.ID, subject) //nolint:wrapcheck // the store says what it was doing
}

// Subscriptions returns a page of those of a topic: its publishers may see them.
func (n *Notify) Subscriptions(ctx context.Context, who Who, ref string, after Subject, limit int) ([]Subscription, error) {
	t, err := n.findFor(who, ref, RolePublisher)
	if err != nil {
		return nil, err
	}
	if !storable(string(after)) {
		return nil, muster.InvalidAt("after", "the page begins after a subject")
	}
	return n.store.Subscriptions(ctx, t.ID, after, limit) //nolint:wrapcheck // the store says what it was doing
}

// SubscriptionsOf returns a subject's own subscriptions.
func (n *Notify) SubscriptionsOf(ctx context.Context, who Who) ([]Subscription, error) {
	if who.Subject() == "" {
		return nil, muster.Errorf(muster.Invalid, "an API key has no subscriptions")
	}
	return n.store.SubscriptionsOf(ctx, who.Subject()) //nolint:wrapcheck // the store says what it was doing
}

// Subscribers counts the subscriptions of topics, by id.
func (n *Notify) Subscribers(ctx context.Context, ids []string) (map[string]int, error) {
	return n.store.CountSubscriptions(ctx, ids) //nolint:wrapcheck // the store says what it was doing
}

func (n *Notify) checkSubscription(subject Subject, s SubscriptionSpec, now muster.Micros) error {
	if err := n.checkSubject(subject); err != nil {
		return err
	}
	if s.Muted > now+muster.Micros(maxMute.Microseconds()) {
		return muster.InvalidAt("muted_until", "a subscription is muted for a year at most")
	}
	if len(s.Channels) > maxChannels {
		return muster.InvalidAt("channels", "a subscription has at most %d channels", maxChannels)
	}
	_, device := subject.Device()
	for i, v := range s.Channels {
		if err := n.checkVia(subject, device, v); err != nil {
			return muster.At(err, "channels")
		}
		if slices.ContainsFunc(s.Channels[:i], func(o Via) bool { return o.Channel == v.Channel }) {
			return muster.InvalidAt("channels", "the channel %s is named twice", v.Channel)
		}
	}
	return nil
}

func (n *Notify) checkVia(subject Subject, device bool, v Via) error {
	if err := checkChannel(v.Channel); err != nil {
		return err
	}
	if device != (v.Channel == ChannelMQTT) {
		return muster.Errorf(muster.Invalid, "people are told by %s, devices by %s", ChannelEmail, ChannelMQTT)
	}
	if p, ok := n.options.People.Person(string(subject)); v.Channel == ChannelEmail && ok && !p.Reachable {
		return muster.Errorf(muster.Invalid, "the e-mail address is not confirmed yet")
	}
	if v.Severity < Info || v.Severity > Critical {
		return muster.Errorf(muster.Invalid, "there is no such severity")
	}
	if v.Digest != 0 && (v.Digest < minDigest || v.Digest > maxDigest) {
		return muster.Errorf(muster.Invalid, "a digest is of a second to a day")
	}
	if v.Quiet == nil {
		return nil
	}
	return v.Quiet.check()
}

func (q *Quiet) check() error {
	if q.From < 0 || q.From >= dayLength || q.To < 0 || q.To >= dayLength {
		return muster.Errorf(muster.Invalid, "quiet hours begin and end between 00:00 and 23:59")
	}
	if len(q.Days) > 7 || slices.ContainsFunc(q.Days, func(d int) bool { return d < 0 || d > 6 }) {
		return muster.Errorf(muster.Invalid, "the days of quiet hours are of a week")
	}
	if q.Except < Info || q.Except > Critical+1 {
		return muster.Errorf(muster.Invalid, "there is no such severity")
	}
	if _, err := time.LoadLocation(q.Zone); err != nil || q.Zone == "" || q.Zone == "Local" {
		return muster.Errorf(muster.Invalid, "the zone is none such as Europe/Berlin")
	}
	if q.From == q.To && (len(q.Days) == 0 || len(slices.Compact(slices.Sorted(slices.Values(q.Days)))) == 7) {
		return muster.Errorf(muster.Invalid, "quiet hours of every day from a time to the same time never end")
	}
	return nil
}

package api

import (
	"cmp"
	"context"
	"strings"

	"muster"
	"muster/accounts"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

// TopicReader finds topics, as far as who asks may see them.
type TopicReader interface {
	Topics(who notify.Who) []notify.Topic
	Topic(who notify.Who, ref string) (notify.Topic, error)
	// TopicName names the topic of an id to whoever has a notification of it, empty when it is gone.
	TopicName(id string) string
}

// TopicRights says what somebody may do in a topic.
type TopicRights interface {
	RoleIn(who notify.Who, t notify.Topic) notify.Role
	MayPublish(who notify.Who, t notify.Topic) bool
	// Shows says whether who may learn of an event.
	Shows(ctx context.Context, who notify.Who, e *feed.Event) bool
}

// TopicWriter makes, changes and deletes topics.
type TopicWriter interface {
	CreateTopic(ctx context.Context, who notify.Who, s notify.TopicSpec) (t notify.Topic, made bool, err error)
	ChangeTopic(ctx context.Context, who notify.Who, ref string, c notify.TopicChange) (notify.Topic, error)
	DeleteTopic(ctx context.Context, who notify.Who, ref string) error
}

// MemberKeeper keeps who has a role in a topic.
type MemberKeeper interface {
	Members(who notify.Who, ref string) ([]notify.Member, error)
	PutMember(ctx context.Context, who notify.Who, ref, principal string, role notify.Role) (notify.Member, error)
	DeleteMember(ctx context.Context, who notify.Who, ref, principal string) error
}

// SubscriptionKeeper keeps subscriptions.
type SubscriptionKeeper interface {
	Subscribe(ctx context.Context, who notify.Who, ref string, s notify.Subject, spec notify.SubscriptionSpec) (notify.Subscription, error)
	Unsubscribe(ctx context.Context, who notify.Who, ref string, s notify.Subject) error
	Subscription(ctx context.Context, who notify.Who, ref string, s notify.Subject) (notify.Subscription, error)
}

// SubscriptionLister lists and counts subscriptions.
type SubscriptionLister interface {
	Subscriptions(ctx context.Context, who notify.Who, ref string, after notify.Subject, limit int) ([]notify.Subscription, error)
	SubscriptionsOf(ctx context.Context, who notify.Who) ([]notify.Subscription, error)
	Subscribers(ctx context.Context, ids []string) (map[string]int, error)
}

// NotificationSender sends notifications.
type NotificationSender interface {
	Send(ctx context.Context, who notify.Who, m notify.Message) (notify.Result, error)
}

// NotificationReader finds notifications, as far as who asks may see them.
type NotificationReader interface {
	List(ctx context.Context, who notify.Who, q notify.Query) ([]notify.Notification, error)
	Notification(ctx context.Context, who notify.Who, id string) (notify.Notification, *notify.Receipt, error)
}

// NotificationWatcher tells publishers how what they sent fares.
type NotificationWatcher interface {
	Published(ctx context.Context, who notify.Who, id string) (notify.Notification, error)
	Receipts(ctx context.Context, who notify.Who, id string, after notify.Subject, limit int) ([]notify.Receipt, error)
}

// InboxReader reads the inbox of who asks.
type InboxReader interface {
	Items(ctx context.Context, who notify.Who, q notify.InboxQuery) ([]notify.Item, error)
	Counts(ctx context.Context, who notify.Who) (notify.Counts, error)
}

// InboxMarker moves notifications of an inbox on.
type InboxMarker interface {
	Mark(ctx context.Context, m notify.Marking) (notify.Marked, error)
	ReadAll(ctx context.Context, s notify.Subject, upTo string) (int, error)
}

// AckLinks acks by the links in mails.
type AckLinks interface {
	OpenLink(ctx context.Context, token string) (notify.AckPage, error)
	AckByLink(ctx context.Context, token, note string) (notify.AckPage, error)
}

// Notify is what the API needs of *notify.Notify.
type Notify interface {
	TopicReader
	TopicRights
	TopicWriter
	MemberKeeper
	SubscriptionKeeper
	SubscriptionLister
	NotificationSender
	NotificationReader
	NotificationWatcher
	InboxReader
	InboxMarker
	AckLinks
}

// Deliveries is what the API needs of the outbox's store: an outbox.Keeper.
type Deliveries interface {
	Deliveries(ctx context.Context, q outbox.Query) ([]outbox.Delivery, error)
	Delivery(ctx context.Context, id string) (outbox.Delivery, error)
	RequeueDeliveries(ctx context.Context, ids []string, now muster.Micros) ([]outbox.Delivery, error)
}

// ChannelTester sends a test over a channel at once, and says what came of it: "email" and
// InboxChannel to a user, "mqtt" to a device. Unavailable when the server does not have the
// channel, Invalid when the target cannot be reached over it.
type ChannelTester interface {
	TestChannel(ctx context.Context, channel, target string) (outbox.Attempt, error)
}

// InboxChannel is what is tested of the inbox, which is no channel of deliveries: what is in it
// has arrived.
const InboxChannel = "inbox"

// KeyReader finds API keys.
type KeyReader interface {
	Key(id string) (accounts.APIKey, error)
}

// asking is who asks, as notifications know him. A key is also who owns it; a session that
// a key made is the key.
func (a *API) asking(ctx context.Context) notify.Who {
	p := requestOf(ctx).who
	who := notify.Who{Kind: "key", ID: cmp.Or(p.Key, p.ID), Name: p.Name, Admin: p.Allows(accounts.Admin)}
	if p.User != "" {
		who.Kind, who.ID, who.User, who.Name = "user", p.User, p.User, a.personName(p.User)
		return who
	}
	if k, err := a.Accounts.Key(who.ID); err == nil {
		who.User, who.Name = k.Owner, k.Name
	}
	return who
}

// personName is what others call a user: never the e-mail address.
func (a *API) personName(id string) string {
	u, err := a.Accounts.User(id)
	if err != nil || u.Name == "" {
		return id
	}
	return u.Name
}

// personal is asking for what only people have: an inbox.
func (a *API) personal(ctx context.Context) (notify.Who, error) {
	who := a.asking(ctx)
	if who.Subject() == "" {
		return who, muster.Errorf(muster.Forbidden, "this needs a signed-in user: an API key has no inbox and no subscriptions")
	}
	return who, nil
}

// needScope refuses who has not the scope, where only a part of an operation needs it.
func needScope(ctx context.Context, scope string) error {
	if !requestOf(ctx).who.Allows(scope) {
		return muster.Errorf(muster.Forbidden, "this needs the scope %s", scope)
	}
	return nil
}

// nameOf names a user or a key to who may know people, and is empty to all others.
func (a *API) nameOf(ctx context.Context, principal string) string {
	if mayLook(requestOf(ctx).who) != nil {
		return ""
	}
	if u, err := a.Accounts.User(principal); err == nil {
		return u.Name
	}
	k, _ := a.Accounts.Key(principal) // a device, or nobody any more: without a name
	return k.Name
}

const (
	devicePrefix = "device:" // of a subject, as paths and bodies spell it
	maxID        = 64        // bytes of an id
)

// plainID says whether s can be an id that Muster made: anything else is asked of nobody.
func plainID(s string) bool {
	return s != "" && len(s) <= maxID && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// parseSubject reads who gets notifications: a user's id, or device: and a device's.
func parseSubject(s string) (notify.Subject, error) {
	for _, prefix := range []string{devicePrefix, "device/"} {
		if id, ok := strings.CutPrefix(s, prefix); ok {
			device, err := muster.ParseDeviceID(id)
			return notify.DeviceSubject(device), err
		}
	}
	if !plainID(s) {
		return "", muster.Errorf(muster.Invalid, "who gets notifications is the id of a user, or device: and the id of a device")
	}
	return notify.Subject(s), nil
}

// subjectText spells s as parseSubject reads it.
func subjectText(s notify.Subject) string {
	if id, ok := s.Device(); ok {
		return devicePrefix + string(id)
	}
	return string(s)
}

func parseSubjects(list []string) ([]notify.Subject, error) {
	out := make([]notify.Subject, len(list))
	for i, s := range list {
		var err error
		if out[i], err = parseSubject(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// After is the part of an input that asks for a page of a list that is in the order of ids
// or names. It is exported because huma looks into exported embedded fields only.
type After struct {
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"160" doc:"The cursor of the page before"`
}

// afterID is the cursor of a list in the order of ids.
func (p After) afterID() (string, error) {
	if p.After != "" && !plainID(p.After) {
		return "", errCursor()
	}
	return p.After, nil
}

// paged cuts list, of which one more than limit was asked for, and returns the cursor of
// the next page.
func paged[T any](list []T, limit int, id func(*T) string) ([]T, string) {
	if len(list) <= limit {
		return list, ""
	}
	return list[:limit], id(&list[limit-1])
}

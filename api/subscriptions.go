package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
)

// via is one channel of a subscription, beside the inbox.
type via struct {
	Channel  string `json:"channel" enum:"email,mqtt" doc:"email for people, mqtt for devices"`
	Severity string `json:"severity,omitempty" enum:"info,warning,major,critical" doc:"The least that goes out; info when absent"`
	Quiet    *quiet `json:"quiet,omitempty" doc:"Hours in which nothing goes out: what comes then waits for their end"`
	DigestS  int64  `json:"digest_s,omitempty" minimum:"0" maximum:"86400" doc:"At most one message in so many seconds, with all that came; 0 for one each"`
}

type quiet struct {
	From   string   `json:"from" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" doc:"Time of the day" example:"22:00"`
	To     string   `json:"to" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" doc:"At or before from it is one of the next day" example:"07:00"`
	Days   []string `json:"days,omitempty" maxItems:"7" nullable:"false" enum:"sun,mon,tue,wed,thu,fri,sat" doc:"Days on which from lies; all when absent"`
	Zone   string   `json:"zone" minLength:"1" maxLength:"64" doc:"IANA time zone" example:"Europe/Berlin"`
	Except string   `json:"except,omitempty" enum:"info,warning,major,critical,none" doc:"What is as severe goes out all the same; critical when absent"`
}

// subscription is a subscription as it is shown. Publishers see of others' only that they are there.
type subscription struct {
	Topic      string  `json:"topic" doc:"The topic's id"`
	TopicName  string  `json:"topic_name" doc:"Empty when the topic is gone, or one does not see it any more"`
	Subject    string  `json:"subject" doc:"Id of a user, or device: and the id of a device" example:"usr_2b7a"`
	Name       string  `json:"name,omitempty" doc:"The user's; shown to users and admins"`
	Channels   []via   `json:"channels,omitempty" nullable:"false" doc:"Beside the inbox, which gets everything. This, muted_until and version are shown to the subject and to owners of the topic"`
	MutedUntil *string `json:"muted_until,omitempty" format:"date-time" nullable:"false" doc:"Until then nothing goes out; the inbox fills all the same. Absent for not muted"`
	Version    int64   `json:"version,omitempty"`
	CreatedAt  string  `json:"created_at" format:"date-time"`
	UpdatedAt  string  `json:"updated_at" format:"date-time"`
}

type wantedSubscription struct {
	Channels   []via      `json:"channels,omitempty" maxItems:"10" nullable:"false" doc:"Beside the inbox; none when absent"`
	MutedUntil *time.Time `json:"muted_until,omitempty" doc:"At most a year ahead; null or absent for not muted"`
}

func (a *API) subscription(ctx context.Context, s *notify.Subscription) subscription {
	out := subscription{
		Topic: s.Topic, TopicName: a.Notify.TopicName(s.Topic), Subject: subjectText(s.Subject), Name: a.nameOf(ctx, string(s.Subject)),
		Version: s.Version, CreatedAt: stamp(s.Created), UpdatedAt: stamp(s.Updated), MutedUntil: stampOrNull(s.Muted),
	}
	for i := range s.Channels {
		v := &s.Channels[i]
		shown := via{Channel: v.Channel, Severity: v.Severity.String(), DigestS: int64(v.Digest / time.Second)}
		if v.Quiet != nil {
			shown.Quiet = quietOf(v.Quiet)
		}
		out.Channels = append(out.Channels, shown)
	}
	return out
}

// days are the weekdays by number; 0 is Sunday, as package time has it.
func days() []string { return []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"} }

func quietOf(q *notify.Quiet) *quiet {
	out := quiet{From: clock(q.From), To: clock(q.To), Zone: q.Zone, Except: "none"}
	if q.Except <= notify.Critical {
		out.Except = q.Except.String()
	}
	for _, d := range q.Days {
		out.Days = append(out.Days, days()[d])
	}
	return &out
}

func clock(minute int) string { return fmt.Sprintf("%02d:%02d", minute/60, minute%60) }

// minute reads what the schema's pattern has let in: "22:00".
func minute(clock string) (int, error) {
	hours, err1 := strconv.Atoi(clock[:2])
	minutes, err2 := strconv.Atoi(clock[3:])
	if err1 != nil || err2 != nil {
		return 0, muster.Errorf(muster.Invalid, "%.10q is no time of the day", clock)
	}
	return 60*hours + minutes, nil
}

func (q *quiet) read() (*notify.Quiet, error) {
	out := notify.Quiet{Zone: q.Zone, Except: notify.Critical}
	var err error
	if out.From, err = minute(q.From); err != nil {
		return nil, err
	}
	if out.To, err = minute(q.To); err != nil {
		return nil, err
	}
	for _, d := range q.Days {
		out.Days = append(out.Days, slices.Index(days(), d))
	}
	switch q.Except {
	case "":
	case "none":
		out.Except = notify.Critical + 1
	default:
		out.Except, err = notify.ParseSeverity(q.Except)
	}
	return &out, err
}

func (w *wantedSubscription) read() (notify.SubscriptionSpec, error) {
	var out notify.SubscriptionSpec
	if w.MutedUntil != nil {
		out.Muted = max(muster.MicrosOf(*w.MutedUntil), 0)
	}
	for _, v := range w.Channels {
		read := notify.Via{Channel: v.Channel, Digest: time.Duration(v.DigestS) * time.Second}
		var err error
		if v.Severity != "" {
			if read.Severity, err = notify.ParseSeverity(v.Severity); err != nil {
				return out, err
			}
		}
		if v.Quiet != nil {
			if read.Quiet, err = v.Quiet.read(); err != nil {
				return out, err
			}
		}
		out.Channels = append(out.Channels, read)
	}
	return out, nil
}

// SubscriptionPath is the part of an input that names a subscription. It is exported
// because huma looks into exported embedded fields only.
type SubscriptionPath struct {
	TopicPath
	Subject string `path:"subject" maxLength:"160" doc:"me, the id of a user, or device: and the id of a device"`
}

// subscriber returns who asks and whose subscription is meant: for one's own nothing but to
// be a person is needed, for another's the scope.
func (a *API) subscriber(ctx context.Context, in SubscriptionPath, scope string) (notify.Who, notify.Subject, error) {
	if in.Subject == "me" {
		who, err := a.personal(ctx)
		return who, who.Subject(), err
	}
	who := a.asking(ctx)
	s, err := parseSubject(in.Subject)
	if err == nil && s != who.Subject() {
		err = needScope(ctx, scope)
	}
	return who, s, err
}

func subscriptionTag(s notify.Subscription) string { return strconv.FormatInt(s.Version, 10) }

func (a *API) subscriptionRoutes() {
	const path = "/topics/{topic}/subscriptions"
	tags := []string{"topics"}
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-topic-subscriptions", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List who is subscribed to a topic",
		Description: "It needs the role publisher in the topic.", Errors: []int{404},
	}, a.listTopicSubscriptions)
	route(a, anyone, huma.Operation{
		OperationID: "get-subscription", Method: http.MethodGet, Path: path + "/{subject}", Tags: tags, Summary: "Get a subscription",
		Description: "Everybody sees his own. Another's needs the scope topics:read and the role owner in the topic.", Errors: []int{404},
	}, func(ctx context.Context, in *SubscriptionPath) (*body[subscription], error) {
		who, subject, err := a.subscriber(ctx, *in, accounts.TopicsRead)
		if err != nil {
			return nil, err
		}
		s, err := a.Notify.Subscription(ctx, who, in.Topic, subject)
		if err != nil {
			return nil, err
		}
		documented(ctx, subscriptionTag(s))
		return &body[subscription]{a.subscription(ctx, &s)}, nil
	})
	route(a, anyone, huma.Operation{
		OperationID: "put-subscription", Method: http.MethodPut, Path: path + "/{subject}", Tags: tags, Summary: "Subscribe, or change a subscription",
		Description: "Everybody subscribes himself where he sees the topic, viewers too. Another's, and a device's, needs the scope topics:write and the " +
			"role owner in the topic. It lasts until it is deleted: who is away loses nothing.", Errors: []int{404},
	}, a.putSubscription)
	route(a, anyone, huma.Operation{
		OperationID: "delete-subscription", Method: http.MethodDelete, Path: path + "/{subject}", Tags: tags, Summary: "Unsubscribe",
		Description: "Another's needs the scope topics:write and the role owner in the topic. What is in the inbox stays.", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		SubscriptionPath
		Conditions
	},
	) (*struct{}, error) {
		who, subject, err := a.subscriber(ctx, in.SubscriptionPath, accounts.TopicsWrite)
		if err != nil {
			return nil, err
		}
		if ctx, err = bound(ctx, in.Conditions, subscriptionTag); err != nil {
			return nil, err
		}
		return nil, a.Notify.Unsubscribe(ctx, who, in.Topic, subject)
	})
	route(a, anyone, huma.Operation{
		OperationID: "list-my-subscriptions", Method: http.MethodGet, Path: "/subscriptions", Tags: tags, Summary: "List one's own subscriptions, in the order of topics' ids",
	}, a.listMySubscriptions)
}

func (a *API) putSubscription(ctx context.Context, in *struct {
	SubscriptionPath
	PutConditions
	Body wantedSubscription
},
) (*body[subscription], error) {
	who, subject, err := a.subscriber(ctx, in.SubscriptionPath, accounts.TopicsWrite)
	if err != nil {
		return nil, err
	}
	spec, err := in.Body.read()
	if err != nil {
		return nil, faultAt("#/channels", err)
	}
	if ctx, err = boundPut(ctx, in.PutConditions, subscriptionTag); err != nil {
		return nil, err
	}
	s, err := a.Notify.Subscribe(ctx, who, in.Topic, subject, spec)
	if err != nil {
		return nil, err
	}
	documented(ctx, subscriptionTag(s))
	return &body[subscription]{a.subscription(ctx, &s)}, nil
}

func (a *API) listTopicSubscriptions(ctx context.Context, in *struct {
	TopicPath
	After
},
) (*body[page[subscription]], error) {
	var after notify.Subject
	if in.After.After != "" {
		var err error
		if after, err = parseSubject(in.After.After); err != nil {
			return nil, errCursor()
		}
	}
	who := a.asking(ctx)
	found, err := a.Notify.Subscriptions(ctx, who, in.Topic, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	t, err := a.Notify.Topic(who, in.Topic)
	if err != nil {
		return nil, err
	}
	whole := a.Notify.RoleIn(who, t) == notify.RoleOwner
	found, next := paged(found, in.Limit, func(s *notify.Subscription) string { return subjectText(s.Subject) })
	items := make([]subscription, len(found))
	for i := range found {
		items[i] = a.subscription(ctx, &found[i])
		if !whole && found[i].Subject != who.Subject() {
			items[i].Channels, items[i].MutedUntil, items[i].Version = nil, nil, 0
		}
	}
	return list(items, next), nil
}

func (a *API) listMySubscriptions(ctx context.Context, in *After) (*body[page[subscription]], error) {
	who, err := a.personal(ctx)
	if err != nil {
		return nil, err
	}
	after, err := in.afterID()
	if err != nil {
		return nil, err
	}
	all, err := a.Notify.SubscriptionsOf(ctx, who)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(x, y notify.Subscription) int { return cmp.Compare(x.Topic, y.Topic) })
	for len(all) > 0 && all[0].Topic <= after {
		all = all[1:]
	}
	found, next := paged(all, in.Limit, func(s *notify.Subscription) string { return s.Topic })
	items := make([]subscription, len(found))
	for i := range found {
		items[i] = a.subscription(ctx, &found[i])
		if _, err := a.Notify.Topic(who, found[i].Topic); err != nil { // what it is called by now is not his to know
			items[i].TopicName = ""
		}
	}
	return list(items, next), nil
}

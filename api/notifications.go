package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
	"muster/notify/outbox"
)

// sendBytes bounds what is sent: a body, its data, and ten thousand recipients by id.
const sendBytes = 1 << 20

// Notification is a notification as the API and the live gateway show it.
type Notification struct {
	ID         string               `json:"id" example:"ntf_0m8k2c1x5tqABCDEFGHIJKLMNOP"`
	Topic      string               `json:"topic" doc:"The topic's id"`
	TopicName  string               `json:"topic_name" doc:"Empty when the topic is gone"`
	Sender     NotificationSenderOf `json:"sender"`
	Severity   string               `json:"severity" enum:"info,warning,major,critical"`
	Priority   string               `json:"priority" enum:"urgent,normal,bulk" doc:"How it goes before others on its way out"`
	Title      string               `json:"title"`
	Body       string               `json:"body"`
	Data       json.RawMessage      `json:"data,omitempty" doc:"An object"`
	Link       string               `json:"link,omitempty"`
	Actions    []NotificationAction `json:"actions,omitempty" nullable:"false"`
	Device     muster.DeviceID      `json:"device,omitempty" doc:"That it is about"`
	DedupKey   string               `json:"dedup_key,omitempty" doc:"Of those of a topic with the same key one is open at a time"`
	Count      int64                `json:"count" minimum:"1" doc:"How often it was sent"`
	State      string               `json:"state" enum:"open,acked,resolved"`
	AckPolicy  string               `json:"ack_policy" enum:"none,any,all" doc:"Of its topic when it was sent"`
	AckedBy    string               `json:"acked_by,omitempty" doc:"Name of whose ack made it acked"`
	AckedAt    *string              `json:"acked_at,omitempty" format:"date-time" nullable:"false"`
	AckNote    string               `json:"ack_note,omitempty"`
	ResolvedAt *string              `json:"resolved_at,omitempty" format:"date-time" nullable:"false"`
	Recipients int64                `json:"recipients" doc:"In how many inboxes it is"`
	Acks       int64                `json:"acks" doc:"How many of them acked"`
	Step       int                  `json:"step,omitempty" doc:"How many steps of the escalation were done"`
	EscalateAt *string              `json:"escalate_at,omitempty" format:"date-time" nullable:"false" doc:"When the next step is due; absent for never"`
	CreatedAt  string               `json:"created_at" format:"date-time"`
	UpdatedAt  string               `json:"updated_at" format:"date-time"`
	ExpiresAt  *string              `json:"expires_at,omitempty" format:"date-time" nullable:"false" doc:"After which nothing goes out any more"`
	Version    int64                `json:"version"`
}

// NotificationSenderOf is who sent a notification.
type NotificationSenderOf struct {
	Kind string `json:"kind" enum:"user,key,device,system"`
	ID   string `json:"id" doc:"Of the user, the key or the device; of the event for the system"`
	Name string `json:"name"`
}

// NotificationAction is something to be done about a notification.
type NotificationAction struct {
	Label string `json:"label" minLength:"1" maxLength:"60" example:"Open the valve"`
	URL   string `json:"url" minLength:"1" maxLength:"2048" doc:"http or https"`
}

// Receipt is how far a notification has come with one recipient.
type Receipt struct {
	Notification string  `json:"notification" doc:"Its id"`
	Subject      string  `json:"subject" doc:"Id of a user, or device: and the id of a device" example:"usr_2b7a"`
	Name         string  `json:"name,omitempty" doc:"The user's; in lists of a publisher"`
	Seq          int64   `json:"seq" doc:"Grows with each change"`
	State        string  `json:"state" enum:"sent,delivered,seen,read,acked"`
	DeliveredAt  *string `json:"delivered_at,omitempty" format:"date-time" nullable:"false"`
	SeenAt       *string `json:"seen_at,omitempty" format:"date-time" nullable:"false"`
	ReadAt       *string `json:"read_at,omitempty" format:"date-time" nullable:"false"`
	AckedAt      *string `json:"acked_at,omitempty" format:"date-time" nullable:"false"`
	Note         string  `json:"note,omitempty" doc:"Given with the ack"`
	Door         string  `json:"door,omitempty" enum:"live,api,mail,mqtt" doc:"By which it was acked"`
	Step         int     `json:"step,omitempty" doc:"Of the escalation that told it; absent for a subscription"`
}

// InboxItem is a notification in an inbox.
type InboxItem struct {
	Notification Notification `json:"notification"`
	Receipt      Receipt      `json:"receipt"`
}

// priorities are the lanes by name.
func priorities() []string { return []string{"urgent", "normal", "bulk"} }

func priorityOf(l outbox.Lane) string { return priorities()[min(max(l, outbox.Urgent), outbox.Bulk)] }

// NotificationOf shows n, whose topic has a name.
func NotificationOf(n *notify.Notification, topic string) Notification {
	out := Notification{
		ID: n.ID, Topic: n.Topic, TopicName: topic, Sender: NotificationSenderOf(n.Sender), Severity: n.Severity.String(), Priority: priorityOf(outbox.Lane(n.Lane)),
		Title: n.Title, Body: n.Body, Data: n.Data, Link: n.Link, Device: n.Device, DedupKey: n.DedupKey, Count: n.Count, State: string(n.State),
		AckPolicy: string(n.AckPolicy), AckedBy: n.AckedBy, AckedAt: stampOrNull(n.AckedAt), AckNote: n.AckNote, ResolvedAt: stampOrNull(n.ResolvedAt),
		Recipients: n.Recipients, Acks: n.Acks, Step: n.Step, EscalateAt: stampOrNull(n.EscalateAt), CreatedAt: stamp(n.Created),
		UpdatedAt: stamp(n.Updated), ExpiresAt: stampOrNull(n.Expires), Version: n.Version,
	}
	for _, action := range n.Actions {
		out.Actions = append(out.Actions, NotificationAction(action))
	}
	return out
}

// receiptStates are their names, in order.
func receiptStates() []string { return []string{"sent", "delivered", "seen", "read", "acked"} }

// ReceiptOf shows r.
func ReceiptOf(r *notify.Receipt) Receipt {
	return Receipt{
		Notification: r.Notification, Subject: subjectText(r.Subject), Seq: r.Seq, State: receiptStates()[min(max(r.State, notify.Sent), notify.AckedIt)],
		DeliveredAt: stampOrNull(r.Delivered), SeenAt: stampOrNull(r.Seen), ReadAt: stampOrNull(r.Read), AckedAt: stampOrNull(r.Acked),
		Note: r.Note, Door: r.Door, Step: r.Step,
	}
}

// InboxItemOf shows an item of an inbox, whose topic has a name.
func InboxItemOf(i *notify.Item, topic string) InboxItem {
	return InboxItem{NotificationOf(&i.Notification, topic), ReceiptOf(&i.Receipt)}
}

func (a *API) notification(n *notify.Notification) Notification {
	return NotificationOf(n, a.Notify.TopicName(n.Topic))
}

type newNotification struct {
	Topic     string               `json:"topic" minLength:"1" maxLength:"64" doc:"Id or name of the topic"`
	To        []string             `json:"to,omitempty" maxItems:"10000" nullable:"false" doc:"Some of the subscribers: ids of users, or device: and ids of devices; all when absent"`
	Severity  string               `json:"severity,omitempty" enum:"info,warning,major,critical" doc:"info when absent"`
	Priority  string               `json:"priority,omitempty" enum:"urgent,normal,bulk" doc:"That of the severity when absent: critical is urgent, info is bulk"`
	Title     string               `json:"title,omitempty" maxLength:"200" doc:"One line, at most 200 bytes; needed unless resolve is set"`
	Body      string               `json:"body,omitempty" maxLength:"8192" doc:"Plain text, at most 8 KiB"`
	Data      json.RawMessage      `json:"data,omitempty" doc:"An object, at most 16 KiB"`
	Link      string               `json:"link,omitempty" maxLength:"2048" doc:"http or https"`
	Actions   []NotificationAction `json:"actions,omitempty" maxItems:"5" nullable:"false"`
	Device    string               `json:"device,omitempty" maxLength:"128" doc:"That it is about"`
	DedupKey  string               `json:"dedup_key,omitempty" maxLength:"200" doc:"While one with this key is open, it is counted up, and nobody is told anew"`
	Resolve   bool                 `json:"resolve,omitempty" doc:"What was sent with dedup_key is over: who was told is told so"`
	ExpiresAt *time.Time           `json:"expires_at,omitempty" doc:"After which nothing goes out any more"`
}

type sentNotification struct {
	Notification  Notification `json:"notification"`
	Recipients    int64        `json:"recipients" doc:"In how many inboxes it is"`
	Duplicate     bool         `json:"duplicate" doc:"One with its dedup_key is open: that one was counted up"`
	Resolved      bool         `json:"resolved" doc:"The one with its dedup_key is resolved"`
	NotSubscribed []string     `json:"not_subscribed" nullable:"false" doc:"Those of to who get nothing"`
}

// accepted is the answer to what is done from now on.
type accepted[T any] struct {
	Location string `header:"Location"`
	Body     T
}

// NotificationPath is the part of an input that names a notification. It is exported
// because huma looks into exported embedded fields only.
type NotificationPath struct {
	Notification string `path:"notification" maxLength:"64" doc:"The notification's id"`
}

// id is the id in the path; what cannot be one is not found.
func (p NotificationPath) id() (string, error) {
	if !plainID(p.Notification) {
		return "", muster.Errorf(muster.NotFound, "there is no such notification")
	}
	return p.Notification, nil
}

func (a *API) notificationRoutes() {
	const path = "/notifications"
	tags := []string{"notifications"}
	route(a, accounts.NotifySend, huma.Operation{
		OperationID: "send-notification", Method: http.MethodPost, Path: path, DefaultStatus: http.StatusAccepted, Tags: tags, MaxBodyBytes: sendBytes,
		Metadata: map[string]any{unaudited: true}, Summary: "Send a notification to a topic",
		Description: "It needs the role publisher in the topic. When it is answered, the notification, its recipients and what goes out to them are stored, " +
			"in one transaction. One sender may send 30 at once, and one more every 2 seconds.", Errors: []int{404, 409},
	}, a.sendNotification)
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-notifications", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List notifications, newest first",
		Description: "Of the topics in which one has the role publisher; admins see all.", Errors: []int{404},
	}, a.listNotifications)
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "get-notification", Method: http.MethodGet, Path: path + "/{notification}", Tags: tags, Summary: "Get a notification",
		Description: "Its recipients may, publishers of its topic, and admins.", Errors: []int{404},
	}, a.getNotification)
	a.receiptRoutes()
	a.ownInboxRoutes()
}

func (b *newNotification) read() (notify.Message, error) {
	m := notify.Message{
		Topic: b.Topic, Title: b.Title, Body: b.Body, Data: b.Data, Link: b.Link, DedupKey: b.DedupKey, Resolve: b.Resolve, Device: muster.DeviceID(b.Device),
	}
	var err error
	if m.To, err = parseSubjects(b.To); err != nil {
		return m, faultAt("#/to", err)
	}
	if b.Severity != "" {
		if m.Severity, err = notify.ParseSeverity(b.Severity); err != nil {
			return m, faultAt("#/severity", err)
		}
	}
	for i, name := range priorities() {
		if b.Priority == name {
			lane := outbox.Lane(i)
			m.Lane = &lane
		}
	}
	for _, action := range b.Actions {
		m.Actions = append(m.Actions, notify.Action(action))
	}
	if b.ExpiresAt != nil {
		m.Expires = max(muster.MicrosOf(*b.ExpiresAt), 1)
	}
	return m, nil
}

func (a *API) sendNotification(ctx context.Context, in *body[newNotification]) (*accepted[sentNotification], error) {
	m, err := in.Body.read()
	if err != nil {
		return nil, err
	}
	r, err := a.Notify.Send(ctx, a.asking(ctx), m)
	if err != nil {
		return nil, err
	}
	out := sentNotification{
		Notification: a.notification(&r.Notification), Recipients: r.Notification.Recipients, Duplicate: r.Duplicate, Resolved: r.Resolved, NotSubscribed: []string{},
	}
	for _, s := range r.NotSubscribed {
		out.NotSubscribed = append(out.NotSubscribed, subjectText(s))
	}
	return &accepted[sentNotification]{prefix + "/notifications/" + r.Notification.ID, out}, nil
}

func (a *API) listNotifications(ctx context.Context, in *struct {
	After
	Topic  string `query:"topic" maxLength:"64" doc:"Id or name of a topic"`
	State  string `query:"state" enum:"open,acked,resolved"`
	Device string `query:"device" maxLength:"128" doc:"Only those about this device"`
},
) (*body[page[Notification]], error) {
	before, err := in.afterID()
	if err != nil {
		return nil, err
	}
	q := notify.Query{State: notify.NotificationState(in.State), Before: before, Limit: in.Limit + 1}
	if in.Topic != "" {
		q.Topics = []string{in.Topic}
	}
	if in.Device != "" {
		if q.Device, err = muster.ParseDeviceID(in.Device); err != nil {
			return nil, muster.At(err, "device")
		}
	}
	found, err := a.Notify.List(ctx, a.asking(ctx), q)
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(n *notify.Notification) string { return n.ID })
	items := make([]Notification, len(found))
	for i := range found {
		items[i] = a.notification(&found[i])
	}
	return list(items, next), nil
}

// oneNotification is a notification, with the receipt of who asks.
type oneNotification struct {
	Notification Notification `json:"notification"`
	Receipt      *Receipt     `json:"receipt,omitempty" doc:"Of who asks; absent when it is not in his inbox"`
}

func (a *API) getNotification(ctx context.Context, in *NotificationPath) (*body[oneNotification], error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	return a.oneNotification(ctx, id)
}

func (a *API) oneNotification(ctx context.Context, id string) (*body[oneNotification], error) {
	n, own, err := a.Notify.Notification(ctx, a.asking(ctx), id)
	if err != nil {
		return nil, err
	}
	out := oneNotification{Notification: a.notification(&n)}
	if own != nil {
		r := ReceiptOf(own)
		out.Receipt = &r
	}
	return &body[oneNotification]{out}, nil
}

package api

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/notify"
	"muster/notify/outbox"
)

// attempt is what came of sending a delivery once.
type attempt struct {
	Verdict     string  `json:"verdict" enum:"delivered,again,later,gone,dead,dropped" doc:"again: it is tried again. later: the target cannot take it now, which does not count. gone: the target wants nothing any more. dead: trying again is of no use. dropped: nobody wants it any more"`
	At          string  `json:"at" format:"date-time"`
	DurationMS  float64 `json:"duration_ms"`
	Status      int     `json:"status,omitempty" doc:"Of the answer: HTTP's or SMTP's"`
	Error       string  `json:"error,omitempty"`
	Note        string  `json:"note,omitempty" doc:"What was otherwise than wished: a template that did not work"`
	Response    string  `json:"response,omitempty" doc:"How the answer begins, at most 1 KiB; not in lists"`
	Reference   string  `json:"reference,omitempty" doc:"What the receiver's side calls it: a Message-ID"`
	RetryAfterS int64   `json:"retry_after_s,omitempty" doc:"As the receiver wishes"`
}

// delivery is one content on its way to one target over one channel.
type delivery struct {
	ID           string    `json:"id" example:"dlv_0m8k2c1x5tqABCDEFGHIJKLMNOP"`
	Channel      string    `json:"channel" example:"email"`
	Queue        string    `json:"queue" doc:"Those of one queue share a breaker and a rate" example:"email"`
	Target       string    `json:"target" doc:"Id of a user, a webhook or a device"`
	TargetName   string    `json:"target_name,omitempty" doc:"The user's name, to who may know people; the webhook's address, to admins. Absent for none"`
	Notification string    `json:"notification,omitempty" doc:"Id of the one that it is about; absent for none"`
	Priority     string    `json:"priority" enum:"urgent,normal,bulk"`
	State        string    `json:"state" enum:"queued,sending,sent,dead,dropped" doc:"dead: given up, and can be queued again. dropped: nobody wants it any more"`
	Attempts     int       `json:"attempts" doc:"How many were begun"`
	DueAt        *string   `json:"due_at" format:"date-time" doc:"When it is tried next; null when it has ended"`
	CreatedAt    string    `json:"created_at" format:"date-time"`
	EndedAt      *string   `json:"ended_at" format:"date-time" doc:"Null while it is queued or being sent"`
	ExpiresAt    *string   `json:"expires_at,omitempty" format:"date-time" nullable:"false"`
	Error        string    `json:"error,omitempty" doc:"Of the last attempt"`
	Reference    string    `json:"reference,omitempty" doc:"What the receiver's side calls it: a Message-ID"`
	Tries        []attempt `json:"tries,omitempty" nullable:"false" doc:"The last 20 attempts, in order"`
}

func attemptOf(t *outbox.Attempt) attempt {
	return attempt{
		Verdict: string(t.Verdict), At: stamp(t.At), DurationMS: float64(t.Duration.Microseconds()) / 1000, Status: t.Status, Error: t.Error, Note: t.Note,
		Response: t.Response, Reference: t.Reference, RetryAfterS: int64(t.RetryAfter / time.Second),
	}
}

// deliveryOf shows d, with its attempts if they are wanted.
func deliveryOf(d *outbox.Delivery, tries bool) delivery {
	out := delivery{
		ID: d.ID, Channel: d.Channel, Queue: d.Queue, Target: d.Target, Notification: d.Notification, Priority: priorityOf(d.Lane), State: string(d.State),
		Attempts: d.Attempts, CreatedAt: stamp(d.Created), EndedAt: stampOrNull(d.Ended), ExpiresAt: stampOrNull(d.Expires), Error: d.Error, Reference: d.Reference,
	}
	if d.State.Open() {
		out.DueAt = stampOrNull(d.Due)
	}
	if tries {
		for i := range d.Tries {
			out.Tries = append(out.Tries, attemptOf(&d.Tries[i]))
		}
	}
	return out
}

// delivered shows d as deliveryOf, with the name of whom it is for.
func (a *API) delivered(ctx context.Context, d *outbox.Delivery, tries bool) delivery {
	out := deliveryOf(d, tries)
	switch d.Channel {
	case notify.ChannelEmail:
		out.TargetName = a.nameOf(ctx, d.Target)
	case webhookChannel:
		if h, err := a.Webhooks.Get(d.Target); err == nil && requestOf(ctx).who.Allows(accounts.Admin) {
			out.TargetName = h.URL
		}
	}
	return out
}

// hush takes away what servers said: mail servers repeat addresses.
func (d *delivery) hush() {
	d.Error, d.Reference = "", ""
	for i := range d.Tries {
		t := &d.Tries[i]
		t.Error, t.Response, t.Reference = "", "", ""
	}
}

// DeliveryPath is the part of an input that names a delivery. It is exported because huma
// looks into exported embedded fields only.
type DeliveryPath struct {
	Delivery string `path:"delivery" maxLength:"64" doc:"The delivery's id"`
}

type requeuing struct {
	IDs []string `json:"ids" minItems:"1" maxItems:"1000" nullable:"false" doc:"Ids of deliveries that are dead or sent"`
}

type requeued struct {
	Requeued []string `json:"requeued" nullable:"false" doc:"Those that are queued again, with no attempts; the others are not there, or not at an end"`
}

func (a *API) deliveryRoutes() {
	const path = "/deliveries"
	tags := []string{"deliveries"}
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-deliveries", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List mails, webhooks and other deliveries, newest first",
	}, a.listDeliveries)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-delivery", Method: http.MethodGet, Path: path + "/{delivery}", Tags: tags, Summary: "Get a delivery with its attempts", Errors: []int{404},
	}, func(ctx context.Context, in *DeliveryPath) (*body[delivery], error) {
		if !plainID(in.Delivery) {
			return nil, muster.Errorf(muster.NotFound, "there is no such delivery")
		}
		d, err := a.Deliveries.Delivery(ctx, in.Delivery)
		if err != nil {
			return nil, err
		}
		return &body[delivery]{a.delivered(ctx, &d, true)}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "requeue-deliveries", Method: http.MethodPost, Path: path + ":requeue", Tags: tags,
		Summary: "Send deliveries again that are dead, or were sent",
	}, func(ctx context.Context, in *body[requeuing]) (*body[requeued], error) {
		ids, err := a.requeue(ctx, "deliveries", in.Body.IDs)
		if err != nil {
			return nil, err
		}
		return &body[requeued]{requeued{ids}}, nil
	})
	a.webhookDeliveryRoutes()
	a.channelRoutes()
}

// deliveries returns a page, and the cursor of the next.
func (a *API) deliveries(ctx context.Context, q outbox.Query, limit int) ([]outbox.Delivery, string, error) {
	q.Limit = limit + 1
	found, err := a.Deliveries.Deliveries(ctx, q)
	if err != nil {
		return nil, "", err
	}
	found, next := paged(found, limit, func(d *outbox.Delivery) string { return d.ID })
	for i := range found {
		for j := range found[i].Tries {
			found[i].Tries[j].Response = "" // of many they are too much
		}
	}
	return found, next, nil
}

// printable says whether s is printable ASCII: what names a channel or a target.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (a *API) listDeliveries(ctx context.Context, in *struct {
	After
	State        string `query:"state" enum:"queued,sending,sent,dead,dropped"`
	Channel      string `query:"channel" maxLength:"32" doc:"Such as email, webhook or mqtt"`
	Target       string `query:"target" maxLength:"160" doc:"Id of a user, a webhook or a device"`
	Notification string `query:"notification" maxLength:"64"`
},
) (*body[page[delivery]], error) {
	before, err := in.afterID()
	if err != nil {
		return nil, err
	}
	if !printable(in.Channel + in.Target + in.Notification) {
		return lone([]delivery{}), nil // nothing has such a name
	}
	found, next, err := a.deliveries(ctx, outbox.Query{
		State: outbox.State(in.State), Channel: in.Channel, Target: in.Target, Notification: in.Notification, Before: before,
	}, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]delivery, len(found))
	for i := range found {
		items[i] = a.delivered(ctx, &found[i], false)
	}
	return list(items, next), nil
}

// requeue queues deliveries again, and returns which.
func (a *API) requeue(ctx context.Context, object string, ids []string) ([]string, error) {
	plain := make([]string, 0, len(ids))
	known := map[string]bool{}
	for _, id := range ids {
		if plainID(id) && !known[id] {
			plain = append(plain, id)
		}
		known[id] = true
	}
	out := []string{}
	if len(plain) == 0 {
		audit.Nothing(ctx)
		return out, nil
	}
	audit.Note(ctx, "delivery.requeue", object, nil, requeuing{plain})
	again, err := a.Deliveries.RequeueDeliveries(ctx, plain, muster.MicrosOf(a.Now()))
	if err != nil {
		return nil, err
	}
	for i := range again {
		out = append(out, again[i].ID)
	}
	return out, nil
}

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/audit"
	"muster/notify/outbox"
)

const (
	webhookChannel = "webhook"
	replayPage     = 500    // deliveries queued again in one step
	replayMost     = 10_000 // in one request
)

type replayed struct {
	Requeued int  `json:"requeued" doc:"How many deliveries are queued again"`
	More     bool `json:"more" doc:"There are more: ask again"`
}

type replayInput struct {
	Since *time.Time `json:"since,omitempty" doc:"All that were made at this time or later and are dead or sent; or"`
	IDs   []string   `json:"ids,omitempty" maxItems:"1000" nullable:"false" doc:"these, when they are dead or sent"`
}

func (a *API) webhookDeliveryRoutes() {
	const path = "/webhooks/{webhook}"
	tags := []string{"webhooks"}
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-webhook-deliveries", Method: http.MethodGet, Path: path + "/deliveries", Tags: tags, Summary: "List what goes to a webhook, newest first", Errors: []int{404},
	}, a.listWebhookDeliveries)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "replay-webhook", Method: http.MethodPost, Path: path + "/replay", Tags: tags, Summary: "Send a webhook events again",
		Description: "With neither since nor ids all that are dead, at most 10,000 at a time. An event keeps its id: a receiver that remembers ids acts once.",
		Errors:      []int{404},
	}, a.replayWebhook)
}

func (a *API) listWebhookDeliveries(ctx context.Context, in *struct {
	WebhookPath
	After
	State string `query:"state" enum:"queued,sending,sent,dead,dropped"`
},
) (*body[page[delivery]], error) {
	before, err := in.afterID()
	if err != nil {
		return nil, err
	}
	h, err := a.Webhooks.Get(in.Webhook)
	if err != nil {
		return nil, err
	}
	found, next, err := a.deliveries(ctx, outbox.Query{Channel: webhookChannel, Target: h.ID, State: outbox.State(in.State), Before: before}, in.Limit)
	if err != nil {
		return nil, err
	}
	items := make([]delivery, len(found))
	for i := range found {
		items[i] = a.delivered(ctx, &found[i], false)
	}
	return list(items, next), nil
}

func (a *API) replayWebhook(ctx context.Context, in *struct {
	WebhookPath
	Body *replayInput
},
) (*body[replayed], error) {
	h, err := a.Webhooks.Get(in.Webhook)
	if err != nil {
		return nil, err
	}
	b := in.Body
	if b == nil {
		b = &replayInput{}
	}
	if b.Since != nil && b.IDs != nil {
		return nil, muster.At(muster.Errorf(muster.Invalid, "give since or ids, not both"), "since", "ids")
	}
	if b.IDs != nil {
		return a.replayThese(ctx, h.ID, b.IDs)
	}
	q, since := outbox.Query{Channel: webhookChannel, Target: h.ID}, muster.Micros(0)
	if b.Since != nil {
		since = muster.MicrosOf(*b.Since)
	} else {
		q.State = outbox.StateDead
	}
	return a.replayFrom(ctx, h.ID, q, since)
}

// replayThese queues those of ids again that are the webhook's.
func (a *API) replayThese(ctx context.Context, webhook string, ids []string) (*body[replayed], error) {
	var own []string
	for _, id := range ids {
		if !plainID(id) {
			continue
		}
		d, err := a.Deliveries.Delivery(ctx, id)
		switch {
		case muster.KindOf(err) == muster.NotFound:
		case err != nil:
			return nil, err
		case d.Channel == webhookChannel && d.Target == webhook:
			own = append(own, id)
		}
	}
	again, err := a.requeue(ctx, "webhooks/"+webhook+"/deliveries", own)
	if err != nil {
		return nil, err
	}
	return &body[replayed]{replayed{Requeued: len(again)}}, nil
}

// replayFrom queues what q finds again, from the newest to since.
func (a *API) replayFrom(ctx context.Context, webhook string, q outbox.Query, since muster.Micros) (*body[replayed], error) {
	var out replayed
	for looked := 0; ; {
		found, next, err := a.deliveries(ctx, q, replayPage)
		if err != nil {
			return nil, err
		}
		var ended []string
		for i := range found {
			d := &found[i]
			if d.Created < since {
				next = ""
				break
			}
			if d.State == outbox.StateDead || d.State == outbox.StateSent {
				ended = append(ended, d.ID)
			}
		}
		if len(ended) > 0 {
			again, err := a.requeue(ctx, "webhooks/"+webhook+"/deliveries", ended)
			if err != nil {
				return nil, err
			}
			out.Requeued += len(again)
		}
		if looked += len(found); next == "" || looked >= replayMost {
			out.More = next != ""
			break
		}
		q.Before = next
	}
	if out.Requeued == 0 {
		audit.Nothing(ctx)
	}
	return &body[replayed]{out}, nil
}

package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
	"muster/notify/outbox"
)

type givenNote struct {
	Note string `json:"note,omitempty" maxLength:"500" doc:"Plain text, at most 500 bytes" example:"I am on my way"`
}

type marking struct {
	IDs   []string `json:"ids" minItems:"1" maxItems:"1000" nullable:"false" doc:"Ids of notifications"`
	State string   `json:"state" enum:"seen,read,acked" doc:"seen: it was on a screen. read: it was opened. acked: who asks takes care of it"`
	Note  string   `json:"note,omitempty" maxLength:"500" doc:"With an ack"`
}

type marked struct {
	Moved   int      `json:"moved" doc:"How many are in another state now; the others were there, or further, already"`
	Missing []string `json:"missing" nullable:"false" doc:"Those that are not in the inbox"`
}

func (a *API) receiptRoutes() {
	const path = "/notifications"
	tags := []string{"notifications"}
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-receipts", Method: http.MethodGet, Path: path + "/{notification}/receipts", Tags: tags,
		Summary: "List how far a notification has come with each recipient", Description: "It needs the role publisher in its topic.", Errors: []int{404},
	}, a.listReceipts)
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-notification-deliveries", Method: http.MethodGet, Path: path + "/{notification}/deliveries", Tags: tags,
		Summary:     "List what of a notification goes out beside the inboxes, newest first, with every attempt",
		Description: "It needs the role publisher in its topic. What servers answered is shown to admins only: it may have addresses in it.", Errors: []int{404},
	}, a.listNotificationDeliveries)
	route(a, anyone, huma.Operation{
		OperationID: "ack-notification", Method: http.MethodPost, Path: path + "/{notification}/ack", Tags: tags, Metadata: map[string]any{unaudited: true},
		Summary: "Take care of a notification",
		Description: "By a signed-in user in whose inbox it is. It counts as the topic's ack policy says, and stops the escalation. Once more changes nothing, " +
			"and what is resolved stays so.", Errors: []int{404},
	}, a.ackNotification)
	route(a, anyone, huma.Operation{
		OperationID: "mark-notifications", Method: http.MethodPost, Path: path + ":mark", Tags: tags, Metadata: map[string]any{unaudited: true},
		Summary: "Mark notifications of one's own inbox as seen, read or acked",
	}, a.markNotifications)
}

func (a *API) listReceipts(ctx context.Context, in *struct {
	NotificationPath
	After
},
) (*body[page[Receipt]], error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	var after notify.Subject
	if in.After.After != "" {
		if after, err = parseSubject(in.After.After); err != nil {
			return nil, errCursor()
		}
	}
	found, err := a.Notify.Receipts(ctx, a.asking(ctx), id, after, in.Limit+1)
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(r *notify.Receipt) string { return subjectText(r.Subject) })
	items := make([]Receipt, len(found))
	for i := range found {
		items[i] = ReceiptOf(&found[i])
		items[i].Name = a.nameOf(ctx, string(found[i].Subject))
	}
	return list(items, next), nil
}

func (a *API) listNotificationDeliveries(ctx context.Context, in *struct {
	NotificationPath
	After
},
) (*body[page[delivery]], error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	before, err := in.afterID()
	if err != nil {
		return nil, err
	}
	if _, err := a.Notify.Published(ctx, a.asking(ctx), id); err != nil {
		return nil, err
	}
	found, next, err := a.deliveries(ctx, outbox.Query{Notification: id, Before: before}, in.Limit)
	if err != nil {
		return nil, err
	}
	whole := requestOf(ctx).who.Allows(accounts.Admin)
	items := make([]delivery, len(found))
	for i := range found {
		items[i] = a.delivered(ctx, &found[i], true)
		if !whole {
			items[i].hush()
		}
	}
	return list(items, next), nil
}

// mark marks for who asks, a person.
func (a *API) mark(ctx context.Context, m notify.Marking) (notify.Marked, error) {
	who, err := a.personal(ctx)
	if err != nil {
		return notify.Marked{}, err
	}
	m.Subject, m.Door, m.Name = who.Subject(), notify.DoorAPI, who.Name
	return a.Notify.Mark(ctx, m)
}

func (a *API) ackNotification(ctx context.Context, in *struct {
	NotificationPath
	Body *givenNote
},
) (*body[InboxItem], error) {
	if _, err := a.personal(ctx); err != nil { // before it is said whether it is there
		return nil, err
	}
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	m := notify.Marking{IDs: []string{id}, State: notify.AckedIt}
	if in.Body != nil {
		m.Note = in.Body.Note
	}
	done, err := a.mark(ctx, m)
	if err != nil {
		return nil, err
	}
	if len(done.Missing) > 0 {
		return nil, muster.Errorf(muster.NotFound, "there is no such notification in the inbox")
	}
	one, err := a.oneNotification(ctx, id)
	if err != nil {
		return nil, err
	}
	if one.Body.Receipt == nil { // forgotten this moment
		return nil, muster.Errorf(muster.NotFound, "there is no such notification in the inbox")
	}
	return &body[InboxItem]{InboxItem{one.Body.Notification, *one.Body.Receipt}}, nil
}

func (a *API) markNotifications(ctx context.Context, in *body[marking]) (*body[marked], error) {
	b := &in.Body
	if b.Note != "" && b.State != "acked" {
		return nil, faultAt("#/note", muster.Errorf(muster.Invalid, "a note is given with an ack"))
	}
	m := notify.Marking{Note: b.Note}
	for i, name := range receiptStates() {
		if name == b.State {
			m.State = notify.ReceiptState(i)
		}
	}
	out := marked{Missing: []string{}}
	known := map[string]bool{} // each id counts once
	for _, id := range b.IDs {
		switch {
		case known[id]:
		case plainID(id):
			m.IDs = append(m.IDs, id)
		default:
			out.Missing = append(out.Missing, id)
		}
		known[id] = true
	}
	if _, err := a.personal(ctx); err != nil {
		return nil, err
	}
	if len(m.IDs) == 0 {
		return &body[marked]{out}, nil
	}
	done, err := a.mark(ctx, m)
	if err != nil {
		return nil, err
	}
	out.Moved, out.Missing = len(done.Moved), append(out.Missing, done.Missing...)
	return &body[marked]{out}, nil
}

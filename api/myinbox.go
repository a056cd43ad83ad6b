package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/notify"
)

type inboxCounts struct {
	Unread int64 `json:"unread" doc:"Not read; 1000 stands for as many, or more"`
	Open   int64 `json:"open" doc:"Those that ask for an ack and are open; 1000 stands for as many, or more"`
}

func (a *API) ownInboxRoutes() {
	const path = "/me/inbox" // /inbox is that of devices to be adopted
	tags := []string{"notifications"}
	route(a, anyone, huma.Operation{
		OperationID: "list-inbox", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List the notifications of one's own inbox, newest first",
		Description: "Of a signed-in user; to get them as they come: the channel inbox of the live WebSocket, or of /stream.", Errors: []int{404},
	}, a.listInbox)
	route(a, anyone, huma.Operation{
		OperationID: "count-inbox", Method: http.MethodGet, Path: path + "/counts", Tags: tags, Summary: "Count what is unread, and what is open, in one's own inbox",
	}, func(ctx context.Context, _ *struct{}) (*body[inboxCounts], error) {
		who, err := a.personal(ctx)
		if err != nil {
			return nil, err
		}
		n, err := a.Notify.Counts(ctx, who)
		if err != nil {
			return nil, err
		}
		return &body[inboxCounts]{inboxCounts(n)}, nil
	})
	route(a, anyone, huma.Operation{
		OperationID: "read-inbox", Method: http.MethodPost, Path: path + ":read-all", Tags: tags, Metadata: map[string]any{unaudited: true},
		Summary: "Mark everything in one's own inbox as read",
	}, a.readInbox)
}

func (a *API) listInbox(ctx context.Context, in *struct {
	After
	Topic   string `query:"topic" maxLength:"64" doc:"Id or name of a topic"`
	Unread  bool   `query:"unread" doc:"Only what is not read"`
	Unacked bool   `query:"unacked" doc:"Only what asks for an ack and is open"`
},
) (*body[page[InboxItem]], error) {
	who, err := a.personal(ctx)
	if err != nil {
		return nil, err
	}
	before, err := in.afterID()
	if err != nil {
		return nil, err
	}
	found, err := a.Notify.Items(ctx, who, notify.InboxQuery{Topic: in.Topic, Unread: in.Unread, Unacked: in.Unacked, Before: before, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(i *notify.Item) string { return i.Notification.ID })
	items := make([]InboxItem, len(found))
	for i := range found {
		items[i] = InboxItemOf(&found[i], a.Notify.TopicName(found[i].Notification.Topic))
	}
	return list(items, next), nil
}

func (a *API) readInbox(ctx context.Context, in *struct {
	Body *struct {
		UpTo string `json:"up_to,omitempty" maxLength:"64" doc:"Id of the newest notification that was shown; all when absent"`
	}
},
) (*body[marked], error) {
	who, err := a.personal(ctx)
	if err != nil {
		return nil, err
	}
	upTo := ""
	if in.Body != nil {
		upTo = in.Body.UpTo
	}
	if upTo != "" && !plainID(upTo) {
		return nil, faultAt("#/up_to", errCursor())
	}
	moved, err := a.Notify.ReadAll(ctx, who.Subject(), upTo)
	if err != nil {
		return nil, err
	}
	return &body[marked]{marked{Moved: moved, Missing: []string{}}}, nil
}

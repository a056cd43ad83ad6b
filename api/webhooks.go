package api

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices/twin"
	"muster/feed"
	"muster/notify"
	"muster/notify/hooks"
	"muster/notify/outbox"
)

// WebhookReader finds webhooks.
type WebhookReader interface {
	List() []hooks.Webhook
	Get(id string) (hooks.Webhook, error)
	// Problem says why an enabled webhook gets no event at all, empty when it does.
	Problem(h hooks.Webhook) string
}

// WebhookWriter makes, changes and deletes webhooks.
type WebhookWriter interface {
	Create(ctx context.Context, s hooks.Spec) (hooks.Webhook, string, error)
	Update(ctx context.Context, id string, c hooks.Change) (hooks.Webhook, error)
	Delete(ctx context.Context, id string, cond func(hooks.Webhook) error) error
}

// WebhookTester rotates the secrets of webhooks and tries them.
type WebhookTester interface {
	RotateSecret(ctx context.Context, id string, overlap time.Duration) (hooks.Webhook, string, error)
	Test(ctx context.Context, id string) (outbox.Attempt, error)
}

// Webhooks is what the API needs of *hooks.Webhooks.
type Webhooks interface {
	WebhookReader
	WebhookWriter
	WebhookTester
}

// webhook is a webhook as it is shown.
type webhook struct {
	ID          string          `json:"id" example:"whk_J7WQ2VZKPN4XA3MBTCYHD5RE6U"`
	URL         string          `json:"url" doc:"Of a chat service its name only" example:"https://example.com/muster"`
	Description string          `json:"description"`
	Types       []string        `json:"types" nullable:"false" doc:"Types of events, families such as device.*, or *" example:"[\"device.*\",\"command.failed\"]"`
	Q           string          `json:"q" doc:"Only events of devices that match this now; empty for all events" example:"tag:site=berlin"`
	Topics      []string        `json:"topics" nullable:"false" doc:"Of notification.* events those to these topics only, by what they are called now, in full and as the topic's template words them; empty for all, of private topics without words" example:"[\"cold-chain\"]"`
	Disabled    bool            `json:"disabled"`
	Reason      string          `json:"reason,omitempty" doc:"Why Muster disabled it"`
	Problem     string          `json:"problem,omitempty" doc:"Why it gets no event although it is enabled"`
	Owner       string          `json:"owner" doc:"Who made it"`
	Secrets     []webhookSecret `json:"secrets" nullable:"false" doc:"What signs, the newest first; the secrets themselves were shown when they were made"`
	CreatedAt   string          `json:"created_at" format:"date-time"`
	UpdatedAt   string          `json:"updated_at" format:"date-time"`
}

type webhookSecret struct {
	CreatedAt string  `json:"created_at" format:"date-time"`
	EndsAt    *string `json:"ends_at" format:"date-time" doc:"When it signs no more; null for the newest"`
}

func (a *API) webhook(h *hooks.Webhook) webhook {
	out := webhook{
		ID: h.ID, URL: h.URL, Description: h.Description, Types: append([]string{}, h.Types...), Q: h.Query, Topics: a.namesOf(h.Topics), Disabled: h.Disabled,
		Reason: h.Reason, Owner: h.Owner, Secrets: []webhookSecret{}, CreatedAt: stamp(h.Created), UpdatedAt: stamp(h.Updated),
	}
	now := muster.MicrosOf(a.Now())
	for _, s := range h.Secrets {
		if s.Ends == 0 || s.Ends > now {
			out.Secrets = append(out.Secrets, webhookSecret{stamp(s.Created), stampOrNull(s.Ends)})
		}
	}
	if !h.Disabled {
		out.Problem = cmp.Or(a.Webhooks.Problem(*h), a.topicGone(h.Topics))
	}
	return out
}

// topicGone says which of the topics that a webhook names by their ids was deleted.
func (a *API) topicGone(ids []string) string {
	for _, id := range ids {
		if _, err := a.Notify.Topic(notify.Who{Admin: true}, id); err != nil {
			return "there is no topic " + id + " any more"
		}
	}
	return ""
}

// namesOf returns what topics are called now, in order, and the id of one that was deleted.
func (a *API) namesOf(ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id
		if t, err := a.Notify.Topic(notify.Who{Admin: true}, id); err == nil {
			out[i] = t.Name
		}
	}
	slices.Sort(out)
	return out
}

// topicIDs returns the ids of topics that who asks sees; one that is not there is Invalid.
func (a *API) topicIDs(ctx context.Context, refs []string) ([]string, error) {
	out := make([]string, len(refs))
	for i, ref := range refs {
		t, err := a.Notify.Topic(a.asking(ctx), ref)
		if muster.KindOf(err) == muster.NotFound {
			return nil, muster.InvalidAt(fmt.Sprintf("topics/%d", i), "there is no such topic")
		}
		if err != nil {
			return nil, err
		}
		out[i] = t.ID
	}
	return out, nil
}

func (a *API) taggedWebhook(h *hooks.Webhook) *tagged[webhook] {
	return &tagged[webhook]{versionTag(h.Version), a.webhook(h)}
}

type newWebhook struct {
	URL         string   `json:"url" minLength:"1" maxLength:"2048" doc:"http:// or https://, without a user, a password or a fragment; or shoutrrr: and the URL of a chat service, which is a secret and shown nowhere again" example:"https://example.com/muster"`
	Description string   `json:"description,omitempty" maxLength:"500"`
	Types       []string `json:"types" minItems:"1" maxItems:"50" nullable:"false" doc:"Types of events (GET /event-types), families such as device.*, or *" example:"[\"device.*\"]"`
	Q           string   `json:"q,omitempty" maxLength:"2048" doc:"Only events of devices that match this, in the query language"`
	Topics      []string `json:"topics,omitempty" maxItems:"50" nullable:"false" doc:"Names of topics: of notification.* events those to these only, with all their words"`
	Disabled    bool     `json:"disabled,omitempty"`
}

type changedWebhook struct {
	URL         *string  `json:"url,omitempty" minLength:"1" maxLength:"2048" nullable:"false"`
	Description *string  `json:"description,omitempty" maxLength:"500" nullable:"false"`
	Types       []string `json:"types,omitempty" minItems:"1" maxItems:"50" nullable:"false"`
	Q           *string  `json:"q,omitempty" maxLength:"2048" nullable:"false"`
	Topics      []string `json:"topics,omitempty" maxItems:"50" nullable:"false" doc:"None for all"`
	Disabled    *bool    `json:"disabled,omitempty" nullable:"false" doc:"Enabling takes the reason away"`
}

type issuedWebhook struct {
	Webhook webhook `json:"webhook"`
	Secret  string  `json:"secret" doc:"whsec_ and base64, shown this once; empty for a chat service"`
}

// WebhookPath is the part of an input that names a webhook.
type WebhookPath struct {
	Webhook string `path:"webhook" maxLength:"64" doc:"The webhook's id"`
}

// WebhookMatch binds a change to a version of the webhook. It is exported because huma
// looks into exported embedded fields only.
type WebhookMatch struct {
	IfMatch string `header:"If-Match" doc:"Only when the webhook has this ETag"`
}

// cond returns what notify asks before the change, nil without the header.
func (m WebhookMatch) cond() (func(hooks.Webhook) error, error) {
	match, err := parseMatch(m.IfMatch)
	if err != nil || match == nil {
		return nil, err
	}
	return func(h hooks.Webhook) error {
		if !match(twin.Versions{Document: h.Version, Effective: h.Version, Reported: -1}) {
			return muster.Errorf(muster.Stale, "the webhook has the ETag %s now", versionTag(h.Version))
		}
		return nil
	}, nil
}

func (a *API) webhookRoutes() {
	const path = "/webhooks"
	tags := []string{"webhooks"}
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-webhooks", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List webhooks, without the secrets",
	}, a.listWebhooks)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "create-webhook", Method: http.MethodPost, Path: path, DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Have events sent to a URL, as Standard Webhooks has it", Errors: []int{409},
	}, a.createWebhook)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-webhook", Method: http.MethodGet, Path: path + "/{webhook}", Tags: tags, Summary: "Get a webhook", Errors: []int{404},
	}, func(_ context.Context, in *WebhookPath) (*tagged[webhook], error) {
		h, err := a.Webhooks.Get(in.Webhook)
		if err != nil {
			return nil, err
		}
		return a.taggedWebhook(&h), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "change-webhook", Method: http.MethodPatch, Path: path + "/{webhook}", Tags: tags,
		Summary: "Change a webhook, disable or enable it", Description: "What is absent stays.", Errors: []int{404, 412},
	}, a.changeWebhook)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-webhook", Method: http.MethodDelete, Path: path + "/{webhook}", Tags: tags,
		Summary: "Delete a webhook", Errors: []int{404, 412},
	}, func(ctx context.Context, in *struct {
		WebhookPath
		WebhookMatch
	},
	) (*struct{}, error) {
		cond, err := in.cond()
		if err != nil {
			return nil, err
		}
		return nil, a.Webhooks.Delete(ctx, in.Webhook, cond)
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "rotate-webhook-secret", Method: http.MethodPost, Path: path + "/{webhook}/rotate", Tags: tags,
		Summary:     "Give a webhook a new secret",
		Description: "Events are signed with both until the overlap is over. A secret that was in its own overlap ends at once. A chat service has none.", Errors: []int{404, 409},
	}, a.rotateWebhook)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "test-webhook", Method: http.MethodPost, Path: path + "/{webhook}/test", Tags: tags,
		Summary: "Send the event webhook.test now, and say what came of it",
		Description: "Also to a disabled webhook. One that answers 410 is disabled. At most 10 tests a minute of one user and all his keys, of everything that he tests; " +
			"beyond, and while ten tests of webhooks run, it is 429. It takes up to 10 s.",
		Errors: []int{404},
	}, a.testWebhook)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-event-types", Method: http.MethodGet, Path: "/event-types", Tags: tags,
		Summary: "The types of events that webhooks and streams can ask for, with a sample of each",
	}, func(context.Context, *struct{}) (*body[page[eventType]], error) { return lone(eventTypes()), nil })
}

func (a *API) listWebhooks(_ context.Context, in *struct {
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"64" doc:"The cursor of the page before"`
},
) (*body[page[webhook]], error) {
	items, next := []webhook{}, ""
	for _, h := range a.Webhooks.List() {
		if h.ID <= in.After {
			continue
		}
		if len(items) == in.Limit {
			next = items[len(items)-1].ID
			break
		}
		items = append(items, a.webhook(&h))
	}
	return list(items, next), nil
}

// createdWebhook is an answer with both headers.
type createdWebhook struct {
	Location string `header:"Location"`
	ETag     string `header:"ETag"`
	Body     issuedWebhook
}

func (a *API) createWebhook(ctx context.Context, in *body[newWebhook]) (*createdWebhook, error) {
	who, b := requestOf(ctx).who, in.Body
	topics, err := a.topicIDs(ctx, b.Topics)
	if err != nil {
		return nil, err
	}
	h, secret, err := a.Webhooks.Create(ctx, hooks.Spec{
		URL: b.URL, Description: b.Description, Types: b.Types, Query: b.Q, Topics: topics, Disabled: b.Disabled, Owner: cmp.Or(who.Name, who.ID),
		OwnerID: a.asking(ctx).User,
	})
	if err != nil {
		return nil, err
	}
	return &createdWebhook{prefix + "/webhooks/" + h.ID, versionTag(h.Version), issuedWebhook{a.webhook(&h), secret}}, nil
}

func (a *API) changeWebhook(ctx context.Context, in *struct {
	WebhookPath
	WebhookMatch
	Body changedWebhook
},
) (*tagged[webhook], error) {
	cond, err := in.cond()
	if err != nil {
		return nil, err
	}
	b := in.Body
	var topics *[]string
	if b.Topics != nil {
		ids, err := a.topicIDs(ctx, b.Topics)
		if err != nil {
			return nil, err
		}
		topics = &ids
	}
	h, err := a.Webhooks.Update(ctx, in.Webhook, hooks.Change{
		URL: b.URL, Description: b.Description, Types: b.Types, Query: b.Q, Topics: topics, Disabled: b.Disabled, If: cond,
	})
	if err != nil {
		return nil, err
	}
	return a.taggedWebhook(&h), nil
}

// defaultOverlap is how long the secret before signs too unless somebody says otherwise.
const defaultOverlap = 24 * time.Hour

func (a *API) rotateWebhook(ctx context.Context, in *struct {
	WebhookPath
	Body *struct {
		OverlapS *int64 `json:"overlap_s,omitempty" minimum:"0" maximum:"604800" nullable:"false" doc:"For how many seconds the secret before signs too; a day when absent"`
	}
},
) (*tagged[issuedWebhook], error) {
	overlap := defaultOverlap
	if in.Body != nil && in.Body.OverlapS != nil {
		overlap = time.Duration(*in.Body.OverlapS) * time.Second
	}
	h, secret, err := a.Webhooks.RotateSecret(ctx, in.Webhook, overlap)
	if err != nil {
		return nil, err
	}
	return &tagged[issuedWebhook]{versionTag(h.Version), issuedWebhook{a.webhook(&h), secret}}, nil
}

// webhookAttempt is what came of sending one event once.
type webhookAttempt struct {
	Delivered   bool    `json:"delivered" doc:"The receiver answered 2xx"`
	Verdict     string  `json:"verdict" enum:"delivered,again,gone,dead" doc:"again: a delivery would be tried again later; gone: the webhook was disabled; dead: trying again is of no use"`
	Status      int     `json:"status,omitempty" doc:"The receiver's HTTP status"`
	Error       string  `json:"error,omitempty"`
	Response    string  `json:"response,omitempty" doc:"How the receiver's answer begins, at most 1 KiB"`
	At          string  `json:"at" format:"date-time"`
	DurationMS  float64 `json:"duration_ms"`
	RetryAfterS int64   `json:"retry_after_s,omitempty" doc:"As the receiver wishes"`
}

func (a *API) testWebhook(ctx context.Context, in *WebhookPath) (*body[webhookAttempt], error) {
	if _, err := a.Webhooks.Get(in.Webhook); err != nil {
		return nil, err
	}
	if err := a.testing(ctx, a.asking(ctx)); err != nil {
		return nil, err
	}
	t, err := a.Webhooks.Test(ctx, in.Webhook)
	if err != nil {
		return nil, err
	}
	return &body[webhookAttempt]{webhookAttempt{
		Delivered: t.Verdict == outbox.Delivered, Verdict: string(t.Verdict), Status: t.Status, Error: t.Error, Response: t.Response,
		At: stamp(t.At), DurationMS: float64(t.Duration.Microseconds()) / 1000, RetryAfterS: int64(t.RetryAfter / time.Second),
	}}, nil
}

// eventType is one type of event, or a family that is not sent yet.
type eventType struct {
	Type     string          `json:"type" example:"device.created"`
	Summary  string          `json:"summary"`
	Reserved bool            `json:"reserved,omitempty" doc:"It may be asked for, and is not sent yet"`
	Sample   json.RawMessage `json:"sample,omitempty" doc:"An event of this type as it is sent"`
}

func eventTypes() []eventType {
	const at = muster.Micros(1_767_323_045_000_000) // 2026-01-02T03:04:05Z, as in the samples
	kinds, families := feed.Catalogue(), feed.Reserved()
	out := make([]eventType, 0, len(kinds)+len(families))
	for _, k := range kinds {
		e := feed.Event{At: at, Type: k.Type, Data: json.RawMessage(k.Sample)}
		out = append(out, eventType{Type: k.Type, Summary: k.Summary, Sample: e.Envelope()})
	}
	for _, family := range families {
		out = append(out, eventType{Type: family, Summary: "Of a room that is to come", Reserved: true})
	}
	return out
}

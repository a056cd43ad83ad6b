package hooks

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster"
	"muster/audit"
	"muster/devices/query"
)

// writeTimeout is for one change in the store.
const writeTimeout = 10 * time.Second

// Store keeps webhooks.
type Store interface {
	// Webhooks returns all, in bytewise order of id.
	Webhooks(ctx context.Context) ([]Webhook, error)
	// PutWebhook makes or replaces the one of its id.
	PutWebhook(ctx context.Context, h Webhook) error
	// DeleteWebhook answers NotFound when there is none.
	DeleteWebhook(ctx context.Context, id string) error
}

// Devices knows the query language, and the devices as they are now.
type Devices interface {
	Compile(q string) (*query.Expr, error)
	Matches(id muster.DeviceID, e *query.Expr) bool
}

// Options are what Webhooks works with; all are needed but Chats.
type Options struct {
	Devices Devices
	Sealer  Sealer
	Sender  Sender
	Chats   Chats // the chat services that can be sent to; nil for none
	Now     func() time.Time
}

// Webhooks are all there are, in memory, and written through to the store. It is safe
// for concurrent use; readers never wait for the store.
type Webhooks struct {
	store   Store
	options Options

	turn    chan struct{} // held by the one change in flight
	testing chan struct{} // held by each test under way
	mu      sync.RWMutex
	byID    map[string]Webhook // at most MaxWebhooks
	// wanted are the enabled ones by type of event, made anew with each change.
	wanted atomic.Pointer[map[string][]*matcher]
}

// New returns webhooks without any: Load fills them.
func New(store Store, o Options) *Webhooks {
	w := &Webhooks{
		store: store, options: o, turn: make(chan struct{}, 1), testing: make(chan struct{}, maxTests), byID: map[string]Webhook{},
	}
	w.index()
	return w
}

// Load reads all webhooks into memory. Call it once, before anything else.
func (w *Webhooks) Load(ctx context.Context) error {
	all, err := w.store.Webhooks(ctx)
	if err != nil {
		return fmt.Errorf("load the webhooks: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range all {
		w.byID[h.ID] = h
	}
	w.index()
	return nil
}

// NameTopics has webhooks that were kept while they named topics by their names name them by their ids, as find has them: a
// name may be another topic's by the next change. What find does not have stays. Call it once, after Load.
func (w *Webhooks) NameTopics(ctx context.Context, find func(ref string) (id string, ok bool)) error {
	for _, h := range w.List() {
		ids := slices.Clone(h.Topics)
		for i := range ids {
			if id, ok := find(ids[i]); ok {
				ids[i] = id
			}
		}
		slices.Sort(ids)
		if slices.Equal(ids, h.Topics) {
			continue
		}
		h.Topics = ids
		if err := w.store.PutWebhook(ctx, h); err != nil {
			return fmt.Errorf("keep the topics of a webhook by id: %w", err)
		}
		w.mu.Lock()
		w.byID[h.ID] = h
		w.index()
		w.mu.Unlock()
	}
	return nil
}

// List returns every webhook in bytewise order of id.
func (w *Webhooks) List() []Webhook {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.SortedFunc(maps.Values(w.byID), func(a, b Webhook) int { return cmp.Compare(a.ID, b.ID) })
}

// Get returns one webhook, or NotFound.
func (w *Webhooks) Get(id string) (Webhook, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	h, ok := w.byID[id]
	if !ok {
		return Webhook{}, muster.Errorf(muster.NotFound, "there is no such webhook")
	}
	return h, nil
}

// Create makes a webhook and returns it with its secret, which is shown this once; one of a
// chat service has none.
// Invalid for a bad URL, description, type or query; Conflict when there are
// MaxWebhooks.
func (w *Webhooks) Create(ctx context.Context, s Spec) (h Webhook, secret string, err error) {
	now := muster.MicrosOf(w.options.Now())
	h = Webhook{
		ID: idPrefix + rand.Text(), URL: s.URL, Description: s.Description, Types: s.Types, Query: s.Query, Disabled: s.Disabled,
		Topics: s.Topics, Owner: s.Owner, OwnerID: s.OwnerID, Version: 1, Created: now, Updated: now,
	}
	if err := w.takeURL(&h, ""); err != nil {
		return Webhook{}, "", err
	}
	if err := w.check(&h); err != nil {
		return Webhook{}, "", err
	}
	if len(h.Secrets) == 0 { // no chat service
		first, text, err := w.newSecret(h.ID, now)
		if err != nil {
			return Webhook{}, "", err
		}
		h.Secrets, secret = []Secret{first}, text
	}
	err = w.change(ctx, func(ctx context.Context) error {
		if n := len(w.List()); n >= MaxWebhooks {
			return muster.Errorf(muster.Conflict, "there are %d webhooks already: delete some first", n)
		}
		return w.put(ctx, "webhook.create", nil, h)
	})
	if err != nil {
		return Webhook{}, "", err
	}
	return h, secret, nil
}

// Update changes a webhook. NotFound, Invalid, or what c.If says.
func (w *Webhooks) Update(ctx context.Context, id string, c Change) (Webhook, error) {
	return w.edit(ctx, id, "webhook.update", c.If, func(h *Webhook) error {
		before := h.URL
		*h = c.apply(*h)
		if err := w.takeURL(h, before); err != nil {
			return err
		}
		return w.check(h)
	})
}

// Disable stops deliveries to a webhook for a reason of Muster's own, which is shown
// until somebody enables it. One that is disabled already stays as it is.
func (w *Webhooks) Disable(ctx context.Context, id, reason string) (Webhook, error) {
	return w.edit(ctx, id, "webhook.disable", nil, func(h *Webhook) error {
		if !h.Disabled {
			h.Disabled, h.Reason = true, reason[:min(len(reason), maxReason)]
		}
		return nil
	})
}

// RotateSecret gives a webhook a new secret, which is shown this once. The one before
// signs beside it for overlap (0 to MaxOverlap); one older still ends at once. Conflict for
// a chat service: its secret is its URL.
func (w *Webhooks) RotateSecret(ctx context.Context, id string, overlap time.Duration) (h Webhook, secret string, err error) {
	if overlap < 0 || overlap > MaxOverlap {
		return Webhook{}, "", muster.Errorf(muster.Invalid, "the overlap is not between 0 and %v", MaxOverlap)
	}
	h, err = w.edit(ctx, id, "webhook.rotate", nil, func(h *Webhook) error {
		if _, chat := ChatOf(h.URL); chat {
			return muster.Errorf(muster.Conflict, "a chat service has no secret that signs: give the webhook another URL")
		}
		now := w.options.Now()
		next, text, err := w.newSecret(id, muster.MicrosOf(now))
		if err != nil {
			return err
		}
		secret = text
		secrets := []Secret{next}
		if overlap > 0 && len(h.Secrets) > 0 {
			before := h.Secrets[0]
			before.Ends = muster.MicrosOf(now.Add(overlap))
			secrets = append(secrets, before)
		}
		h.Secrets = secrets
		return nil
	})
	if err != nil {
		return Webhook{}, "", err
	}
	return h, secret, nil
}

// Delete takes a webhook away, or returns NotFound, or what cond says of it. cond may
// be nil.
func (w *Webhooks) Delete(ctx context.Context, id string, cond func(Webhook) error) error {
	return w.change(ctx, func(ctx context.Context) error {
		h, err := w.Get(id)
		if err == nil && cond != nil {
			err = cond(h)
		}
		if err != nil {
			return err
		}
		audit.Note(ctx, "webhook.delete", objectOf(id), viewOf(h), nil)
		if err := w.store.DeleteWebhook(ctx, id); err != nil {
			return fmt.Errorf("delete the webhook: %w", err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.byID, id)
		w.index()
		return nil
	})
}

// edit changes the webhook id in turn. When fn changes nothing, nothing is written.
func (w *Webhooks) edit(ctx context.Context, id, action string, cond func(Webhook) error, fn func(*Webhook) error) (h Webhook, err error) {
	err = w.change(ctx, func(ctx context.Context) error {
		before, err := w.Get(id)
		if err == nil && cond != nil {
			err = cond(before)
		}
		if err != nil {
			return err
		}
		h = before
		if err := fn(&h); err != nil {
			return err
		}
		if same(before, h) {
			audit.Nothing(ctx)
			return nil
		}
		now := muster.MicrosOf(w.options.Now())
		h.Version, h.Updated = before.Version+1, now
		h.Secrets = slices.DeleteFunc(slices.Clone(h.Secrets), func(s Secret) bool { return s.Ends != 0 && s.Ends <= now })
		return w.put(ctx, action, &before, h)
	})
	if err != nil {
		return Webhook{}, err
	}
	return h, nil
}

// same says whether a change left everything as it was. Secrets change by being made.
func same(a, b Webhook) bool {
	return a.URL == b.URL && a.Description == b.Description && slices.Equal(a.Types, b.Types) && slices.Equal(a.Topics, b.Topics) && a.Query == b.Query &&
		a.Disabled == b.Disabled && a.Reason == b.Reason &&
		slices.EqualFunc(a.Secrets, b.Secrets, func(x, y Secret) bool { return x.Created == y.Created && bytes.Equal(x.Sealed, y.Sealed) })
}

// put is called in turn.
func (w *Webhooks) put(ctx context.Context, action string, before *Webhook, h Webhook) error {
	var was any
	if before != nil {
		was = viewOf(*before)
	}
	audit.Note(ctx, action, objectOf(h.ID), was, viewOf(h))
	if err := w.store.PutWebhook(ctx, h); err != nil {
		return fmt.Errorf("store the webhook: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.byID[h.ID] = h
	w.index()
	return nil
}

// change waits for its turn and runs fn, which a caller that goes away does not
// cancel: memory and store would part.
func (w *Webhooks) change(ctx context.Context, fn func(ctx context.Context) error) error {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return muster.Errorf(muster.Busy, "waiting to change webhooks: %w", ctx.Err())
	}
	c, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	return fn(c)
}

// check is Webhook.check with the query.
func (w *Webhooks) check(h *Webhook) error {
	if err := h.check(); err != nil {
		return err
	}
	if h.Query == "" {
		return nil
	}
	_, err := w.options.Devices.Compile(h.Query)
	return muster.At(err, "q")
}

// view is a webhook in the audit log. Paths of URLs are often secrets: of them there is
// enough to see a change.
type view struct {
	Host        string   `json:"host"`
	URLHash     string   `json:"url_sha256"`
	Description string   `json:"description,omitempty"`
	Types       []string `json:"types"`
	Query       string   `json:"q,omitempty"`
	Topics      []string `json:"topics,omitempty"`
	Disabled    bool     `json:"disabled"`
	Reason      string   `json:"reason,omitempty"`
	Secrets     int      `json:"secrets"`
	Version     int64    `json:"version"`
}

func viewOf(h Webhook) view {
	v := view{
		Description: h.Description, Types: h.Types, Query: h.Query, Topics: h.Topics, Disabled: h.Disabled, Reason: h.Reason,
		Secrets: len(h.Secrets), Version: h.Version,
	}
	if _, chat := ChatOf(h.URL); chat {
		v.Host = h.URL
	} else if u, err := url.Parse(h.URL); err == nil {
		v.Host = u.Scheme + "://" + u.Host
	}
	sum := sha256.Sum256([]byte(h.URL))
	v.URLHash = hex.EncodeToString(sum[:8])
	return v
}

func objectOf(id string) string { return "webhooks/" + id }

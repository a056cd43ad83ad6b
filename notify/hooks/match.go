package hooks

import (
	"slices"
	"sync/atomic"
	"time"

	"muster"
	"muster/devices/query"
	"muster/feed"
)

// refresh is how long a compiled query is used: the groups that it names may get other
// queries of their own.
const refresh = 10 * time.Second

// matcher is an enabled webhook with its query compiled.
type matcher struct {
	hook  Webhook
	query atomic.Pointer[compiled]
}

type compiled struct {
	expr *query.Expr
	err  error
	at   time.Time
}

// index makes wanted anew. It is called with mu held, or before anybody else.
func (w *Webhooks) index() {
	wanted := map[string][]*matcher{}
	for _, h := range w.byID {
		if h.Disabled {
			continue
		}
		m := &matcher{hook: h}
		for _, k := range feed.Catalogue() {
			for _, t := range h.Types {
				if feed.Matches(t, k.Type) {
					wanted[k.Type] = append(wanted[k.Type], m)
					break
				}
			}
		}
	}
	w.wanted.Store(&wanted)
}

// Matching returns the enabled webhooks that want e, in no order: by its type, and by
// its device as it is now. An event without a device, or whose device is gone, passes an
// empty query only. It waits for nobody.
func (w *Webhooks) Matching(e feed.Event) []Webhook {
	a, _ := aboutOf(&e)
	return w.matching(&e, a.TopicID)
}

// naming says whether an enabled webhook wants a type of event, of some topics only.
func (w *Webhooks) naming(kind string) bool {
	return slices.ContainsFunc((*w.wanted.Load())[kind], func(m *matcher) bool { return len(m.hook.Topics) > 0 })
}

// matching is Matching for an event about a notification of a topic, by id, which a private one's does not tell.
func (w *Webhooks) matching(e *feed.Event, topic string) []Webhook {
	var out []Webhook
	_, note := aboutOf(e)
	for _, m := range (*w.wanted.Load())[e.Type] {
		if note && len(m.hook.Topics) > 0 && !slices.Contains(m.hook.Topics, topic) {
			continue
		}
		if m.hook.Query == "" || e.Device != "" && w.selects(m, e.Device) {
			out = append(out, m.hook)
		}
	}
	return out
}

func (w *Webhooks) selects(m *matcher, id muster.DeviceID) bool {
	c := m.query.Load()
	now := w.options.Now()
	if c == nil || now.Sub(c.at) >= refresh {
		c = &compiled{at: now}
		c.expr, c.err = w.options.Devices.Compile(m.hook.Query)
		m.query.Store(c)
	}
	return c.err == nil && w.options.Devices.Matches(id, c.expr)
}

// Problem returns why h gets no event at all although it is enabled, empty when it
// does: its query names a group or profile that is gone, or its chat service is not built in.
func (w *Webhooks) Problem(h Webhook) string {
	if why := w.noChat(&h); why != "" || h.Query == "" {
		return why
	}
	if _, err := w.options.Devices.Compile(h.Query); err != nil {
		return "the query selects nothing: " + muster.Public(err)
	}
	return ""
}

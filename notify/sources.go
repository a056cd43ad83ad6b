package notify

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"muster"
	"muster/feed"
)

const (
	sourcesCursor = "notify.sources"
	sourcesPause  = time.Second
)

// Begin keeps where RunSources begins to read the feed when it has no place yet: here. Call it
// once, before the first request is answered.
func (n *Notify) Begin(ctx context.Context) error {
	_, err := PlaceIn(ctx, n.options.Feed, n.store, sourcesCursor)
	return err
}

// RunSources makes notifications of the system events that topics name as their sources,
// and tells people of deliveries that were given up, until ctx ends. It goes on where it
// was before a restart: each event is looked at once.
func (n *Notify) RunSources(ctx context.Context) error {
	for ctx.Err() == nil {
		err := n.readFeed(ctx)
		if err != nil && ctx.Err() == nil {
			n.options.Logger.Warn("the sources of topics wait", "err", err)
		}
		select {
		case <-time.After(sourcesPause):
		case <-ctx.Done():
		}
	}
	return nil
}

// readFeed runs until an error, or returns when there is nothing to be read here yet.
func (n *Notify) readFeed(ctx context.Context) error {
	c, err := PlaceIn(ctx, n.options.Feed, n.store, sourcesCursor)
	if err != nil {
		return err
	}
	if c.Seq > n.options.Feed.Last() {
		return nil // another process has looked at what this one does not know of yet
	}
	r, err := n.options.Feed.Follow(c.Seq)
	if muster.KindOf(err) == muster.NotFound {
		n.options.Logger.Error("events went by that the sources of topics had not looked at", "after", c.Seq)
		r, err = n.options.Feed.Follow(-1)
	}
	if err != nil {
		return err //nolint:wrapcheck // it says what is not kept
	}
	return followFeed(ctx, r, c, n.keepCursor, func(events []feed.Event, c *Cursor) (bool, error) { return n.lookAt(ctx, events, c) })
}

func (n *Notify) keepCursor(ctx context.Context, c Cursor) error {
	_, err := n.store.Write(ctx, Write{Cursor: &c})
	return err //nolint:wrapcheck // the store says what it was doing
}

// lookAt makes of events what is to be made of them, and says whether the cursor is kept
// behind the last. What one of them makes and the cursor behind it are one transaction.
func (n *Notify) lookAt(ctx context.Context, events []feed.Event, c *Cursor) (kept bool, err error) {
	for i := range events {
		c.Seq = events[i].Seq
		if kept, err = n.tellOf(ctx, &events[i], *c); err != nil {
			return false, err
		}
		if kept {
			c.kept()
		}
	}
	return kept, nil
}

// tellOf makes of one event what is to be made of it, and says whether that was anything.
func (n *Notify) tellOf(ctx context.Context, e *feed.Event, c Cursor) (did bool, err error) {
	for range maxTurns {
		all := composed{write: Write{Cursor: &c}}
		if did, err = n.composeEvent(ctx, e, &all); err == nil && did {
			err = n.commit(ctx, &all)
		}
		if muster.KindOf(err) != muster.Conflict {
			return did, err
		}
	}
	return did, err
}

func (n *Notify) composeEvent(ctx context.Context, e *feed.Event, all *composed) (did bool, err error) {
	if e.Type == feed.DeliveryDead {
		return n.composeDead(ctx, e, all)
	}
	topics := n.withSources()
	ended, err := n.composeEnds(ctx, e, topics, all)
	if err != nil {
		return false, err
	}
	did = len(ended) > 0
	for _, t := range topics {
		for _, m := range n.messagesOf(&t, e) {
			if m.Resolve && ended[keyIn{t.ID, m.DedupKey}] {
				continue
			}
			part, err := n.compose(ctx, &t, Sender{"system", e.ID(), "Muster"}, &m)
			switch kind := muster.KindOf(err); {
			case err == nil:
				all.add(&part)
				did = true
			case m.Resolve && kind == muster.NotFound: // it was not told of
			case kind == muster.Invalid || kind == muster.TooLarge: // for good: one topic holds up no other
				n.options.Logger.Error("a source of a topic made no notification of an event", "topic", t.ID, "event", e.ID(), "err", err)
			default:
				return false, err
			}
		}
	}
	return did, nil
}

// messagesOf is what the sources of a topic make of e: one message for each dedup key, as
// severe as the most severe of the sources that share it.
func (n *Notify) messagesOf(t *Topic, e *feed.Event) (out []Message) {
	for i := range t.Sources {
		m, ok := n.messageOf(&t.Sources[i], e)
		if !ok {
			continue
		}
		at := slices.IndexFunc(out, func(o Message) bool { return o.DedupKey != "" && o.DedupKey == m.DedupKey })
		if at < 0 {
			out = append(out, m)
			continue
		}
		out[at].Severity, out[at].clears = max(out[at].Severity, m.Severity), append(out[at].clears, m.clears...)
	}
	return out
}

// withSources returns the active topics that have sources.
func (n *Notify) withSources() []Topic {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []Topic
	for id := range n.topics {
		if t := n.topics[id]; len(t.Sources) > 0 && t.Status == Active {
			out = append(out, t)
		}
	}
	return out
}

// messageOf is what a source makes of e; ok is false for nothing. A source that clears
// has one notification open for each device that is there, and for each rollout.
func (n *Notify) messageOf(s *Source, e *feed.Event) (m Message, ok bool) {
	tells := matchesAny(s.Types, e.Type)
	clears := !tells && matchesAny(s.Clears, e.Type)
	if !tells && !clears || !n.about(s, e) || tells && len(s.Clears) > 0 && n.tooLate(e) {
		return Message{}, false
	}
	m = Message{Severity: s.Severity, Device: e.Device, Data: e.Data, Title: eventTitle(s, e), Resolve: clears}
	if len(s.Clears) > 0 {
		m.DedupKey = strings.Join(s.Types, "+") + "/" + aboutWhat(e)
		if len(m.DedupKey) > MaxKey {
			m.DedupKey = m.DedupKey[len(m.DedupKey)-MaxKey:]
		}
	}
	if clears {
		m.Body = words(e)
	} else {
		m.clears = slices.Clone(s.Clears)
	}
	return m, true
}

// aboutWhat is what an event is about: its device, or its rollout.
func aboutWhat(e *feed.Event) string {
	if e.Device != "" {
		return string(e.Device)
	}
	id, _ := eventFields(e).Data["rollout"].(string)
	return id
}

func matchesAny(patterns []string, kind string) bool {
	for _, p := range patterns {
		if feed.Matches(p, kind) {
			return true
		}
	}
	return false
}

// about says whether e is about a device that the source asks for. A device that is gone
// is asked for by the empty query only.
func (n *Notify) about(s *Source, e *feed.Event) bool {
	if s.Query == "" {
		return true
	}
	expr, err := n.options.Devices.Compile(s.Query)
	return err == nil && e.Device != "" && n.options.Devices.Matches(e.Device, expr)
}

// eventTitle is the title of what a source makes of e, by its template when it has one
// that works.
func eventTitle(s *Source, e *feed.Event) string {
	title := words(e)
	if s.Title != "" {
		if made, err := expand("title", s.Title, eventFields(e)); err == nil && strings.TrimSpace(made) != "" {
			title = made
		}
	}
	return cut(strings.Map(func(r rune) rune {
		if r < ' ' || r == '\u2028' || r == '\u2029' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(title)), MaxTitle)
}

// cut is s, or what of it fits in n bytes.
func cut(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// Event is what the template of a source's title is about.
type Event struct {
	Type   string
	Device string
	Data   map[string]any
}

func eventFields(e *feed.Event) Event {
	data := map[string]any{}
	_ = json.Unmarshal(e.Data, &data) // always an object
	return Event{e.Type, string(e.Device), data}
}

// words is e in Muster's words.
func words(e *feed.Event) string {
	data := eventFields(e).Data
	reason, _ := data["reason"].(string)
	if reason == "" {
		reason, _ = data["detail"].(string)
	}
	family, what, _ := strings.Cut(e.Type, ".")
	what = strings.ReplaceAll(what, "_", " ")
	subject := string(e.Device)
	if subject == "" {
		subject = family
	}
	var s string
	switch family {
	case "presence":
		s = subject + " is " + what
	case "command", "job":
		method, _ := data["method"].(string)
		s = strings.Join(strings.Fields(subject+": "+family+" "+method+" "+what), " ")
	case "telemetry":
		s = subject + " sends what can not be kept"
	default:
		s = subject + ": " + family + " " + what
	}
	if reason != "" {
		s += " (" + reason + ")"
	}
	return s
}

package live

import (
	"context"
	"strconv"
	"sync/atomic"

	"muster"
	"muster/notify"
)

const (
	inboxAtOnce    = 16        // items for one message: 0.5 MB when all are as long as may be
	maxSnapshot    = 256 << 10 // bytes of items in a snapshot, but for the last
	maxInboxPlace  = 128       // bytes
	maxUnconfirmed = 256       // items of one connection whose delivery is not stored yet
)

// errNoInbox is for those who are nobody in particular.
var errNoInbox = muster.Errorf(muster.Forbidden, "an API key has no inbox: sign in as a user")

// inboxSub is what the inbox channel has beside what all channels have.
type inboxSub struct {
	subject notify.Subject
	place   string // after which it is to go on, as the client gave it; empty for a snapshot
	limit   int
	queued  atomic.Bool                   // is among the woken
	counted atomic.Pointer[notify.Counts] // the newest figures; nil for those that were told

	// Set by openInbox, then the flush goroutine's own.
	follow  *notify.Follower
	items   []byte // of the snapshot that is due, as JSON; nil when the client goes on where it was
	more    bool   // there are items beyond them
	why     string // why it does not go on where the client was
	told    notify.Counts
	sent    sentItems
	written []string // notifications in the message that is being written, to be marked as delivered
}

// inboxFor reads the fields of a sub command for the inbox.
func (s *sub) inboxFor(cmd *command) error {
	s.kind = kindInbox
	limit, err := limitOf(cmd)
	if err != nil {
		return err
	}
	switch {
	case s.c.g.deps.Inbox == nil:
		return errChannel
	case s.who.Who.Subject() == "":
		return errNoInbox
	case len(cmd.After) > maxInboxPlace:
		return muster.Errorf(muster.Invalid, "after is no place in the inbox")
	}
	s.inbox = &inboxSub{subject: s.who.Who.Subject(), place: cmd.After, limit: limit}
	return nil
}

// openInbox follows the inbox first and reads its newest items then: what comes in between
// is told, and what the snapshot has already is not told again.
func (g *Gateway) openInbox(s *sub) (err error) {
	in := s.inbox
	in.follow, err = g.deps.Inbox.Follow(in.subject, in.place, func() { g.woken.add(s) })
	if err != nil {
		return err
	}
	g.polled.add(s)
	ctx, cancel := context.WithTimeout(g.baseCtx, sourceTimeout)
	defer cancel()
	if in.why = in.follow.Reset(); in.place == "" || in.why != "" {
		items, err := g.deps.Inbox.Newest(ctx, in.subject, in.limit+1)
		if err != nil {
			return err
		}
		in.keep(items, g.deps.Item)
	}
	in.told, err = g.deps.Inbox.Counts(ctx, in.subject)
	return err
}

// keep makes the snapshot of items, one more than it may have.
func (in *inboxSub) keep(items []notify.Item, write func([]byte, *notify.Item) []byte) {
	in.items = append(make([]byte, 0, 1024), '[')
	first := true
	for i := range items {
		if in.more = i == in.limit || len(in.items) > maxSnapshot; in.more {
			break
		}
		in.items = write(appendComma(in.items, &first), &items[i])
		in.sent.add(&items[i], in.follow.At())
		if items[i].Receipt.State == notify.Sent {
			in.written = append(in.written, items[i].Notification.ID)
		}
	}
	in.items = append(in.items, ']')
}

func (g *Gateway) closeInbox(s *sub) {
	g.polled.remove(s)
	g.counting.forget(s)
	if s.inbox.follow != nil {
		s.inbox.follow.Close()
	}
}

// inboxSnapshot ends a snapshot with the place in the inbox, its figures, and its newest
// items unless the client goes on where it was.
func (m *message) inboxSnapshot(s *sub) {
	in := s.inbox
	m.put(`,"epoch":`)
	m.putString(in.follow.Epoch())
	m.put(`,"seq":`)
	m.b = strconv.AppendInt(m.b, in.follow.At(), 10)
	m.putCounts(in.told)
	if in.items != nil {
		m.put(`,"items":`)
		m.b = append(m.b, in.items...)
		m.put(`,"more":`)
		m.b = strconv.AppendBool(m.b, in.more)
		in.items = nil
	}
	if in.why != "" {
		m.put(`,"reason":`)
		m.putString(in.why)
		in.why = ""
	}
	m.put("}")
	s.c.moreNews = s.c.moreNews || in.follow.Ready()
}

func (m *message) putCounts(n notify.Counts) {
	m.put(`,"unread":`)
	m.b = strconv.AppendInt(m.b, n.Unread, 10)
	m.put(`,"open":`)
	m.b = strconv.AppendInt(m.b, n.Open, 10)
}

// inboxFrames appends what came next, and the figures when others were counted.
//
//nolint:contextcheck,nolintlint // it runs for a connection, which outlives those that wake it
func (g *Gateway) inboxFrames(m *message, s *sub) {
	in := s.inbox
	if in.follow.Ready() {
		g.inboxEvents(m, s)
	}
	if in.follow.Recount() { // a topic was lost or regained
		g.counting.owe(s)
	}
	if n := in.counted.Swap(nil); n != nil && *n != in.told {
		in.told = *n
		m.next()
		m.put(`{"t":"counts","ch":"inbox"`)
		m.putCounts(in.told)
		m.put("}")
	}
}

func (g *Gateway) inboxEvents(m *message, s *sub) {
	in := s.inbox
	ctx, cancel := context.WithTimeout(g.baseCtx, sourceTimeout)
	defer cancel()
	items, err := in.follow.Next(ctx, inboxAtOnce)
	if err != nil { // the next tick tries again
		g.stats.inboxFaults.Add(1)
		g.deps.Log.Debug("live: read an inbox", "err", err)
		return
	}
	some := false
	for i := range items {
		it := &items[i]
		if in.sent.has(it) {
			continue
		}
		some = true
		m.openAt(s, it.Receipt.Seq)
		m.put(`,"ev":`)
		m.b = g.deps.Item(m.b, it)
		m.put("}")
		in.sent.add(it, in.follow.At())
		if it.Receipt.State == notify.Sent {
			in.written = append(in.written, it.Notification.ID)
		}
	}
	if some {
		g.counting.owe(s)
	}
	s.c.moreNews = s.c.moreNews || in.follow.Ready()
}

func (in *inboxSub) placeOf(seq int64) string {
	return in.follow.Epoch() + "-" + strconv.FormatInt(seq, 10)
}

// openAt starts the event frame of change seq. To a stream its place is the event's id.
func (m *message) openAt(s *sub, seq int64) {
	if m.sse {
		m.id = s.inbox.placeOf(seq)
	}
	m.open("event", s)
	m.put(`,"seq":`)
	m.b = strconv.AppendInt(m.b, seq, 10)
}

// confirm has what was written marked as delivered.
func (j *job) confirm(notes Notes) {
	each := func(s *sub) {
		if s.kind == kindInbox && len(s.inbox.written) > 0 {
			notes.Delivered(s.inbox.subject, s.inbox.written)
			s.inbox.written = nil
		}
	}
	for _, w := range j.wanted {
		each(w.s)
	}
	for _, s := range j.subs {
		each(s)
	}
}

// sentItems are items that a client was sent and whose next change may tell it nothing
// new: that they were delivered, which they were to that client; or what a snapshot had
// already. At most maxUnconfirmed; beyond, one is forgotten, and its change told in vain.
type sentItems map[string]sentItem

type sentItem struct {
	seq     int64 // the change up to which the client knows it
	version int64 // of the notification
	fresh   bool  // it was not delivered yet
}

// add notes that it was sent to a client that is told all after the change at.
func (s *sentItems) add(it *notify.Item, at int64) {
	fresh := it.Receipt.State == notify.Sent
	if !fresh && it.Receipt.Seq <= at {
		s.drop(it.Notification.ID)
		return
	}
	if *s == nil {
		*s = sentItems{}
	}
	if len(*s) >= maxUnconfirmed {
		for id := range *s {
			delete(*s, id)
			break
		}
	}
	(*s)[it.Notification.ID] = sentItem{it.Receipt.Seq, it.Notification.Version, fresh}
}

// has says whether the client knows all that it tells.
func (s *sentItems) has(it *notify.Item) bool {
	was, ok := (*s)[it.Notification.ID]
	switch {
	case !ok:
		return false
	case it.Receipt.Seq <= was.seq:
		if it.Receipt.Seq == was.seq && !was.fresh {
			s.drop(it.Notification.ID)
		}
		return true
	}
	s.drop(it.Notification.ID)
	return was.fresh && it.Receipt.State == notify.Delivered && it.Notification.Version == was.version
}

// drop gives the memory back with the last.
func (s *sentItems) drop(id string) {
	if delete(*s, id); len(*s) == 0 {
		*s = nil
	}
}

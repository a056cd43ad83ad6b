package notify

import (
	"bytes"
	"context"
	"encoding/json"
	"hash/maphash"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/feed"
	"muster/notify/outbox"
)

const (
	notificationPrefix = "ntf_"
	pageSize           = 1000
	maxTurns           = 8 // tries at a change that others were quicker with
)

// Message is what is to be sent.
type Message struct {
	Topic    string    // id or name
	To       []Subject // some of the subscribers; empty for all
	Severity Severity
	Lane     *outbox.Lane // nil for that of the severity
	Title    string
	Body     string
	Data     json.RawMessage // an object
	Link     string
	Actions  []Action
	Device   muster.DeviceID // that it is about
	DedupKey string
	Resolve  bool // what was sent with DedupKey is over
	Expires  muster.Micros

	clears []string // types of events that end it, of a source's
}

// Result is what became of a message.
type Result struct {
	Notification  Notification
	Duplicate     bool      // one with its dedup key is open: that one was counted up
	Resolved      bool      // the one with its dedup key is resolved
	NotSubscribed []Subject // those of To who get nothing, in order
}

// Send writes a notification, its receipts and its deliveries in one transaction. When it
// returns, everybody will get it. Forbidden for who may not publish, Invalid when m breaks
// a rule, NotFound for no such topic or nothing to resolve, Conflict for a topic that is
// inactive, Busy with a WaitError in it beyond the sender's limit.
func (n *Notify) Send(ctx context.Context, who Who, m Message) (Result, error) {
	t, err := n.sendable(who, m.Topic)
	if err != nil {
		return Result{}, err
	}
	if err := n.checkMessage(&m); err != nil {
		return Result{}, err
	}
	if err := n.senders.take(who.sender()); err != nil {
		return Result{}, err
	}
	return n.send(ctx, &t, Sender{who.Kind, who.ID, who.Name}, &m)
}

func (n *Notify) sendable(who Who, ref string) (Topic, error) {
	t, err := n.find(who, ref)
	if err != nil && who.Device != "" { // a device sees the topics that it may publish to
		var ok bool
		if t, ok = n.topic(ref); ok && n.mayPublish(who, &t) {
			err = nil
		}
	}
	switch {
	case err != nil:
		return Topic{}, err
	case !n.mayPublish(who, &t):
		return Topic{}, muster.Errorf(muster.Forbidden, "publishing to the topic %s needs the role %s", t.Name, RolePublisher)
	case t.Status != Active:
		return Topic{}, muster.Errorf(muster.Conflict, "the topic %s is inactive", t.Name)
	}
	return t, nil
}

// send is in turn with the others of its dedup key, and tries until no other process was quicker.
func (n *Notify) send(ctx context.Context, t *Topic, by Sender, m *Message) (r Result, err error) {
	if m.DedupKey == "" {
		return n.sendNow(ctx, t, by, m)
	}
	err = inTurn(ctx, n.marking[maphash.String(n.seed, t.ID+m.DedupKey)%stripes], func(ctx context.Context) error {
		r, err = n.sendNow(ctx, t, by, m)
		return err
	})
	return r, err
}

func (n *Notify) sendNow(ctx context.Context, t *Topic, by Sender, m *Message) (r Result, err error) {
	for range maxTurns {
		var c composed
		if c, err = n.compose(ctx, t, by, m); err == nil {
			err = n.commit(ctx, &c)
		}
		if muster.KindOf(err) != muster.Conflict {
			return c.result, err
		}
	}
	return Result{}, err
}

// composed is what a message does, before it is written.
type composed struct {
	result Result
	write  Write
	events []feed.Event
}

// add has c do what o does too.
func (c *composed) add(o *composed) {
	w := &o.write
	c.write.New = append(c.write.New, w.New...)
	c.write.Updates = append(c.write.Updates, w.Updates...)
	c.write.Receipts = append(c.write.Receipts, w.Receipts...)
	c.write.Touch = append(c.write.Touch, w.Touch...)
	c.write.Over.add(w.Over)
	c.write.Rises = append(c.write.Rises, w.Rises...)
	c.write.About = append(c.write.About, w.About...)
	c.write.Out.Add(w.Out)
	c.events = append(c.events, o.events...)
}

func (n *Notify) commit(ctx context.Context, c *composed) error {
	ctx = feed.With(ctx)
	feed.Note(ctx, c.events...)
	if _, err := n.store.Write(ctx, c.write); err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	for i := range c.write.New {
		n.abouts.put(c.write.New[i].ID, c.write.New[i].Topic)
		n.escalates(c.write.New[i].EscalateAt)
	}
	return nil
}

func (n *Notify) compose(ctx context.Context, t *Topic, by Sender, m *Message) (composed, error) {
	if m.DedupKey != "" {
		old, err := n.store.OpenByKey(ctx, t.ID, m.DedupKey)
		switch {
		case err == nil && m.Resolve:
			return n.resolve(ctx, t, old, m)
		case err == nil && old.Expires != 0 && old.Expires <= n.now():
			return n.instead(ctx, t, by, old, m)
		case err == nil:
			return n.repeat(ctx, t, old, m)
		case muster.KindOf(err) != muster.NotFound:
			return composed{}, err //nolint:wrapcheck // the store says what it was doing
		}
	}
	if m.Resolve {
		return composed{}, muster.Errorf(muster.NotFound, "nothing with this dedup key is open")
	}
	return n.first(ctx, t, by, m)
}

// instead makes a new notification in the place of one that has expired, which is over then
// without a word.
func (n *Notify) instead(ctx context.Context, t *Topic, by Sender, old Notification, m *Message) (composed, error) {
	c, err := n.first(ctx, t, by, m)
	if err != nil {
		return composed{}, err
	}
	note := old
	note.State, note.ResolvedAt, note.Updated, note.EscalateAt, note.Version = Resolved, n.now(), n.now(), 0, old.Version+1
	c.write.Updates, c.write.Touch = []Update{{note, old.Version}}, []string{note.ID}
	return c, nil
}

// first makes a new notification.
func (n *Notify) first(ctx context.Context, t *Topic, by Sender, m *Message) (composed, error) {
	now := n.now()
	note := newNotification(t, by, m, now)
	p := plan{n: &note, at: now, subscribed: true}
	missing, err := n.recipients(ctx, t, m.To, p.tell)
	if err != nil {
		return composed{}, err
	}
	note.Recipients = int64(len(p.receipts))
	return composed{
		Result{Notification: note, NotSubscribed: missing},
		Write{New: []Notification{note}, Receipts: p.receipts, Out: p.batch(), About: aboutOf(&note, m)},
		[]feed.Event{n.event(feed.NotificationCreated, t, &note, now)},
	}, nil
}

func newNotification(t *Topic, by Sender, m *Message, now muster.Micros) Notification {
	n := Notification{
		ID: outbox.NewID(notificationPrefix, now), Topic: t.ID, Sender: by, Severity: m.Severity, Lane: int(laneOf(m)), Title: m.Title, Body: m.Body,
		Data: m.Data, Link: m.Link, Actions: m.Actions, Device: m.Device, DedupKey: m.DedupKey, Count: 1, State: Open, AckPolicy: t.AckPolicy,
		Created: now, Updated: now, Expires: m.Expires, Version: 1,
	}
	if s := t.Escalation.Steps; len(s) > 0 && t.AckPolicy != AckNone {
		n.EscalateAt = now + muster.Micros(s[0].After.Microseconds())
	}
	return n
}

func laneOf(m *Message) outbox.Lane {
	switch {
	case m.Lane != nil:
		return *m.Lane
	case m.Severity == Critical:
		return outbox.Urgent
	case m.Severity == Info:
		return outbox.Bulk
	}
	return outbox.Normal
}

// recipients calls tell with the subscriptions of a topic, those of to only when it names
// some, and returns who of to is not subscribed. Users who are disabled get nothing.
func (n *Notify) recipients(ctx context.Context, t *Topic, to []Subject, tell func(*Subscription)) (missing []Subject, err error) {
	wanted := make(map[Subject]bool, len(to))
	for _, s := range to {
		wanted[s] = false
	}
	var after Subject
	for {
		page, err := n.store.Subscriptions(ctx, t.ID, after, pageSize)
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range page {
			s := &page[i]
			if _, ok := wanted[s.Subject]; len(to) > 0 && !ok || !n.present(s.Subject) || !n.entitled(t, s.Subject) {
				continue
			}
			if len(to) > 0 {
				wanted[s.Subject] = true
			}
			tell(s)
		}
		if len(page) < pageSize {
			break
		}
		after = page[len(page)-1].Subject
	}
	for _, s := range to {
		if got, ok := wanted[s]; ok && !got {
			missing = append(missing, s)
			delete(wanted, s)
		}
	}
	return missing, nil
}

func (n *Notify) hasDevice(id muster.DeviceID) bool {
	_, ok := n.options.Devices.Made(id)
	return ok
}

// present says whether a subject is there and may get something.
func (n *Notify) present(s Subject) bool {
	if id, ok := s.Device(); ok {
		return n.hasDevice(id)
	}
	p, ok := n.options.People.Person(string(s))
	return ok && !p.Disabled
}

// entitled says whether a subject may still have what is sent to a topic: who lost the topic
// has lost its notifications, though his subscription is there.
func (n *Notify) entitled(t *Topic, s Subject) bool {
	if _, device := s.Device(); device {
		return true
	}
	return n.sees(n.Owner(s), t)
}

// repeat counts old up, with what m says now. Told anew are those channels alone that old was
// not severe enough for, and m is; and those whose news waits longer than it would if old had been
// as severe, which it takes the place of.
func (n *Notify) repeat(ctx context.Context, t *Topic, old Notification, m *Message) (composed, error) {
	note := old
	note.Count, note.Title, note.Body, note.Data, note.Link, note.Actions = old.Count+1, m.Title, m.Body, m.Data, m.Link, m.Actions
	note.Severity = max(old.Severity, m.Severity)
	note.Updated, note.Version = n.now(), old.Version+1
	if m.Expires != 0 {
		note.Expires = m.Expires
	}
	c := composed{
		result: Result{Notification: note, Duplicate: true},
		write:  Write{Updates: []Update{{note, old.Version}}, Touch: []string{note.ID}, About: aboutOf(&note, m)},
	}
	if note.Severity == old.Severity {
		return c, nil
	}
	note.Lane = min(note.Lane, int(laneOf(&Message{Severity: note.Severity})))
	waiting, err := n.waiting(ctx, note.ID)
	if err != nil {
		return composed{}, err
	}
	p := plan{n: &note, at: n.now(), subscribed: true, rise: true, above: old.Severity, waiting: waiting}
	if _, err := n.recipients(ctx, t, nil, p.tell); err != nil {
		return composed{}, err
	}
	has, err := n.have(ctx, note.ID)
	if err != nil {
		return composed{}, err
	}
	p.out = slices.DeleteFunc(p.out, func(d outbox.Delivery) bool { return !has[subjectOf(&d)] })
	c.result.Notification, c.write.Updates, c.write.Out = note, []Update{{note, old.Version}}, p.batch()
	c.write.Over, c.write.Rises = Over{Superseded: p.superseded, At: p.at}, []Rise{{note.ID, note.Severity}}
	return c, nil
}

// have returns who has a notification in his inbox.
func (n *Notify) have(ctx context.Context, note string) (map[Subject]bool, error) {
	out := map[Subject]bool{}
	var after Subject
	for {
		page, err := n.store.Receipts(ctx, note, after, pageSize)
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range page {
			out[page[i].Subject] = true
		}
		if len(page) < pageSize {
			return out, nil
		}
		after = page[len(page)-1].Subject
	}
}

// waiting returns what is queued of a notification, by channel and target: of several that which is due last, and what waits
// for another try after a fault when there is nothing else.
func (n *Notify) waiting(ctx context.Context, note string) (map[[2]string]outbox.Delivery, error) {
	told, err := n.store.Told(ctx, note, MaxSubscribers)
	if err != nil {
		return nil, err //nolint:wrapcheck // the store says what it was doing
	}
	out := map[[2]string]outbox.Delivery{}
	for i := range told {
		d := told[i]
		at := [2]string{d.Channel, d.Target}
		old, there := out[at]
		if d.State == outbox.StateQueued && (!there || retried(&old) || !retried(&d) && d.Due > old.Due) {
			out[at] = d
		}
	}
	return out, nil
}

// resolve ends old, and tells whom it was told to: a channel that took the news takes the
// end too, however the subscription is by now. News that surely nobody was told by it is dropped,
// and its end with it; other news that was tried is not tried again, so that none comes after its
// end.
func (n *Notify) resolve(ctx context.Context, t *Topic, old Notification, m *Message) (composed, error) {
	now := n.now()
	note := old
	note.State, note.ResolvedAt, note.Updated, note.EscalateAt, note.Version = Resolved, now, now, 0, old.Version+1
	if m.Body != "" {
		note.Body = m.Body
	}
	told, err := n.store.Told(ctx, note.ID, MaxSubscribers)
	if err != nil {
		return composed{}, err //nolint:wrapcheck // the store says what it was doing
	}
	vias, err := n.viasOf(ctx, t)
	if err != nil {
		return composed{}, err
	}
	has, err := n.have(ctx, note.ID) // who was deleted since has it no more, and whoever has his id now never had
	if err != nil {
		return composed{}, err
	}
	p := plan{n: &note, at: now, subscribed: true}
	seen := map[[2]string]bool{}
	for i := range told {
		d := &told[i]
		at := [2]string{d.Channel, d.Target}
		to := subjectOf(d)
		if seen[at] || untold(d) || !has[to] || !n.present(to) || !n.shown(to, t.ID) {
			continue
		}
		seen[at] = true
		next := p.delivery(to, d.Channel)
		next.Fold, next.Expires = d.Fold, 0
		if d.State == outbox.StateSending {
			next.Due = max(next.Due, d.Due) // the lease's end: never before what it ends
			next.Earliest = next.Due
		}
		if v, ok := vias[at]; ok {
			v.hold(&next, note.Severity)
		}
		p.out = append(p.out, next)
	}
	return composed{
		Result{Notification: note, Resolved: true},
		Write{Updates: []Update{{note, old.Version}}, Touch: []string{note.ID}, Out: p.batch(), Over: overOf(told, now)},
		[]feed.Event{n.event(feed.NotificationResolved, t, &note, now)},
	}, nil
}

// viasOf returns the channels of a topic's subscriptions, by channel and target.
func (n *Notify) viasOf(ctx context.Context, t *Topic) (map[[2]string]Via, error) {
	out := map[[2]string]Via{}
	var after Subject
	for {
		page, err := n.store.Subscriptions(ctx, t.ID, after, pageSize)
		if err != nil {
			return nil, err //nolint:wrapcheck // the store says what it was doing
		}
		for i := range page {
			s := &page[i]
			for _, v := range s.Channels {
				target := string(s.Subject)
				if id, ok := s.Subject.Device(); ok {
					target = string(id)
				}
				out[[2]string{v.Channel, target}] = v
			}
		}
		if len(page) < pageSize {
			return out, nil
		}
		after = page[len(page)-1].Subject
	}
}

// untold says that d surely told nobody, and is not under way.
func untold(d *outbox.Delivery) bool {
	return (d.State == outbox.StateQueued || d.State == outbox.StateDead) && d.Attempts == d.Refused
}

// retried says whether d, which is queued, waits for another try.
func retried(d *outbox.Delivery) bool { return d.Attempts > 0 && !d.Held }

// overOf says what becomes of deliveries whose notification is over.
func overOf(told []outbox.Delivery, now muster.Micros) (out Over) {
	out.At = now
	for i := range told {
		switch d := &told[i]; {
		case untold(d) && d.State.Open():
			out.Untried = append(out.Untried, d.ID)
		case d.State.Open():
			out.Tried = append(out.Tried, d.ID)
		}
	}
	return out
}

// checkMessage refuses what can not be sent.
func (n *Notify) checkMessage(m *Message) error {
	switch {
	case blank(m.Title) && !m.Resolve || len(m.Title) > MaxTitle || !oneLine(m.Title):
		return muster.InvalidAt("title", "the title is not one line of 1 to %d bytes", MaxTitle)
	case len(m.Body) > MaxBody || !text(m.Body):
		return muster.InvalidAt("body", "the body is not plain text of at most %d bytes", MaxBody)
	case m.Severity < Info || m.Severity > Critical:
		return muster.InvalidAt("severity", "there is no such severity")
	case m.Lane != nil && (*m.Lane < outbox.Urgent || *m.Lane > outbox.Bulk):
		return muster.InvalidAt("priority", "there is no such priority")
	case len(m.DedupKey) > MaxKey || !oneLine(m.DedupKey):
		return muster.InvalidAt("dedup_key", "the dedup key is not one line of at most %d bytes", MaxKey)
	case m.Resolve && m.DedupKey == "":
		return muster.At(muster.Errorf(muster.Invalid, "what is to be resolved has a dedup key"), "resolve", "dedup_key")
	case m.Expires != 0 && m.Expires <= n.now():
		return muster.InvalidAt("expires_at", "the notification is expired already")
	case len(m.To) > MaxTo:
		return muster.InvalidAt("to", "a notification names at most %d recipients", MaxTo)
	case m.Device != "" && !n.hasDevice(m.Device):
		return muster.InvalidAt("device", "there is no such device")
	}
	if err := checkData(m.Data); err != nil {
		return err
	}
	return checkActions(m)
}

// blank says whether nothing of a text can be seen.
func blank(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return unicode.IsGraphic(c) && !unicode.IsSpace(c) }) < 0
}

func checkData(data json.RawMessage) error {
	if len(data) == 0 {
		return nil
	}
	if len(data) > MaxData {
		return muster.InvalidAt("data", "data has %d bytes, at most %d are allowed", len(data), MaxData)
	}
	if !utf8.Valid(data) || !json.Valid(data) || !bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		return muster.InvalidAt("data", "data is not a JSON object")
	}
	return nil
}

func checkActions(m *Message) error {
	if m.Link != "" {
		if err := checkLink(m.Link); err != nil {
			return muster.At(err, "link")
		}
	}
	if len(m.Actions) > MaxActions {
		return muster.InvalidAt("actions", "a notification has at most %d actions", MaxActions)
	}
	for _, a := range m.Actions {
		if strings.TrimSpace(a.Label) == "" || len(a.Label) > maxLabel || !oneLine(a.Label) {
			return muster.InvalidAt("actions", "an action's label is one line of 1 to %d bytes", maxLabel)
		}
		if err := checkLink(a.URL); err != nil {
			return muster.At(err, "actions")
		}
	}
	return nil
}

// eventData is a notification in the feed.
type eventData struct {
	Notification string          `json:"notification"`
	Topic        string          `json:"topic,omitempty"`
	TopicID      string          `json:"topic_id,omitempty"` // it stays when the name is another, or another's
	Device       muster.DeviceID `json:"device,omitempty"`
	Severity     string          `json:"severity"`
	Title        string          `json:"title,omitempty"`
	Body         string          `json:"body,omitempty"`
	State        string          `json:"state"`
	Sender       string          `json:"sender,omitempty"`
	Recipients   int64           `json:"recipients"`
	AckedBy      string          `json:"acked_by,omitempty"`
	Link         string          `json:"link,omitempty"`
	Data         json.RawMessage `json:"data,omitempty"`
}

// event is what the feed is told of note. Everybody who may read devices hears the feed: of
// a private topic it has no words.
func (n *Notify) event(kind string, t *Topic, note *Notification, at muster.Micros) feed.Event {
	if t.Visibility != Internal {
		return feed.NewEvent(kind, "", at, eventData{
			Notification: note.ID, Severity: note.Severity.String(), State: string(note.State), Recipients: note.Recipients,
		})
	}
	return feed.NewEvent(kind, note.Device, at, wordsOf(t, note))
}

// wordsOf is all that an event says of note.
func wordsOf(t *Topic, note *Notification) eventData {
	return eventData{
		note.ID, t.Name, t.ID, note.Device, note.Severity.String(), note.Title, note.Body, string(note.State), note.Sender.Name, note.Recipients,
		note.AckedBy, note.Link, note.Data,
	}
}

// severities are their names, in order.
var severities = [...]string{"info", "warning", "major", "critical"}

// String returns the name of s.
func (s Severity) String() string {
	if s < Info || int(s) >= len(severities) {
		return "unknown"
	}
	return severities[s]
}

// ParseSeverity reads a name; Invalid for none of them.
func ParseSeverity(name string) (Severity, error) {
	i := slices.Index(severities[:], name)
	if i < 0 {
		return 0, muster.InvalidAt("severity", "there is no severity %.40q: info, warning, major or critical", name)
	}
	return Severity(i), nil
}

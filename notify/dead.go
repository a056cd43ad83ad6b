package notify

import (
	"context"
	"encoding/json"
	"time"

	"muster/feed"
	"muster/notify/outbox"
)

// deadData is the data of a delivery.dead event.
type deadData struct {
	Delivery     string `json:"delivery"`
	Channel      string `json:"channel"`
	Target       string `json:"target"`
	Notification string `json:"notification"`
	Error        string `json:"error"`
}

// composeDead tells who must know of a delivery that was given up, by another channel: a
// user whose mail does not arrive by his inbox, the owner of a topic whose device does not
// take its notifications, the owner of a webhook. What is told in the inbox alone can not
// die, so that this ends.
func (n *Notify) composeDead(ctx context.Context, e *feed.Event, all *composed) (did bool, err error) {
	var d deadData
	if err := json.Unmarshal(e.Data, &d); err != nil {
		n.options.Logger.Error("an event is not understood", "type", e.Type, "event", e.ID())
		return false, nil //nolint:nilerr // the next one may be
	}
	to, mail := n.toldOfDead(ctx, &d)
	t, ok := n.topic(SystemTopic)
	if !ok || to != "" && !n.present(to) {
		return false, nil
	}
	m := Message{
		Severity: Warning, Title: cut("A "+nameOf(d.Channel)+" was given up: "+flat(d.Error), MaxTitle),
		Body: "Delivery " + d.Delivery + " is dead. It can be queued again once its cause is mended.", Data: e.Data,
		// Once a day, and each who is told his own: of one device deliveries of several owners' topics may die.
		DedupKey: cut("dead "+e.At.Time().Format(time.DateOnly)+" "+string(to)+" "+d.Channel+" "+d.Target, MaxKey),
	}
	part, err := n.compose(ctx, &t, Sender{"system", e.ID(), "Muster"}, &m)
	if err != nil {
		return false, err
	}
	if !part.result.Duplicate && to != "" { // what is nobody's is told to who watches the system
		note := &part.write.New[0]
		note.Recipients = 1
		p := plan{n: note, at: note.Created}
		p.receipts = []Receipt{{Notification: note.ID, Subject: to}}
		if mail {
			p.out = []outbox.Delivery{p.delivery(to, ChannelEmail)}
		}
		part.write.Receipts, part.write.Out = p.receipts, p.batch()
		part.events = nil
	}
	all.add(&part)
	return true, nil
}

func nameOf(channel string) string {
	if channel == ChannelEmail {
		return "mail"
	}
	return "delivery by " + channel
}

// toldOfDead returns who is told, empty for nobody, and whether by mail too.
func (n *Notify) toldOfDead(ctx context.Context, d *deadData) (to Subject, mail bool) {
	switch d.Channel {
	case ChannelEmail:
		return Subject(d.Target), false
	case ChannelMQTT:
		note, err := n.store.Notification(ctx, d.Notification)
		if err != nil {
			return "", false
		}
		t, _ := n.topic(note.Topic)
		return Subject(t.Owner), false
	}
	owner := n.options.WebhookOwner(d.Target)
	p, ok := n.options.People.Person(owner)
	return Subject(owner), ok && p.Reachable
}

package command

import (
	"context"
	"maps"
	"time"

	"muster"
)

// maxTexts is how many texts are read from the store at once: 8 MiB at most.
const maxTexts = 128

// pump sends the first command of every line that was soiled, where somebody listens
// and nothing else of the line is under way.
func (c *Commands) pump(ctx context.Context) {
	d := &c.desk
	for len(d.dirty) > 0 && ctx.Err() == nil {
		n := min(len(d.dirty), maxTexts)
		heads := c.heads(d.dirty[:n])
		texts, ok := c.texts(ctx, heads)
		if !ok {
			return // they stay dirty
		}
		for _, l := range d.dirty[:n] {
			l.dirty = false
		}
		d.dirty = d.dirty[n:]
		for _, it := range heads {
			if t, ok := texts[it.ID]; ok {
				c.send(it, t)
			}
		}
	}
	if len(d.dirty) == 0 {
		d.dirty = nil
	}
}

// heads returns the commands of lines that may be sent now.
func (c *Commands) heads(lines []*line) []*item {
	now := c.micros()
	heads := make([]*item, 0, len(lines))
	for _, l := range lines {
		if c.desk.lines[l.device] != l || l.flying != nil || len(l.waiting) == 0 {
			continue
		}
		it := l.waiting[0]
		if it.State != Queued || now >= it.Expires || c.calledOff(it) {
			continue // its event is on its way, and soils the line again
		}
		heads = append(heads, it)
	}
	return heads
}

func (c *Commands) calledOff(it *item) bool {
	r := c.desk.runs[it.Job]
	return it.Job != 0 && (r == nil || r.Phase == Aborted)
}

// texts finds what the commands say: with themselves when they are new, with their
// job, or in the store.
func (c *Commands) texts(ctx context.Context, heads []*item) (map[int64]Text, bool) {
	out := make(map[int64]Text, len(heads))
	var ask []int64
	for _, it := range heads {
		switch {
		case it.Job != 0:
			out[it.ID] = Text{it.Method, c.desk.runs[it.Job].Params}
		case it.params != nil:
			out[it.ID] = Text{it.Method, it.params}
			it.params = nil
		default:
			ask = append(ask, it.ID)
		}
	}
	if len(ask) == 0 {
		return out, true
	}
	call, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	stored, err := c.store.CommandTexts(call, ask)
	if err != nil {
		c.failed(ctx, "read commands", err, nil)
		return nil, false
	}
	maps.Copy(out, stored)
	return out, true
}

// send hands a command to the connections of its device. The note that it was sent is
// made before, since the outcome may be there before Send returns.
func (c *Commands) send(it *item, t Text) {
	d, l := &c.desk, it.line
	now := c.now()
	if muster.MicrosOf(now) >= it.Expires {
		return
	}
	d.tries++
	id, try := it.ID, d.tries
	it.tries, l.flying, l.heard = try, it, false
	sent := happening{id: id, ev: evSend, attempt: try, at: muster.MicrosOf(now)}
	topic := "devices/" + string(it.Device) + "/commands/" + FormatID(id)
	taken := c.Sender.Send(Delivery{
		Device: it.Device, Topic: topic, Payload: message(t.Method, t.Params, it.Expires), Expires: it.Expires.Time(),
		Response: topic + "/result", Correlation: []byte(FormatID(id)),
		Done: func(o Outcome) { c.outcome(id, try, o) },
	})
	if !taken {
		l.flying = nil // Ready tells when somebody listens
		return
	}
	d.later(sent, sent.at+micros(linger))
}

// outcome is called by the broker.
func (c *Commands) outcome(id int64, try int, o Outcome) {
	h := happening{id: id, ev: evAck, attempt: try, at: muster.MicrosOf(c.now().Truncate(time.Microsecond))}
	if o == Lost {
		h.ev = evLost
	}
	c.inbox.outcome(h)
}

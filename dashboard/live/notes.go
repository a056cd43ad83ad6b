package live

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"muster"
	"muster/notify"
)

// noteTimeout is for one command that changes something: then the client asks again.
const noteTimeout = 5 * time.Second

var errNoSending = muster.Errorf(muster.Forbidden, "this needs the scope notify:send, without a device selector")

// ack marks notifications of the client's inbox. The events that tell of it come as all
// others, to all sessions.
func (c *client) ack(cmd *command) {
	who := c.principal()
	state, err := markOf(cmd.State)
	switch {
	case c.g.deps.Notes == nil || who.Who.Subject() == "":
		err = errNoInbox
	case err != nil:
	case len(cmd.Notes) == 0:
		err = muster.Errorf(muster.Invalid, "n needs the ids of notifications")
	}
	if err != nil {
		c.refuse(cmd, err)
		return
	}
	ctx, cancel := context.WithTimeout(c.g.baseCtx, noteTimeout)
	defer cancel()
	done, err := c.g.deps.Notes.Mark(ctx, notify.Marking{
		Subject: who.Who.Subject(), IDs: cmd.Notes, State: state, Note: cmd.Note, Door: notify.DoorLive, Name: who.Who.Name,
	})
	if err != nil {
		c.refuse(cmd, late(ctx, err))
		return
	}
	if cmd.ID == nil {
		return
	}
	b := appendRe([]byte(`{"t":"ok"`), cmd.ID)
	b = strconv.AppendInt(append(b, `,"moved":`...), int64(len(done.Moved)), 10)
	b = append(b, `,"missing":[`...)
	first := true
	for _, id := range done.Missing {
		b = appendString(appendComma(b, &first), id)
	}
	c.reply(append(b, "]}"...))
}

func markOf(state string) (notify.ReceiptState, error) {
	switch state {
	case "seen":
		return notify.Seen, nil
	case "read":
		return notify.Read, nil
	case "acked":
		return notify.AckedIt, nil
	}
	return 0, muster.Errorf(muster.Invalid, "state is seen, read or acked")
}

// publish sends a notification, once for a key.
func (c *client) publish(cmd *command) {
	who := c.principal()
	var err error
	switch {
	case c.g.deps.Notes == nil || !who.Sends || who.Only != "":
		err = errNoSending
	case cmd.Topic == "":
		err = muster.Errorf(muster.Invalid, "pub needs the field topic")
	case len(cmd.Msg) == 0:
		err = muster.Errorf(muster.Invalid, "pub needs the field msg")
	}
	if err != nil {
		c.refuse(cmd, err)
		return
	}
	ctx, cancel := context.WithTimeout(c.g.baseCtx, noteTimeout)
	defer cancel()
	done, err := c.g.deps.Notes.Publish(ctx, *who, Publication{Topic: cmd.Topic, Message: cmd.Msg, Key: cmd.Key})
	if err != nil {
		c.refuse(cmd, late(ctx, err))
		return
	}
	if cmd.ID == nil {
		return
	}
	if done.NotSubscribed == nil {
		done.NotSubscribed = []string{}
	}
	body, err := json.Marshal(done)
	if err != nil { // plain data
		panic(fmt.Errorf("write what was published: %w", err))
	}
	b := append(appendRe([]byte(`{"t":"ok"`), cmd.ID), ',')
	c.reply(append(b, body[1:]...))
}

// late tells a client whose command took too long that it may ask again.
func late(ctx context.Context, err error) error {
	if ctx.Err() == nil || muster.KindOf(err) != muster.Internal {
		return err
	}
	return muster.Errorf(muster.Unavailable, "it took too long: ask again: %w", err)
}

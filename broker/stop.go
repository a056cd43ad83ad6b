package broker

import (
	"context"
	"errors"
	"time"

	"muster/broker/wire"
)

// Stop takes the broker down: it stops accepting, tells every client to go (MQTT 5:
// 0x8B) at a pace that lets them come back elsewhere one after another, waits for
// their connections, and has the journal made durable. Messages that are with the
// sink are acknowledged meanwhile. Last wills are not sent. When ctx ends first,
// sockets are closed hard and its error is returned. Stopping a Broker that does
// not run does nothing.
func (b *Broker) Stop(ctx context.Context) error {
	if !b.started.Load() || b.stopping.Swap(true) {
		return nil
	}
	var err error
	for _, ln := range b.listeners {
		err = errors.Join(err, ln.Close())
	}
	err = errors.Join(err, b.doors.Stop(ctx))
	b.tellAll(ctx)
	b.serving.close()
	for _, c := range b.conns.every() { // those that came in meanwhile
		c.cut(causeStopped)
	}
	if werr := b.serving.wait(ctx, "MQTT connections"); werr != nil {
		for _, c := range b.conns.every() {
			err = errors.Join(err, c.nc.Close())
		}
		err = errors.Join(err, werr)
	}
	err = errors.Join(err, b.journal.Flush(ctx))
	err = errors.Join(err, b.loops.Stop(ctx))
	b.work.close()
	err = errors.Join(err, b.work.wait(ctx, "MQTT writers"))
	b.loseLive()
	b.tellOutcomes()
	if b.lot != nil {
		err = errors.Join(err, b.lot.Close())
	}
	return err
}

// Pace of Stop.
const (
	drainBatch = 100                  // connections told at once
	drainTime  = 2 * time.Second      // for acknowledgements under way, at most
	drainLook  = 5 * time.Millisecond // between looks at whether they have left
	drainAll   = 10 * time.Second     // for 10,000 connections unless Config.Drain says otherwise
	drainOf    = 10_000
)

// tellAll tells every client to go, in batches spread over the drain time.
func (b *Broker) tellAll(ctx context.Context) {
	all := b.conns.every()
	total := b.cfg.Drain
	if total == 0 {
		total = drainAll * time.Duration(len(all)) / drainOf
	}
	pause := time.Duration(0)
	if len(all) > drainBatch {
		pause = total / time.Duration(len(all)/drainBatch)
	}
	for len(all) > 0 {
		batch := all[:min(drainBatch, len(all))]
		all = all[len(batch):]
		b.tell(ctx, batch)
		if len(all) == 0 {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			pause = 0
		}
	}
}

// tell lets the acknowledgements that a batch waits for leave, and cuts it.
func (b *Broker) tell(ctx context.Context, batch []*conn) {
	end := time.Now().Add(drainTime)
	for _, c := range batch {
		for c.owes() && time.Now().Before(end) && ctx.Err() == nil {
			select {
			case <-time.After(drainLook):
			case <-ctx.Done():
			}
		}
		_ = c.bye(wire.CodeShuttingDown, "the server is stopping", causeStopped)
	}
}

// owes says whether a message of the client has not been acknowledged.
func (c *conn) owes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acks.len() > 0 && !c.out.broken
}

// loseLive ends what connections that did not end in time leave under way.
func (b *Broker) loseLive() {
	for s := range b.sessions.each {
		s.mu.Lock()
		s.park()
		s.mu.Unlock()
	}
}

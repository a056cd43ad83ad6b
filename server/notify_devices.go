package server

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"muster"
	"muster/broker"
	"muster/devices/intake"
	"muster/notify"
	"muster/notify/outbox"
)

const (
	maxAway      = 100_000 // devices that are known to have something waiting
	hastenTime   = 10 * time.Second
	hastenPause  = time.Second
	awayAtOnce   = 1000
	awayPages    = 100
	mailLife     = 24 * time.Hour
	ackedByReply = "acked"
)

// toDevices brings notifications to devices: at once to those that listen, to the others
// when they come.
type toDevices struct {
	server *Server

	mu   sync.Mutex
	away map[muster.DeviceID]struct{} // that could not be reached; at most maxAway
	many bool                         // there are more, or it is not known yet: any may have something waiting
	came map[muster.DeviceID]struct{} // of these, those that listen now; at most maxAway
	wake chan struct{}
}

func newToDevices(s *Server) *toDevices {
	return &toDevices{server: s, away: map[muster.DeviceID]struct{}{}, came: map[muster.DeviceID]struct{}{}, many: true, wake: make(chan struct{}, 1)}
}

// Publish implements mqtt.Publisher.
func (t *toDevices) Publish(ctx context.Context, device muster.DeviceID, created muster.Micros, payload []byte) (taken bool, err error) {
	d, err := t.server.registry.Get(device)
	switch {
	case err != nil:
		return false, err //nolint:wrapcheck // it says that there is none
	case created != 0 && created < d.Created: // one that was requeued, or under way while the device was made again
		return false, muster.Errorf(muster.NotFound, "it was for another device that had this id")
	}
	payload, err = t.server.notify.DevicePayload(ctx, payload)
	if err != nil {
		return false, err
	}
	t.missed(device) // before it is sent: who comes meanwhile is seen to
	done := make(chan broker.Outcome, 1)
	sent := t.server.broker.Send(broker.Delivery{
		Device: device, Topic: "devices/" + string(device) + "/notifications", Payload: payload, ContentType: "application/json",
		Done: func(o broker.Outcome) { done <- o },
	})
	if !sent {
		return false, nil
	}
	select {
	case o := <-done:
		if o == broker.Lost {
			return false, nil
		}
		t.reached(device)
		return true, nil
	case <-ctx.Done():
		return false, muster.Errorf(muster.Unavailable, "the device does not acknowledge: %w", ctx.Err())
	}
}

func (t *toDevices) missed(device muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.away) >= maxAway {
		t.many = true
		return
	}
	t.away[device] = struct{}{}
}

func (t *toDevices) reached(device muster.DeviceID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.away, device)
}

// listening is told that a device listens now, or its children through it. It never waits.
func (s *Server) listening(device muster.DeviceID, children bool) {
	s.commands.Ready(device, children)
	if children {
		ids, err := s.registry.Children(device)
		if err != nil { // it is gone
			return
		}
		for _, id := range ids {
			s.notify.device.heard(id)
		}
		return
	}
	s.notify.device.heard(device)
}

func (t *toDevices) heard(device muster.DeviceID) {
	t.mu.Lock()
	_, waits := t.away[device]
	waits = (waits || t.many) && len(t.came) < maxAway // beyond that they wait for their time
	if waits {
		t.came[device] = struct{}{}
	}
	t.mu.Unlock()
	if !waits {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default: // a signal waits already
	}
}

// Run has what waits for devices that came sent, until ctx ends.
func (t *toDevices) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := t.load(ctx); err != nil {
			t.server.cfg.Logger.Warn("notifications for devices wait for the store", "err", err)
			pause(ctx, hastenPause)
			continue
		}
		break
	}
	for {
		select {
		case <-t.wake:
			t.hasten(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// load reads for whom something waits.
func (t *toDevices) load(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, hastenTime)
	defer cancel()
	q := outbox.Query{Channel: notify.ChannelMQTT, State: outbox.StateQueued, Limit: awayAtOnce}
	for range awayPages {
		page, err := t.server.stores.control.Deliveries(ctx, q)
		if err != nil {
			return err
		}
		for i := range page {
			t.missed(muster.DeviceID(page[i].Target))
		}
		if len(page) < awayAtOnce {
			t.mu.Lock()
			t.many = false
			t.mu.Unlock()
			return nil
		}
		q.Before = page[len(page)-1].ID
	}
	return nil // too many to know each
}

// hasten has what waits for those that came sent now.
func (t *toDevices) hasten(ctx context.Context) {
	t.mu.Lock()
	came := t.came
	t.came = map[muster.DeviceID]struct{}{}
	t.mu.Unlock()
	for id := range came {
		c, cancel := context.WithTimeout(ctx, hastenTime)
		err := t.server.notify.outbox.Hasten(c, notify.ChannelMQTT, string(id))
		cancel()
		if err != nil && ctx.Err() == nil {
			t.server.cfg.Logger.Warn("notifications for a device wait for their time", "err", err)
		}
	}
}

// notifyOwner sends what devices publish to topics. It is an intake.Owner.
type notifyOwner struct{ server *Server }

// Take implements intake.Owner.
func (o notifyOwner) Take(ctx context.Context, ms []intake.Message) []error {
	errs := make([]error, len(ms))
	for i := range ms {
		m, err := notify.ParseDeviceMessage(ms[i].Payload)
		if err == nil {
			m.Topic = ms[i].Tail
			if m.Device == "" {
				m.Device = ms[i].Device
			}
			who := notify.Who{Kind: "device", ID: string(ms[i].Device), Device: ms[i].Device, Name: string(ms[i].Device)}
			_, err = o.server.notify.Send(ctx, who, m)
		}
		errs[i] = refusal(err)
	}
	return errs
}

// refusal is err for intake: what will never be taken is refused, what is beyond the limit of a
// sender too, or one device would hold up the others.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*notify.WaitError](err); ok {
		return broker.Exceeded(intake.Refused("too_many", muster.Public(err)))
	}
	switch kind := muster.KindOf(err); kind {
	case muster.Invalid, muster.TooLarge, muster.NotFound, muster.Forbidden, muster.Conflict:
		return intake.Refused(kind.String(), muster.Public(err))
	default:
		return err
	}
}

// ackOwner takes devices' answers to notifications. It is an intake.Owner.
type ackOwner struct{ server *Server }

// deviceAck is an answer to a notification. An empty payload is an ack.
type deviceAck struct {
	State string `json:"state"` // "seen", "read" or "acked"; empty for acked
	Note  string `json:"note"`
}

// Take implements intake.Owner.
func (o ackOwner) Take(ctx context.Context, ms []intake.Message) []error {
	errs := make([]error, len(ms))
	for i := range ms {
		errs[i] = refusal(o.take(ctx, &ms[i]))
	}
	return errs
}

func (o ackOwner) take(ctx context.Context, m *intake.Message) error {
	a := deviceAck{State: ackedByReply}
	if len(m.Payload) > 0 {
		if err := json.Unmarshal(m.Payload, &a); err != nil {
			return muster.Errorf(muster.Invalid, `the answer is not {"state":"acked","note":"..."}`)
		}
	}
	states := map[string]notify.ReceiptState{"": notify.AckedIt, ackedByReply: notify.AckedIt, "seen": notify.Seen, "read": notify.Read}
	state, ok := states[a.State]
	if !ok {
		return muster.Errorf(muster.Invalid, "the state is not seen, read or acked")
	}
	done, err := o.server.notify.Mark(ctx, notify.Marking{
		Subject: notify.DeviceSubject(m.Device), IDs: []string{m.Tail}, State: state, Note: a.Note, Door: notify.DoorMQTT, Name: string(m.Device),
	})
	if err == nil && len(done.Missing) > 0 {
		return muster.Errorf(muster.NotFound, "the device has no such notification")
	}
	return err
}

var (
	_ intake.Owner = notifyOwner{}
	_ intake.Owner = ackOwner{}
)

package talk

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/firmware"
	"muster/firmware/chunk"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// Bounds.
const (
	maxDue    = 1 << 17 // devices that are to be told; beyond it they hear when they come again
	maxActive = 1 << 20 // devices that are known to have an offer
	askTime   = 10 * time.Second
	failWait  = time.Second // before a store that did not answer is asked again
)

// Desk knows what devices are to do; it is firmware/desk's.
type Desk interface {
	Offer(ctx context.Context, device muster.DeviceID) (desk.Offer, error)
	Report(ctx context.Context, r director.Report) error
	Stopped(ctx context.Context, device muster.DeviceID, action int32) error
	Runs(ctx context.Context, r desk.Runs) error
}

// Line carries messages to devices.
type Line interface {
	// Send sends to whoever listens at devices/{device}/{rest}, and keeps it for nobody. It
	// says false when nobody listens. It does not wait.
	Send(device muster.DeviceID, rest string, payload []byte) bool
}

// Pieces sends pieces of images; it is firmware/chunk's.
type Pieces interface {
	Ask(ctx context.Context, r chunk.Request) error
	Drop(device muster.DeviceID)
}

// Config is what New needs. URL, Behind, Runs and Metrics may be nil.
type Config struct {
	Desk   Desk
	Line   Line
	Pieces Pieces
	Key    ed25519.PrivateKey // signs offers
	// URL returns where a device can fetch an image over HTTP until a time.
	URL func(device muster.DeviceID, action int32, sha256 string, until time.Time) string
	// Behind returns the devices behind a gateway.
	Behind func(gateway muster.DeviceID) []muster.DeviceID
	// Runs returns the version that a device is known to run, of a product, or of its firmware when it is
	// not beside that; empty for none. It answers from memory.
	Runs    func(device muster.DeviceID, product string, beside bool) string
	Now     func() time.Time
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Talk speaks with devices about firmware. It is safe for concurrent use; Run and RunHeard
// must be running.
type Talk struct {
	cfg     Config
	keyID   string
	metrics *metrics
	grants  *grants
	rates   *rates
	heard   *heard
	sizes   sizes
	wake    chan struct{} // holds one signal: a device is due

	mu     sync.Mutex
	due    map[muster.DeviceID]struct{} // to be told
	order  []muster.DeviceID            // of due
	active map[muster.DeviceID]struct{} // have an offer, as far as is known here
}

// New returns a Talk.
func New(cfg Config) (*Talk, error) {
	pub, ok := cfg.Key.Public().(ed25519.PublicKey)
	if !ok || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, muster.Errorf(muster.Invalid, "the key that offers are signed with is not one of Ed25519")
	}
	t := &Talk{
		cfg: cfg, keyID: firmware.KeyID(pub), wake: make(chan struct{}, 1), grants: newGrants(), rates: newRates(), heard: newHeard(), sizes: sizes{by: map[muster.DeviceID]Part{}},
		due: map[muster.DeviceID]struct{}{}, active: map[muster.DeviceID]struct{}{}, metrics: newMetrics(),
	}
	return t, t.metrics.register(cfg.Metrics)
}

// Told is director.Options.Told: devices whose offer came, or is over, or that are to wait for their window or may
// install, are told soon. It does not wait.
func (t *Talk) Told(_ string, changes []rollout.Change) {
	t.mu.Lock()
	for i := range changes {
		c := &changes[i]
		switch {
		case c.Event == rollout.Offer:
			t.note(c.Device)
			t.add(c.Device)
		case c.Event == rollout.Park, c.Event == rollout.Unpark:
			t.add(c.Device)
		case over(c):
			delete(t.active, c.Device)
			if saidItself(c.Event) {
				continue // it knows
			}
			if c.To == rollout.Queued || c.To == rollout.Canceled || c.To == rollout.Skipped || c.To == rollout.TimedOut {
				t.add(c.Device) // it may have to be told to stop
			}
		}
	}
	t.mu.Unlock()
	for i := range changes {
		switch c := &changes[i]; {
		case c.Event == rollout.Offer || over(c):
			t.grants.forget(c.Device)
			t.cfg.Pieces.Drop(c.Device)
		case c.Event == rollout.Park || c.Event == rollout.Unpark:
			t.grants.forget(c.Device)
		}
	}
	t.signal()
}

// saidItself says whether a device ended its attempt by its own word.
func saidItself(e rollout.Event) bool {
	return e == rollout.SaysFailed || e == rollout.SaysDenied || e == rollout.SaysCanceled
}

// over says whether a change ended an attempt.
func over(c *rollout.Change) bool { return c.From.InFlight() && !c.To.InFlight() }

// Ready is told that somebody listens to a device's firmware topics, or a gateway to those
// of all devices behind it. It does not wait.
func (t *Talk) Ready(device muster.DeviceID, children bool) {
	ids := []muster.DeviceID{device}
	if children {
		if t.cfg.Behind == nil {
			return
		}
		ids = t.cfg.Behind(device)
	}
	t.mu.Lock()
	for _, id := range ids {
		t.add(id)
	}
	t.mu.Unlock()
	t.signal()
}

// Wanted is told that people at a device said what they want. It does not wait.
func (t *Talk) Wanted(device muster.DeviceID) {
	t.grants.forget(device)
	t.mu.Lock()
	t.add(device)
	t.mu.Unlock()
	t.signal()
}

// add puts a device among those to be told. The lock must be held.
func (t *Talk) add(id muster.DeviceID) {
	if _, is := t.due[id]; is {
		return
	}
	if len(t.order) >= maxDue {
		t.metrics.told.WithLabelValues("dropped").Inc()
		return
	}
	t.due[id] = struct{}{}
	t.order = append(t.order, id)
}

// note notes that a device has an offer. The lock must be held.
func (t *Talk) note(id muster.DeviceID) {
	if len(t.active) < maxActive {
		t.active[id] = struct{}{}
	}
}

func (t *Talk) signal() {
	select {
	case t.wake <- struct{}{}:
	default: // a signal waits already
	}
}

// take takes the device that has waited longest to be told.
func (t *Talk) take() (id muster.DeviceID, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.order) == 0 {
		t.order = nil // what it was a part of
		return "", false
	}
	id = t.order[0]
	t.order = t.order[1:]
	delete(t.due, id)
	return id, true
}

// Run tells devices of offers, and of those that were taken back, until ctx ends.
func (t *Talk) Run(ctx context.Context) error {
	for {
		id, ok := t.take()
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // the loop's own end
			case <-t.wake:
			}
			continue
		}
		if err := t.tell(ctx, id); err != nil {
			if ctx.Err() != nil {
				return ctx.Err() //nolint:wrapcheck // likewise
			}
			t.cfg.Logger.Warn("a device is not told of its firmware yet", "device", id, "err", err)
			t.again(ctx, id)
		}
	}
}

// again has a device told after a while: the store did not answer.
func (t *Talk) again(ctx context.Context, id muster.DeviceID) {
	t.mu.Lock()
	t.add(id)
	t.mu.Unlock()
	timer := time.NewTimer(failWait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// tell sends a device what it is to do. It returns what may go better next time.
func (t *Talk) tell(ctx context.Context, id muster.DeviceID) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	d, err := t.cfg.Desk.Offer(ctx, id)
	switch kind := muster.KindOf(err); {
	case err == nil:
	case kind == muster.NotFound:
		return nil
	case kind == muster.Busy, kind == muster.Unavailable, kind == muster.Timeout:
		return err //nolint:wrapcheck // the caller says of which device
	default:
		t.cfg.Logger.Error("a device cannot be told of its firmware", "device", id, "err", err)
		return nil
	}
	if d.Release.Withdrawn && !d.Stop { // it installs, and is to be told nothing
		return nil
	}
	if d.Waits || d.Shut { // Wanted tells when it waits no more, and an offer that is shut is made anew when its window opens
		return nil
	}
	rest, payload := "firmware/cancel", []byte(nil)
	if d.Stop {
		payload = cancelled(&d)
	} else {
		rest = "firmware"
		if payload, err = t.message(&d); err != nil {
			t.cfg.Logger.Error("an offer cannot be made", "device", id, "err", err)
			return nil
		}
		t.mu.Lock()
		t.note(id)
		t.mu.Unlock()
	}
	what := "away"
	if t.cfg.Line.Send(id, rest, payload) {
		what = "sent"
	}
	t.metrics.told.WithLabelValues(what).Inc()
	return nil
}

func (t *Talk) message(d *desk.Offer) ([]byte, error) {
	o, err := t.offer(d)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(o)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "encode an offer: %w", err)
	}
	return payload, nil
}

// Key returns the public key that devices check offers with.
func (t *Talk) Key() ed25519.PublicKey {
	pub, _ := t.cfg.Key.Public().(ed25519.PublicKey) // New has looked
	return pub
}

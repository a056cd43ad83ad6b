package talk

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"muster"
	"muster/firmware/chunk"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

// Codes of firmware/error beside those of package chunk.
const (
	codeMalformed = "malformed" // the request breaks its form
	codeNoAction  = "no_action" // the action is not the device's, or is over
	codeNoFile    = "no_file"   // the release has no such image
	codeConsent   = "consent"   // people at the device have not confirmed it yet
	codeBusy      = string(chunk.Busy)
)

// Peer is the connection that asked for pieces, which gets them. It can be compared.
type Peer interface {
	// Data sends a piece at firmware/data/{off}. It does not wait. of is the SHA-256 of the
	// image, in hex.
	Data(off int64, of string, data []byte) chunk.Given
	// Error sends a message at firmware/error. It does not wait.
	Error(payload []byte)
}

// Get has a device's request for pieces of an image answered, by pieces or by an error. It
// may ask the store.
func (t *Talk) Get(ctx context.Context, device muster.DeviceID, payload []byte, to Peer) {
	g, err := ParseGet(payload)
	if err != nil {
		to.Error(fault(0, 0, codeMalformed, 0, muster.Public(err)))
		return
	}
	if err := t.get(ctx, device, &g, to); err != nil {
		to.Error(faultOf(g.Action, g.Off, err))
	}
}

func (t *Talk) get(ctx context.Context, device muster.DeviceID, g *Get, to Peer) error {
	x, err := t.grant(ctx, device)
	if err != nil {
		return err
	}
	if x.withdrawn {
		return errWithdrawn()
	}
	if x.action != g.Action {
		return muster.Errorf(muster.NotFound, "the action is not the device's current one")
	}
	if g.File >= len(x.files) {
		return muster.InvalidAt("file", "the release has %d images", len(x.files))
	}
	f := &x.files[g.File]
	sum, size := f.SHA256, f.Size
	if g.Patch {
		if f.Patch == nil {
			return muster.InvalidAt("patch", "the image has no patch for the device: fetch the whole image")
		}
		sum, size = f.Patch.SHA256, f.Patch.Size
	}
	return t.cfg.Pieces.Ask(ctx, chunk.Request{ //nolint:wrapcheck // it is a refusal, in words
		Device: device, Action: g.Action, Total: x.total, SHA256: sum, Size: size, Off: g.Off, Len: g.Len, N: g.N,
		To: receiver{to, sum, g.Action},
	})
}

// receiver gives a device its pieces. It can be compared: the same piece is not queued twice.
type receiver struct {
	to     Peer
	of     string
	action int32
}

// Give implements chunk.Receiver.
func (r receiver) Give(p chunk.Piece) chunk.Given { return r.to.Data(p.Off, r.of, p.Data) }

// Fail implements chunk.Receiver.
func (r receiver) Fail(off int64, _ error) {
	r.to.Error(fault(r.action, off, string(chunk.Unavailable), retryLater, "the image cannot be read now"))
}

// retryLater is what devices are told when something is not to be had now.
const retryLater = 30 * time.Second

// faultOf is the message at firmware/error for an error.
func faultOf(action int32, off int64, err error) []byte {
	if r, ok := errors.AsType[*chunk.RefusedError](err); ok {
		return fault(action, off, string(r.Code), r.After, r.Words)
	}
	switch muster.KindOf(err) {
	case muster.NotFound, muster.Stale, muster.Conflict:
		return fault(action, off, codeNoAction, 0, muster.Public(err))
	case muster.Invalid:
		return fault(action, off, codeNoFile, 0, muster.Public(err))
	case muster.Forbidden:
		return fault(action, off, codeConsent, retryLater, muster.Public(err))
	default:
		return fault(action, off, codeBusy, retryLater, "the server cannot answer now")
	}
}

// fault encodes {"action","off","code","detail","retry_after"}; retry_after, in seconds, is
// left out where trying again is of no use.
func fault(action int32, off int64, code string, after time.Duration, words string) []byte {
	out, err := json.Marshal(struct {
		Action int32  `json:"action"`
		Off    int64  `json:"off"`
		Code   string `json:"code"`
		Detail string `json:"detail"`
		After  int64  `json:"retry_after,omitempty"`
	}{action, off, code, words, int64((after + time.Second - 1) / time.Second)})
	if err != nil { // cannot be: numbers and texts
		return []byte(`{"code":"unavailable"}`)
	}
	return out
}

// grant is what a device may fetch.
type grant struct {
	action  int32
	attempt int
	version string
	product string
	kind    string // of the release
	files   []desk.File
	total   int64 // bytes of all
	until   time.Time
	offered muster.Micros

	withdrawn bool // what it installs is sent no more
	parked    bool // it has the image, and is not to install it now
}

func errWithdrawn() error { return muster.Errorf(muster.NotFound, "the release was withdrawn") }

func errWaits() error {
	return muster.Errorf(muster.Forbidden, "people at the device have not confirmed it yet")
}

// nothing says of an error of grant whether the device is to do nothing now.
func nothing(err error) bool {
	kind := muster.KindOf(err)
	return err != nil && (kind == muster.NotFound || kind == muster.Forbidden)
}

// Bounds of what is remembered of grants.
const (
	maxGrants = 16384
	grantTime = 5 * time.Second // after which the store is asked again: another process may have ended it
)

// grants remembers what devices may fetch, so that a piece costs no question to the store.
type grants struct {
	seed maphash.Seed

	mu sync.Mutex
	by map[muster.DeviceID]*grant
	// epochs count what was forgotten, for some devices each: what was asked before is not
	// remembered after it.
	epochs [1024]uint64
}

func newGrants() *grants { return &grants{seed: maphash.MakeSeed(), by: map[muster.DeviceID]*grant{}} }

func (g *grants) epoch(id muster.DeviceID) *uint64 {
	return &g.epochs[maphash.String(g.seed, string(id))%uint64(len(g.epochs))]
}

func (g *grants) get(id muster.DeviceID, now time.Time) (x *grant, epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if x = g.by[id]; x != nil && now.Before(x.until) {
		return x, *g.epoch(id)
	}
	return nil, *g.epoch(id)
}

func (g *grants) put(id muster.DeviceID, x *grant, epoch uint64, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if *g.epoch(id) != epoch {
		return
	}
	if len(g.by) >= maxGrants {
		for old, y := range g.by {
			if !now.Before(y.until) {
				delete(g.by, old)
			}
		}
	}
	if len(g.by) < maxGrants { // else the store is asked each time
		g.by[id] = x
	}
}

func (g *grants) forget(id muster.DeviceID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*g.epoch(id)++
	delete(g.by, id)
}

// grant returns what a device may fetch now; NotFound when that is nothing, Forbidden while people at it are
// to confirm it.
func (t *Talk) grant(ctx context.Context, id muster.DeviceID) (*grant, error) {
	now := t.cfg.Now()
	x, epoch := t.grants.get(id, now)
	if x != nil {
		return x, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	o, err := t.cfg.Desk.Offer(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	if o.Stop {
		return nil, muster.Errorf(muster.NotFound, "the offer was taken back")
	}
	if o.Waits {
		return nil, errWaits()
	}
	if o.Shut {
		return nil, muster.Errorf(muster.NotFound, "the maintenance window is closed: the release is offered again when it opens")
	}
	m := o.Release.Manifest
	x = &grant{
		action: o.Action, attempt: o.Attempt, version: m.Version, product: m.Product, kind: m.Type,
		files: o.Release.Files, until: now.Add(grantTime), withdrawn: o.Release.Withdrawn, offered: o.Offered,
		parked: o.Parked && o.State == rollout.Downloaded,
	}
	for _, f := range x.files {
		x.total += f.Size
	}
	t.mu.Lock()
	t.note(id)
	t.mu.Unlock()
	t.grants.put(id, x, epoch, now)
	return x, nil
}

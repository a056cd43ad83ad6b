package talk

import (
	"context"
	"encoding/json"
	"math"
	"slices"
	"sync"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/chunk"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// softwareType is the type of releases that ThingsBoard's devices fetch at v2/sw; all others
// are at v2/fw.
const softwareType = firmware.Software

// attributes are the shared attributes by which ThingsBoard's devices know a release.
func attributes(releaseType, product, version string, size int64, sha256 string) (map[string]json.RawMessage, error) {
	p := "fw_"
	if releaseType == softwareType {
		p = "sw_"
	}
	out := map[string]json.RawMessage{}
	for key, value := range map[string]any{
		"title": product, "version": version, "tag": product + " " + version, "size": size,
		"checksum": sha256, "checksum_algorithm": "SHA256", "state": "INITIATED",
	} {
		text, err := json.Marshal(value)
		if err != nil {
			return nil, muster.Errorf(muster.Internal, "encode an attribute: %w", err)
		}
		out[p+key] = text
	}
	return out, nil
}

// AttributeNames are the keys of all attributes that an offer can have for ThingsBoard's
// devices, which are gone when it is taken back.
func AttributeNames() []string {
	return []string{
		"fw_checksum", "fw_checksum_algorithm", "fw_size", "fw_state", "fw_tag", "fw_title", "fw_version",
		"sw_checksum", "sw_checksum_algorithm", "sw_size", "sw_state", "sw_tag", "sw_title", "sw_version",
	}
}

// OfferAttributes returns, as a JSON object, the attributes that the message at
// devices/{id}/firmware has for ThingsBoard's devices; Invalid when it is no such message. Nil when it tells a device that has
// the image to wait with it: they have no word for that, and begin anew by attributes.
func OfferAttributes(payload []byte) ([]byte, error) {
	var o struct {
		State    string
		Window   *OfferWindow
		Files    []OfferFile
		Manifest struct{ Product, Version, Type string }
	}
	if err := json.Unmarshal(payload, &o); err != nil || len(o.Files) == 0 {
		return nil, muster.Errorf(muster.Invalid, "this is no offer of firmware")
	}
	if o.Window != nil && !o.Window.Open && o.State == rollout.Downloaded.String() {
		return nil, nil
	}
	all, err := attributes(o.Manifest.Type, o.Manifest.Product, o.Manifest.Version, o.Files[0].Size, o.Files[0].SHA256)
	if err != nil {
		return nil, err
	}
	out, err := json.Marshal(all)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "encode attributes: %w", err)
	}
	return out, nil
}

// Attributes returns the shared attributes by which ThingsBoard's devices know what they are
// to install: fw_title, fw_version, fw_tag, fw_size, fw_checksum, fw_checksum_algorithm and
// fw_state, or the same with sw_. Nil when nothing is offered, or it has the image and is not to install it now.
func (t *Talk) Attributes(ctx context.Context, device muster.DeviceID) (map[string]json.RawMessage, error) {
	g, err := t.grant(ctx, device)
	if nothing(err) {
		return nil, nil // that nothing is offered is an answer
	}
	if err != nil || len(g.files) == 0 || g.withdrawn || g.parked {
		return nil, err
	}
	f := &g.files[0]
	return attributes(g.kind, g.product, g.version, f.Size, f.SHA256)
}

// Part is a request for a part of an image as ThingsBoard's devices put it: the one numbered
// Chunk of those of Size bytes; the whole image when Size is 0.
type Part struct {
	Request  int64 // the device's number, by which a Size that was named before is known
	Software bool  // at v2/sw, else v2/fw
	Chunk    int64
	Size     int
}

// PartPeer is the connection that asked for a part. It can be compared.
type PartPeer interface {
	// Part sends a part at v2/fw/response/{request}/chunk/{n}. It does not wait.
	Part(data []byte) chunk.Given
	// Refused sends why there is none at v2/fw/error. It does not wait.
	Refused(code string)
}

// Part has a request for a part answered, by the part or by an error.
func (t *Talk) Part(ctx context.Context, device muster.DeviceID, q Part, to PartPeer) {
	if err := t.part(ctx, device, q, to); err != nil {
		to.Refused(partCode(err))
	}
}

func (t *Talk) part(ctx context.Context, device muster.DeviceID, q Part, to PartPeer) error {
	g, err := t.grant(ctx, device)
	if err != nil {
		return err
	}
	if (g.kind == softwareType) != q.Software || len(g.files) == 0 {
		return muster.Errorf(muster.NotFound, "nothing of this type is offered")
	}
	if g.withdrawn {
		return errWithdrawn()
	}
	f := &g.files[0]
	length := int64(t.sizes.of(device, &q))
	switch {
	case length == 0 && f.Size > chunk.MaxWhole, length > chunk.MaxLen:
		return muster.Errorf(muster.TooLarge, "the part is too large")
	case length == 0:
		length = f.Size
	}
	if q.Chunk < 0 || q.Chunk > math.MaxInt64/max(length, 1) {
		return muster.Errorf(muster.Invalid, "there is no such part")
	}
	off := q.Chunk * length
	if off >= f.Size { // as ThingsBoard answers; who counts parts knows by it that there are no more
		to.Part(nil)
		return nil
	}
	return t.cfg.Pieces.Ask(ctx, chunk.Request{ //nolint:wrapcheck // it is a refusal
		Device: device, Action: g.action, Total: g.total, SHA256: f.SHA256, Size: f.Size, Off: off, Len: int(length), N: 1, To: partReceiver{to},
	})
}

// sizes remembers which sizes devices named: ThingsBoard's clients may name it once.
type sizes struct {
	mu sync.Mutex
	by map[muster.DeviceID]Part
}

// maxSizes bounds the devices whose sizes are remembered.
const maxSizes = 16384

// of returns the size of the parts that a request is about; 0 for the whole image.
func (s *sizes) of(id muster.DeviceID, q *Part) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.by[id]
	if q.Size == 0 && last.Request == q.Request && last.Software == q.Software {
		return last.Size
	}
	if q.Size > 0 {
		if len(s.by) >= maxSizes {
			clear(s.by) // who names it once has to begin anew
		}
		s.by[id] = *q
	}
	return q.Size
}

type partReceiver struct{ to PartPeer }

// Give implements chunk.Receiver.
func (r partReceiver) Give(p chunk.Piece) chunk.Given { return r.to.Part(p.Data) }

// Fail implements chunk.Receiver.
func (r partReceiver) Fail(int64, error) { r.to.Refused("UNAVAILABLE") }

// partCode is what ThingsBoard's clients are told at v2/fw/error.
func partCode(err error) string {
	switch muster.KindOf(err) {
	case muster.NotFound, muster.Forbidden: // it is told of no offer before people want it
		return "NOT_FOUND"
	case muster.TooLarge:
		return "PAYLOAD_TOO_LARGE"
	case muster.Invalid:
		return "BAD_REQUEST"
	default:
		return "BUSY"
	}
}

// Bounds of what was heard and is not looked at yet.
const (
	maxHeard  = 16384 // devices
	perDevice = 8     // things that one said
	heardLot  = 256   // devices that are looked at together
)

// saidTB is what a ThingsBoard device said of its firmware in one message of telemetry.
type saidTB struct {
	soft                          bool
	state, title, version, reason string

	at muster.Micros // when it was so, of what comes later; 0 for now
}

// heard are what ThingsBoard's devices said, in the order of the devices.
type heard struct {
	wake chan struct{} // holds one signal

	mu    sync.Mutex
	by    map[muster.DeviceID][]saidTB
	order []muster.DeviceID

	newest map[newestOf]muster.Micros // when the newest was so that was heard
}

type newestOf struct {
	device muster.DeviceID
	soft   bool
}

const (
	maxNewest = 1 << 17                                       // devices of which is known how new the newest is
	clockSlip = muster.Micros(time.Second / time.Microsecond) // by which a device's clock may be behind
)

// old says whether something newer was heard of the same, and else keeps how new this is.
func (h *heard) old(r *muster.Reading, soft bool) bool {
	of, at := newestOf{r.Device, soft}, min(r.Time, r.Arrival)
	h.mu.Lock()
	defer h.mu.Unlock()
	if at < h.newest[of] {
		return true
	}
	if len(h.newest) >= maxNewest {
		clear(h.newest) // what is older than an offer is not looked at all the same
	}
	h.newest[of] = at
	return false
}

func newHeard() *heard {
	return &heard{wake: make(chan struct{}, 1), by: map[muster.DeviceID][]saidTB{}, newest: map[newestOf]muster.Micros{}}
}

// add says false when there was no room.
func (h *heard) add(id muster.DeviceID, s saidTB) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	list, known := h.by[id]
	switch {
	case known && len(list) > 0 && list[len(list)-1] == s:
		return true
	case known && len(list) >= perDevice, !known && len(h.order) >= maxHeard:
		return false
	case !known:
		h.order = append(h.order, id)
	}
	h.by[id] = append(list, s)
	select {
	case h.wake <- struct{}{}:
	default: // a signal waits already
	}
	return true
}

// take takes what some devices said.
func (h *heard) take() map[muster.DeviceID][]saidTB {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[muster.DeviceID][]saidTB{}
	n := min(len(h.order), heardLot)
	for _, id := range h.order[:n] {
		out[id] = h.by[id]
		delete(h.by, id)
	}
	if h.order = h.order[n:]; len(h.order) == 0 {
		h.order = nil
	}
	return out
}

// Observe is told of telemetry that was kept, and takes note of what devices say in ThingsBoard's
// keys: current_fw_version with current_fw_title, and, with an offer, fw_state; or the same
// with sw. What was so before the newest of that, or before the offer, is not looked at: it was sent later. It does
// not wait.
func (t *Talk) Observe(rs []muster.Reading) {
	for i := range rs {
		r := &rs[i]
		if !speaks(r.Layout) {
			continue
		}
		t.mu.Lock()
		_, active := t.active[r.Device]
		t.mu.Unlock()
		for _, soft := range [...]bool{false, true} {
			s, ok := saidOf(r, soft)
			if !ok || t.heard.old(r, soft) || !active && !t.tells(r.Device, &s) {
				continue
			}
			if !t.heard.add(r.Device, s) {
				t.metrics.heard.WithLabelValues("dropped").Inc()
			}
		}
	}
}

// speaks says whether a layout has one of the keys.
func speaks(l *muster.Layout) bool {
	return slices.ContainsFunc(l.Keys, func(k muster.Key) bool {
		switch k.Name {
		case "fw_state", "sw_state", "current_fw_version", "current_sw_version":
			return k.Kind == muster.JSON
		}
		return false
	})
}

func saidOf(r *muster.Reading, soft bool) (s saidTB, ok bool) {
	if s.soft = soft; r.Time < r.Arrival-clockSlip {
		s.at = r.Time
	}
	which := "fw"
	if soft {
		which = "sw"
	}
	at := 0
	for _, k := range r.Layout.Keys {
		if k.Kind != muster.JSON {
			continue
		}
		var to *string
		switch k.Name {
		case which + "_state":
			to, ok = &s.state, true
		case "current_" + which + "_version":
			to, ok = &s.version, true
		case "current_" + which + "_title":
			to = &s.title
		case which + "_error":
			to = &s.reason
		}
		if to != nil && at < len(r.Texts) && json.Unmarshal([]byte(r.Texts[at]), to) != nil {
			*to = "" // no text
		}
		at++
	}
	return s, ok
}

// RunHeard reports what ThingsBoard's devices said in their telemetry, until ctx ends.
func (t *Talk) RunHeard(ctx context.Context) error {
	for {
		lot := t.heard.take()
		if len(lot) == 0 {
			select {
			case <-ctx.Done():
				return ctx.Err() //nolint:wrapcheck // the loop's own end
			case <-t.heard.wake:
			}
			continue
		}
		var all sync.WaitGroup
		for id, list := range lot { // at most heardLot
			all.Go(func() {
				for i := range list {
					t.metrics.heard.WithLabelValues(resultOf(t.reportHeard(ctx, id, &list[i]))).Inc()
				}
			})
		}
		all.Wait()
	}
}

// tells says whether a device that is offered nothing says another version than is known of it.
func (t *Talk) tells(id muster.DeviceID, s *saidTB) bool {
	return s.done() && s.version != "" && (t.cfg.Runs == nil || t.cfg.Runs(id, s.product(), s.soft) != s.version)
}

// product names what beside the firmware has a version of its own; the firmware's title says what it is.
func (s *saidTB) product() string { return s.title }

// done says whether the version of s is what the device runs: on the way of an update clients differ in
// which one they name.
func (s *saidTB) done() bool { return s.state == "UPDATED" || s.state == "IDLE" || s.state == "" }

// reportHeard reports one thing that a device said. A telemetry message is not refused for
// it: what does not fit is counted only.
func (t *Talk) reportHeard(ctx context.Context, id muster.DeviceID, s *saidTB) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	g, err := t.grant(ctx, id)
	none := nothing(err)
	if err != nil && !none {
		return err
	}
	if !none && s.at > 0 && s.at < g.offered {
		return nil
	}
	if !none && (g.kind == softwareType) == s.soft {
		if s.done() && s.title != "" && s.title != g.product {
			return t.another(ctx, id, s, g)
		}
		if r, ok := s.report(g); ok {
			r.Device = id
			return t.cfg.Desk.Report(ctx, r) //nolint:wrapcheck // it says what it was doing
		}
	}
	if s.done() && s.version != "" {
		return t.keep(ctx, id, s, s.soft)
	}
	if none {
		return err
	}
	return nil
}

// another takes what a device says of another title than what it is offered: that of another image, say its
// bootloader. It is no version of the release, and kept beside the firmware. But where it is the version that the firmware
// is known to have, it is the firmware, which had that title before (ThingsBoard's Python client begins as Initial): who
// says then that it is done has rolled back.
func (t *Talk) another(ctx context.Context, id muster.DeviceID, s *saidTB, g *grant) error {
	if t.cfg.Runs == nil || s.soft || t.cfg.Runs(id, s.title, true) != "" || t.cfg.Runs(id, "", false) != s.version {
		return t.keep(ctx, id, s, true)
	}
	if s.state != "UPDATED" || s.version == "" || s.version == g.version { // for rules a version has no title
		return nil
	}
	f := rollout.Fact{Event: rollout.SeesOther, Action: g.action, Attempt: g.attempt, Detail: s.reason}
	return t.cfg.Desk.Report(ctx, director.Report{Device: id, Fact: f, Restarted: true}) //nolint:wrapcheck // it says what it was doing
}

// keep keeps what a device says it runs, beside its firmware or as that.
func (t *Talk) keep(ctx context.Context, id muster.DeviceID, s *saidTB, beside bool) error {
	if s.version == "" || s.soft && s.product() == "" { // of which software it is nobody knows
		return nil
	}
	return t.cfg.Desk.Runs(ctx, desk.Runs{Device: id, Version: s.version, Product: s.product(), Beside: beside, At: s.at}) //nolint:wrapcheck // it says what it was doing
}

// report is what a state of ThingsBoard's means for what was offered; false for nothing. The
// version counts only where the device says that it is done: before, it is the old one.
func (s *saidTB) report(g *grant) (r director.Report, ok bool) {
	r.Fact = rollout.Fact{Action: g.action, Attempt: g.attempt, Detail: s.reason}
	switch s.state {
	case "DOWNLOADING":
		r.Fact.Event = rollout.SaysDownloading
	case "DOWNLOADED", "VERIFIED":
		r.Fact.Event = rollout.SaysDownloaded
	case "UPDATING":
		r.Fact.Event = rollout.SaysInstalling
	case "FAILED":
		r.Fact.Event = rollout.SaysFailed
	case "UPDATED", "IDLE", "":
		r.Version, r.Restarted = s.version, s.state == "UPDATED"
		return r, s.version != ""
	default:
		return r, false
	}
	return r, true
}

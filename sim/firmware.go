package sim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	firstVersion  = "1.0.0"          // that virtual devices are made with
	pieceLen      = 16 << 10         // that is asked for at a time
	pieces        = 4                // likewise
	pieceWait     = 5 * time.Second  // after which a piece that did not come is asked for again
	restartTime   = time.Second      // of a virtual device
	fetchTime     = 10 * time.Minute // for an image over HTTP
	firmwareTopic = "devices/me/firmware"
)

// offer is what of an offer of firmware a virtual device looks at.
type offer struct {
	Action   int32
	Attempt  int
	Manifest struct{ Version string }
	Files    []offerFile
	Window   *struct {
		Open   bool
		Closes int64
	}
}

// waits says whether a device that has the image is to be told again before it installs.
func (o *offer) waits(now time.Time) bool {
	return o.Window != nil && (!o.Window.Open || o.Window.Closes > 0 && now.Unix() >= o.Window.Closes)
}

// offerFile is an image of an offer, perhaps with a patch by which it can be made.
type offerFile struct {
	fetched

	Patch *struct {
		fetched

		From string
	}
}

// fetched is what is fetched: an image, or a patch.
type fetched struct {
	Size   int64
	SHA256 string
	URL    string
}

// mostPatch bounds the patches that a virtual device takes, in bytes: it holds them in memory.
const mostPatch = 8 << 20

// fate is what becomes of an update.
type fate uint8

const (
	fine    fate = iota
	says         // it says that it failed
	returns      // it comes back with its old version
	dies         // it is not heard of again in this attempt
)

// updater is the part of a virtual device that installs firmware, on a connection of its own.
// Its one goroutine owns everything in it.
type updater struct {
	fleet   *fleet
	index   int
	fates   *rand.Rand // asked once for each update, so that the seed alone decides
	version string     // that it runs
	image   string     // SHA-256 of the image that it has installed; empty for that of the factory
	done    offer      // that it has dealt with last; what it says to the end of it is numbered on
	seq     int64
	dead    bool
	tried   bool // done came to an end that the device knows of, and is not begun again
	checked bool // it has the image of now, which is good, and waits with it for its maintenance window

	now   offer
	get   fetched       // what it fetches
	patch *bytes.Buffer // where that goes when it is a patch, else nil
	part  *part         // where that goes when it is an image
	off   int64
	asked int64 // off behind the last piece that was asked for
	sum   hash.Hash
	id    uint16
	out   []byte
}

func newUpdater(f *fleet, i int) *updater {
	return &updater{fleet: f, index: i, fates: rand.New(rand.NewPCG(f.cfg.Seed, ^uint64(i))), version: firstVersion}
}

// run connects again and again until ctx ends.
func (u *updater) run(ctx context.Context) {
	defer func() { _ = u.part.end(false) }() // it is in a directory that goes too
	for failures := 0; ctx.Err() == nil; failures++ {
		err := u.live(ctx)
		wait := restartTime
		if err != nil && ctx.Err() == nil {
			u.fleet.counters.failed(u.index, err)
			wait = min(backoffFirst<<min(failures, 10), backoffMost)
		} else {
			failures = 0
		}
		if !sleepUntil(ctx, time.Now().Add(wait+rand.N(wait))) {
			return
		}
	}
}

// live is one connection; nil when the device restarts.
func (u *updater) live(ctx context.Context) error {
	dialer := net.Dialer{Timeout: connectTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", u.fleet.cfg.Addr)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	l := newLink(conn)
	defer func() { _ = conn.Close() }() // nothing in it is worth keeping
	if !u.fleet.keep(l) {
		return nil
	}
	defer u.fleet.drop(l)
	user, pass := u.fleet.cfg.Credentials(u.index)
	u.out = appendConnect(u.out[:0], string(u.fleet.cfg.ID(u.index))+"-firmware", user, pass, true, uint16(keepAlive/time.Second))
	u.out = appendSubscribe(u.out, 1, firmwareTopic, firmwareTopic+"/data/+", firmwareTopic+"/error", firmwareTopic+"/cancel")
	u.publish("devices/me/reported", fmt.Appendf(nil, `{"firmware":{"version":%q}}`, u.version))
	if u.seq > 0 && u.now.Action == 0 { // it has restarted
		u.say("running", fmt.Sprintf(`,"version":%q`, u.version))
	}
	if err := l.write(u.out); err != nil {
		return err
	}
	r := &inward{link: l}
	for ctx.Err() == nil {
		p, err := r.next(time.Now().Add(u.patience()))
		u.out = u.out[:0]
		restarts := false
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && u.fetches():
			u.asked = u.off // what was asked for is lost
			u.ask()
		case errors.Is(err, os.ErrDeadlineExceeded):
			u.out = append(u.out, pingreq...)
		case err != nil:
			return err
		default:
			if restarts, err = u.hear(ctx, &p); err != nil {
				return err
			}
		}
		if err := l.write(u.out); err != nil {
			return err
		}
		if restarts {
			return nil
		}
	}
	return nil
}

func (u *updater) patience() time.Duration {
	if u.fetches() {
		return pieceWait
	}
	return pingAfter / 2
}

// fetches says whether pieces of an image are waited for.
func (u *updater) fetches() bool { return u.now.Action != 0 && !u.checked }

// hear deals with a packet. restarts says that the device goes, to come back with what it
// has installed.
func (u *updater) hear(ctx context.Context, p *packet) (restarts bool, err error) {
	if p.kind == typeConnack {
		return false, connackError(answer{kind: p.kind, body: p.body})
	}
	if p.kind != typePublish || u.dead && !strings.HasSuffix(p.topic, "/firmware") {
		return false, nil
	}
	if p.id != 0 {
		u.out = binary.BigEndian.AppendUint16(append(u.out, typePuback, 2), p.id)
	}
	rest := strings.TrimPrefix(p.topic, firmwareTopic)
	off, isData := strings.CutPrefix(rest, "/data/")
	switch {
	case rest == "":
		return u.offered(ctx, p.payload)
	case rest == "/cancel":
		u.cancelled(p.payload)
	case rest == "/error":
		u.refused(p.payload)
	case isData && u.fetches() && off == strconv.FormatInt(u.off, 10):
		n, err := u.sink().Write(p.payload)
		if err != nil {
			return false, fmt.Errorf("write the image: %w", err)
		}
		if u.off += int64(n); u.off >= u.get.Size {
			return u.install(ctx), nil
		}
		u.ask()
	}
	return false, nil
}

// offered begins an update, unless it is under way or done.
func (u *updater) offered(ctx context.Context, payload []byte) (restarts bool, err error) {
	var o offer
	if err := json.Unmarshal(payload, &o); err != nil || len(o.Files) == 0 {
		return false, fmt.Errorf("an offer without images: %w", errProtocol)
	}
	same := o.Action == u.done.Action && o.Attempt == u.done.Attempt
	if same && (u.dead || u.tried) {
		return false, nil
	}
	if o.Action == u.now.Action && o.Attempt == u.now.Attempt {
		if u.now.Window = o.Window; !u.checked || o.waits(time.Now()) {
			return false, nil
		}
		return u.install(ctx), nil
	}
	if !same {
		u.seq, u.dead, u.tried = 0, false, false
	}
	u.done = o
	if o.Manifest.Version == u.version {
		u.say("running", fmt.Sprintf(`,"version":%q`, u.version))
		return false, nil
	}
	u.now, u.off, u.asked, u.sum, u.checked = o, 0, 0, sha256.New(), false
	if err := u.choose(); err != nil {
		return false, err
	}
	u.say("downloading", "")
	if u.fleet.cfg.FirmwareHTTP != "" && u.index%2 == 1 && u.get.URL != "" {
		if err := u.fetch(ctx); err != nil {
			u.say("failed", fmt.Sprintf(`,"error":%q`, err.Error()))
			u.giveUp()
			return false, nil
		}
		return u.install(ctx), nil
	}
	u.ask()
	return false, nil
}

// choose has the device fetch the patch of the image that it has, if there is one, else the image.
func (u *updater) choose() (err error) {
	if err := u.part.end(false); err != nil { // of an offer before
		return err
	}
	file := &u.now.Files[0]
	u.get, u.patch, u.part = file.fetched, nil, nil
	if p := file.Patch; p != nil && p.From == u.image && p.Size > 0 && p.Size <= mostPatch && u.fleet.flash.has(p.From) {
		u.get, u.patch = p.fetched, new(bytes.Buffer)
		return nil
	}
	u.part, err = u.fleet.flash.write(file.SHA256)
	return err
}

// sink is where what is fetched goes.
func (u *updater) sink() io.Writer {
	if u.patch != nil {
		return io.MultiWriter(u.sum, u.patch)
	}
	return io.MultiWriter(u.sum, u.part)
}

// ask asks for the next pieces when all that were asked for have come.
func (u *updater) ask() {
	if u.off < u.asked {
		return
	}
	u.asked = min(u.off+pieces*pieceLen, u.get.Size)
	u.out = appendPublish(u.out, 0, appendString(nil, firmwareTopic+"/get"), 0,
		fmt.Appendf(nil, `{"action":%d,"off":%d,"len":%d,"n":%d,"patch":%t}`, u.now.Action, u.off, pieceLen, pieces, u.patch != nil))
}

// fetch gets the image over HTTP.
func (u *updater) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	url := u.get.URL
	if strings.HasPrefix(url, "/") {
		url = u.fleet.cfg.FirmwareHTTP + url
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for the image: %w", err)
	}
	resp, err := u.fleet.web.Do(req)
	if err != nil {
		return fmt.Errorf("ask for the image: %w", err)
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for the image: %s", resp.Status)
	}
	if u.off, err = io.Copy(u.sink(), io.LimitReader(resp.Body, u.get.Size+1)); err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	return nil
}

// whole makes the image of what was fetched, and says what is wrong with it.
func (u *updater) whole(ctx context.Context, o *offer) error {
	good := u.off == u.get.Size && hex.EncodeToString(u.sum.Sum(nil)) == u.get.SHA256
	if err := u.part.end(good); err != nil {
		return err
	}
	if !good {
		return errors.New("what came is not what was offered")
	}
	if u.patch == nil {
		return nil
	}
	if err := u.fleet.flash.patch(ctx, u.patch.Bytes(), &o.Files[0]); err != nil {
		return err
	}
	u.fleet.counters.of(u.index).patched.Add(1)
	return nil
}

// install checks the image, and does with it what the dice say, in its maintenance window.
func (u *updater) install(ctx context.Context) (restarts bool) {
	if !u.checked {
		if err := u.whole(ctx, &u.now); err != nil {
			u.now, u.tried = offer{}, true
			u.say("failed", fmt.Sprintf(`,"error":%q`, err.Error()))
			return false
		}
		u.checked = true
		u.say("downloaded", "")
	}
	if u.now.waits(time.Now()) {
		return false
	}
	o := u.now
	u.now, u.tried, u.checked = offer{}, true, false
	u.say("installing", "")
	switch u.draw() {
	case says:
		u.say("failed", `,"error":"the flash cannot be written"`)
		return false
	case dies:
		u.dead = true
		return false
	case returns:
	case fine:
		u.version, u.image = o.Manifest.Version, o.Files[0].SHA256
	}
	u.say("rebooting", "")
	return true
}

func (u *updater) draw() fate {
	return drawFate(u.fates, u.fleet.cfg.FirmwareFailures)
}

// drawFate has a part of updates go wrong, by each way as often.
func drawFate(dice *rand.Rand, failures float64) fate {
	if dice.Float64() >= failures {
		return fine
	}
	return says + fate(dice.IntN(3))
}

func (u *updater) cancelled(payload []byte) {
	var c struct{ Action int32 }
	if json.Unmarshal(payload, &c) != nil || c.Action <= 0 {
		return
	}
	if u.now.Action == c.Action {
		u.giveUp()
	}
	u.publish(firmwareTopic+"/cancel/ack", fmt.Appendf(nil, `{"action":%d,"stopped":true}`, c.Action))
}

// refused gives up what cannot be had, and waits for what can later.
func (u *updater) refused(payload []byte) {
	var e struct {
		Code  string
		After int64 `json:"retry_after"`
	}
	if json.Unmarshal(payload, &e) != nil || e.After > 0 || !u.fetches() {
		return
	}
	if e.Code != "no_action" {
		u.say("failed", fmt.Sprintf(`,"error":%q`, e.Code))
	}
	u.giveUp()
}

// giveUp forgets what is being fetched.
func (u *updater) giveUp() {
	u.now, u.checked = offer{}, false
	_ = u.part.end(false) // it was to go
}

// say reports a state of what was offered last.
func (u *updater) say(state, more string) {
	u.seq++
	u.publish(firmwareTopic+"/status", fmt.Appendf(nil, `{"action":%d,"attempt":%d,"seq":%d,"state":%q%s}`, u.done.Action, u.done.Attempt, u.seq, state, more))
}

// publish adds a message of QoS 1. What is lost with the connection is said again, or
// noticed by the deadline.
func (u *updater) publish(topic string, payload []byte) {
	if u.id++; u.id == 0 {
		u.id = 1
	}
	u.out = appendPublish(u.out, 1, appendString(nil, topic), u.id, payload)
}

// packet is one packet of the server.
type packet struct {
	kind    byte
	topic   string
	id      uint16 // of a PUBLISH with QoS 1
	payload []byte
	body    []byte
}

// maxPacket bounds what the server may send: a piece, or an offer.
const maxPacket = 512 << 10

// inward reads a connection on which messages come.
type inward struct {
	link *link
	buf  bytes.Buffer
	tmp  [32 << 10]byte
}

// next returns the next packet, whose bytes are good until the call after it.
func (r *inward) next(deadline time.Time) (packet, error) {
	for {
		if p, ok, err := r.cut(); ok || err != nil {
			return p, err
		}
		if err := r.link.setReadDeadline(deadline); err != nil {
			return packet{}, fmt.Errorf("set read deadline: %w", err)
		}
		n, err := r.link.conn.Read(r.tmp[:])
		r.buf.Write(r.tmp[:n])
		if err != nil && n == 0 {
			return packet{}, fmt.Errorf("read: %w", err)
		}
	}
}

// cut takes the first whole packet off what was read.
func (r *inward) cut() (p packet, ok bool, err error) {
	b := r.buf.Bytes()
	if len(b) < 2 {
		return packet{}, false, nil
	}
	size, n := binary.Uvarint(b[1:])
	switch {
	case n < 0 || size > maxPacket:
		return packet{}, false, fmt.Errorf("a packet of %d bytes: %w", size, errProtocol)
	case n == 0 || uint64(len(b)) < uint64(1+n)+size:
		return packet{}, false, nil
	}
	head, body := b[0], b[1+n:uint64(1+n)+size]
	r.buf.Next(1 + n + int(size))
	p = packet{kind: head & 0xf0, body: body}
	if p.kind != typePublish {
		return p, true, nil
	}
	if len(body) < 2 || len(body) < 2+int(binary.BigEndian.Uint16(body)) {
		return packet{}, false, fmt.Errorf("a message without a topic: %w", errProtocol)
	}
	end := 2 + int(binary.BigEndian.Uint16(body))
	p.topic, p.payload = string(body[2:end]), body[end:]
	if head&6 != 0 {
		if len(p.payload) < 2 {
			return packet{}, false, fmt.Errorf("a message without an id: %w", errProtocol)
		}
		p.id, p.payload = binary.BigEndian.Uint16(p.payload), p.payload[2:]
	}
	return p, true, nil
}

// appendSubscribe appends a SUBSCRIBE packet (section 3.8) that asks for QoS 1.
func appendSubscribe(b []byte, id uint16, filters ...string) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	for _, f := range filters {
		body = append(appendString(body, f), 1)
	}
	b = binary.AppendUvarint(append(b, 0x82), uint64(len(body)))
	return append(b, body...)
}

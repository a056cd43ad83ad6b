package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/api/coding"
	"muster/audit"
	"muster/devices"
	"muster/devices/query"
	"muster/ingest"
)

const (
	maxWriteLine = 256 << 10 // bytes of a line, as of an MQTT packet
	maxOwed      = 8192      // messages of a request that may wait to become durable; then its body waits
	maxRefused   = 1000      // refused messages of a request that are kept and told one by one
	maxMade      = 1000      // devices that a request may make
	maxVerdicts  = 10_000    // devices that a request remembers
	confirmTime  = 30 * time.Second
	recheckEvery = time.Second // how long a key that was revoked may go on taking
)

// TelemetryWriter takes messages that came over HTTP to the durable log.
type TelemetryWriter interface {
	Take(ctx context.Context, m ingest.Message) (ingest.Refusal, error)
	Refuse(m ingest.Message, code, reason string, size int)
}

// refusedMessage is one message of a body that was refused.
type refusedMessage struct {
	Line   int    `json:"line" doc:"Of the body; in a JSON body the number of the message, from 1"`
	Device string `json:"device" doc:"As the message names it, empty when it names none"`
	Code   string `json:"code" doc:"As in the list of rejected messages" example:"time"`
	Detail string `json:"detail"`
}

// written is what became of a body.
type written struct {
	Accepted      int              `json:"accepted" doc:"Messages that are durable"`
	RejectedCount int              `json:"rejected_count" doc:"Messages that were refused for good"`
	Rejected      []refusedMessage `json:"rejected" nullable:"false" doc:"The first 1,000 of them; these are kept, too"`
}

// taking is one request that writes telemetry.
type taking struct {
	api    *API
	r      *request
	ctx    context.Context //nolint:containedctx // of the request, whose time this lives
	who    func() (accounts.Principal, error)
	device muster.DeviceID // of every message that names none, empty for none
	create bool
	only   *query.Expr // the devices that the key may write, nil for all

	body     *openBody // nil until it is read
	acks     acks
	out      written
	last     int               // line that was taken last
	targets  map[string]target // by name
	checked  time.Time
	verdicts map[muster.DeviceID]error // why a device may not be written, nil when it may
	made     int
}

// target is a device that messages name.
type target struct {
	id    muster.DeviceID
	topic string
}

// begin checks what the query says.
func (w *taking) begin(device string, create bool) error {
	w.create, w.out.Rejected = create, []refusedMessage{}
	w.acks.less = make(chan struct{}, 1)
	if err := w.check(); err != nil || device == "" {
		return err
	}
	var err error
	w.device, err = muster.ParseDeviceID(device)
	return muster.At(err, "device")
}

// check says whether who writes may do so now.
func (w *taking) check() error {
	who, err := w.who()
	switch {
	case err != nil:
		return err
	case w.create && !who.Allows(accounts.DevicesWrite):
		return muster.Errorf(muster.Forbidden, "create needs the scope %s", accounts.DevicesWrite)
	case w.create && who.Selector != "":
		return muster.Errorf(muster.Forbidden, "a key with a device selector makes no devices")
	case who.Selector != "" && w.only == nil: // it never changes
		if w.only, err = w.api.Registry.Selector(who.Selector); err != nil {
			return fmt.Errorf("read the key's selector: %w", err)
		}
	}
	w.checked = w.api.Now()
	clear(w.verdicts)
	return nil
}

// open opens the body; see bodies.take.
func (w *taking) open(rw http.ResponseWriter, size int64, limit time.Duration) (st *openBody, err error) {
	w.body, err = w.api.bodies.take(rw, w.r.Request, w.r.who.ID, size, limit)
	return w.body, err
}

// close lets the body go, once the answer is written.
func (w *taking) close() {
	if w.body != nil {
		w.body.drain()
		w.body.close()
	}
}

// recheck ends the request of a key that was revoked meanwhile.
func (w *taking) recheck() error {
	if w.api.Now().Sub(w.checked) < recheckEvery {
		return nil
	}
	return w.check()
}

// writable says whether messages of a device are taken, and makes it when it is to be.
func (w *taking) writable(id muster.DeviceID) error {
	if !w.create && w.only == nil { // ingest asks the registry itself
		return nil
	}
	why, ok := w.verdicts[id]
	if ok {
		return why
	}
	_, why = w.api.Registry.Get(id)
	switch {
	case why != nil && w.create && muster.KindOf(why) == muster.NotFound:
		why = w.make(id)
	case why == nil && w.only != nil && !w.api.Registry.Matches(id, w.only):
		why = muster.Errorf(muster.NotFound, "there is no such device") // as for one that does not exist
	}
	if w.verdicts == nil || len(w.verdicts) >= maxVerdicts {
		w.verdicts = map[muster.DeviceID]error{}
	}
	w.verdicts[id] = why
	return why
}

// make makes a device without credentials.
func (w *taking) make(id muster.DeviceID) error {
	if w.made >= maxMade {
		return muster.Errorf(muster.NotFound, "there is no such device, and one request makes %d at most", maxMade)
	}
	ctx := w.api.noted(w.ctx, w.r)
	_, _, err := w.api.Registry.Create(ctx, devices.Spec{ID: id})
	switch {
	case err == nil:
		w.made++
		if !audit.Of(ctx).Noted() {
			audit.Note(ctx, "device.create", "devices/"+string(id), nil, nil)
		}
		w.api.recorded(ctx, &huma.Operation{OperationID: "create-device", Method: http.MethodPost})
	case muster.KindOf(err) == muster.Conflict: // another made it, or it is being deleted
		_, err = w.api.Registry.Get(id)
	}
	return err
}

// take hands one message to ingest. name is what says whose it is, nil for the device of
// the query. An error ends the request; what was taken stays taken.
func (w *taking) take(line int, name []byte, m ingest.Message) error {
	if err := w.recheck(); err != nil {
		return err
	}
	if name == nil {
		name = []byte(w.device)
	}
	to, err := w.target(name)
	if err != nil {
		w.refuse(line, name, m, "device", muster.Public(err))
		return nil
	}
	m.Device, m.Topic = to.id, to.topic
	if err = w.writable(m.Device); muster.KindOf(err) == muster.NotFound && err != nil {
		w.refuse(line, name, m, "device", muster.Public(err))
		return nil
	} else if err != nil {
		return err
	}
	if !w.acks.await(w.ctx, maxOwed) {
		return w.unconfirmed()
	}
	m.QoS, m.From, m.Token, m.Unkept = 1, &w.acks, uint64(line), w.out.RejectedCount >= maxRefused
	w.acks.add(1)
	why, err := w.api.Writer.Take(w.ctx, m)
	switch {
	case err == nil && why == (ingest.Refusal{}):
		w.out.Accepted++
	case err == nil:
		if m.Unkept {
			w.acks.add(-1)
		}
		w.list(line, string(m.Device), why.Code, why.Reason)
	case muster.KindOf(err) == muster.NotFound:
		w.acks.add(-1)
		w.list(line, string(m.Device), "device", muster.Public(err))
	default:
		w.acks.add(-1)
		return busy(err)
	}
	w.last = line
	return nil
}

// busy is a full log as HTTP has it: not the client's fault.
func busy(err error) error {
	if muster.KindOf(err) == muster.Busy {
		return &muster.Error{Kind: muster.Unavailable, Msg: muster.Public(err), Err: err}
	}
	return err
}

// target returns the device of a name.
func (w *taking) target(name []byte) (target, error) {
	if to, ok := w.targets[string(name)]; ok {
		return to, nil
	}
	id, err := muster.ParseDeviceID(string(name))
	if err != nil {
		return target{}, err
	}
	if w.targets == nil || len(w.targets) >= maxVerdicts {
		w.targets = map[string]target{}
	}
	to := target{id, topicOf(id)}
	w.targets[string(id)] = to
	return to, nil
}

// topicOf is where the device itself would have published.
func topicOf(id muster.DeviceID) string { return "devices/" + string(id) + "/telemetry" }

// refuse keeps a message that can not be decoded, or is no device's.
func (w *taking) refuse(line int, name []byte, m ingest.Message, code, reason string) {
	m.Device = ""
	m.Topic = w.r.URL.Path
	if name == nil && w.device != "" {
		m.Device, m.Topic = w.device, topicOf(w.device)
		name = []byte(w.device)
	}
	if w.out.RejectedCount < maxRefused {
		w.api.Writer.Refuse(m, code, reason, len(m.Payload))
	}
	w.list(line, string(name), code, reason)
	w.last = line
}

// list counts a message that was refused.
func (w *taking) list(line int, device, code, reason string) {
	const maxName = 128
	w.out.RejectedCount++
	if len(w.out.Rejected) < maxRefused {
		w.out.Rejected = append(w.out.Rejected, refusedMessage{line, plainName(device, maxName), code, reason})
		return
	}
	w.api.metrics.unkept.Inc()
}

// plainName cuts what is named as a device to what may be shown.
func plainName(s string, most int) string {
	if len(s) > most {
		s = s[:most]
	}
	return s
}

// lines takes a body line by line.
func (w *taking) lines(body io.Reader, form ingest.Form, take func(line []byte, n int) error) error {
	lines := ingest.NewLines(body, maxWriteLine, form)
	for {
		line, n, err := lines.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, ingest.ErrLongLine):
			w.refuse(n, nil, ingest.Message{Payload: line}, "too_large", fmt.Sprintf("a line has at most %d bytes", maxWriteLine))
		case err != nil:
			return bodyError(err)
		default:
			if err := take(line, n); err != nil {
				return err
			}
		}
	}
}

// bodyError is what is wrong with a body that ended too early.
func bodyError(err error) error {
	_, ours := errors.AsType[*muster.Error](err)
	_, told := errors.AsType[*Problem](err)
	switch {
	case ours || told:
		return err
	case errors.Is(err, coding.ErrBomb) || errors.Is(err, coding.ErrBroken):
		return fmt.Errorf("%w: %w", bodyProblem(err, 0), err)
	}
	return fmt.Errorf("%w: %w", newProblem(http.StatusBadRequest, "the body ends too early"), err)
}

// finish waits until all that was taken is durable.
func (w *taking) finish(err error) error {
	if !w.acks.await(w.ctx, 0) {
		return errors.Join(w.unconfirmed(), err)
	}
	return err
}

// unconfirmed tells that messages were taken of which nobody knows yet that they are durable.
func (w *taking) unconfirmed() error {
	n := w.acks.count()
	w.out.Accepted = max(w.out.Accepted-n, 0)
	return muster.Errorf(muster.Unavailable, "%d messages were taken and are not durable yet: sending them again stores those with a time stamp once", n)
}

// acks counts the messages of a request that are not acknowledged yet.
type acks struct {
	mu   sync.Mutex
	owed int
	less chan struct{} // one token: owed has become less
}

// Acked implements ingest.Acker.
func (a *acks) Acked(uint64, error) {
	a.add(-1)
	select {
	case a.less <- struct{}{}:
	default:
	}
}

func (a *acks) add(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.owed += n
}

func (a *acks) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.owed
}

// await waits until no more than most are owed, for confirmTime at the longest; false
// says that it was in vain.
func (a *acks) await(ctx context.Context, most int) bool {
	if a.count() <= most {
		return true
	}
	t := time.NewTimer(confirmTime)
	defer t.Stop()
	for a.count() > most {
		select {
		case <-a.less:
		case <-t.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

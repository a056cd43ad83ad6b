package talk

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"muster"
	"muster/firmware/chunk"
	"muster/firmware/rollout"
)

// Limits of what a device says.
const (
	MaxMessage = 4 << 10 // bytes of a report, a request or an answer
	maxMembers = 16
	maxVersion = 64 // bytes
	maxFile    = 32 // images of a release
)

// Status is a report of a device: {"action","attempt","seq","state","progress","error",
// "version"}, of which action and state must be there.
type Status struct {
	Action   int32
	Attempt  int   // 0 when it names none
	Seq      int64 // counts up from 1 in each attempt; 0 for unnumbered
	State    State
	Progress int    // percent, of StateDownloading
	Error    string // of StateFailed and StateDenied
	Version  string // of StateRunning: what it runs now
}

// State is what a device says it is doing.
type State string

// The states that a device reports.
const (
	StateDownloading State = "downloading"
	StateDownloaded  State = "downloaded" // the digest is right
	StateInstalling  State = "installing"
	StateRebooting   State = "rebooting"
	StateRunning     State = "running" // with its version
	StateFailed      State = "failed"
	StateDenied      State = "denied"
	StateCanceled    State = "canceled"
)

// event is what happened when a device is in a state that has no version.
func (s State) event() (rollout.Event, bool) {
	switch s {
	case StateDownloading:
		return rollout.SaysDownloading, true
	case StateDownloaded:
		return rollout.SaysDownloaded, true
	case StateInstalling:
		return rollout.SaysInstalling, true
	case StateRebooting:
		return rollout.SaysRebooting, true
	case StateFailed:
		return rollout.SaysFailed, true
	case StateDenied:
		return rollout.SaysDenied, true
	case StateCanceled:
		return rollout.SaysCanceled, true
	default:
		return 0, false
	}
}

// ParseStatus reads a report. What breaks its form is Invalid, what is too long TooLarge.
func ParseStatus(payload []byte) (s Status, err error) {
	all, err := members(payload)
	if err != nil {
		return Status{}, err
	}
	d := decoder{all: all}
	s.Action = int32(d.whole("action", true, 1, maxAction))
	s.Attempt = int(d.whole("attempt", false, 0, 1<<20))
	s.Seq = d.whole("seq", false, 0, 1<<53)
	s.State = State(d.text("state", true, 32))
	s.Progress = int(d.whole("progress", false, 0, 100))
	s.Error = d.text("error", false, MaxMessage)
	s.Version = d.text("version", false, maxVersion)
	if err := d.done(); err != nil {
		return Status{}, err
	}
	if _, known := s.State.event(); !known && s.State != StateRunning {
		return Status{}, muster.InvalidAt("state", "state is none of downloading, downloaded, installing, rebooting, running, failed, denied and canceled")
	}
	if s.State == StateRunning && s.Version == "" {
		return Status{}, muster.InvalidAt("version", "a device that is running names the version")
	}
	return s, nil
}

// maxAction bounds an action, which is an int32 in every door.
const maxAction = 1<<31 - 1

// Get is a device's request for pieces of an image: {"action","off","len","n","file","patch"}, of
// which action, off and len must be there.
type Get struct {
	Action int32
	Off    int64
	Len    int // of a piece: chunk.MinLen to chunk.MaxLen
	N      int // pieces: 1 to chunk.MaxPieces, 1 when it is left out
	File   int // which of the release's images, from 0
	// Patch asks for pieces of the image's patch and not of the image.
	Patch bool
}

// ParseGet reads a request.
func ParseGet(payload []byte) (g Get, err error) {
	all, err := members(payload)
	if err != nil {
		return Get{}, err
	}
	d := decoder{all: all}
	g.Action = int32(d.whole("action", true, 1, maxAction))
	g.Off = d.whole("off", true, 0, 1<<53)
	g.Len = int(d.whole("len", true, chunk.MinLen, chunk.MaxLen))
	g.N = int(d.whole("n", false, 1, chunk.MaxPieces))
	g.File = int(d.whole("file", false, 0, maxFile-1))
	g.Patch = d.flag("patch", false)
	if err := d.done(); err != nil {
		return Get{}, err
	}
	g.N = max(g.N, 1)
	return g, nil
}

// CancelAck is a device's answer to an offer that was taken back: {"action","stopped"}.
type CancelAck struct {
	Action int32
	// Stopped is false when it was too late: the device has begun to install, and goes on.
	Stopped bool
}

// ParseCancelAck reads an answer. Without stopped the device has stopped.
func ParseCancelAck(payload []byte) (a CancelAck, err error) {
	all, err := members(payload)
	if err != nil {
		return CancelAck{}, err
	}
	d := decoder{all: all}
	a.Action = int32(d.whole("action", true, 1, maxAction))
	a.Stopped = d.flag("stopped", true)
	return a, d.done()
}

// members reads a JSON object whose members stand there once.
func members(payload []byte) (map[string]json.RawMessage, error) {
	if len(payload) > MaxMessage {
		return nil, muster.Errorf(muster.TooLarge, "the message has %d bytes, at most %d are allowed", len(payload), MaxMessage)
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errForm()
	}
	all := make(map[string]json.RawMessage, 8)
	for dec.More() {
		t, err := dec.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			return nil, errForm()
		}
		if _, twice := all[key]; twice || len(all) == maxMembers {
			return nil, muster.Errorf(muster.Invalid, "the message has a member twice, or more than %d", maxMembers)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errForm()
		}
		all[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, errForm()
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errForm()
	}
	return all, nil
}

func errForm() error { return muster.Errorf(muster.Invalid, "the message is not a JSON object") }

// decoder takes members out of an object. The first that is wrong is its error.
type decoder struct {
	all map[string]json.RawMessage
	err error
}

func (d *decoder) take(name string, must bool) (raw []byte, ok bool) {
	raw, ok = d.all[name]
	delete(d.all, name)
	if must && !ok && d.err == nil {
		d.err = muster.InvalidAt(name, "%s is missing", name)
	}
	return raw, ok && d.err == nil
}

// whole reads a whole number, written without a fraction or an exponent.
func (d *decoder) whole(name string, must bool, least, most int64) int64 {
	raw, ok := d.take(name, must)
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < least || n > most {
		d.err = muster.InvalidAt(name, "%s is not a whole number from %d to %d", name, least, most)
		return 0
	}
	return n
}

func (d *decoder) text(name string, must bool, most int) (s string) {
	raw, ok := d.take(name, must)
	if !ok {
		return ""
	}
	if raw[0] != '"' || json.Unmarshal(raw, &s) != nil || len(s) > most {
		d.err = muster.InvalidAt(name, "%s is not a text of at most %d bytes", name, most)
		return ""
	}
	return s
}

func (d *decoder) flag(name string, absent bool) bool {
	raw, ok := d.take(name, false)
	if !ok {
		return absent
	}
	if s := string(raw); s != "true" && s != "false" {
		d.err = muster.InvalidAt(name, "%s is neither true nor false", name)
	}
	return string(raw) == "true"
}

// done returns what was wrong; a member that nobody took is wrong too.
func (d *decoder) done() error {
	for name := range d.all {
		if d.err == nil {
			d.err = muster.Errorf(muster.Invalid, "there is no member %.64q in this message", name)
		}
	}
	return d.err
}

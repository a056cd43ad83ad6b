package command

import (
	"bytes"
	"encoding/json"
	"math"
	"unicode/utf8"

	"muster"
)

// maxReport is the longest payload of a report, in bytes: result and error at their
// longest, and what is around them.
const maxReport = 2*MaxParams + 4096

// Report is what a device published at devices/{Device}/commands/{Command}/result.
type Report struct {
	Device  muster.DeviceID
	Command string // the topic's {cid}
	Payload []byte // not kept
}

// report is a Report's payload, read.
type report struct {
	ev       event
	status   string
	progress int // -1 when the payload names none
	result   json.RawMessage
	err      json.RawMessage
}

var statuses = map[string]event{"accepted": evAccept, "progress": evProgress, "ok": evOK, "error": evError}

// parseReport reads {"status","progress","result","error"}; other members are passed
// over. Every error is Invalid.
func parseReport(payload []byte) (report, error) {
	r := report{progress: -1}
	if len(payload) > maxReport {
		return r, muster.Errorf(muster.Invalid, "a result has at most %d bytes", maxReport)
	}
	if !utf8.Valid(payload) {
		return r, muster.Errorf(muster.Invalid, "a result is JSON in UTF-8")
	}
	var body struct {
		Status   *string         `json:"status"`
		Progress *float64        `json:"progress"`
		Result   json.RawMessage `json:"result"`
		Error    json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(payload, &body); err != nil || body.Status == nil {
		return r, muster.Errorf(muster.Invalid, "a result is a JSON object with a status: accepted, progress, ok or error")
	}
	ev, ok := statuses[*body.Status]
	if !ok {
		return r, muster.Errorf(muster.Invalid, "a result's status is accepted, progress, ok or error")
	}
	r.ev, r.status = ev, *body.Status
	if p := body.Progress; p != nil {
		if *p < 0 || *p > 100 {
			return r, muster.Errorf(muster.Invalid, "a result's progress is 0 to 100")
		}
		r.progress = int(math.Floor(*p))
	}
	var err error
	if r.result, err = part("result", body.Result); err != nil {
		return r, err
	}
	r.err, err = part("error", body.Error)
	return r, err
}

// part returns a member of a report without spaces, nil for null.
func part(what string, p json.RawMessage) (json.RawMessage, error) {
	if len(p) == 0 || bytes.Equal(p, []byte("null")) {
		return nil, nil
	}
	out, err := compact(what, p)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "%s", muster.Public(err))
	}
	return out, nil
}

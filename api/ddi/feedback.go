package ddi

import (
	"encoding/json"
	"fmt"
	"slices"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// Feedback is what a device says of an action. Of hawkBit's members the action's id, which
// clients write as a number, as text or not at all, and the time are not looked at: the path
// and our clock say both.
type Feedback struct {
	Execution string // see executions
	Finished  string // none, success or failure
	Count, Of int64  // progress; Of is 0 when it is not told
	Code      *int64
	Details   []string // at most 50 of at most 512 bytes
}

// The words of hawkBit's DdiStatus.ExecutionStatus and DdiResult.FinalResult.
const (
	closed     = "closed"
	proceeding = "proceeding"
	canceled   = "canceled"
	scheduled  = "scheduled"
	rejected   = "rejected"
	resumed    = "resumed"
	download   = "download"
	downloaded = "downloaded"

	none    = "none"
	success = "success"
	failure = "failure"
)

func executions() []string {
	return []string{closed, proceeding, canceled, scheduled, rejected, resumed, download, downloaded}
}

// ParseFeedback reads a feedback. What is not JSON, or lacks execution or finished, or has
// other words than hawkBit's there, is Invalid.
func ParseFeedback(text []byte) (Feedback, error) {
	var b struct {
		Status struct {
			Execution string      `json:"execution"`
			Code      json.Number `json:"code"`
			Details   details     `json:"details"`
			Result    struct {
				Finished string `json:"finished"`
				Progress struct {
					Count json.Number `json:"cnt"`
					Of    json.Number `json:"of"`
				} `json:"progress"`
			} `json:"result"`
		} `json:"status"`
	}
	if err := decode(text, &b); err != nil {
		return Feedback{}, err
	}
	s := &b.Status
	switch {
	case !slices.Contains(executions(), s.Execution):
		return Feedback{}, muster.InvalidAt("status/execution", "status.execution is none of %v", executions())
	case !slices.Contains([]string{none, success, failure}, s.Result.Finished):
		return Feedback{}, muster.InvalidAt("status/result/finished", "status.result.finished is not none, success or failure")
	}
	f := Feedback{Execution: s.Execution, Finished: s.Result.Finished, Details: s.Details}
	f.Count, f.Of = whollyOf(s.Result.Progress.Count), whollyOf(s.Result.Progress.Of)
	if code, err := s.Code.Int64(); err == nil {
		f.Code = &code
	}
	return f, nil
}

// whollyOf returns a count; 0 for what is none.
func whollyOf(n json.Number) int64 {
	v, err := n.Int64()
	if err != nil {
		return 0
	}
	return max(v, 0)
}

// Detail returns what a device said, and its code, as one line of at most 512 bytes.
func (f *Feedback) Detail() string {
	list := details(f.Details)
	if f.Code != nil {
		list = append(details{fmt.Sprintf("code %d", *f.Code)}, list...)
	}
	return list.line()
}

// percent returns how far it is.
func (f *Feedback) percent() int {
	if f.Of <= 0 {
		return 0
	}
	return int(min(float64(f.Count)/float64(f.Of), 1) * 100)
}

// Known is what a server knows when a feedback comes.
type Known struct {
	State   rollout.State // of the action, which is in flight
	Whole   bool          // the image was sent to its end
	Skip    bool          // the device was told not to install when it asked last
	Trusted bool          // its word is a confirmation
}

// Fact returns what a feedback means; false when it changes nothing.
//
// Success is not a confirmation: the device restarts into what it has installed, and then
// reports its version. A client that downloads and installs in one says "proceeding" all the
// time: it installs from when it has the image, or counts all its steps as done. What has begun
// to install can no longer be denied or canceled: it has failed then. A client that was told to
// wait for its window says that it is done with that (SWUpdate's "Skipped Update.", RAUC's
// "downloaded"): it has not installed.
func (f *Feedback) Fact(k Known) (rollout.Fact, bool) {
	begun := k.State > rollout.Downloaded
	switch f.Execution {
	case closed:
		return f.closed(k)
	case canceled:
		return f.ends(rollout.SaysCanceled, begun)
	case rejected:
		return f.ends(rollout.SaysDenied, begun)
	case downloaded:
		return rollout.Fact{Event: rollout.SaysDownloaded}, k.State < rollout.Downloaded
	case download:
		return rollout.Fact{Event: rollout.SaysDownloading, Progress: f.percent()}, k.State < rollout.Downloaded
	case proceeding, resumed:
		return f.goesOn(k)
	default: // scheduled: it will begin later
		return rollout.Fact{}, false
	}
}

// ends is what a device says that leaves the action by itself.
func (f *Feedback) ends(e rollout.Event, begun bool) (rollout.Fact, bool) {
	if begun {
		e = rollout.SaysFailed
	}
	detail := f.Detail()
	if detail == "" && begun {
		detail = "the device says " + f.Execution + " after it had begun to install"
	}
	return rollout.Fact{Event: e, Detail: detail}, true
}

func (f *Feedback) closed(k Known) (rollout.Fact, bool) {
	switch {
	case f.Finished == failure:
		return rollout.Fact{Event: rollout.SaysFailed, Detail: f.Detail()}, true
	case k.Skip && k.State <= rollout.Downloaded:
		return rollout.Fact{Event: rollout.SaysDownloaded}, k.Whole && k.State < rollout.Downloaded
	case k.Trusted && f.Finished == success:
		return rollout.Fact{Event: rollout.SeesTarget}, true
	}
	return rollout.Fact{Event: rollout.SaysRebooting}, true
}

func (f *Feedback) goesOn(k Known) (rollout.Fact, bool) {
	all := f.Of > 0 && f.Count >= f.Of
	switch {
	case k.State == rollout.Rebooting:
		return rollout.Fact{}, false
	case k.Skip && k.State <= rollout.Downloaded:
		return rollout.Fact{Event: rollout.SaysDownloading, Progress: f.percent()}, k.State < rollout.Downloaded
	case k.Whole || all || k.State >= rollout.Downloaded:
		return rollout.Fact{Event: rollout.SaysInstalling}, true
	}
	return rollout.Fact{Event: rollout.SaysDownloading, Progress: f.percent()}, true
}

// feedback takes what a device says of its deployment.
func (h *Handler) feedback(w *recorder, q *request) {
	f, err := h.readFeedback(w, q)
	if err == nil {
		err = h.take(q, &f)
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	done(w)
}

func (h *Handler) readFeedback(w *recorder, q *request) (Feedback, error) {
	text, err := h.body(w, q)
	if err != nil {
		return Feedback{}, err
	}
	return ParseFeedback(text)
}

// take reports a feedback. An action that is over, or another's, is Stale.
func (h *Handler) take(q *request, f *Feedback) error {
	o, err := h.offer(q)
	switch {
	case err != nil && muster.KindOf(err) != muster.NotFound:
		return err
	case err != nil || o.Action != q.action:
		return h.late(q, f)
	case o.Stop:
		return h.endsStopped(q, f)
	}
	if held(&o) {
		return errPath()
	}
	fact, ok := f.Fact(h.known(q, &o))
	if !ok {
		return nil
	}
	fact.Action = o.Action
	if h.skips(q, &o, fact.Event) {
		h.metrics.coalesced.Inc()
		return nil
	}
	report := director.Report{Device: q.device, Fact: fact}
	if fact.Event == rollout.SeesTarget { // by its word it runs what it was offered
		report.Version = o.Release.Manifest.Version
	}
	if err := gone(h.Desk.Report(q.Context(), report)); err != nil {
		return err
	}
	if f.Execution == closed {
		h.memory.with(q.device, func(s *seen) { s.of(o.Action).closed = h.Now() })
	}
	return nil
}

// endsStopped takes what a device says of an action that was taken back: that it is over.
func (h *Handler) endsStopped(q *request, f *Feedback) error {
	switch f.Execution {
	case closed, canceled, rejected:
		if err := h.late(q, f); muster.KindOf(err) != muster.Stale {
			return err
		}
		return gone(h.Desk.Stopped(q.Context(), q.device, q.action))
	}
	return errOver()
}

// late notes that a device has installed an action that is over, where its word is a confirmation: see rollout.After.
// The action is over all the same, which is the error, Stale, unless this could not be noted now.
func (h *Handler) late(q *request, f *Feedback) error {
	if h.Confirm != ByDDI || f.Execution != closed || f.Finished != success {
		return errOver()
	}
	fact := rollout.Fact{Event: rollout.SeesTarget, Action: q.action, Detail: f.Detail()}
	err := h.Desk.Report(q.Context(), director.Report{Device: q.device, Fact: fact})
	switch kind := muster.KindOf(err); {
	case err == nil, kind == muster.NotFound, kind == muster.Stale, kind == muster.Conflict:
		return errOver()
	default:
		return err //nolint:wrapcheck // it says what it was doing
	}
}

// known gathers what Fact must know.
func (h *Handler) known(q *request, o *desk.Offer) (k Known) {
	k = Known{State: o.State, Skip: h.handling(o).Update == skip, Trusted: h.Confirm == ByDDI}
	h.memory.with(q.device, func(s *seen) {
		s = s.of(o.Action)
		if k.Whole = s.whole; s.told { // who was told to install does so when its window has closed meanwhile, too
			k.Skip = s.skip
		}
	})
	return k
}

// skips says whether a progress need not be kept: it changes no state, and another was kept a
// moment ago.
func (h *Handler) skips(q *request, o *desk.Offer, e rollout.Event) (skips bool) {
	same := e == rollout.SaysDownloading && o.State == rollout.Downloading || e == rollout.SaysInstalling && o.State == rollout.Installing
	h.memory.with(q.device, func(s *seen) {
		s = s.of(o.Action)
		skips = same && h.Now().Sub(s.progress) < coalesced
		if !skips {
			s.progress = h.Now()
		}
	})
	return skips
}

// cancelBody tells a device to leave an action. Its id is the action's own: RAUC's updater
// answers by the one, SWUpdate by the other.
type cancelBody struct {
	ID     string `json:"id"`
	Cancel struct {
		StopID string `json:"stopId"`
	} `json:"cancelAction"`
}

func (h *Handler) cancel(w *recorder, q *request) {
	o, err := h.offer(q)
	if err == nil && (o.Action != q.action || !o.Stop) {
		err = errPath()
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	b := cancelBody{ID: number(o.Action)}
	b.Cancel.StopID = b.ID
	h.document(w, q, b)
}

// cancelFeedback takes what a device says about being told to leave an action. It knows then,
// whether it obeys or not: one that goes on regardless reports its version.
func (h *Handler) cancelFeedback(w *recorder, q *request) {
	f, err := h.readFeedback(w, q)
	if err == nil {
		var o desk.Offer
		switch o, err = h.offer(q); {
		case err != nil:
			err = gone(err)
		case o.Action != q.action || !o.Stop:
			err = errOver()
		case f.Execution == closed || f.Execution == canceled || f.Execution == rejected:
			err = gone(h.Desk.Stopped(q.Context(), q.device, q.action))
		}
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	done(w)
}

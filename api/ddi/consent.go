package ddi

import (
	"muster"
	"muster/firmware/desk"
	"muster/firmware/director"
	"muster/firmware/rollout"
)

// held says whether an offer is not told before people at the device want it. Who installs already, since before
// people were asked, goes on with what it says of that; it gets no image either.
func held(o *desk.Offer) bool { return o.Waits && o.State <= rollout.Downloaded }

// confirmationBody says what people at a device are asked for.
type confirmationBody struct {
	Auto  autoConfirm     `json:"autoConfirm"`
	Links map[string]link `json:"_links"`
}

type autoConfirm struct {
	Active    bool   `json:"active"`
	Initiator string `json:"initiator,omitempty"`
	Remark    string `json:"remark,omitempty"`
	Since     int64  `json:"activatedAt,omitempty"` // ms
}

func (h *Handler) confirmationBase(w *recorder, q *request) {
	c, err := h.Consents.Consent(q.Context(), q.device)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	b := confirmationBody{Auto: autoConfirm{c.Auto, c.Initiator, c.Remark, int64(c.Since) / 1000}, Links: map[string]link{}}
	verb := "activateAutoConfirm"
	if c.Auto {
		verb = "deactivateAutoConfirm"
	}
	b.Links[verb] = h.link(q, "confirmationBase/"+verb)
	o, err := h.offer(q)
	switch {
	case err != nil && muster.KindOf(err) != muster.NotFound:
		h.refuse(w, q, err)
		return
	case err == nil && o.Waits:
		b.Links["confirmationBase"] = h.link(q, "confirmationBase/"+number(o.Action)+"?c="+number(h.version(&o)))
	}
	h.document(w, q, b)
}

// confirmationOf is a deployment that people are asked for.
type confirmationOf struct {
	ID           string         `json:"id"`
	Confirmation deploymentPart `json:"confirmation"`
	History      *historyBody   `json:"actionHistory,omitempty"`
}

// asked returns the offer that the path names, if people are asked for it.
func (h *Handler) asked(q *request) (desk.Offer, error) {
	o, err := h.current(q)
	if err != nil {
		return o, err
	}
	if !o.Waits {
		err = errPath()
	}
	return o, err
}

func (h *Handler) confirmation(w *recorder, q *request) {
	o, err := h.asked(q)
	var b deploymentBody
	if err == nil {
		b, err = h.deploymentOf(q, &o, "WAIT_FOR_CONFIRMATION")
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	h.document(w, q, confirmationOf{b.ID, b.Deployment, b.History})
}

// ParseConfirmation reads what people at a device say: whether they want it, and why not.
func ParseConfirmation(text []byte) (wanted bool, detail string, err error) {
	var b struct {
		Confirmation string  `json:"confirmation"`
		Details      details `json:"details"`
	}
	if err := decode(text, &b); err != nil {
		return false, "", err
	}
	if b.Confirmation != "confirmed" && b.Confirmation != "denied" {
		return false, "", muster.InvalidAt("confirmation", "confirmation is not confirmed or denied")
	}
	return b.Confirmation == "confirmed", b.Details.line(), nil
}

func (h *Handler) confirmationFeedback(w *recorder, q *request) {
	text, err := h.body(w, q)
	wanted, detail := false, ""
	if err == nil {
		wanted, detail, err = ParseConfirmation(text)
	}
	if err == nil {
		err = h.decide(q, wanted, detail)
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	done(w)
}

// decide keeps what people at a device want. Denied is an end of the action, confirmed only of
// the question.
func (h *Handler) decide(q *request, wanted bool, detail string) error {
	o, err := h.offer(q)
	if err == nil && (o.Action != q.action || o.Stop) {
		err = errOver()
	}
	if err != nil {
		return gone(err)
	}
	if !o.Waits {
		return errPath()
	}
	if !wanted {
		fact := rollout.Fact{Event: rollout.SaysDenied, Action: o.Action, Detail: detail}
		return gone(h.Desk.Report(q.Context(), director.Report{Device: q.device, Fact: fact}))
	}
	c, err := h.Consents.Consent(q.Context(), q.device)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	c.Action = o.Action
	return h.Consents.SetConsent(q.Context(), q.device, c) //nolint:wrapcheck // likewise
}

// activate keeps that people at a device want all that is offered. Its body is optional.
func (h *Handler) activate(w *recorder, q *request) {
	text, err := h.body(w, q)
	var b struct{ Initiator, Remark string }
	if err == nil && len(text) > 0 {
		err = decode(text, &b)
	}
	if err == nil {
		err = h.auto(q, desk.Consent{Auto: true, Initiator: cut(b.Initiator, maxName), Remark: cut(b.Remark, maxDetail), Since: muster.MicrosOf(h.Now())})
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	done(w)
}

func (h *Handler) deactivate(w *recorder, q *request) {
	if err := h.auto(q, desk.Consent{}); err != nil {
		h.refuse(w, q, err)
		return
	}
	done(w)
}

// auto replaces all of a consent but what was wanted one by one. What has begun under the one before stays wanted.
func (h *Handler) auto(q *request, c desk.Consent) error {
	was, err := h.Consents.Consent(q.Context(), q.device)
	if err != nil {
		return err //nolint:wrapcheck // the store says what it was doing
	}
	c.Action = was.Action
	o, err := h.offer(q)
	switch {
	case err == nil && was.Auto && !o.Stop && o.State > rollout.Offered:
		c.Action = o.Action
	case err != nil && muster.KindOf(err) != muster.NotFound:
		return err
	}
	return h.Consents.SetConsent(q.Context(), q.device, c) //nolint:wrapcheck // likewise
}

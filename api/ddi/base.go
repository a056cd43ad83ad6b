package ddi

import (
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"strconv"
	"time"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

// baseBody is the resource that devices poll.
type baseBody struct {
	Config struct {
		Polling struct {
			Sleep string `json:"sleep"` // HH:MM:SS
		} `json:"polling"`
	} `json:"config"`
	Links map[string]link `json:"_links"`
}

// base answers a poll: what there is to do, and when to ask again.
func (h *Handler) base(w *recorder, q *request) {
	o, err := h.offer(q)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		h.refuse(w, q, err)
		return
	}
	none, soon := err != nil, false
	if h.Asked != nil { // also who is busy is there, and well
		if soon, err = h.Asked(q.Context(), q.device); err != nil {
			h.refuse(w, q, err)
			return
		}
	}
	b := baseBody{Links: map[string]link{}}
	b.Config.Polling.Sleep = h.sleep(q.device, (none || o.Parked && !o.Hours.Open) && !soon)
	if !none {
		if name, path := h.toDo(&o); name != "" {
			b.Links[name] = h.link(q, path)
		}
	}
	if h.wantsAttributes(q.device, &o, none) {
		b.Links["configData"] = h.link(q, "configData")
	}
	action, _, err := h.Past.InstalledAction(q.Context(), q.device)
	switch {
	case err == nil:
		b.Links["installedBase"] = h.link(q, "installedBase/"+number(action))
	case muster.KindOf(err) != muster.NotFound:
		h.refuse(w, q, err)
		return
	}
	h.document(w, q, b)
}

// toDo returns the link for an offer; none when there is nothing to do but to report a version.
func (h *Handler) toDo(o *desk.Offer) (name, path string) {
	switch {
	case o.Stop:
		return "cancelAction", "cancelAction/" + number(o.Action)
	case o.Shut: // it is taken back within seconds
		return "", ""
	case o.State == rollout.Rebooting: // it said that it has installed
		return "", ""
	}
	name = "deploymentBase"
	if held(o) {
		name = "confirmationBase"
	}
	return name, name + "/" + number(o.Action) + "?c=" + number(h.version(o))
}

// offer asks the desk. A device that has nothing to do gets a NotFound error.
func (h *Handler) offer(q *request) (desk.Offer, error) {
	o, err := h.Desk.Offer(q.Context(), q.device)
	if err != nil && muster.KindOf(err) != muster.NotFound {
		err = fmt.Errorf("look for the firmware of a device: %w", err)
	}
	return o, err
}

// wantsAttributes says whether a device is to tell its attributes: it has not since we began, or
// it has installed a release, and may run it by now.
func (h *Handler) wantsAttributes(device muster.DeviceID, o *desk.Offer, idle bool) (wants bool) {
	now := h.Now()
	h.memory.with(device, func(s *seen) {
		if idle || o.Stop || o.State != rollout.Rebooting {
			wants = !s.attributes
			return
		}
		s = s.of(o.Action)
		if s.closed.IsZero() {
			s.closed = now
		}
		wants = !s.asked && now.Sub(s.closed) >= h.Reboot
	})
	return wants
}

// sleep returns for how long a device is to sleep. It is the same at each poll, so that the
// answer is, and another for each device, so that they do not come together.
func (h *Handler) sleep(device muster.DeviceID, idle bool) string {
	d := h.Busy
	if idle {
		d = h.Idle
	}
	f := fnv.New64a()
	_, _ = f.Write([]byte(device)) // a hash takes everything
	spread := float64(f.Sum64()%4001)/10_000 - 0.2
	if idle {
		d += time.Duration(spread * float64(d))
	}
	s := max(1, int(d/time.Second))
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

// version returns a number that is another whenever the deployment's text is (hawkBit's ?c=),
// as a C int.
func (h *Handler) version(o *desk.Offer) int32 {
	d := h.handling(o)
	return int32(crc32.ChecksumIEEE(fmt.Appendf(nil, "%d %s %s %s", o.Action, d.Download, d.Update, d.Window)))
}

// link returns the address of a resource of the device, spelled as the device spells it.
func (h *Handler) link(q *request, path string) link {
	return link{h.root(q) + "/" + q.tenant + "/controller/v1/" + string(q.device) + "/" + path}
}

// root is where the device reaches us.
func (h *Handler) root(q *request) string {
	if h.URL != "" {
		return h.URL
	}
	if q.TLS != nil || h.Secure != nil && h.Secure(q.Request) {
		return "https://" + q.Host
	}
	return "http://" + q.Host
}

func number(n int32) string { return strconv.FormatInt(int64(n), 10) }

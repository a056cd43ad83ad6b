package ddi

import (
	"strconv"

	"muster"
	"muster/firmware/desk"
	"muster/firmware/rollout"
)

// The ways in which a device handles a part of a deployment, and hawkBit's words for windows.
const (
	forced      = "forced"
	attempt     = "attempt"
	skip        = "skip"
	available   = "available"
	unavailable = "unavailable"
)

// handling is how a device is to go about it.
type handling struct {
	Download string `json:"download"`
	Update   string `json:"update"`
	Window   string `json:"maintenanceWindow,omitempty"`
}

// deploymentBody is what a device is to install.
type deploymentBody struct {
	ID         string         `json:"id"` // a string that is a C int: SWUpdate reads it with %d
	Deployment deploymentPart `json:"deployment"`
	History    *historyBody   `json:"actionHistory,omitempty"`
}

type deploymentPart struct {
	handling
	Chunks []chunk `json:"chunks"`
}

// chunk is a release. RAUC's updater and Zephyr's client take one chunk with one artifact.
type chunk struct {
	Part      string     `json:"part"`
	Version   string     `json:"version"`
	Name      string     `json:"name"`
	Artifacts []artifact `json:"artifacts"`
}

// artifact is an image. Clients assert its types: the size is an integer, all else text.
type artifact struct {
	Filename string          `json:"filename"`
	Hashes   hashes          `json:"hashes"`
	Size     int64           `json:"size"`
	Links    map[string]link `json:"_links"`
}

type hashes struct {
	SHA1   string `json:"sha1"`
	MD5    string `json:"md5"`
	SHA256 string `json:"sha256"`
}

type historyBody struct {
	Status   string   `json:"status"`
	Messages []string `json:"messages"`
}

// mostHistory bounds actionHistory; -1 asks for it.
const mostHistory = 100

// handling returns how a device is to go about an offer, as of now. Outside of its window it fetches what it has
// begun to fetch, and waits with that.
func (h *Handler) handling(o *desk.Offer) handling {
	how := handling{Download: forced, Update: forced}
	if h.Attempt {
		how = handling{Download: attempt, Update: attempt}
	}
	switch {
	case o.Parked:
		how.Update, how.Window = skip, unavailable
	case o.Hours.Bound:
		how.Window = available
	}
	return how
}

// current returns the offer that the path names, if it is the device's and in flight.
func (h *Handler) current(q *request) (desk.Offer, error) {
	o, err := h.offer(q)
	if err == nil && (o.Action != q.action || o.Stop) {
		err = errPath()
	}
	return o, err
}

func (h *Handler) deployment(w *recorder, q *request) {
	o, err := h.current(q)
	if err == nil && (held(&o) || o.Shut) {
		err = errPath()
	}
	var b deploymentBody
	if err == nil {
		b, err = h.deploymentOf(q, &o, stateOf(o.State))
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	h.memory.with(q.device, func(s *seen) {
		s = s.of(o.Action)
		s.told, s.skip = true, b.Deployment.Update == skip
	})
	h.document(w, q, b)
}

// deploymentOf returns an offer as clients read it.
func (h *Handler) deploymentOf(q *request, o *desk.Offer, status string) (deploymentBody, error) {
	m := o.Release.Manifest
	b := deploymentBody{ID: number(o.Action), Deployment: deploymentPart{
		handling: h.handling(o),
		Chunks:   []chunk{{Part: part(m.Type), Version: m.Version, Name: m.Product, Artifacts: h.artifactsOf(q, o)}},
	}}
	n, _ := strconv.Atoi(q.URL.Query().Get("actionHistory")) // none for what is no number
	if n == 0 {
		return b, nil
	}
	if n < 0 || n > mostHistory {
		n = mostHistory
	}
	said, err := h.Past.ActionLog(q.Context(), q.device, o.Action, n)
	if err == nil && len(said) > 0 {
		b.History = &historyBody{status, said}
	}
	return b, err //nolint:wrapcheck // the store says what it was doing
}

// part is the name of a type of software. Clients know hawkBit's own for applications: Zephyr's
// takes no other.
func part(kind string) string {
	switch kind {
	case "app", "application":
		return "bApp"
	case "runtime":
		return "jvm"
	}
	return kind
}

// stateOf is hawkBit's word for a state.
func stateOf(s rollout.State) string {
	switch s {
	case rollout.Offered:
		return "RETRIEVED"
	case rollout.Downloading:
		return "DOWNLOAD"
	case rollout.Downloaded:
		return "DOWNLOADED"
	case rollout.Confirmed:
		return "FINISHED"
	default:
		return "RUNNING"
	}
}

func (h *Handler) artifactsOf(q *request, o *desk.Offer) []artifact {
	out := make([]artifact, 0, len(o.Release.Files))
	for _, f := range o.Release.Files {
		at := h.link(q, "softwaremodules/"+number(o.Action)+"/artifacts/"+f.Filename)
		sum := link{at.Href + md5Suffix}
		out = append(out, artifact{
			Filename: f.Filename, Hashes: hashes{SHA1: f.SHA1, MD5: f.MD5, SHA256: f.SHA256}, Size: f.Size,
			Links: map[string]link{"download": at, "download-http": at, "md5sum": sum, "md5sum-http": sum},
		})
	}
	return out
}

// had returns the action that the path names if it is what the device has installed.
func (h *Handler) had(q *request) (desk.Offer, error) {
	action, release, err := h.Past.InstalledAction(q.Context(), q.device)
	if err == nil && action != q.action {
		err = errPath()
	}
	if err != nil {
		return desk.Offer{}, err //nolint:wrapcheck // the store says what it was doing
	}
	r, err := h.Releases.Release(q.Context(), release)
	return desk.Offer{Device: q.device, Action: action, State: rollout.Confirmed, Release: r}, err //nolint:wrapcheck // likewise
}

func (h *Handler) installed(w *recorder, q *request) {
	o, err := h.had(q)
	var b deploymentBody
	if err == nil {
		b, err = h.deploymentOf(q, &o, stateOf(rollout.Confirmed))
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	h.document(w, q, b)
}

// module returns the offer whose release is the module of the path: what is to be installed, or
// what was. A module has the number of its action.
//
// Nothing of it can be fetched before people at the device wanted it, and nothing is begun outside of its window.
func (h *Handler) module(q *request) (desk.Offer, error) {
	o, err := h.current(q)
	if muster.KindOf(err) == muster.NotFound {
		return h.had(q)
	}
	if err != nil {
		return o, err
	}
	if o.Waits || o.Shut {
		err = errPath()
	}
	return o, err
}

func (h *Handler) artifacts(w *recorder, q *request) {
	o, err := h.module(q)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	h.document(w, q, h.artifactsOf(q, &o))
}

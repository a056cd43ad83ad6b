package ddi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster"
)

const (
	writeTime = 60 * time.Second // for an answer that is no image
	bodyTime  = 30 * time.Second // for a body
	maxBody   = 64 << 10         // bytes
)

// Handler serves the API. It is an http.Handler, safe for concurrent use.
type Handler struct {
	Config
	memory  *memory
	metrics metrics
}

// New returns a Handler.
func New(c Config) (*Handler, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	c.Settings = c.withDefaults()
	h := &Handler{Config: c, memory: newMemory(maxRemembered, c.Now)}
	return h, h.metrics.register(c.Metrics)
}

// Serves says whether a path is this API's, whatever its tenant: /{tenant}/controller/v1/...
func Serves(path string) bool {
	_, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return ok && strings.HasPrefix(rest, "controller/v1/")
}

// request is one of a device.
type request struct {
	*http.Request
	device muster.DeviceID
	tenant string // as the device spells it
	action int32  // of the path; 0 for none
	file   string // likewise
}

// operation is what a path stands for.
type operation struct {
	name    string // for the metrics
	methods string // separated by ", "
	serve   func(h *Handler, w *recorder, r *request)
}

// ServeHTTP answers a device.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	q := &request{Request: r}
	op, err := h.route(q)
	defer func() { h.metrics.count(op.name, rec.status) }()
	if err == nil {
		err = h.admit(q)
	}
	if err != nil {
		h.refuse(rec, q, err)
		return
	}
	if !allows(op.methods, r.Method) {
		rec.Header().Set("Allow", op.methods)
		problem(rec, http.StatusMethodNotAllowed, "this path takes "+op.methods)
		return
	}
	switch {
	case op.name == imageOperation:
		err = h.memory.piece(q.device)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		err = h.memory.read(q.device)
	default:
		err = h.memory.write(q.device)
	}
	if err != nil {
		h.refuse(rec, q, err)
		return
	}
	op.serve(h, rec, q)
}

func allows(methods, method string) bool {
	for m := range strings.SplitSeq(methods, ", ") {
		if m == method {
			return true
		}
	}
	return false
}

// errPath is what a path that is nothing gets: the tenant, the device and the action of
// somebody else too.
func errPath() error { return muster.Errorf(muster.NotFound, "there is no such resource") }

// route reads the path /{tenant}/controller/v1/{device}/... into q.
func (h *Handler) route(q *request) (operation, error) {
	parts := strings.Split(strings.TrimPrefix(q.URL.Path, "/"), "/")
	if len(parts) < 4 || len(parts) > 8 || parts[1] != "controller" || parts[2] != "v1" || !strings.EqualFold(parts[0], h.Tenant) {
		return operation{name: "unknown"}, errPath()
	}
	id, err := muster.ParseDeviceID(parts[3])
	if err != nil {
		return operation{name: "unknown"}, errPath()
	}
	q.tenant, q.device = parts[0], id
	op, ok := q.operation(parts[4:])
	if !ok {
		return operation{name: "unknown"}, errPath()
	}
	return op, nil
}

const (
	get  = http.MethodGet
	post = http.MethodPost

	imageOperation = "artifact"
)

// operation finds what the part of a path behind the device stands for.
func (q *request) operation(rest []string) (operation, bool) {
	switch {
	case len(rest) == 0:
		return operation{"base", get, (*Handler).base}, true
	case len(rest) == 1 && rest[0] == "configData":
		return operation{"configData", http.MethodPut, (*Handler).configData}, true
	case rest[0] == "softwaremodules" && len(rest) >= 3 && rest[2] == "artifacts" && q.number(rest[1]):
		return q.ofModule(rest[3:])
	case rest[0] == "confirmationBase":
		return q.ofConfirmation(rest[1:])
	case len(rest) == 2 && q.number(rest[1]):
		for name, serve := range map[string]func(*Handler, *recorder, *request){
			"deploymentBase": (*Handler).deployment, "cancelAction": (*Handler).cancel, "installedBase": (*Handler).installed,
		} {
			if rest[0] == name {
				return operation{name, get, serve}, true
			}
		}
	case len(rest) == 3 && rest[2] == "feedback" && q.number(rest[1]):
		switch rest[0] {
		case "deploymentBase":
			return operation{"feedback", post, (*Handler).feedback}, true
		case "cancelAction":
			return operation{"cancelFeedback", post, (*Handler).cancelFeedback}, true
		}
	}
	return operation{}, false
}

func (q *request) ofModule(rest []string) (operation, bool) {
	switch len(rest) {
	case 0:
		return operation{"artifacts", get, (*Handler).artifacts}, true
	case 1:
		if name, ok := strings.CutSuffix(rest[0], md5Suffix); ok {
			q.file = name
			return operation{"md5sum", "GET, HEAD", (*Handler).md5sum}, true
		}
		q.file = rest[0]
		return operation{imageOperation, "GET, HEAD", (*Handler).artifact}, true
	}
	return operation{}, false
}

func (q *request) ofConfirmation(rest []string) (operation, bool) {
	switch {
	case len(rest) == 0:
		return operation{"confirmationBase", get, (*Handler).confirmationBase}, true
	case len(rest) == 1 && rest[0] == "activateAutoConfirm":
		return operation{"activateAutoConfirm", post, (*Handler).activate}, true
	case len(rest) == 1 && rest[0] == "deactivateAutoConfirm":
		return operation{"deactivateAutoConfirm", post, (*Handler).deactivate}, true
	case len(rest) == 1 && q.number(rest[0]):
		return operation{"confirmation", get, (*Handler).confirmation}, true
	case len(rest) == 2 && rest[1] == "feedback" && q.number(rest[0]):
		return operation{"confirmationFeedback", post, (*Handler).confirmationFeedback}, true
	}
	return operation{}, false
}

// number reads an action into q; the clients have C ints.
func (q *request) number(s string) bool {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n <= 0 || s[0] == '+' {
		return false
	}
	q.action = int32(n)
	return true
}

// refuse answers an error.
func (h *Handler) refuse(w http.ResponseWriter, q *request, err error) {
	busy, often := errors.AsType[*tooOftenError](err)
	switch {
	case often:
		w.Header().Set("Retry-After", strconv.Itoa(busy.seconds()))
		problem(w, http.StatusTooManyRequests, "the device asks too often: its configuration says how often to poll")
		return
	case errors.Is(err, errCBOR):
		problem(w, http.StatusUnsupportedMediaType, "CBOR is not spoken here, only JSON")
		return
	case muster.KindOf(err) == muster.Unauthorized:
		w.Header().Set("WWW-Authenticate", `TargetToken realm="muster"`)
		problem(w, http.StatusUnauthorized, "the token is not the device's")
		return
	}
	status, known := statusOf(muster.KindOf(err))
	switch {
	case status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	case !known:
		h.Log.Error("a device's request failed", "device", q.device, "path", q.URL.Path, "err", err)
	}
	problem(w, status, muster.Public(err))
}

// statusOf returns the status of a kind of error; false when it is our own fault.
func statusOf(k muster.Kind) (status int, known bool) {
	switch k {
	case muster.Invalid:
		return http.StatusBadRequest, true
	case muster.NotFound:
		return http.StatusNotFound, true
	case muster.Stale:
		return http.StatusGone, true
	case muster.Conflict:
		return http.StatusConflict, true
	case muster.TooLarge:
		return http.StatusRequestEntityTooLarge, true
	case muster.Busy, muster.Unavailable:
		return http.StatusServiceUnavailable, true
	default:
		return http.StatusInternalServerError, false
	}
}

package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"strings"
	"sync"

	"muster"
	"muster/notify"
)

const (
	ackPath = "/n/{token}" // as notify.LinkPath has it
	maxForm = 8 << 10      // bytes of the form: a note with every byte escaped
)

// ackStyle is the pages' style. Their policy allows this very text and nothing else.
const ackStyle = `body{font:16px/1.5 system-ui,sans-serif;max-width:38rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}` +
	`h1{font-size:1.3rem;margin:.2rem 0 1rem;overflow-wrap:anywhere}.of{color:#5a6675}.text{white-space:pre-wrap;overflow-wrap:anywhere}` +
	`.state{border-left:4px solid #5a6675;padding-left:.8rem}.info{border-color:#2f6fbf}.warning{border-color:#b97d00}.major,.critical{border-color:#bf2f2f}` +
	`label{display:block;margin-top:1.5rem}textarea{width:100%;box-sizing:border-box;font:inherit;margin:.3rem 0 1rem;padding:.5rem}` +
	`button{font:inherit;padding:.6rem 1.2rem;border:0;border-radius:.3rem;background:#1f5fa8;color:#fff;cursor:pointer}` +
	`@media(prefers-color-scheme:dark){body{color:#e4e8ee;background:#12161c}.of{color:#9aa6b5}textarea{background:#1c222b;color:inherit;border:1px solid #3a4452}}`

const ackHead = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="robots" content="noindex,nofollow">
<meta name="referrer" content="no-referrer">
<title>{{.Heading}}</title>
<style>` + ackStyle + `</style>
</head>
<body>
`

const ackText = ackHead + `<p class="of">{{.Topic}}</p>
<h1>{{.Heading}}</h1>
{{with .Body}}<p class="text">{{.}}</p>
{{end}}<p class="of">{{.Severity}}{{with .Device}} · {{.}}{{end}} · sent by {{.Sender}} · {{.At}}</p>
{{with .Link}}<p><a href="{{.}}" rel="noopener noreferrer">{{.}}</a></p>
{{end}}{{with .Fault}}<p class="state major" role="alert">{{.}}</p>
{{end}}<p class="state {{.Severity}}" id="state">{{.State}}</p>
{{with .Note}}<p class="text">“{{.}}”</p>
{{end}}{{if .Form}}<form method="post" accept-charset="utf-8">
<label for="note">A note for the others, if you like</label>
<textarea id="note" name="note" rows="3" maxlength="500">{{.Draft}}</textarea>
<button type="submit">I take care of it</button>
</form>
{{end}}</body>
</html>
`

const ackErrorText = ackHead + `<h1>{{.Heading}}</h1>
<p class="text">{{.Fault}}</p>
</body>
</html>
`

// ackView is what the pages show.
type ackView struct {
	Heading, Topic, Body, Severity, Device, Sender, At, Link string
	State, Note                                              string // of the notification
	Fault                                                    string // of the request
	Form                                                     bool
	Draft                                                    string
}

// ackTemplates are the pages, and the policy under which they are shown.
type ackTemplates struct {
	page, fault *template.Template
	policy      string
}

var ackPages = sync.OnceValue(func() ackTemplates {
	sum := sha256.Sum256([]byte(ackStyle))
	return ackTemplates{
		template.Must(template.New("ack").Parse(ackText)), template.Must(template.New("fault").Parse(ackErrorText)),
		"default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	}
})

// serveAck serves the links in mails: GET shows a page and changes nothing, so that a mail
// scanner that follows links acks nothing; POST, the page's form, acks. The link's token is
// the right: no cookie is looked at, and so no other site can use anybody's. That is why
// Origin is not asked here: browsers send "null" from a page without a referrer.
func (a *API) serveAck(w *recorder, r *http.Request) {
	req := requestOf(r.Context())
	w.route, req.route = ackPath, ackPath // never the token
	h := w.Header()
	h.Set("Content-Security-Policy", ackPages().policy)
	h.Set("X-Robots-Tag", "noindex, nofollow")
	privately(h)
	if a.limited(h, byAddress(a.policies.public, req.addr)) != nil {
		a.ackFault(w, http.StatusTooManyRequests, "There were too many requests. Try again in a minute.")
		return
	}
	token, _ := strings.CutPrefix(r.URL.Path, notify.LinkPath)
	if token == "" || strings.Contains(token, "/") {
		a.ackFault(w, http.StatusNotFound, "There is no such page.")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), requestTime)
	defer cancel()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		p, err := a.Notify.OpenLink(ctx, token)
		if err != nil {
			a.ackRefusal(w, req, err)
			return
		}
		a.showAck(w, http.StatusOK, ackViewOf(&p))
	case http.MethodPost:
		a.ackByForm(ctx, w, req, token)
	default:
		h.Set("Allow", "GET, HEAD, POST")
		a.ackFault(w, http.StatusMethodNotAllowed, "This page takes GET and POST.")
	}
}

// ackByForm acks, and shows what is so then. A note that cannot be is given back.
func (a *API) ackByForm(ctx context.Context, w *recorder, req *request, token string) {
	note, status, err := readNote(w, req.Request)
	if err != nil {
		a.ackFault(w, status, err.Error())
		return
	}
	p, err := a.Notify.AckByLink(ctx, token, note)
	if err == nil {
		a.showAck(w, http.StatusOK, ackViewOf(&p))
		return
	}
	if muster.KindOf(err) == muster.Invalid {
		if p, again := a.Notify.OpenLink(ctx, token); again == nil {
			v := ackViewOf(&p)
			v.Fault, v.Draft = sentence(muster.Public(err)), note
			a.showAck(w, http.StatusUnprocessableEntity, v)
			return
		}
	}
	a.ackRefusal(w, req, err)
}

// readNote reads the form, which must be one, and short.
func readNote(w http.ResponseWriter, r *http.Request) (note string, status int, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && r.ContentLength != 0 || err == nil && kind != "application/x-www-form-urlencoded" {
		return "", http.StatusUnsupportedMediaType, errors.New("This page takes its own form only.") //nolint:revive,staticcheck // it is shown to people
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return "", http.StatusRequestEntityTooLarge, errors.New("The note is too long.") //nolint:revive,staticcheck // likewise
		}
		return "", http.StatusBadRequest, errors.New("The form is broken.") //nolint:revive,staticcheck // likewise
	}
	return strings.TrimSpace(strings.ReplaceAll(r.PostForm.Get("note"), "\r\n", "\n")), 0, nil
}

func ackViewOf(p *notify.AckPage) ackView {
	n, r := &p.Item.Notification, &p.Item.Receipt
	v := ackView{
		Heading: n.Title, Topic: p.Topic.Title, Body: n.Body, Severity: n.Severity.String(), Device: string(n.Device), Sender: called(n.Sender.Name),
		At: readable(n.Created), Link: n.Link,
	}
	if v.Topic == "" {
		v.Topic = p.Topic.Name
	}
	switch {
	case n.State == notify.Resolved && n.AckedBy != "":
		v.State, v.Note = "It is over since "+readable(n.ResolvedAt)+". "+capital(called(n.AckedBy))+" took care of it.", n.AckNote
	case n.State == notify.Resolved:
		v.State = "It is over since " + readable(n.ResolvedAt) + "."
	case n.State == notify.Acked:
		v.State, v.Note = capital(called(n.AckedBy))+" takes care of it since "+readable(n.AckedAt)+".", n.AckNote
	case r.State >= notify.AckedIt:
		v.State, v.Note = fmt.Sprintf("You take care of it since %s. So do %d of %d who were told.", readable(r.Acked), n.Acks, n.Recipients), r.Note
	case n.AckPolicy == notify.AckNone:
		v.State = "It is for your information: nobody is asked to take care of it."
	default:
		v.State, v.Form = "Nobody takes care of it yet.", true
		if n.Acks > 0 {
			v.State = fmt.Sprintf("%d of %d who were told take care of it.", n.Acks, n.Recipients)
		}
	}
	return v
}

func readable(m muster.Micros) string { return m.Time().UTC().Format("2 January 2006, 15:04 UTC") }

// called is a name in a sentence: of a user without one there is an id only.
func called(name string) string {
	if strings.HasPrefix(name, "usr_") {
		return "the user " + name
	}
	return name
}

// capital is the words that sentences begin with; a name stays as it is.
func capital(s string) string {
	if rest, ok := strings.CutPrefix(s, "the user "); ok {
		return "The user " + rest
	}
	return s
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

// ackRefusal says why a link does not work.
func (a *API) ackRefusal(w *recorder, req *request, err error) {
	p := problemOf(err)
	switch p.Status {
	case http.StatusInternalServerError, http.StatusServiceUnavailable:
		a.logFault(req, err)
		p.Detail = "this does not work now; try again in a while"
	case http.StatusNotFound:
		p.Detail = "the notification is not kept any more"
	}
	if s := retryAfter(p.Status); s > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(s))
	}
	a.ackFault(w, p.Status, sentence(p.Detail))
}

func (a *API) ackFault(w *recorder, status int, words string) {
	a.writeAck(w, status, ackPages().fault, ackView{Heading: http.StatusText(status), Fault: words})
}

func (a *API) showAck(w *recorder, status int, v ackView) {
	a.writeAck(w, status, ackPages().page, v)
}

func (a *API) writeAck(w *recorder, status int, t *template.Template, v ackView) {
	var page bytes.Buffer
	if err := t.Execute(&page, v); err != nil { // fields that are there
		panic(fmt.Errorf("write the page of an ack link: %w", err))
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(page.Bytes()) // the client is gone: nobody is left to tell
}

package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/tasks"
	"muster/tasks/identicon"
)

// IdenticonKind is the kind of task that draws identicons.
const IdenticonKind = "identicon"

// identiconWait is how long a picture is waited for when the request says nothing.
const identiconWait = 10 * time.Second

// IdenticonQuery is the part of an input that says how to draw.
type IdenticonQuery struct {
	Size       int    `query:"size" default:"256" minimum:"16" maximum:"1024" doc:"Width and height in pixels"`
	Oversample int    `query:"oversample" default:"4" minimum:"1" maximum:"32" doc:"Root of the points that are looked at for a pixel: the cost grows with its square"`
	Wait       string `query:"wait" maxLength:"16" doc:"How long to wait for the picture, at most 60s; 10s when absent. 408 then; the drawing goes on" example:"10s"`
}

func (a *API) identiconRoutes() {
	type input struct {
		DevicePath
		IdenticonQuery
	}
	op := huma.Operation{OperationID: "get-device-identicon", Path: "/devices/{device}/identicon.png", Tags: []string{"devices"}, Summary: "Get a picture that stands for a device"}
	identiconRoute(a, accounts.DevicesRead, op, func(_ context.Context, in *input) (string, IdenticonQuery, error) {
		id, err := a.commanded(in.DevicePath)
		return "devices/" + string(id), in.IdenticonQuery, err
	})
	type userInput struct {
		UserPath
		IdenticonQuery
	}
	op = huma.Operation{OperationID: "get-user-identicon", Path: "/users/{user}/identicon.png", Tags: []string{"accounts"}, Summary: "Get a picture that stands for a user"}
	identiconRoute(a, anyone, op, func(ctx context.Context, in *userInput) (string, IdenticonQuery, error) {
		who := requestOf(ctx).who
		if err := mayLook(who); err != nil {
			return "", in.IdenticonQuery, err
		}
		u, err := a.Accounts.User(in.id(who))
		return "users/" + u.ID, in.IdenticonQuery, err
	})
}

// identiconRoute registers a door to identicons. subject says of what the picture is,
// such as devices/d1, or that it is not there.
func identiconRoute[I any](a *API, scope string, op huma.Operation, subject func(ctx context.Context, in *I) (string, IdenticonQuery, error)) {
	png := map[string]*huma.MediaType{"image/png": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}
	op.Method = http.MethodGet
	op.Description = "The same for the same id, size and oversampling, ever. It is drawn by a task of kind identicon, once for all who ask, and remembered for an hour."
	op.Errors = append(op.Errors, 404, 408, 416)
	op.Responses = map[string]*huma.Response{
		"200": {Description: "OK", Content: png}, "206": {Description: "Partial Content", Content: png},
		"304": {Description: "Not Modified"},
	}
	a.routeFor(requestTime+tasks.MaxWait, scope, &op)
	op.Middlewares = append(huma.Middlewares{writeAfter(requestTime + tasks.MaxWait)}, op.Middlewares...)
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*huma.StreamResponse, error) {
		of, q, err := subject(ctx, in)
		if err == nil {
			var picture []byte
			spec := identicon.Spec{Subject: of, Size: q.Size, Oversample: q.Oversample}
			if picture, err = a.identicon(ctx, spec, q.Wait); err == nil {
				return servePNG(spec, picture), nil
			}
		}
		return nil, a.problem(requestOf(ctx), err)
	})
}

// identicon returns the picture, nil when the client has it or asks for the head alone.
func (a *API) identicon(ctx context.Context, s identicon.Spec, wait string) ([]byte, error) {
	d, err := parseWait(cmp.Or(wait, identiconWait.String()))
	if err != nil {
		return nil, err
	}
	r := requestOf(ctx)
	if strings.Contains(r.Header.Get("If-None-Match"), etagOf(s)) {
		return nil, nil
	}
	if r.Method == http.MethodHead { // it starts nothing, and tells all but the size
		return nil, nil
	}
	input, err := json.Marshal(s)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "write the input of an identicon: %w", err)
	}
	_, picture, err := a.Tasks.Get(ctx, IdenticonKind, input, ownerOf(r), d)
	return picture, err
}

func etagOf(s identicon.Spec) string { return `"` + s.Key() + `"` }

func servePNG(s identicon.Spec, picture []byte) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		h := w.Header()
		h.Set("Content-Type", "image/png")
		h.Set("Cache-Control", "private, max-age=86400")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Etag", etagOf(s))
		if r.Method == http.MethodHead && !knows(r.Header.Get("If-None-Match"), etagOf(s)) {
			w.WriteHeader(http.StatusOK)
			return
		}
		serveContent(w, r, bytes.NewReader(picture))
	}}
}

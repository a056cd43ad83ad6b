package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster/accounts"
	"muster/firmware"
	"muster/firmware/catalog"
)

const (
	uploadsPath  = "/firmware/uploads"
	uploadOffset = "Upload-Offset"
)

type uploadInput struct {
	SHA256   string `query:"sha256" required:"true" minLength:"64" maxLength:"64" doc:"The image's SHA-256 in hex: other bytes are refused"`
	Filename string `query:"filename" required:"true" minLength:"1" maxLength:"128" doc:"Letters, digits, '.', '_', '+' and '-'"`
}

type newUpload struct {
	SHA256   string `json:"sha256" minLength:"64" maxLength:"64" doc:"The image's SHA-256 in hex: other bytes are refused"`
	Size     int64  `json:"size" minimum:"1" maximum:"9007199254740992" doc:"Bytes"`
	Filename string `json:"filename" minLength:"1" maxLength:"128" doc:"Letters, digits, '.', '_', '+' and '-'"`
}

// firmwareUpload is an upload as it is shown.
type firmwareUpload struct {
	ID        string            `json:"id" doc:"Empty when the image was here already" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	SHA256    string            `json:"sha256" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	Size      int64             `json:"size" doc:"Bytes" example:"4194304"`
	Filename  string            `json:"filename" example:"pump.swu"`
	Offset    int64             `json:"offset" doc:"How many bytes are here: the upload goes on there"`
	CreatedBy string            `json:"created_by,omitempty" doc:"Id of the user or key that began it"`
	CreatedAt *string           `json:"created_at" format:"date-time"`
	Artifact  *firmwareArtifact `json:"artifact,omitempty" doc:"The image, once it is here as a whole: there is no upload any more"`
}

func firmwareUploadOf(u *catalog.Upload, x *catalog.Artifact) firmwareUpload {
	out := firmwareUpload{ID: u.ID, SHA256: u.SHA256, Size: u.Size, Filename: u.Filename, Offset: u.Offset, CreatedBy: u.By, CreatedAt: stampOrNull(u.Began)}
	if x != nil {
		shown := firmwareArtifactOf(x)
		out.SHA256, out.Size, out.Filename, out.Offset, out.Artifact = x.SHA256, x.Size, x.Filename, x.Size, &shown
	}
	return out
}

// UploadPath is the part of an input that names an upload. It is exported because huma looks
// into exported embedded fields only.
type UploadPath struct {
	Upload string `path:"upload" maxLength:"64" doc:"The upload's id"`
}

// uploadAnswer is an upload, and where it goes on.
type uploadAnswer struct {
	Status   int
	Location string `header:"Location"`
	Offset   int64  `header:"Upload-Offset" doc:"Where the upload goes on"`
	Body     firmwareUpload
}

// imageAsBody documents a body of plain bytes.
func imageAsBody() *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary", Description: "The image. Another Content-Type is taken too"}},
	}}
}

func (a *API) uploadArtifactRoute(tags []string) {
	shown := map[string]*huma.MediaType{"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[firmwareArtifact](), true, "")}}
	op := huma.Operation{
		OperationID: "upload-artifact", Method: http.MethodPost, Path: artifactsPath, Tags: tags, Metadata: map[string]any{streamed: true},
		Summary: "Upload an image", Description: "The body is the image. One that breaks off leaves nothing; POST /firmware/uploads begins one that may go on.",
		RequestBody: imageAsBody(), Errors: []int{409, 507},
		Responses: map[string]*huma.Response{
			"200": {Description: "The image was here already", Content: shown}, "201": {Description: "Created", Content: shown},
		},
	}
	a.routeFor(writeTime, accounts.FirmwareWrite, &op)
	huma.Register(a.huma, op, func(_ context.Context, in *uploadInput) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // hc has it
			a.takeImage(hc, &op, func(ctx context.Context, size int64, image io.Reader, h http.Header) (int, any, error) {
				w := firmware.Upload{SHA256: in.SHA256, Filename: in.Filename, Size: size, By: ownerOf(requestOf(ctx)).ID}
				x, made, err := a.Firmware.Put(ctx, w, image)
				if err != nil {
					return 0, nil, err
				}
				h.Set("Location", prefix+artifactsPath+"/"+x.SHA256)
				if !made {
					return http.StatusOK, firmwareArtifactOf(&x), nil
				}
				return http.StatusCreated, firmwareArtifactOf(&x), nil
			})
		}}, nil
	})
}

func (a *API) firmwareUploadRoutes(tags []string) {
	op := huma.Operation{
		OperationID: "begin-upload", Method: http.MethodPost, Path: uploadsPath, DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Begin an upload that may go on after a cut",
		Description: "Send the image, or pieces of it, by PATCH. An upload of the same image that is open already is answered, with 200: so is one " +
			"found again. An image that is here already needs none: artifact is there, and id is empty. Uploads that nobody goes on with for 24 hours are discarded.",
		Errors: []int{409, 507},
		Responses: map[string]*huma.Response{"200": {Description: "It is open already, or the image is here", Content: map[string]*huma.MediaType{
			"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[firmwareUpload](), true, "")},
		}}},
	}
	route(a, accounts.FirmwareWrite, op, func(ctx context.Context, in *body[newUpload]) (*uploadAnswer, error) {
		w := firmware.Upload{SHA256: in.Body.SHA256, Size: in.Body.Size, Filename: in.Body.Filename, By: ownerOf(requestOf(ctx)).ID}
		u, here, made, err := a.Firmware.Begin(ctx, w)
		if err != nil {
			return nil, storageProblem(err)
		}
		out := &uploadAnswer{http.StatusOK, prefix + uploadsPath + "/" + u.ID, u.Offset, firmwareUploadOf(&u, here)}
		switch {
		case made:
			out.Status = http.StatusCreated
		case here != nil:
			out.Location, out.Offset = prefix+artifactsPath+"/"+here.SHA256, here.Size
		}
		return out, nil
	})
	a.listUploadsRoute(tags)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-upload", Method: http.MethodGet, Path: uploadsPath + "/{upload}", Tags: tags, Summary: "Ask how far an upload is",
		Description: "HEAD tells it too, in Upload-Offset. An upload that has ended is not there any more: ask for its artifact.", Errors: []int{404},
	}, func(_ context.Context, in *UploadPath) (*uploadAnswer, error) {
		u, err := a.Firmware.Upload(in.Upload)
		if err != nil {
			return nil, err
		}
		return &uploadAnswer{http.StatusOK, "", u.Offset, firmwareUploadOf(&u, nil)}, nil
	})
	a.appendUploadRoute(tags)
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "delete-upload", Method: http.MethodDelete, Path: uploadsPath + "/{upload}", Tags: tags, Summary: "End an upload, and forget what came of it",
		Errors: []int{404},
	}, func(ctx context.Context, in *UploadPath) (*struct{}, error) {
		return nil, a.Firmware.Discard(ctx, in.Upload)
	})
}

func (a *API) listUploadsRoute(tags []string) {
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-uploads", Method: http.MethodGet, Path: uploadsPath, Tags: tags, Summary: "List the uploads that are open, the oldest first",
		Description: "All of them, at most 64, so that somebody can go on with one, or end it. They are those of the server that is asked.",
	}, func(context.Context, *struct{}) (*body[page[firmwareUpload]], error) {
		found, err := a.Firmware.Uploads()
		if err != nil {
			return nil, err
		}
		items := make([]firmwareUpload, len(found))
		for i := range found {
			items[i] = firmwareUploadOf(&found[i], nil)
		}
		return list(items, ""), nil
	})
}

// storageProblem tells a full disk from other faults.
func storageProblem(err error) error {
	if p := imageProblem(err, &imageBody{}); p.Code == insufficientStorage {
		return p
	}
	return err
}

func (a *API) appendUploadRoute(tags []string) {
	op := huma.Operation{
		OperationID: "append-upload", Method: http.MethodPatch, Path: uploadsPath + "/{upload}", Tags: tags, Metadata: map[string]any{streamed: true},
		Summary: "Go on with an upload",
		Description: "The body is what comes at Upload-Offset, as much of it as the client likes. Another offset than the upload's own is 409, and the answer's " +
			"Upload-Offset is the right one. With the last byte the image is checked and kept, and artifact is in the answer.",
		RequestBody: imageAsBody(), Errors: []int{404, 409, 507},
		Responses: map[string]*huma.Response{"200": {
			Description: "OK", Headers: map[string]*huma.Param{uploadOffset: {Schema: &huma.Schema{Type: "integer"}, Description: "Where the upload goes on"}},
			Content: map[string]*huma.MediaType{"application/json": {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeOf[firmwareUpload](), true, "")}},
		}},
	}
	a.routeFor(writeTime, accounts.FirmwareWrite, &op)
	type input struct {
		UploadPath
		Offset int64 `header:"Upload-Offset" required:"true" minimum:"0" doc:"Where the body belongs"`
	}
	huma.Register(a.huma, op, func(_ context.Context, in *input) (*huma.StreamResponse, error) {
		return &huma.StreamResponse{Body: func(hc huma.Context) { //nolint:contextcheck // hc has it
			a.takeImage(hc, &op, func(ctx context.Context, _ int64, image io.Reader, h http.Header) (int, any, error) {
				u, x, err := a.Firmware.Append(ctx, in.Upload, in.Offset, image)
				if err == nil || u.ID != "" {
					h.Set(uploadOffset, strconv.FormatInt(u.Offset, 10))
				}
				return http.StatusOK, firmwareUploadOf(&u, x), err
			})
		}}, nil
	})
}

// imageBody is the body of an upload, which remembers what ended it early.
type imageBody struct {
	r   io.Reader
	err error
}

// Read implements io.Reader.
func (b *imageBody) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err //nolint:wrapcheck // a reader in the middle
}

// takeImage has take read the body as it comes, for as long as it comes and who sends it may
// upload, and answers with what take returns.
func (a *API) takeImage(hc huma.Context, op *huma.Operation, take func(ctx context.Context, size int64, image io.Reader, h http.Header) (int, any, error)) {
	r, w := humago.Unwrap(hc)
	ctx := hc.Context()
	req := requestOf(ctx)
	st, err := a.bodies.take(w, r, req.who.ID, imageMemory, writeTime)
	if err != nil {
		a.refuse(hc, err)
		return
	}
	defer func() {
		st.drain()
		st.close()
	}()
	image := &imageBody{r: (&still{api: a, req: req, asked: a.Now(), scope: accounts.FirmwareWrite}).reader(st)}
	status, v, err := take(ctx, max(r.ContentLength, 0), image, w.Header())
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeStall)) // the body may have taken longer
	if err != nil {
		a.failImage(w, req, imageProblem(err, image), err)
		return
	}
	a.recorded(ctx, op)
	text, err := json.Marshal(v)
	if err != nil { // views are plain data
		panic(fmt.Errorf("write an answer: %w", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // the client is gone: nobody is left to tell
}

// failImage answers with what is wrong with an upload.
func (a *API) failImage(w http.ResponseWriter, req *request, p *Problem, err error) {
	if p.Status >= http.StatusInternalServerError {
		a.logFault(req, err)
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challenge(req.Request))
	}
	w.Header().Set("Connection", "close") // the rest of the body is nobody's
	writeProblem(w, a.located(req, p))
}

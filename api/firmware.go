package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"syscall"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"muster"
	"muster/accounts"
	"muster/firmware"
	"muster/firmware/catalog"
)

// FirmwareUploads takes images of firmware in.
type FirmwareUploads interface {
	Put(ctx context.Context, w firmware.Upload, r io.Reader) (a catalog.Artifact, made bool, err error)
	Begin(ctx context.Context, w firmware.Upload) (u catalog.Upload, here *catalog.Artifact, made bool, err error)
	Append(ctx context.Context, id string, offset int64, r io.Reader) (catalog.Upload, *catalog.Artifact, error)
	Upload(id string) (catalog.Upload, error)
	Uploads() ([]catalog.Upload, error)
	Discard(ctx context.Context, id string) error
}

// FirmwareArtifacts knows the images that are here.
type FirmwareArtifacts interface {
	Artifact(ctx context.Context, sha256 string) (catalog.Artifact, error)
	Artifacts(ctx context.Context, before int64, limit int) ([]catalog.Artifact, error)
	Open(ctx context.Context, sha256 string) (catalog.Artifact, *os.File, error)
	DeleteArtifact(ctx context.Context, sha256 string) error
}

// Firmware is what the API needs of *catalog.Catalog.
type Firmware interface {
	FirmwareUploads
	FirmwareArtifacts
	FirmwareReleases
	FirmwareTrust
}

// imageMemory is what an upload has in memory at once, with room to spare: 256 KiB that are
// read, and what the digests and the connection take.
const imageMemory = 512 << 10

type firmwareImage struct {
	Format          string   `json:"format" doc:"What the image is by its bytes: mcuboot, esp-idf, uf2, swupdate, rauc, mender or raw" example:"swupdate"`
	Version         string   `json:"version,omitempty" doc:"As the image has it" example:"2.0.0"`
	Hardware        []string `json:"hardware,omitempty" nullable:"false" doc:"Revisions (SWUpdate) or the family (UF2)" example:"[\"1.0\"]"`
	Project         string   `json:"project,omitempty" doc:"ESP-IDF's project" example:"pump"`
	SecurityVersion *uint64  `json:"security_version,omitempty" nullable:"false"`
	Signed          bool     `json:"signed" doc:"It carries a signature of its own, which Muster does not check"`
	Damage          string   `json:"damage,omitempty" doc:"What of its own lengths, checksums and digests does not hold: a release of it is not published, unless its manifest has the format raw" example:"its bytes are not those of its own digest"`
}

// firmwareArtifact is an image of firmware as it is shown.
type firmwareArtifact struct {
	SHA256    string        `json:"sha256" doc:"Its id" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	SHA1      string        `json:"sha1" doc:"For clients that ask for it" example:"a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"`
	MD5       string        `json:"md5" doc:"Likewise" example:"098f6bcd4621d373cade4e832627b4f6"`
	Size      int64         `json:"size" doc:"Bytes" example:"4194304"`
	Filename  string        `json:"filename" example:"pump.swu"`
	Image     firmwareImage `json:"image" doc:"What it says of itself"`
	CreatedBy string        `json:"created_by" doc:"Id of the user or key"`
	CreatedAt string        `json:"created_at" format:"date-time"`
}

func firmwareArtifactOf(a *catalog.Artifact) firmwareArtifact {
	return firmwareArtifact{
		SHA256: a.SHA256, SHA1: a.SHA1, MD5: a.MD5, Size: a.Size, Filename: a.Filename, CreatedBy: a.CreatedBy, CreatedAt: stamp(a.Created),
		Image: firmwareImage{string(a.Image.Format), a.Image.Version, a.Image.Hardware, a.Image.Project, a.Image.Security, a.Image.Signed, a.Image.Damage},
	}
}

// artifactTag is the tag of an artifact, which never changes.
func artifactTag(a catalog.Artifact) string { return a.SHA256 }

// ArtifactPath is the part of an input that names an artifact. It is exported because huma
// looks into exported embedded fields only.
type ArtifactPath struct {
	SHA256 string `path:"sha256" maxLength:"64" doc:"The artifact's SHA-256 in hex"`
}

// Newest is the part of an input that asks for a page of a list whose newest come first. It is exported because huma
// looks into exported embedded fields only.
type Newest struct {
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"20" doc:"Of the page before"`
}

// before is the number that the page's have to be below, 0 for the first page.
func (n Newest) before() (int64, error) {
	if n.Cursor == "" {
		return 0, nil
	}
	before, err := strconv.ParseInt(n.Cursor, 10, 64)
	if err != nil || before < 1 {
		return 0, muster.At(muster.Errorf(muster.Invalid, "the cursor is not one of this list"), "cursor")
	}
	return before, nil
}

const artifactsPath = "/firmware/artifacts"

func (a *API) firmwareRoutes() {
	tags := []string{"firmware"}
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-artifacts", Method: http.MethodGet, Path: artifactsPath, Tags: tags, Summary: "List the images of firmware, the newest first",
	}, func(ctx context.Context, in *Newest) (*body[page[firmwareArtifact]], error) {
		before, err := in.before()
		if err != nil {
			return nil, err
		}
		found, err := a.Firmware.Artifacts(ctx, before, in.Limit+1)
		if err != nil {
			return nil, err
		}
		found, next := paged(found, in.Limit, func(x *catalog.Artifact) string { return strconv.FormatInt(x.Number, 10) })
		items := make([]firmwareArtifact, len(found))
		for i := range found {
			items[i] = firmwareArtifactOf(&found[i])
		}
		return list(items, next), nil
	})
	a.uploadArtifactRoute(tags)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-artifact", Method: http.MethodGet, Path: artifactsPath + "/{sha256}", Tags: tags, Summary: "Get what is known of an image", Errors: []int{404},
	}, func(ctx context.Context, in *ArtifactPath) (*body[firmwareArtifact], error) {
		x, err := a.Firmware.Artifact(ctx, in.SHA256)
		if err != nil {
			return nil, err
		}
		documented(ctx, artifactTag(x))
		return &body[firmwareArtifact]{firmwareArtifactOf(&x)}, nil
	})
	route(a, accounts.FirmwareWrite, huma.Operation{
		OperationID: "delete-artifact", Method: http.MethodDelete, Path: artifactsPath + "/{sha256}", Tags: tags,
		Summary: "Delete an image that no release names", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ArtifactPath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, artifactTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Firmware.DeleteArtifact(ctx, in.SHA256)
	})
	a.artifactContentRoute(tags)
	a.firmwareUploadRoutes(tags)
	a.firmwareReleaseRoutes(tags)
	a.firmwareTrustRoutes(tags)
	a.firmwareOfferRoutes(tags)
}

// artifactContentRoute gives images to people; devices have doors of their own.
func (a *API) artifactContentRoute(tags []string) {
	bytes := map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}
	op := huma.Operation{
		OperationID: "get-artifact-content", Method: http.MethodGet, Path: artifactsPath + "/{sha256}/content", Tags: tags, Summary: "Get an image",
		Description: "Byte ranges are served.", Errors: []int{404, 416},
		Responses: map[string]*huma.Response{
			"200": {Description: "OK", Content: bytes}, "206": {Description: "Partial Content", Content: map[string]*huma.MediaType{"*/*": {Schema: &huma.Schema{Type: "string"}}}},
			"304": {Description: "Not Modified"},
		},
	}
	a.routeFor(writeTime, accounts.FirmwareWrite, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *ArtifactPath) (*huma.StreamResponse, error) {
		x, f, err := a.Firmware.Open(ctx, in.SHA256)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		return &huma.StreamResponse{Body: func(hc huma.Context) {
			defer f.Close()
			r, w := humago.Unwrap(hc)
			h := w.Header()
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Content-Disposition", `attachment; filename="`+x.Filename+`"`)
			h.Set("Cache-Control", "private, no-cache")
			h.Set("Etag", `"`+x.SHA256+`"`)
			serveContent(w, r, f)
		}}, nil
	})
}

// insufficientStorage is the code of a problem whose status is 507.
const insufficientStorage = "insufficient_storage"

// imageProblem is what is wrong with an upload. A full disk is no fault that waiting mends: 507
// (RFC 4918, section 11.5).
func imageProblem(err error, body *imageBody) *Problem {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		words := "the disk that images are kept on is full"
		if e, ours := errors.AsType[*muster.Error](err); ours {
			words = e.Msg
		}
		return newProblem(http.StatusInsufficientStorage, words)
	}
	if _, ours := errors.AsType[*muster.Error](err); !ours && body.err != nil {
		return bodyProblem(body.err, 0)
	}
	return problemOf(err)
}

package api

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices/twin"
)

// TwinReader shows twins and the desired documents of their levels.
type TwinReader interface {
	Get(id muster.DeviceID) (twin.Twin, error)
	Level(at twin.Level) (twin.Desired, error)
}

// DesiredWriter changes the desired document of a level.
type DesiredWriter interface {
	PatchDesired(ctx context.Context, at twin.Level, patch []byte, match func(twin.Versions) bool) (twin.Desired, error)
	PutDesired(ctx context.Context, at twin.Level, doc []byte, match func(twin.Versions) bool) (twin.Desired, error)
	DeleteDesired(ctx context.Context, at twin.Level, match func(twin.Versions) bool) (twin.Desired, error)
}

// Twins is what the API needs of *twin.Twins.
type Twins interface {
	TwinReader
	DesiredWriter
}

// twinBody is a device's twin as it is shown.
type twinBody struct {
	Device        muster.DeviceID    `json:"device"`
	Desired       twinSide           `json:"desired" doc:"The merge of the levels, as the device is told it"`
	Reported      twinSide           `json:"reported" doc:"What the device says it is"`
	Converged     bool               `json:"converged" doc:"Whether every leaf of desired is reported"`
	Diverged      []string           `json:"diverged" nullable:"false" doc:"Dotted paths of desired that are not reported so, the first 64"`
	DivergedCount int                `json:"diverged_count"`
	Levels        []TwinLevel        `json:"levels" nullable:"false" doc:"Documents that desired is merged from; the last wins key by key"`
	Winners       map[string]string  `json:"winners" doc:"For each dotted path of desired the level it comes from"`
	Meta          map[string]twinKey `json:"meta" doc:"For each top-level key when its value changed last"`
}

type twinSide struct {
	Version int64           `json:"version" doc:"Grows with each change; 0 when there never was one"`
	State   json.RawMessage `json:"state" doc:"A JSON object"`
}

// TwinLevel is the document of one level. It is exported because huma looks into exported
// embedded fields only.
type TwinLevel struct {
	Level   string          `json:"level" doc:"fleet, profile:NAME, group:NAME or device" example:"group:cold-chain"`
	Version int64           `json:"version"`
	State   json.RawMessage `json:"state" doc:"A JSON object"`
}

type twinKey struct {
	DesiredAt  *string `json:"desired_at,omitempty" format:"date-time"`
	ReportedAt *string `json:"reported_at,omitempty" format:"date-time"`
}

func twinOf(t *twin.Twin) twinBody {
	out := twinBody{
		Device: t.Device, Desired: twinSide{t.Version, t.Desired}, Reported: twinSide{t.ReportedVersion, t.Reported},
		Converged: t.Converged, Diverged: append([]string{}, t.Diverged...), DivergedCount: t.DivergedCount,
		Levels: []TwinLevel{}, Winners: map[string]string{}, Meta: map[string]twinKey{},
	}
	for _, l := range t.Levels {
		out.Levels = append(out.Levels, TwinLevel{l.Level.String(), l.Version, l.State})
	}
	for _, w := range t.Winners {
		out.Winners[w.Path] = w.Level.String()
	}
	for key, at := range t.Times {
		out.Meta[key] = twinKey{stampOrNull(at.DesiredAt), stampOrNull(at.ReportedAt)}
	}
	return out
}

// desiredBody is the desired document of a level, after a change with what it did.
type desiredBody struct {
	TwinLevel
	Changed *int `json:"devices_changed,omitempty" doc:"After a change: how many devices have another desired document now"`
}

// tagged is an answer with an ETag.
type tagged[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

func versionTag(v int64) string { return `"` + strconv.FormatInt(v, 10) + `"` }

func desiredOf(d *twin.Desired, changed bool) *tagged[desiredBody] {
	out := &tagged[desiredBody]{ETag: versionTag(d.Version), Body: desiredBody{TwinLevel: TwinLevel{d.Level.String(), d.Version, d.State}}}
	if changed {
		out.Body.Changed = &d.Changed
	}
	return out
}

// DesiredMatch is the part of an input that binds a change to a version. It is exported
// because huma looks into exported embedded fields only.
type DesiredMatch struct {
	IfMatch string `header:"If-Match" doc:"Change only when the document has this ETag; of a device also that of its twin or its effective version"`
}

func (m DesiredMatch) match() (func(twin.Versions) bool, error) { return parseMatch(m.IfMatch) }

// DesiredInput is the part of an input that is a document or a patch.
type DesiredInput struct {
	RawBody []byte `contentType:"application/merge-patch+json"`
}

func (b DesiredInput) text() []byte { return b.RawBody }

// maxTags is how many entity tags one If-Match may list.
const maxTags = 16

// parseMatch reads If-Match (RFC 9110, section 13.1.1): "7" is a version of the document
// or of the device's effective one, "7-3" a twin's. nil when anything matches.
func parseMatch(header string) (func(twin.Versions) bool, error) {
	header = strings.TrimSpace(header)
	if header == "" || header == "*" {
		return nil, nil //nolint:nilnil // nil matches anything
	}
	tags := strings.Split(header, ",")
	if len(tags) > maxTags {
		return nil, muster.InvalidAt("If-Match", "If-Match has %d tags, at most %d are allowed", len(tags), maxTags)
	}
	var accepted [][2]int64 // the second is -1 for one version
	for _, tag := range tags {
		tag = strings.TrimSpace(tag)
		if strings.HasPrefix(tag, "W/") {
			continue // a weak tag never matches
		}
		if len(tag) < 3 || tag[0] != '"' || tag[len(tag)-1] != '"' {
			return nil, muster.InvalidAt("If-Match", `If-Match is *, or ETags in quotes with commas between, such as "7"`)
		}
		version, reported, twice := strings.Cut(tag[1:len(tag)-1], "-")
		a, err := strconv.ParseInt(version, 10, 64)
		b := int64(-1)
		if err == nil && twice {
			b, err = strconv.ParseInt(reported, 10, 64)
		}
		if err == nil && a >= 0 && b >= -1 { // another tag is none of ours, and matches nothing
			accepted = append(accepted, [2]int64{a, b})
		}
	}
	return func(v twin.Versions) bool {
		for _, tag := range accepted {
			one := tag[1] < 0 && (tag[0] == v.Document || tag[0] == v.Effective)
			if one || tag[0] == v.Effective && tag[1] == v.Reported {
				return true
			}
		}
		return false
	}, nil
}

// Inputs name the level in their path.
type (
	fleetPath  struct{}
	fleetMatch struct{ DesiredMatch }
	fleetWrite struct {
		DesiredMatch
		DesiredInput
	}
	deviceMatch struct {
		DevicePath
		DesiredMatch
	}
	deviceWrite struct {
		DevicePath
		DesiredMatch
		DesiredInput
	}
	profileMatch struct {
		ProfilePath
		DesiredMatch
	}
	profileWrite struct {
		ProfilePath
		DesiredMatch
		DesiredInput
	}
	groupMatch struct {
		GroupPath
		DesiredMatch
	}
	groupWrite struct {
		GroupPath
		DesiredMatch
		DesiredInput
	}
)

func (fleetPath) level() twin.Level      { return twin.Fleet() }
func (fleetMatch) level() twin.Level     { return twin.Fleet() }
func (fleetWrite) level() twin.Level     { return twin.Fleet() }
func (in DevicePath) level() twin.Level  { return twin.Device(muster.DeviceID(in.Device)) }
func (in ProfilePath) level() twin.Level { return twin.Profile(in.Profile) }
func (in GroupPath) level() twin.Level   { return twin.Group(in.Group) }

type leveled interface{ level() twin.Level }

type matching interface {
	leveled
	match() (func(twin.Versions) bool, error)
}

type writing interface {
	matching
	text() []byte
}

func (a *API) twinRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-twin", Method: http.MethodGet, Path: "/devices/{device}/twin", Tags: []string{"twins"},
		Summary: "Get a device's twin", Description: `Its ETag is "desired version-reported version".`, Errors: []int{404},
	}, func(_ context.Context, in *DevicePath) (*tagged[twinBody], error) {
		id, err := a.existing(*in)
		if err != nil {
			return nil, err
		}
		t, err := a.Twins.Get(id)
		if err != nil {
			return nil, err
		}
		tag := `"` + strconv.FormatInt(t.Version, 10) + "-" + strconv.FormatInt(t.ReportedVersion, 10) + `"`
		return &tagged[twinBody]{tag, twinOf(&t)}, nil
	})
	desiredRoutes[fleetPath, fleetMatch, fleetWrite](a, "fleet", "/fleet/desired", "the fleet")
	desiredRoutes[ProfilePath, profileMatch, profileWrite](a, "profile", "/profiles/{profile}/desired", "a profile")
	desiredRoutes[GroupPath, groupMatch, groupWrite](a, "group", "/groups/{group}/desired", "a static group")
	desiredRoutes[DevicePath, deviceMatch, deviceWrite](a, "device", "/devices/{device}/desired", "a device's own level")
}

// desiredRoutes registers the operations on one kind of level.
func desiredRoutes[R leveled, M matching, W writing](a *API, id, path, what string) {
	operation := func(method, verb, summary, description string, errors ...int) huma.Operation {
		return huma.Operation{
			OperationID: verb + "-" + id + "-desired", Method: method, Path: path, Tags: []string{"twins"},
			Summary: summary + " the desired document of " + what, Description: description, Errors: append(errors, 404, 422),
		}
	}
	route(a, accounts.DevicesRead, operation(http.MethodGet, "get", "Get", ""), func(_ context.Context, in *R) (*tagged[desiredBody], error) {
		d, err := a.Twins.Level((*in).level())
		if err != nil {
			return nil, err
		}
		return desiredOf(&d, false), nil
	})
	write := func(op huma.Operation, do desiredWriter) { registerWrite[W](a, op, do) }
	write(operation(http.MethodPatch, "patch", "Patch", "A JSON merge patch (RFC 7396): null takes a key away.", 412), func(ctx context.Context, at twin.Level, doc []byte, match func(twin.Versions) bool) (twin.Desired, error) {
		return a.Twins.PatchDesired(ctx, at, doc, match)
	})
	write(operation(http.MethodPut, "put", "Replace", "A null outside of an array is refused.", 412), func(ctx context.Context, at twin.Level, doc []byte, match func(twin.Versions) bool) (twin.Desired, error) {
		return a.Twins.PutDesired(ctx, at, doc, match)
	})
	route(a, accounts.DevicesWrite, operation(http.MethodDelete, "delete", "Empty", "", 412), func(ctx context.Context, in *M) (*tagged[desiredBody], error) {
		match, err := (*in).match()
		if err != nil {
			return nil, err
		}
		d, err := a.Twins.DeleteDesired(ctx, (*in).level(), match)
		if err != nil {
			return nil, err
		}
		return desiredOf(&d, true), nil
	})
}

// desiredWriter patches or puts a document.
type desiredWriter func(ctx context.Context, at twin.Level, doc []byte, match func(twin.Versions) bool) (twin.Desired, error)

func registerWrite[W writing](a *API, op huma.Operation, do desiredWriter) {
	op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{}}
	route(a, accounts.DevicesWrite, op, func(ctx context.Context, in *W) (*tagged[desiredBody], error) {
		if err := jsonType(requestOf(ctx).Header.Get("Content-Type")); err != nil {
			return nil, err
		}
		match, err := (*in).match()
		if err != nil {
			return nil, err
		}
		d, err := do(ctx, (*in).level(), (*in).text(), match)
		if err != nil {
			return nil, err
		}
		return desiredOf(&d, true), nil
	})
	document := &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeObject, AdditionalProperties: true}}
	op.RequestBody.Content = map[string]*huma.MediaType{"application/json": document, mergePatch: document}
}

const mergePatch = "application/merge-patch+json"

func jsonType(contentType string) error {
	if contentType == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || kind != "application/json" && kind != mergePatch {
		return newProblem(http.StatusUnsupportedMediaType, "the body's content type is neither application/json nor "+mergePatch)
	}
	return nil
}

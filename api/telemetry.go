package api

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/ingest"
)

const (
	maxKeys  = 1000
	pageRows = 1000           // readings in memory at once while a range is written
	furthest = 48 * time.Hour // how far ahead of now a range ends by itself; ingest takes no time beyond 24 h
)

type rangeInput struct {
	DevicePath
	Keys   string `query:"keys" maxLength:"16384" doc:"Comma-separated keys; all when absent. csv needs them: they are its columns"`
	From   string `query:"from" maxLength:"64" doc:"First time: RFC 3339 or now-3h; the beginning when absent"`
	To     string `query:"to" maxLength:"64" doc:"Time before which to end, the same way; the end when absent"`
	Limit  int    `query:"limit" default:"1000" minimum:"1" maximum:"100000" doc:"The most readings"`
	Order  string `query:"order" default:"asc" enum:"asc,desc" doc:"By time"`
	Cursor string `query:"cursor" maxLength:"512" doc:"The cursor of the page before; it keeps that page's from and to"`
	Format string `query:"format" default:"json" enum:"json,ndjson,csv" doc:"ndjson and csv give the next cursor in the trailer Next-Cursor"`
}

// reading documents one item of a range.
type reading struct {
	Time   string         `json:"time" format:"date-time"`
	Values map[string]any `json:"values" doc:"A number, a boolean, null for a hole, or JSON"`
}

type latestValue struct {
	Value   rawJSON `json:"value"`
	Time    string  `json:"time" format:"date-time" doc:"The device's own, or arrival"`
	Arrival string  `json:"arrival" format:"date-time"`
}

type latest struct {
	Device muster.DeviceID        `json:"device"`
	Values map[string]latestValue `json:"values"`
}

// rawJSON is written as it is; its schema is any value.
type rawJSON []byte

// MarshalJSON returns j itself.
func (j rawJSON) MarshalJSON() ([]byte, error) { return j, nil }

// Schema returns the schema that allows everything.
func (rawJSON) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Description: "Any JSON value"} }

type rejected struct {
	Time        string          `json:"time" format:"date-time"`
	Device      muster.DeviceID `json:"device"`
	Topic       string          `json:"topic"`
	Code        string          `json:"code"`
	Reason      string          `json:"reason"`
	Payload     []byte          `json:"payload" doc:"The first 4 KiB"`
	PayloadText *string         `json:"payload_text,omitempty" doc:"The same, when it is UTF-8"`
	Size        int             `json:"size" doc:"Bytes of the whole payload"`
}

func (a *API) telemetryRoutes() {
	a.rangeRoute()
	a.seriesRoute()
	route(a, accounts.TelemetryRead, huma.Operation{
		OperationID: "get-latest", Method: http.MethodGet, Path: "/devices/{device}/telemetry/latest", Tags: []string{"telemetry"},
		Summary: "The newest value of each key", Errors: []int{404},
	}, a.latest)
	route(a, accounts.TelemetryRead, huma.Operation{
		OperationID: "list-device-rejected", Method: http.MethodGet, Path: "/devices/{device}/rejected", Tags: []string{"telemetry"},
		Summary: "The newest rejected messages of a device", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		DevicePath
		Limit int `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	},
	) (*body[page[rejected]], error) {
		id, err := a.existing(in.DevicePath)
		if err != nil {
			return nil, err
		}
		return a.rejected(ctx, id, in.Limit)
	})
	route(a, accounts.TelemetryRead, huma.Operation{
		OperationID: "list-rejected", Method: http.MethodGet, Path: "/rejected", Tags: []string{"telemetry"},
		Summary: "The newest rejected messages of all devices",
	}, func(ctx context.Context, in *struct {
		Limit int `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	},
	) (*body[page[rejected]], error) {
		return a.rejected(ctx, "", in.Limit)
	})
}

// rangeRoute is beside route: its answer is a stream that may take minutes.
func (a *API) rangeRoute() {
	items := a.huma.OpenAPI().Components.Schemas
	op := huma.Operation{
		OperationID: "get-telemetry", Method: http.MethodGet, Path: "/devices/{device}/telemetry", Tags: []string{"telemetry"},
		Summary: "Read telemetry", Errors: []int{404},
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{
			"application/json":     {Schema: huma.SchemaFromType(items, typeOf[page[reading]]())},
			"application/x-ndjson": {Schema: &huma.Schema{Type: "string", Description: "One reading a line"}},
			"text/csv":             {Schema: &huma.Schema{Type: "string", Description: "time and the keys asked for"}},
		}}},
	}
	a.routeFor(exportTime, accounts.TelemetryRead, &op)
	huma.Register(a.huma, op, func(ctx context.Context, in *rangeInput) (*huma.StreamResponse, error) {
		e, err := a.export(ctx, in)
		if err != nil {
			return nil, a.problem(requestOf(ctx), err)
		}
		return &huma.StreamResponse{Body: e.stream}, nil
	})
}

// rangeQuery reads what in asks for.
func (a *API) rangeQuery(in *rangeInput) (q ingest.RangeQuery, after *cursor, err error) {
	if q.Device, err = a.existing(in.DevicePath); err != nil {
		return q, nil, err
	}
	if q.Keys, err = parseKeys(in.Keys); err != nil {
		return q, nil, err
	}
	if in.Format == "csv" && len(q.Keys) == 0 {
		return q, nil, muster.InvalidAt("keys", "format csv needs keys: they are its columns")
	}
	now := a.Now()
	q.Desc, q.To = in.Order == "desc", muster.MicrosOf(now.Add(furthest))
	if in.From != "" {
		if q.From, err = parseWhen(in.From, now); err != nil {
			return q, nil, muster.At(err, "from")
		}
	}
	if in.To != "" {
		if q.To, err = parseWhen(in.To, now); err != nil {
			return q, nil, muster.At(err, "to")
		}
	}
	if in.Cursor == "" {
		return q, nil, nil
	}
	c, err := parseCursor(in.Cursor)
	if err != nil {
		return q, nil, err
	}
	if c.Desc != q.Desc {
		return q, nil, errCursor()
	}
	q.From, q.To = c.From, c.To
	return q, &c, nil
}

// parseKeys splits a list of keys; no key is named twice in what it returns.
func parseKeys(s string) ([]string, error) {
	if s == "" {
		return nil, nil
	}
	var keys []string
	for k := range strings.SplitSeq(s, ",") {
		if k == "" {
			return nil, muster.InvalidAt("keys", "keys has an empty key")
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
		if len(keys) > maxKeys {
			return nil, muster.InvalidAt("keys", "keys has more than %d keys", maxKeys)
		}
	}
	return keys, nil
}

func (a *API) latest(_ context.Context, in *struct {
	DevicePath
	Keys string `query:"keys" maxLength:"16384" doc:"Comma-separated keys; all when absent"`
},
) (*body[latest], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(in.Keys)
	if err != nil {
		return nil, err
	}
	row, _ := a.Live.Latest(id) // none yet: no values
	out := latest{Device: id, Values: map[string]latestValue{}}
	newest := map[string]muster.Micros{}
	for _, v := range row.Values {
		if len(keys) > 0 && !slices.Contains(keys, v.Key.Name) {
			continue
		}
		// A key that changed its type is there twice: the newer one is shown.
		at := min(v.Time, v.Arrival)
		if old, ok := newest[v.Key.Name]; ok && old >= at {
			continue
		}
		newest[v.Key.Name] = at
		out.Values[v.Key.Name] = latestValue{Value: ingest.AppendValue(nil, v.Value), Time: stamp(v.Time), Arrival: stamp(v.Arrival)}
	}
	return &body[latest]{out}, nil
}

// maxLook is among how many of the newest rejected messages a key with a selector finds
// those of its devices.
const maxLook = 1000

func (a *API) rejected(ctx context.Context, device muster.DeviceID, limit int) (*body[page[rejected]], error) {
	look := limit
	if requestOf(ctx).only != nil && device == "" {
		look = maxLook
	}
	rows, err := a.Telemetry.Rejected(ctx, device, look)
	if err != nil {
		return nil, err
	}
	items := make([]rejected, 0, len(rows))
	for _, r := range rows {
		if a.Registry.IsErasing(r.Device) || !a.sees(ctx, r.Device) { // gone for readers at once
			continue
		}
		if len(items) == limit {
			break
		}
		item := rejected{
			Time: stamp(r.Arrival), Device: r.Device, Topic: r.Topic, Code: r.Code, Reason: r.Reason,
			Payload: append([]byte{}, r.Payload...), Size: r.Size,
		}
		if utf8.Valid(r.Payload) {
			text := string(r.Payload)
			item.PayloadText = &text
		}
		items = append(items, item)
	}
	return list(items, ""), nil
}

package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/query"
)

// DeviceCounter counts what matches queries.
type DeviceCounter interface {
	Facets(q devices.FacetQuery) (devices.Facets, error)
	Explain(q string, only *query.Expr) (devices.Explained, error)
}

// Facets implements DeviceCounter.
func (n narrowed) Facets(q devices.FacetQuery) (devices.Facets, error) {
	q.Query = query.Both(n.only, q.Query)
	out, err := n.Registry.Facets(q)
	out.Plan = devices.Plan{Index: "scan", Scanned: out.Total}
	return out, err
}

// Explain implements DeviceCounter.
func (n narrowed) Explain(q string, _ *query.Expr) (devices.Explained, error) {
	out, err := n.Registry.Explain(q, n.only)
	out.Plan = devices.Plan{Index: "scan", Scanned: out.Total}
	return out, err
}

// facets say which values the devices that match have.
type facets struct {
	Total int     `json:"total" doc:"How many devices match"`
	Items []facet `json:"items" nullable:"false" doc:"As asked for"`
	Plan  plan    `json:"plan"`
}

type facet struct {
	Field  string       `json:"field" doc:"As in fields" example:"tag:site"`
	Values []facetValue `json:"values" nullable:"false" doc:"Those that most devices have first"`
	More   int          `json:"more" doc:"How many values there are beside these"`
	Other  int          `json:"other" doc:"Values of devices beyond the 10,000 that are told apart"`
}

type facetValue struct {
	Value   string `json:"value" doc:"Empty for devices that have none, of firmware and parent"`
	Term    string `json:"term" doc:"A term of the query language that finds it"`
	Devices int    `json:"devices" doc:"How many of those that match have it"`
}

// explained says what each part of a query does.
type explained struct {
	Total int         `json:"total" doc:"How many devices match"`
	Parts []queryPart `json:"parts" nullable:"false" doc:"What the query joins by and, in its order"`
	Plan  plan        `json:"plan"`
}

type queryPart struct {
	Term    string `json:"term" doc:"The part in its canonical form"`
	Column  int    `json:"column" doc:"Where it begins, in characters from 1"`
	Without int    `json:"without" doc:"How many devices match when it is left out"`
}

func (a *API) facetRoutes() {
	tags := []string{"devices"}
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-device-facets", Method: http.MethodGet, Path: "/devices:facets", Tags: tags,
		Summary: "Count which values the devices that match have",
		Description: "From memory, in one pass. A device may have several values of a field: of status it is silent beside its state. " +
			"Of groups that are saved queries the first 16 by name are counted. Values that no device has are left out.",
	}, a.listFacets)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "explain-device-query", Method: http.MethodGet, Path: "/devices:explain", Tags: tags,
		Summary:     "Count what matches a query, and what would without each of its parts",
		Description: "For an empty answer it says which term leaves nobody.",
	}, a.explainQuery)
}

func (a *API) listFacets(ctx context.Context, in *struct {
	Q      string `query:"q" maxLength:"2048" doc:"Which devices, in the query language; all when absent"`
	Fields string `query:"fields" required:"true" minLength:"1" maxLength:"1024" doc:"Comma-separated, at most 8: status, group, profile, firmware, parent, tag (the keys of tags), tag:KEY (the values of one) and key (those of telemetry)"`
	Match  string `query:"match" maxLength:"64" doc:"Only values that contain this, without regard to ASCII case"`
	Limit  int    `query:"limit" default:"50" minimum:"1" maximum:"1000" doc:"The most values of a field"`
},
) (*body[facets], error) {
	e, err := a.Registry.Compile(in.Q)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	found, err := a.registry(ctx).Facets(devices.FacetQuery{
		Query: e, Fields: strings.Split(in.Fields, ","), Match: in.Match, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	out := facets{Total: found.Total, Items: make([]facet, len(found.Facets)), Plan: plan{found.Plan.Index, found.Plan.Scanned}}
	for i, f := range found.Facets {
		out.Items[i] = facet{Field: f.Field, Values: make([]facetValue, len(f.Values)), More: f.More, Other: f.Other}
		for j, v := range f.Values {
			out.Items[i].Values[j] = facetValue(v)
		}
	}
	return &body[facets]{out}, nil
}

func (a *API) explainQuery(ctx context.Context, in *struct {
	Q string `query:"q" maxLength:"2048" doc:"In the query language"`
},
) (*body[explained], error) {
	found, err := a.registry(ctx).Explain(in.Q, nil)
	if err != nil {
		return nil, muster.At(err, "q")
	}
	out := explained{Total: found.Total, Parts: make([]queryPart, len(found.Parts)), Plan: plan{found.Plan.Index, found.Plan.Scanned}}
	for i, p := range found.Parts {
		out.Parts[i] = queryPart{p.Text, len([]rune(in.Q[:p.At])) + 1, p.Without}
	}
	return &body[explained]{out}, nil
}

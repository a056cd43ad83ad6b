package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

type system struct {
	Version  string         `json:"version"`
	Time     string         `json:"time" format:"date-time"`
	Sections map[string]any `json:"sections" doc:"What each part of Muster says about itself"`
}

func (a *API) systemRoutes() {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-system", Method: http.MethodGet, Path: "/system", Tags: []string{"system"}, Summary: "The state of Muster's parts",
	}, func(context.Context, *struct{}) (*body[system], error) {
		s := system{Version: a.Version, Time: stamp(muster.MicrosOf(a.Now())), Sections: map[string]any{}}
		for _, section := range a.System {
			name, data := section()
			s.Sections[name] = data
		}
		return &body[system]{s}, nil
	})
}

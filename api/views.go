package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/devices/views"
)

// ViewKeeper keeps the lists of devices that users have saved.
type ViewKeeper interface {
	List(ctx context.Context, user string) ([]views.View, error)
	Create(ctx context.Context, one views.View) (views.View, error)
	Replace(ctx context.Context, one views.View) (views.View, error)
	Delete(ctx context.Context, user, id string) error
}

// ViewParts are the part of a saved view that its user writes. It is exported because huma
// looks into exported embedded fields only.
type ViewParts struct {
	Name    string   `json:"name" minLength:"1" maxLength:"100" doc:"For people; no two views of a user have one"`
	Q       string   `json:"q" maxLength:"2048" required:"false" doc:"Which devices, in the query language; all when empty"`
	Columns []string `json:"columns,omitempty" maxItems:"32" nullable:"false" doc:"id, name, profile, parent, firmware, status, reason, seen, created, groups, tags, notes, tag:KEY, v.KEY and spark.KEY; what the reader's page has when absent"`
	Sort    string   `json:"sort" maxLength:"258" required:"false" doc:"As GET /devices has it; id when empty"`
}

type savedView struct {
	ID string `json:"id"`
	ViewParts
	CreatedAt string `json:"created_at" format:"date-time"`
}

func viewOf(v views.View) savedView {
	return savedView{v.ID, ViewParts{v.Name, v.Query, v.Columns, v.Sort}, stamp(v.Created)}
}

// ViewPath is the part of an input that names a saved view.
type ViewPath struct {
	View string `path:"view" maxLength:"64" doc:"The view's id"`
}

func (a *API) viewRoutes() {
	const path = "/views"
	tags := []string{"devices"}
	route(a, anyone, huma.Operation{
		OperationID: "list-views", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List my saved lists of devices, by name",
		Description: "A user has at most 100, and sees his own only. An API key has none.",
	}, func(ctx context.Context, _ *struct{}) (*body[page[savedView]], error) {
		var items []savedView
		err := ofUser(ctx, func(user string) error {
			all, err := a.Views.List(ctx, user)
			for _, v := range all {
				items = append(items, viewOf(v))
			}
			return err
		})
		return list(items, ""), err
	})
	route(a, anyone, huma.Operation{
		OperationID: "create-view", Method: http.MethodPost, Path: path, DefaultStatus: http.StatusCreated, Tags: tags,
		Summary: "Save a list of devices", Errors: []int{409},
	}, func(ctx context.Context, in *body[ViewParts]) (*created[savedView], error) {
		var made views.View
		err := ofUser(ctx, func(user string) (err error) {
			made, err = a.Views.Create(ctx, in.Body.of(user, ""))
			return err
		})
		if err != nil {
			return nil, err
		}
		return &created[savedView]{prefix + path + "/" + made.ID, viewOf(made)}, nil
	})
	route(a, anyone, huma.Operation{
		OperationID: "put-view", Method: http.MethodPut, Path: path + "/{view}", Tags: tags,
		Summary: "Replace a saved list of devices", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ViewPath
		Body ViewParts
	},
	) (*body[savedView], error) {
		var kept views.View
		err := ofUser(ctx, func(user string) (err error) {
			kept, err = a.Views.Replace(ctx, in.Body.of(user, in.View))
			return err
		})
		if err != nil {
			return nil, err
		}
		return &body[savedView]{viewOf(kept)}, nil
	})
	route(a, anyone, huma.Operation{
		OperationID: "delete-view", Method: http.MethodDelete, Path: path + "/{view}", Tags: tags,
		Summary: "Delete a saved list of devices; the devices stay", Errors: []int{404},
	}, func(ctx context.Context, in *ViewPath) (*struct{}, error) {
		return nil, ofUser(ctx, func(user string) error { return a.Views.Delete(ctx, user, in.View) })
	})
}

func (p ViewParts) of(user, id string) views.View {
	return views.View{ID: id, User: user, Name: p.Name, Query: p.Q, Columns: p.Columns, Sort: p.Sort}
}

package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
	"muster/devices"
)

// GroupKeeper keeps groups of devices.
type GroupKeeper interface {
	Groups() []devices.Group
	Group(name string) (devices.Group, error)
	PutGroup(ctx context.Context, g devices.Group) error
	DeleteGroup(ctx context.Context, name string) error
	// Members counts the devices of a group, of a saved query at this moment.
	Members(name string) (int, error)
}

// groupParts is the part of a group that a client writes.
type groupParts struct {
	Description string `json:"description,omitempty" maxLength:"200" doc:"For people"`
	Query       string `json:"query,omitempty" maxLength:"2048" doc:"A saved query: its devices are those that match. Absent for a static group, which devices list among their groups"`
}

type group struct {
	Name        string `json:"name"`
	Kind        string `json:"kind" enum:"static,query"`
	Description string `json:"description"`
	Query       string `json:"query,omitempty"`
	Devices     int    `json:"devices" doc:"How many are in it now"`
}

func groupTag(g devices.Group) string { return tagOf(g) }

// group is g as who asks may see it. A key with a selector sees those with a device within
// its reach, and neither what is said of them nor what chooses them.
func (a *API) group(ctx context.Context, g devices.Group) (out group, ok bool) {
	out = group{Name: g.Name, Kind: "static", Description: g.Description, Query: g.Query}
	if g.Query != "" {
		out.Kind = "query"
	}
	out.Devices, _ = a.registry(ctx).Members(g.Name) // a group deleted this moment has none
	if requestOf(ctx).only == nil {
		return out, true
	}
	out.Description, out.Query = "", ""
	return out, out.Devices > 0
}

// GroupPath is the part of an input that names a group.
type GroupPath struct {
	Group string `path:"group" maxLength:"64" doc:"The group's name: [A-Za-z0-9._-]"`
}

func (a *API) groupRoutes() {
	tags := []string{"groups"}
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-groups", Method: http.MethodGet, Path: "/groups", Tags: tags, Summary: "List groups",
	}, a.listGroups)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-group", Method: http.MethodGet, Path: "/groups/{group}", Tags: tags, Summary: "Get a group", Errors: []int{404},
	}, func(ctx context.Context, in *GroupPath) (*body[group], error) {
		g, err := a.Registry.Group(in.Group)
		if err != nil {
			return nil, err
		}
		out, ok := a.group(ctx, g)
		if !ok {
			return nil, errNoGroup()
		}
		if requestOf(ctx).only == nil { // the tag is made of what a selector hides
			documented(ctx, groupTag(g))
		}
		return &body[group]{out}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "put-group", Method: http.MethodPut, Path: "/groups/{group}", Tags: tags, Summary: "Make or replace a group",
		Description: "A static group that has devices cannot become a saved query, and saved queries cannot refer to each other in a circle.",
		Errors:      []int{409},
	}, func(ctx context.Context, in *struct {
		GroupPath
		PutConditions
		Body groupParts
	},
	) (*body[group], error) {
		g := devices.Group{Name: in.Group, Description: in.Body.Description, Query: in.Body.Query}
		ctx, err := boundPut(ctx, in.PutConditions, groupTag)
		if err != nil {
			return nil, err
		}
		if err := a.Registry.PutGroup(ctx, g); err != nil {
			return nil, err
		}
		documented(ctx, groupTag(g))
		out, _ := a.group(ctx, g) // closed to keys with a selector
		return &body[group]{out}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "delete-group", Method: http.MethodDelete, Path: "/groups/{group}", Tags: tags,
		Summary: "Delete a group; its devices stay", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		GroupPath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, groupTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Registry.DeleteGroup(ctx, in.Group)
	})
}

func (a *API) listGroups(ctx context.Context, in *struct {
	Limit int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After string `query:"after" maxLength:"64" doc:"The cursor of the page before"`
},
) (*body[page[group]], error) {
	items, next := []group{}, ""
	for _, g := range a.Registry.Groups() {
		if g.Name <= in.After {
			continue
		}
		out, ok := a.group(ctx, g)
		if !ok {
			continue
		}
		if len(items) == in.Limit {
			next = items[len(items)-1].Name
			break
		}
		items = append(items, out)
	}
	return list(items, next), nil
}

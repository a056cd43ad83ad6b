package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
	"muster/devices"
)

// profileRights is the part of a profile that a client writes.
type profileRights struct {
	Publish     []string `json:"publish,omitempty" maxItems:"32" nullable:"false" doc:"Further topic filters that a device may publish to; {id} is its own id. Below devices/ only devices/{id}/"`
	Subscribe   []string `json:"subscribe,omitempty" maxItems:"32" nullable:"false" doc:"Further topic filters that a device may subscribe to; {id} is its own id"`
	Level       string   `json:"level,omitempty" enum:"received,durable,stored" doc:"When a message is acknowledged; the server's default when absent"`
	MessageRate int64    `json:"message_rate,omitempty" minimum:"0" maximum:"1000000" doc:"Most messages a second of one client; 0 for the server's default"`
	ByteRate    int64    `json:"byte_rate,omitempty" minimum:"0" maximum:"1099511627776" doc:"Most bytes a second of one client; 0 for the server's default"`
	Children    bool     `json:"create_children,omitempty" doc:"A device may make its children by publishing for them"`
}

// profile is a profile as it is shown.
type profile struct {
	Name        string   `json:"name"`
	Publish     []string `json:"publish" nullable:"false"`
	Subscribe   []string `json:"subscribe" nullable:"false"`
	Level       string   `json:"level,omitempty" enum:"received,durable,stored" doc:"Absent for the server's default"`
	MessageRate int64    `json:"message_rate" doc:"0 for the server's default"`
	ByteRate    int64    `json:"byte_rate" doc:"0 for the server's default"`
	Children    bool     `json:"create_children" doc:"A device may make its children by publishing for them"`
}

func profileOf(p devices.Profile) profile {
	return profile{
		Name: p.Name, Publish: append([]string{}, p.Publish...), Subscribe: append([]string{}, p.Subscribe...),
		Level: p.Level, MessageRate: p.MessageRate, ByteRate: p.ByteRate, Children: p.CreateChildren,
	}
}

func profileTag(p devices.Profile) string { return tagOf(profileOf(p)) }

// ProfilePath is the part of an input that names a profile.
type ProfilePath struct {
	Profile string `path:"profile" maxLength:"64" doc:"The profile's name: [A-Za-z0-9._-]"`
}

func (a *API) profileRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-profiles", Method: http.MethodGet, Path: "/profiles", Tags: []string{"profiles"}, Summary: "List profiles",
	}, func(context.Context, *struct{}) (*body[page[profile]], error) {
		found := a.Registry.Profiles()
		items := make([]profile, len(found))
		for i, p := range found {
			items[i] = profileOf(p)
		}
		return list(items, ""), nil
	})
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-profile", Method: http.MethodGet, Path: "/profiles/{profile}", Tags: []string{"profiles"},
		Summary: "Get a profile", Errors: []int{404},
	}, func(ctx context.Context, in *ProfilePath) (*body[profile], error) {
		p, err := a.Registry.Profile(in.Profile)
		if err != nil {
			return nil, err
		}
		documented(ctx, profileTag(p))
		return &body[profile]{profileOf(p)}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "put-profile", Method: http.MethodPut, Path: "/profiles/{profile}", Tags: []string{"profiles"},
		Summary:     "Make or replace a profile",
		Description: "The rights of connected devices that have it change at once. The profile default cannot be changed.", Errors: []int{409},
	}, a.putProfile)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "delete-profile", Method: http.MethodDelete, Path: "/profiles/{profile}", Tags: []string{"profiles"},
		Summary: "Delete a profile that no device has", Errors: []int{404, 409},
	}, func(ctx context.Context, in *struct {
		ProfilePath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, profileTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Registry.DeleteProfile(ctx, in.Profile)
	})
}

func (a *API) putProfile(ctx context.Context, in *struct {
	ProfilePath
	PutConditions
	Body profileRights
},
) (*body[profile], error) {
	p := devices.Profile{
		Name: in.Profile, Publish: in.Body.Publish, Subscribe: in.Body.Subscribe,
		Level: in.Body.Level, MessageRate: in.Body.MessageRate, ByteRate: in.Body.ByteRate, CreateChildren: in.Body.Children,
	}
	ctx, err := boundPut(ctx, in.PutConditions, profileTag)
	if err != nil {
		return nil, err
	}
	if err := a.Registry.PutProfile(ctx, p); err != nil {
		return nil, err
	}
	documented(ctx, profileTag(p))
	return &body[profile]{profileOf(p)}, nil
}

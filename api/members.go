package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
)

// member is who has a role in a topic. It has no address: people write to topics, not to each other.
type member struct {
	Principal string `json:"principal" doc:"Id of a user or an API key"`
	Name      string `json:"name,omitempty" doc:"Shown to users and admins"`
	Role      string `json:"role" enum:"owner,publisher,subscriber" doc:"owner: changes the topic and its members. publisher: sends. subscriber: sees it where it is private"`
	CreatedAt string `json:"created_at" format:"date-time"`
}

func (a *API) member(ctx context.Context, m notify.Member) member {
	return member{m.Principal, a.nameOf(ctx, m.Principal), string(m.Role), stamp(m.Created)}
}

// MemberPath is the part of an input that names a member of a topic. It is exported because
// huma looks into exported embedded fields only.
type MemberPath struct {
	TopicPath
	Principal string `path:"principal" maxLength:"64" doc:"Id of a user or an API key"`
}

func (a *API) memberRoutes() {
	const path = "/topics/{topic}/members"
	tags := []string{"topics"}
	route(a, accounts.TopicsRead, huma.Operation{
		OperationID: "list-members", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List who has a role in a topic, in the order of ids",
		Description: "Members see it, and admins. The topic's owner is one without being listed.", Errors: []int{404},
	}, a.listMembers)
	route(a, accounts.TopicsWrite, huma.Operation{
		OperationID: "put-member", Method: http.MethodPut, Path: path + "/{principal}", Tags: tags,
		Summary: "Give a user or an API key a role in a topic", Description: "It needs the role owner in the topic.", Errors: []int{404},
	}, a.putMember)
	route(a, anyone, huma.Operation{
		OperationID: "delete-member", Method: http.MethodDelete, Path: path + "/{principal}", Tags: tags,
		Summary: "Take a role in a topic away", Description: "Everybody may lay down his own. Another's needs the scope topics:write and the role owner in the topic.",
		Errors: []int{404},
	}, func(ctx context.Context, in *MemberPath) (*struct{}, error) {
		who := a.asking(ctx)
		if in.Principal != who.ID && in.Principal != who.User {
			if err := needScope(ctx, accounts.TopicsWrite); err != nil {
				return nil, err
			}
		}
		return nil, a.Notify.DeleteMember(ctx, who, in.Topic, in.Principal)
	})
}

func (a *API) listMembers(ctx context.Context, in *struct {
	TopicPath
	After
},
) (*body[page[member]], error) {
	after, err := in.afterID()
	if err != nil {
		return nil, err
	}
	all, err := a.Notify.Members(a.asking(ctx), in.Topic)
	if err != nil {
		return nil, err
	}
	for len(all) > 0 && all[0].Principal <= after {
		all = all[1:]
	}
	found, next := paged(all, in.Limit, func(m *notify.Member) string { return m.Principal })
	items := make([]member, len(found))
	for i, m := range found {
		items[i] = a.member(ctx, m)
	}
	return list(items, next), nil
}

func (a *API) putMember(ctx context.Context, in *struct {
	MemberPath
	Body struct {
		Role string `json:"role" enum:"owner,publisher,subscriber"`
	}
},
) (*body[member], error) {
	if strings.HasPrefix(in.Principal, "key_") {
		if _, err := a.Accounts.Key(in.Principal); err != nil {
			return nil, muster.Errorf(muster.Invalid, "a member is the id of a user or of an API key")
		}
	}
	m, err := a.Notify.PutMember(ctx, a.asking(ctx), in.Topic, in.Principal, notify.Role(in.Body.Role))
	if err != nil {
		return nil, err
	}
	return &body[member]{a.member(ctx, m)}, nil
}

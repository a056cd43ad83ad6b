package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
)

// serviceAccount is a service account as it is shown.
type serviceAccount struct {
	ID        string   `json:"id"`
	Name      string   `json:"name" doc:"The MQTT user name"`
	Publish   []string `json:"publish" nullable:"false" doc:"Topic filters it may publish to"`
	Subscribe []string `json:"subscribe" nullable:"false" doc:"Topic filters it may subscribe to"`
	Disabled  bool     `json:"disabled"`
	CreatedAt string   `json:"created_at" format:"date-time"`
	ExpiresAt *string  `json:"expires_at" format:"date-time" doc:"Null for never"`
}

func serviceAccountOf(s accounts.ServiceAccount) serviceAccount {
	return serviceAccount{
		ID: s.ID, Name: s.Name, Publish: append([]string{}, s.Publish...), Subscribe: append([]string{}, s.Subscribe...),
		Disabled: s.Disabled, CreatedAt: stamp(s.Created), ExpiresAt: stampOrNull(s.Expires),
	}
}

func serviceTag(s accounts.ServiceAccount) string { return tagOf(serviceAccountOf(s)) }

type newServiceAccount struct {
	Name      string    `json:"name" minLength:"1" maxLength:"64" doc:"[A-Za-z0-9._:@-], the MQTT user name"`
	Publish   []string  `json:"publish,omitempty" maxItems:"32" nullable:"false" doc:"Topic filters it may publish to"`
	Subscribe []string  `json:"subscribe,omitempty" maxItems:"32" nullable:"false" doc:"Topic filters it may subscribe to"`
	ExpiresAt time.Time `json:"expires_at,omitzero" required:"false" doc:"Never when absent"`
}

type changedServiceAccount struct {
	Publish   *[]string `json:"publish,omitempty" maxItems:"32" nullable:"false"`
	Subscribe *[]string `json:"subscribe,omitempty" maxItems:"32" nullable:"false"`
	Disabled  *bool     `json:"disabled,omitempty" nullable:"false"`
}

type issuedServiceAccount struct {
	ServiceAccount serviceAccount `json:"service_account"`
	Secret         string         `json:"secret" doc:"The MQTT password beside the name, or the user name alone; shown this once"`
}

// ServicePath is the part of an input that names a service account.
type ServicePath struct {
	Account string `path:"account" maxLength:"64" doc:"The service account's id"`
}

func (a *API) serviceRoutes() {
	route(a, accounts.Admin, huma.Operation{
		OperationID: "list-service-accounts", Method: http.MethodGet, Path: "/service-accounts", Tags: []string{"accounts"},
		Summary: "List service accounts, without the secrets",
	}, func(context.Context, *struct{}) (*body[page[serviceAccount]], error) {
		found := a.Accounts.ServiceAccounts()
		items := make([]serviceAccount, len(found))
		for i, s := range found {
			items[i] = serviceAccountOf(s)
		}
		return list(items, ""), nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "create-service-account", Method: http.MethodPost, Path: "/service-accounts", DefaultStatus: http.StatusCreated,
		Tags: []string{"accounts"}, Summary: "Make a service account, which lets a third party in over MQTT", Errors: []int{409},
	}, a.createService)
	route(a, accounts.Admin, huma.Operation{
		OperationID: "get-service-account", Method: http.MethodGet, Path: "/service-accounts/{account}", Tags: []string{"accounts"},
		Summary: "Get a service account", Errors: []int{404},
	}, func(ctx context.Context, in *ServicePath) (*body[serviceAccount], error) {
		s, err := a.Accounts.ServiceAccount(in.Account)
		if err != nil {
			return nil, err
		}
		documented(ctx, serviceTag(s))
		return &body[serviceAccount]{serviceAccountOf(s)}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "change-service-account", Method: http.MethodPatch, Path: "/service-accounts/{account}", Tags: []string{"accounts"},
		Summary:     "Change a service account's topics, disable or enable it",
		Description: "What is absent or null stays. Its connections have their new rights at once; those of a disabled account are cut.", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		ServicePath
		Conditions
		Body changedServiceAccount
	},
	) (*body[serviceAccount], error) {
		c := accounts.ServiceChange{Publish: in.Body.Publish, Subscribe: in.Body.Subscribe, Disabled: in.Body.Disabled}
		ctx, err := bound(ctx, in.Conditions, serviceTag)
		if err != nil {
			return nil, err
		}
		s, err := a.Accounts.UpdateServiceAccount(ctx, in.Account, c)
		if err != nil {
			return nil, err
		}
		documented(ctx, serviceTag(s))
		return &body[serviceAccount]{serviceAccountOf(s)}, nil
	})
	route(a, accounts.Admin, huma.Operation{
		OperationID: "delete-service-account", Method: http.MethodDelete, Path: "/service-accounts/{account}", Tags: []string{"accounts"},
		Summary: "Delete a service account; its connections are cut", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		ServicePath
		Conditions
	},
	) (*struct{}, error) {
		ctx, err := bound(ctx, in.Conditions, serviceTag)
		if err != nil {
			return nil, err
		}
		return nil, a.Accounts.DeleteServiceAccount(ctx, in.Account)
	})
}

func (a *API) createService(ctx context.Context, in *body[newServiceAccount]) (*created[issuedServiceAccount], error) {
	b := in.Body
	spec := accounts.ServiceSpec{Name: b.Name, Publish: b.Publish, Subscribe: b.Subscribe, Expires: b.ExpiresAt}
	s, secret, err := a.Accounts.CreateServiceAccount(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &created[issuedServiceAccount]{prefix + "/service-accounts/" + s.ID, issuedServiceAccount{serviceAccountOf(s), secret}}, nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"muster"
	"muster/client"
)

// remote is what verbs that speak to a running server have in common.
type remote struct {
	Server string `default:"http://localhost:8080" help:"The server's address." placeholder:"URL"`
	Key    string `help:"An API key, mst_...; better given as MUSTER_KEY, which no list of processes shows." placeholder:"KEY"`
	JSON   bool   `name:"json" help:"Print what the API answers, as JSON."`
}

// open returns a client of the server.
func (r *remote) open() (*client.Client, error) { return r.openFor(90 * time.Second) }

// openFor returns one whose calls take no longer than limit.
func (r *remote) openFor(limit time.Duration) (*client.Client, error) {
	c, err := client.New(r.Server, r.Key, client.WithHTTPClient(&http.Client{Timeout: limit}))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "--server: %w", err)
	}
	return c, nil
}

// refused is err as one sentence: what the server says, or that it is not reached.
func (r *remote) refused(err error) error {
	var p *client.Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p) && p.Status == http.StatusUnauthorized:
		return muster.Errorf(muster.Unauthorized, "the server does not know this key: %s (give one by --key or MUSTER_KEY)", p.Detail)
	case errors.As(err, &p):
		return muster.Errorf(muster.Invalid, "%s", p.Error())
	default:
		return muster.Errorf(muster.Unavailable, "no answer from %s: %w", r.Server, err)
	}
}

// print writes v as JSON when that is asked for, else what table writes, in columns.
func (r *remote) print(c *console, v any, table func(row func(cells ...any))) error {
	if r.JSON {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return fmt.Errorf("write JSON: %w", err)
		}
		c.printf("%s\n", text)
		return nil
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	table(func(cells ...any) {
		texts := make([]string, len(cells))
		for i, cell := range cells {
			texts[i] = shown(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(texts, "\t")) // there is nobody to tell
	})
	_ = w.Flush() // as above
	return nil
}

// shown is a value in a table: - for none, and nothing that moves a terminal's cursor.
func shown(v any) string {
	var text string
	switch v := v.(type) {
	case *string:
		if v != nil {
			text = *v
		}
	case *time.Time:
		if v != nil {
			text = v.UTC().Format(time.RFC3339)
		}
	case time.Time:
		text = v.UTC().Format(time.RFC3339)
	case []string:
		text = strings.Join(v, ",")
	default:
		text = fmt.Sprint(v)
	}
	text = strings.Map(func(c rune) rune {
		if c < ' ' || c >= 0x7f && c < 0xa0 {
			return ' '
		}
		return c
	}, text)
	if text == "" {
		return "-"
	}
	return text
}

// given is a pointer to v, nil when it is empty: absent in a request.
func given(v string) *string {
	if v == "" {
		return nil
	}
	return &v
}

// done prints one word when no JSON is asked for.
func (r *remote) done(c *console, err error, word string) error {
	if err != nil {
		return r.refused(err)
	}
	if !r.JSON {
		c.printf("%s\n", word)
	}
	return nil
}

// keyCmd is muster key.
type keyCmd struct {
	List   keyList   `cmd:"" help:"List API keys, without the secrets."`
	Create keyCreate `cmd:"" help:"Make an API key and print it, this once."`
	Delete keyDelete `cmd:"" help:"Revoke an API key."`
}

type keyList struct {
	remote
}

// Run lists keys.
func (k *keyList) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	page, err := api.ListAPIKeys(ctx)
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, page.Items, func(row func(...any)) {
		row("ID", "NAME", "SCOPES", "DEVICES", "OWNER", "CREATED", "EXPIRES")
		for _, x := range page.Items {
			row(x.ID, x.Name, x.Scopes, x.Selector, x.Owner, x.CreatedAt, x.ExpiresAt)
		}
	})
}

type keyCreate struct {
	remote
	Name     string         `arg:"" help:"What it is for."`
	Scopes   []string       `required:"" help:"What it may do, such as devices:read,telemetry:read." placeholder:"SCOPE,..."`
	Selector string         `help:"Only these devices, such as group:cold-chain; all when absent." placeholder:"QUERY"`
	Owner    string         `help:"E-mail or id of the user that it ends with, and that it is as a person; nobody when absent." placeholder:"USER"`
	Expires  *time.Duration `help:"After how long it ends, such as 2160h; never when absent." placeholder:"DURATION"`
}

// Validate refuses a key that would have ended already: it is not to become one that never does.
func (k *keyCreate) Validate() error {
	if k.Expires != nil && *k.Expires <= 0 {
		return errors.New("--expires is more than 0s; leave it out for a key that never ends")
	}
	return nil
}

// Run makes a key. The key alone goes to standard output, so that a script can take it.
func (k *keyCreate) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	body := &client.NewKey{Name: k.Name, Scopes: k.Scopes, Selector: given(k.Selector)}
	if k.Expires != nil {
		at := time.Now().Add(*k.Expires).UTC()
		body.ExpiresAt = &at
	}
	if k.Owner != "" {
		owner, err := (&named{k.Owner}).find(ctx, &k.remote, api)
		if err != nil {
			return err
		}
		body.Owner = &owner.ID
	}
	made, err := api.CreateAPIKey(ctx, body, nil)
	if err != nil {
		return k.refused(err)
	}
	return k.print(c, made, func(row func(...any)) { row(made.Secret) })
}

type keyDelete struct {
	remote
	ID string `arg:"" help:"The key's id, key_..."`
}

// Run revokes a key.
func (k *keyDelete) Run(ctx context.Context, c *console) error {
	api, err := k.open()
	if err != nil {
		return err
	}
	return k.done(c, api.DeleteAPIKey(ctx, k.ID, nil), "revoked "+k.ID)
}

package views

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/devices/query"
)

const (
	// Max is the most views of a user.
	Max = 100
	// MaxName is the longest name of a view, in bytes.
	MaxName = 100

	writeTimeout = 10 * time.Second // for one change in the store
)

// View is a list of devices that a user has saved.
type View struct {
	ID      string // "view_..."
	User    string // whose it is
	Name    string // for people; no two of a user are the same
	Query   string // in the query language; empty for all devices
	Columns []string
	Sort    string // as devices.Selection has it; empty for id
	Created muster.Micros
}

// Store keeps views.
type Store interface {
	// Views returns those of a user, by name.
	Views(ctx context.Context, user string) ([]View, error)
	// CreateView adds v. Conflict when the user has one of that name, or most of them.
	CreateView(ctx context.Context, v View, most int) error
	// ReplaceView changes all of v but its user and when it was made. NotFound when he has
	// none with that id, Conflict when another one of his has that name.
	ReplaceView(ctx context.Context, v View) error
	// DeleteView deletes one. NotFound when the user has none with that id.
	DeleteView(ctx context.Context, user, id string) error
}

// Views are the saved lists of all users.
type Views struct {
	store Store
	now   func() time.Time
}

// New returns the views that store keeps.
func New(store Store, now func() time.Time) *Views { return &Views{store, now} }

// List returns the views of a user, by name.
func (v *Views) List(ctx context.Context, user string) ([]View, error) {
	out, err := v.store.Views(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("list the views of a user: %w", err)
	}
	return out, nil
}

// Create keeps a new view of one.User. Invalid when something in it is not understood,
// Conflict when the user has one of that name already, or Max of them.
func (v *Views) Create(ctx context.Context, one View) (View, error) {
	one, err := checked(one)
	if err != nil {
		return View{}, err
	}
	one.ID, one.Created = "view_"+strings.ToLower(rand.Text()[:16]), muster.MicrosOf(v.now())
	ctx, cancel := outliving(ctx)
	defer cancel()
	audit.Note(ctx, "view.create", "views/"+one.ID, nil, noteOf(one))
	if err := v.store.CreateView(ctx, one, Max); err != nil {
		return View{}, fmt.Errorf("keep a view: %w", err)
	}
	return one, nil
}

// Replace writes a view anew, by its id and user.
func (v *Views) Replace(ctx context.Context, one View) (View, error) {
	one, err := checked(one)
	if err != nil {
		return View{}, err
	}
	was, err := v.one(ctx, one.User, one.ID)
	if err != nil {
		return View{}, err
	}
	one.Created = was.Created
	ctx, cancel := outliving(ctx)
	defer cancel()
	audit.Note(ctx, "view.put", "views/"+one.ID, noteOf(was), noteOf(one))
	if err := v.store.ReplaceView(ctx, one); err != nil {
		return View{}, fmt.Errorf("replace a view: %w", err)
	}
	return one, nil
}

// Delete deletes a view of a user.
func (v *Views) Delete(ctx context.Context, user, id string) error {
	was, err := v.one(ctx, user, id)
	if err != nil {
		return err
	}
	ctx, cancel := outliving(ctx)
	defer cancel()
	audit.Note(ctx, "view.delete", "views/"+id, noteOf(was), nil)
	if err := v.store.DeleteView(ctx, user, id); err != nil {
		return fmt.Errorf("delete a view: %w", err)
	}
	return nil
}

// outliving bounds a change that a caller who goes away does not cancel.
func outliving(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
}

func (v *Views) one(ctx context.Context, user, id string) (View, error) {
	all, err := v.List(ctx, user)
	if err != nil {
		return View{}, err
	}
	i := slices.IndexFunc(all, func(o View) bool { return o.ID == id })
	if i < 0 {
		return View{}, ErrNone()
	}
	return all[i], nil
}

// ErrNone says that a user has no such view.
func ErrNone() error { return muster.Errorf(muster.NotFound, "there is no such view") }

// checked is v with its name trimmed, when all of it is understood.
func checked(v View) (View, error) {
	v.Name = strings.TrimSpace(v.Name)
	switch {
	case v.Name == "" || len(v.Name) > MaxName || !utf8.ValidString(v.Name) || strings.ContainsFunc(v.Name, unicode.IsControl):
		return v, muster.InvalidAt("name", "a name has 1 to %d bytes and no control characters", MaxName)
	case strings.ContainsRune(v.Query, 0) || !utf8.ValidString(v.Query):
		return v, muster.InvalidAt("q", "the query has what is no text")
	}
	if _, err := query.Parse(v.Query); err != nil {
		return v, muster.At(err, "q")
	}
	if _, err := devices.ParseColumns(v.Columns); err != nil {
		return v, err
	}
	return v, devices.CheckSort(v.Sort)
}

// note is what the audit log says of a view.
type note struct {
	User    string   `json:"user"`
	Name    string   `json:"name"`
	Query   string   `json:"q,omitempty"`
	Columns []string `json:"columns,omitempty"`
	Sort    string   `json:"sort,omitempty"`
}

func noteOf(v View) note { return note{v.User, v.Name, v.Query, v.Columns, v.Sort} }

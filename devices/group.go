package devices

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"muster"
	"muster/internal/precondition"
)

// MaxGroups is the most groups there may be.
const MaxGroups = 10_000

// Group is a set of devices under a name: those that list it among their Groups
// (static), or those that match its saved query.
type Group struct {
	Name        string // [A-Za-z0-9._-]{1,64}, not "." or ".."
	Description string // for people, at most 200 bytes
	Query       string // the saved query; empty for a static group
}

// CheckGroupName returns Invalid unless s may be a group's name.
func CheckGroupName(s string) error {
	if !label(s) || s == "." || s == ".." {
		return muster.Errorf(muster.Invalid, "a group's name has 1 to %d letters, digits and . _ -, and is not . or ..", MaxLabel)
	}
	return nil
}

// Groups returns every group, by name.
func (r *Registry) Groups() []Group {
	r.mu.RLock()
	out := make([]Group, 0, len(r.groups))
	for _, g := range r.groups {
		out = append(out, g.Group)
	}
	r.mu.RUnlock()
	slices.SortFunc(out, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Group returns the group name, or NotFound.
func (r *Registry) Group(name string) (Group, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	g, ok := r.groups[name]
	if !ok {
		return Group{}, errNoGroup()
	}
	return g.Group, nil
}

// PutGroup makes a group or replaces the one of that name. Invalid when the name or
// the query is, or when saved queries would refer to each other in a circle; Conflict
// when a static group that has devices would get a query, or there are MaxGroups.
func (r *Registry) PutGroup(ctx context.Context, g Group) error {
	if err := CheckGroupName(g.Name); err != nil {
		return muster.At(err, "group")
	}
	if err := checkText("the description", g.Description, MaxName); err != nil {
		return muster.At(err, "description")
	}
	return r.change(ctx, func(ctx context.Context) error { return r.putGroup(ctx, g) })
}

// putGroup is called in turn.
func (r *Registry) putGroup(ctx context.Context, g Group) error {
	r.mu.RLock()
	have, n := r.groups[g.Name], len(r.groups)
	r.mu.RUnlock()
	var current any
	if have != nil {
		current = have.Group
	}
	if err := precondition.Check(ctx, current); err != nil {
		return err
	}
	switch {
	case have == nil && n >= MaxGroups:
		return muster.Errorf(muster.Conflict, "there are %d groups already: delete some first", n)
	case have != nil && g.Query != "" && len(have.members) > 0:
		return muster.Errorf(muster.Conflict, "the group has %d devices of its own and cannot become a saved query", len(have.members))
	}
	made, err := r.newGroup(g)
	if err == nil {
		err = r.checkGroup(made)
	}
	if err != nil {
		return muster.At(err, "query")
	}
	var was *Group
	if have != nil {
		was = &have.Group
	}
	noteGroup(ctx, "group.put", was, &g)
	if err := r.store.PutGroup(ctx, g); err != nil {
		return fmt.Errorf("put group: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if have != nil {
		made.members = have.members
	}
	r.groups[g.Name] = made
	r.names.Add(1)
	return nil
}

// DeleteGroup deletes a group; devices that were in it are not any more. NotFound
// when there is none, Conflict while a saved query refers to it.
func (r *Registry) DeleteGroup(ctx context.Context, name string) error {
	var left []muster.DeviceID
	err := r.change(ctx, func(ctx context.Context) (err error) {
		if left, err = r.deleteGroup(ctx, name); err == nil {
			r.noGroup(name)
		}
		return err
	})
	if err == nil && len(left) > 0 {
		r.reshaped(left)
	}
	return err
}

func (r *Registry) deleteGroup(ctx context.Context, name string) ([]muster.DeviceID, error) {
	r.mu.RLock()
	g := r.groups[name]
	user := r.groupUser(name)
	r.mu.RUnlock()
	if g == nil {
		return nil, errNoGroup()
	}
	if err := precondition.Check(ctx, g.Group); err != nil {
		return nil, err
	}
	if user != "" {
		return nil, muster.Errorf(muster.Conflict, "the saved query of group %s refers to it", user)
	}
	noteGroup(ctx, "group.delete", &g.Group, nil)
	if err := r.store.DeleteGroup(ctx, name); err != nil {
		return nil, fmt.Errorf("delete group: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	left := make([]muster.DeviceID, 0, len(g.members))
	for e := range g.members {
		left = append(left, e.ID)
		e.Groups = e.Groups.without(name)
	}
	delete(r.groups, name)
	r.names.Add(1)
	return left, nil
}

func (g Groups) without(name string) Groups {
	var out Groups
	for n := range g.All() {
		if n != name {
			out.text += n + "\x00"
		}
	}
	return out
}

// joinGroups and leaveGroups keep the members of static groups, with the lock held.
func (r *Registry) joinGroups(e *entry) {
	for name := range e.Groups.All() {
		if g := r.groups[name]; g != nil {
			g.members[e] = struct{}{}
		}
	}
}

func (r *Registry) leaveGroups(e *entry) {
	for name := range e.Groups.All() {
		if g := r.groups[name]; g != nil {
			delete(g.members, e)
		}
	}
}

// checkGroups refuses groups that do not exist or that are saved queries, with the
// lock held.
func (r *Registry) checkGroups(gs Groups) error {
	for name := range gs.All() {
		g := r.groups[name]
		switch {
		case g == nil:
			return muster.InvalidAt("groups", "there is no group %s", name)
		case g.Query != "":
			return muster.InvalidAt("groups", "the group %s is a saved query: its devices are those that match", name)
		}
	}
	return nil
}

func (r *Registry) loadGroup(g Group) error {
	made, err := r.newGroup(g)
	if err != nil {
		return fmt.Errorf("stored group %s: %w", g.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.groups[g.Name] = made
	return nil
}

func errNoGroup() error { return muster.Errorf(muster.NotFound, "there is no such group") }

// Members counts the devices of a group, of a saved query at this moment. NotFound
// when there is no such group.
func (r *Registry) Members(name string) (int, error) {
	r.mu.RLock()
	g, ok := r.groups[name]
	n := 0
	if ok {
		n = len(g.members)
	}
	r.mu.RUnlock()
	switch {
	case !ok:
		return 0, errNoGroup()
	case g.expr == nil:
		return n, nil
	}
	e, err := r.Compile("group:" + name)
	if err != nil {
		return 0, err
	}
	page, err := r.Select(Selection{Query: e, Total: true})
	return page.Total, err
}

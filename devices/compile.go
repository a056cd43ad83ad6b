package devices

import (
	"slices"

	"muster"
	"muster/devices/query"
)

// Compile reads a query and puts the saved queries of the groups it names in their
// places. Invalid when it is not understood or names a group or profile that does
// not exist, with the place.
func (r *Registry) Compile(q string) (*query.Expr, error) {
	e, err := query.Parse(q)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if err := r.checkNames(q, e); err != nil {
		return nil, err
	}
	return query.Expand(e, r.savedQuery)
}

// savedQuery is called with the lock held.
func (r *Registry) savedQuery(name string) (*query.Expr, bool) {
	g, ok := r.groups[name]
	if !ok || g.expr == nil {
		return nil, false
	}
	return g.expr, true
}

// checkNames refuses names that nothing has: a typing error is not an empty answer.
// It is called with the lock held.
func (r *Registry) checkNames(q string, e *query.Expr) (err error) {
	query.Walk(e, func(t *query.Term) {
		if err != nil || t.Value.Kind != query.Text {
			return
		}
		_, isGroup := r.groups[t.Value.Text]
		_, isProfile := r.profiles[t.Value.Text]
		switch {
		case t.Field == query.Group && !isGroup:
			err = query.Fault(q, t.Pos, "there is no group %.64s", t.Value.Text)
		case t.Field == query.Profile && !isProfile && (t.Op == query.Eq || t.Op == query.Ne):
			err = query.Fault(q, t.Pos, "there is no profile %.64s", t.Value.Text)
		}
	})
	return err
}

// group is a Group with the devices that list it. It changes under Registry.mu.
type group struct {
	Group
	members map[*entry]struct{}
	expr    *query.Expr // of a saved query
}

// newGroup prepares g. It is called in turn.
func (r *Registry) newGroup(g Group) (*group, error) {
	made := &group{Group: g, members: map[*entry]struct{}{}}
	if g.Query == "" {
		return made, nil
	}
	expr, err := query.Parse(g.Query)
	if err != nil {
		return nil, err
	}
	made.expr = expr
	return made, nil
}

// checkGroup says whether g's saved query may stand beside the others.
func (r *Registry) checkGroup(g *group) error {
	if g.expr == nil {
		return nil
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var wrong error
	query.Walk(g.expr, func(t *query.Term) {
		if t.Field == query.Group && t.Value.Text == g.Name && wrong == nil {
			wrong = query.Fault(g.Query, t.Pos, "the group refers to itself")
		}
	})
	if wrong != nil {
		return wrong
	}
	if err := r.checkNames(g.Query, g.expr); err != nil {
		return err
	}
	with := func(name string) (*query.Expr, bool) {
		if name == g.Name {
			return g.expr, true
		}
		return r.savedQuery(name)
	}
	if _, err := query.Expand(g.expr, with); err != nil {
		return err
	}
	self := &query.Expr{Root: &query.Term{Field: query.Group, Value: query.Value{Kind: query.Text, Text: g.Name}}}
	_, err := query.Expand(self, with)
	return err
}

// groupUser returns a group whose saved query refers to name, with the lock held.
func (r *Registry) groupUser(name string) string {
	for _, g := range r.groups {
		if g.expr == nil {
			continue
		}
		if slices.Contains(query.Groups(g.expr), name) {
			return g.Name
		}
	}
	return ""
}

// Matches says whether the device id matches e, which Compile made, now.
func (r *Registry) Matches(id muster.DeviceID, e *query.Expr) bool {
	var s subject
	r.mu.RLock()
	entry, ok := r.byID[id]
	if ok {
		s.fill(r, entry)
	}
	r.mu.RUnlock()
	return ok && query.Eval(e, &s, muster.MicrosOf(r.now()))
}

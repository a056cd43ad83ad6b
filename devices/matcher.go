package devices

import (
	"slices"

	"muster"
	"muster/devices/query"
)

// Matcher returns what says whether a device matches all queries now. It is for one
// goroutine. Queries that are empty are left out; with none left it returns nil. What it
// compiled is compiled anew when groups or profiles have changed, and a query that names
// one that is gone selects nothing until it is back. Invalid when a query is not
// understood or names what is not there.
func (r *Registry) Matcher(queries ...string) (func(muster.DeviceID) bool, error) {
	queries = slices.DeleteFunc(slices.Clone(queries), func(q string) bool { return q == "" })
	if len(queries) == 0 {
		return nil, nil //nolint:nilnil // nothing is asked of a device
	}
	m := &matcher{registry: r, queries: queries}
	if err := m.compile(); err != nil {
		return nil, err
	}
	return m.match, nil
}

type matcher struct {
	registry *Registry
	queries  []string
	names    uint64 // Registry.names before exprs were compiled
	exprs    []*query.Expr
	broken   bool // one of queries cannot be compiled now
}

func (m *matcher) compile() error {
	m.names, m.exprs, m.broken = m.registry.names.Load(), m.exprs[:0], false
	for _, q := range m.queries {
		e, err := m.registry.Compile(q)
		if err != nil {
			m.broken = true
			return err
		}
		m.exprs = append(m.exprs, e)
	}
	return nil
}

func (m *matcher) match(id muster.DeviceID) bool {
	if m.names != m.registry.names.Load() {
		_ = m.compile() // what is broken matches nothing
	}
	if m.broken {
		return false
	}
	for _, e := range m.exprs {
		if !m.registry.Matches(id, e) {
			return false
		}
	}
	return true
}

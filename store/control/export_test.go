package control

import (
	"database/sql"

	"muster"
	"muster/devices/query"
)

// SelectSQL is the statement that SelectDevices runs, to be explained.
func (c *Control) SelectSQL(e *query.Expr, now muster.Micros, limit int) (string, []any) {
	return c.dialect.selectSQL(e, now, "", limit)
}

// Database is where the rows lie, to be tampered with.
func (c *Control) Database() *sql.DB { return c.db.Write }

// The statements that must keep to their indexes, to be explained.
const (
	ClaimQuery  = claimQuery
	FoldQuery   = foldQuery
	QueuesQuery = queuesQuery

	DueQuery     = dueQuery
	OverdueQuery = overdueQuery
	AllBusyQuery = allBusyQuery
)

// Ordered is what is run before them.
func (d Dialect) Ordered() string { return d.ordered }

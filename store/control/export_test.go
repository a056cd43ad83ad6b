package control

import (
	"muster"
	"muster/devices/query"
)

// SelectSQL is the statement that SelectDevices runs, to be explained.
func (c *Control) SelectSQL(e *query.Expr, now muster.Micros, limit int) (string, []any) {
	return c.dialect.selectSQL(e, now, "", limit)
}

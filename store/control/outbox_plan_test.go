package control_test

import (
	"regexp"
	"strings"
	"testing"

	"muster/notify/outbox"
	"muster/store/control"
)

// planOf explains a statement in the way that the store runs it.
func planOf(t *testing.T, e engine, c *control.Control, statement string, args ...any) string {
	t.Helper()
	tx, err := c.Database().BeginTx(t.Context(), nil)
	wantNil(t, err)
	defer func() { _ = tx.Rollback() }() // nothing was written
	explain, columns := "EXPLAIN QUERY PLAN ", 3
	if e.postgres {
		explain, columns = "EXPLAIN ", 0
		_, err := tx.ExecContext(t.Context(), e.dialect.Ordered())
		wantNil(t, err)
	}
	rows, err := tx.QueryContext(t.Context(), explain+statement, args...)
	wantNil(t, err)
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	var lines []string
	for rows.Next() {
		var line string
		into := []any{new(int), new(int), new(int)}[:columns]
		wantNil(t, rows.Scan(append(into, &line)...))
		lines = append(lines, line)
	}
	wantNil(t, rows.Err())
	return strings.Join(lines, "\n")
}

// Plans that read more than they return: all rows, or all of a range to sort them.
var (
	scansAll = regexp.MustCompile(`Seq Scan on delivery|Bitmap|SCAN (d|delivery)$`)
	sortsAll = regexp.MustCompile(`Sort|TEMP B-TREE FOR ORDER`)
)

// Nothing was analysed: PostgreSQL knows nothing but how large the table is.
func TestClaimsKeepToTheirIndexesWithoutStatistics(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ds := make([]outbox.Delivery, 3000)
		for i := range ds {
			ds[i] = deliveryTo(i, "email", outbox.Normal, 1)
			ds[i].Fold = "f"
		}
		add(t, c, ds...)
		for name, tt := range map[string]struct {
			index     string
			times     int // that it is used at least
			statement string
			args      []any
		}{
			"a claim":    {"delivery_due", 1, control.ClaimQuery, []any{"email", 1, 5, 10}},
			"a fold":     {"delivery_fold", 1, control.FoldQuery, []any{"email", "f", 10, 5}},
			"the queues": {"delivery_due", 4, control.QueuesQuery, nil},
		} {
			t.Run(name, func(t *testing.T) {
				plan := planOf(t, e, c, tt.statement, tt.args...)
				if strings.Count(plan, tt.index) < tt.times || scansAll.MatchString(plan) || tt.times == 1 && sortsAll.MatchString(plan) {
					t.Errorf("the plan is\n%s", plan)
				}
			})
		}
	})
}

package control

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"

	"muster"
	"muster/firmware/budget"
)

// ofBudget finds the row of a claim v in the table f.
const ofBudget = `f.device = v.value ->> 0 AND f.action = CAST(v.value ->> 1 AS BIGINT)`

// goesOn says of a claim v whether its action goes on at its device.
const goesOn = `EXISTS (SELECT 1 FROM rollout_device d WHERE d.device = v.value ->> 0 AND d.action = CAST(v.value ->> 1 AS BIGINT) AND d.` + inFlight + `)`

// KeepBudgets implements budget.Store. The rows of a device's actions that are over go with its next one.
func (c *Control) KeepBudgets(ctx context.Context, back, claims []budget.Claim) (got []int64, err error) {
	err = c.changeOfDevices(ctx, "reserve bytes of images", func(ctx context.Context, tx *sql.Tx) error {
		if err := c.giveBack(ctx, tx, inOrder(back)); err != nil {
			return err
		}
		got = make([]int64, len(claims))
		return c.reserve(ctx, tx, claims, got)
	})
	return got, err
}

// inOrder returns claims in the order in which all servers lock their rows.
func inOrder(list []budget.Claim) []budget.Claim {
	return slices.SortedFunc(slices.Values(list), func(a, b budget.Claim) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.Action, b.Action))
	})
}

func budgetRows(list []budget.Claim) [][]any {
	rows := make([][]any, len(list))
	for i, n := range list {
		rows[i] = []any{string(n.Device), n.Action, n.Bytes}
	}
	return rows
}

func (c *Control) giveBack(ctx context.Context, tx *sql.Tx, back []budget.Claim) error {
	rows := budgetRows(back)
	if _, err := c.reserved(ctx, tx, rows); err != nil { // locks them in their order
		return err
	}
	_, err := c.bulk(ctx, tx, `UPDATE firmware_budget AS f SET reserved = CASE WHEN f.reserved > CAST(v.value ->> 2 AS BIGINT) THEN f.reserved - CAST(v.value ->> 2 AS BIGINT) ELSE 0 END FROM`,
		`WHERE `+ofBudget, rows)
	return err
}

func (c *Control) reserve(ctx context.Context, tx *sql.Tx, claims []budget.Claim, got []int64) error {
	rows := budgetRows(inOrder(claims))
	if _, err := c.bulk(ctx, tx, `INSERT INTO firmware_budget (device, action, reserved) SELECT v.value ->> 0, CAST(v.value ->> 1 AS BIGINT), 0 FROM`,
		`WHERE `+goesOn+` AND EXISTS (SELECT 1 FROM device WHERE device.id = v.value ->> 0) ON CONFLICT DO NOTHING`, rows); err != nil {
		return err
	}
	had, err := c.reserved(ctx, tx, rows)
	if err != nil {
		return err
	}
	rows = rows[:0]
	for i, n := range claims {
		if was, there := had[n.Key]; there {
			got[i] = max(min(n.Bytes, n.All-was), 0)
			rows = append(rows, []any{string(n.Device), n.Action, was + got[i]})
		}
	}
	if _, err := c.bulk(ctx, tx, `UPDATE firmware_budget AS f SET reserved = CAST(v.value ->> 2 AS BIGINT) FROM`, `WHERE `+ofBudget, rows); err != nil {
		return err
	}
	_, err = c.bulk(ctx, tx, `DELETE FROM firmware_budget WHERE (device, action) IN (SELECT f.device, f.action FROM`,
		`JOIN firmware_budget f ON f.device = v.value ->> 0 AND f.action <> CAST(v.value ->> 1 AS BIGINT))`, rows)
	return err
}

// reserved returns what is reserved of actions that go on, and holds the rows.
func (c *Control) reserved(ctx context.Context, tx *sql.Tx, rows [][]any) (map[budget.Key]int64, error) {
	had := make(map[budget.Key]int64, len(rows))
	err := c.bulkRead(ctx, tx, `SELECT f.device, f.action, f.reserved FROM`,
		`JOIN firmware_budget f ON `+ofBudget+` WHERE `+goesOn+` ORDER BY f.device, f.action`+c.dialect.hold, rows, func(rows *sql.Rows) error {
			var k budget.Key
			var n int64
			if err := rows.Scan(&k.Device, &k.Action, &n); err != nil {
				return fmt.Errorf("read a budget: %w", err)
			}
			had[k] = n
			return nil
		})
	return had, err
}

// BudgetOf returns how many bytes were reserved for an action of a device.
func (c *Control) BudgetOf(ctx context.Context, device muster.DeviceID, action int64) (reserved int64, err error) {
	err = c.list(ctx, "read a budget", `SELECT reserved FROM firmware_budget WHERE device = $1 AND action = $2`, []any{string(device), action},
		func(rows *sql.Rows) error { return rows.Scan(&reserved) })
	return reserved, err
}

package control

import (
	"context"
	"strconv"
	"strings"
	"unicode/utf8"

	"muster"
	"muster/devices/query"
)

// MaxSelected is the most ids one SelectDevices returns.
const MaxSelected = 100_000

// SelectDevices returns the ids of the first limit devices (1 to MaxSelected) after the
// id after that match e at the time now, in bytewise order. It answers from what was
// written: presence and latest values are some seconds old. A group in e is static:
// query.Expand puts in what saved queries say.
func (c *Control) SelectDevices(ctx context.Context, e *query.Expr, now muster.Micros, after muster.DeviceID, limit int) ([]muster.DeviceID, error) {
	const doing = "select devices"
	if limit < 1 || limit > MaxSelected {
		return nil, muster.Errorf(muster.Invalid, "%d devices cannot be selected at once, 1 to %d can", limit, MaxSelected)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	text, args := c.dialect.selectSQL(e, now, after, limit)
	rows, err := c.db.selects().QueryContext(ctx, text, args...)
	if err != nil {
		return nil, failed(doing, err)
	}
	defer func() { _ = rows.Close() }() // rows.Err tells of a failure
	var ids []muster.DeviceID
	for rows.Next() {
		var id muster.DeviceID
		if err := rows.Scan(&id); err != nil {
			return nil, failed(doing, err)
		}
		ids = append(ids, id)
	}
	return ids, failed(doing, rows.Err())
}

// CountDevices counts the devices that match e, as SelectDevices would find them.
func (c *Control) CountDevices(ctx context.Context, e *query.Expr, now muster.Micros) (n int, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s := selection{dialect: c.dialect, now: now}
	where := s.where(e)
	text := "SELECT count(*) FROM " + s.from() + " WHERE " + where
	err = c.db.selects().QueryRowContext(ctx, text, s.args...).Scan(&n)
	return n, failed("count devices", err)
}

// selectSQL returns the statement that SelectDevices runs.
func (d Dialect) selectSQL(e *query.Expr, now muster.Micros, after muster.DeviceID, limit int) (string, []any) {
	s := selection{dialect: d, now: now}
	where := s.where(e)
	if after != "" {
		where += " AND d.id > " + s.arg(string(after))
	}
	return "SELECT d.id FROM " + s.from() + " WHERE " + where + " ORDER BY d.id LIMIT " + s.arg(limit), s.args
}

// selection makes the SQL text of one query. All that comes from the query's own text
// goes through arg; every condition is TRUE or FALSE, never NULL, so that NOT is the
// negation.
type selection struct {
	dialect  Dialect
	now      muster.Micros
	args     []any
	presence bool // the row p is needed
	twin     bool // the row t is needed
}

// from returns the tables that the conditions made so far are about.
func (s *selection) from() string {
	from := s.dialect.engine.devices() + " d"
	if s.presence {
		from += " LEFT JOIN presence p ON p.device = d.id"
	}
	if s.twin {
		from += " LEFT JOIN twin t ON t.device = d.id"
	}
	return from
}

// arg adds an argument and returns its placeholder.
func (s *selection) arg(v any) string {
	s.args = append(s.args, v)
	return "$" + strconv.Itoa(len(s.args))
}

func (s *selection) where(e *query.Expr) string {
	if e == nil || e.Root == nil {
		return "TRUE"
	}
	return s.node(e.Root)
}

func (s *selection) node(n query.Node) string {
	switch n := n.(type) {
	case *query.And:
		return s.list(n.Nodes, " AND ")
	case *query.Or:
		return s.list(n.Nodes, " OR ")
	case *query.Not:
		return "NOT " + s.node(n.Node)
	case *query.Term:
		if n.Op != query.Ne {
			return s.term(n)
		}
		equal := *n
		equal.Op = query.Eq
		return "NOT " + s.term(&equal)
	}
	return "FALSE"
}

func (s *selection) list(nodes []query.Node, join string) string {
	parts := make([]string, len(nodes))
	for i, n := range nodes {
		parts[i] = s.node(n)
	}
	return "(" + strings.Join(parts, join) + ")"
}

// term returns the condition of a term that has no Ne.
func (s *selection) term(t *query.Term) string {
	switch t.Field {
	case query.AnyText:
		part := s.arg(t.Value.Text)
		return "(" + s.dialect.engine.contains("d.id", part) + " OR " + s.dialect.engine.contains("d.name", part) + ")"
	case query.ID:
		return s.id(t)
	case query.Name:
		return s.text(t, "d.name")
	case query.Profile:
		return s.indexed(t, "d.profile", "default")
	case query.Parent:
		return s.indexed(t, "d.parent", "")
	case query.Firmware:
		return s.indexed(t, "d.firmware", "")
	case query.Notes:
		return s.text(t, "d.notes")
	case query.Group:
		return "(d.id IN (SELECT device FROM device_member WHERE group_name = " + s.arg(t.Value.Text) + "))"
	case query.Tag:
		return s.tag(t)
	case query.Status, query.Seen:
		s.presence = true
		return s.inTime(t)
	case query.Created:
		op, at := t.When(s.now)
		return "(d.created " + op.String() + " " + s.bigint(at) + ")"
	case query.Telemetry:
		return s.leaf(t, func(want leaf) string { return s.dialect.engine.latest(s, t.Path[0], want) })
	case query.Reported:
		s.twin = true
		return s.leaf(t, func(want leaf) string { return s.dialect.engine.twin(s, "t.reported", t.Path, want) })
	case query.Desired:
		s.twin = true
		return s.leaf(t, func(want leaf) string { return s.dialect.engine.twin(s, "t.effective", t.Path, want) })
	case query.Converged:
		s.twin = true
		return "(coalesce(t.converged, TRUE) = " + strings.ToUpper(strconv.FormatBool(t.Value.Num == 1)) + ")"
	case query.Diverged:
		s.twin = true
		return s.dialect.engine.member("t.diverged", s.arg(t.Value.Text))
	case query.Lat, query.Lon:
		return s.onMap(t)
	case query.Has:
		return s.has(t.Value.Text)
	}
	return "FALSE"
}

func (s *selection) bigint(m muster.Micros) string { return "CAST(" + s.arg(int64(m)) + " AS BIGINT)" }

// text compares the text expression x.
func (s *selection) text(t *query.Term, x string) string {
	switch v := t.Value; {
	case v.Kind == query.Any:
		return "(" + x + " <> '')"
	case v.Kind == query.Prefix:
		n := utf8.RuneCountInString(v.Text)
		return "(substr(" + x + ", 1, CAST(" + s.arg(n) + " AS INTEGER)) = " + s.arg(v.Text) + ")"
	case t.Op == query.Contains:
		return s.dialect.engine.contains(x, s.arg(v.Text))
	case t.Op == query.Eq:
		return "(" + x + " = " + s.arg(v.Text) + ")"
	}
	return "(" + x + ` COLLATE "binary" ` + t.Op.String() + " " + s.arg(t.Value.Text) + ")"
}

// id lets the primary key find what begins with an ASCII text.
func (s *selection) id(t *query.Term) string {
	v := t.Value
	if v.Kind == query.Prefix && v.Text[len(v.Text)-1] < utf8.RuneSelf-2 {
		end := v.Text[:len(v.Text)-1] + string(rune(v.Text[len(v.Text)-1]+1))
		return "(d.id >= " + s.arg(v.Text) + " AND d.id < " + s.arg(end) + ")"
	}
	return s.text(t, "d.id")
}

// indexed compares a column whose index leaves out the value none.
func (s *selection) indexed(t *query.Term, column, none string) string {
	if t.Op == query.Eq && t.Value.Kind == query.Text && t.Value.Text != none {
		return "(" + column + " = " + s.arg(t.Value.Text) + " AND " + column + " <> '" + none + "')"
	}
	return s.text(t, column)
}

func (s *selection) tag(t *query.Term) string {
	cond := ""
	if t.Value.Kind != query.Any {
		cond = " AND " + s.text(t, "value")
	}
	return "(d.id IN (SELECT device FROM device_tag WHERE key = " + s.arg(t.Path[0]) + cond + "))"
}

// state is the state of p, of a device that has no row too.
const state = "coalesce(p.state, 'never')"

// busy is the condition of a row of rollout_device whose device updates: rollout.Device.Updating.
const busy = inFlight + ` AND state <> 'offered' AND deadline <> 9223372036854775807`

// status has the statuses of muster.StatusOf.
const (
	connected = "(" + state + " IN ('online', 'quiet'))"
	updates   = "(d.id IN (SELECT device FROM rollout_device WHERE " + busy + "))"
)

// status returns the condition that a device has a status, but for silent.
func (s *selection) status(is string) string {
	switch is {
	case string(muster.StatusUpdating):
		return "(" + connected + " AND " + updates + ")"
	case string(muster.PresenceOnline), string(muster.PresenceQuiet):
		return "(" + state + " = " + s.arg(is) + " AND NOT " + updates + ")"
	}
	return "(" + state + " = " + s.arg(is) + ")"
}

// inTime answers for Status and Seen.
func (s *selection) inTime(t *query.Term) string {
	switch {
	case t.Field == query.Status && t.Value.Text == query.Silent:
		return "(" + s.status(string(muster.PresenceQuiet)) + " OR " + state + " = 'offline' AND p.last_seen + 2000000 * " +
			"CASE WHEN d.check_in > 0 THEN d.check_in WHEN p.rhythm > 0 THEN p.rhythm ELSE " +
			strconv.Itoa(query.DefaultCheckIn) + " END <= " + s.bigint(s.now) + ")"
	case t.Field == query.Status:
		return s.status(t.Value.Text)
	case t.Value.Kind == query.Any:
		return "(coalesce(p.last_seen, 0) <> 0)"
	}
	op, at := t.When(s.now)
	if op == query.Lt || op == query.Le { // never is longer ago than anything
		return "(coalesce(p.last_seen, 0) = 0 OR p.last_seen " + op.String() + " " + s.bigint(at) + ")"
	}
	return "(coalesce(p.last_seen, 0) <> 0 AND p.last_seen " + op.String() + " " + s.bigint(at) + ")"
}

// leaf compares a JSON value. as returns an expression for what it is as a number or a
// text, or for whether it is there; NULL when it is not.
func (s *selection) leaf(t *query.Term, as func(want leaf) string) string {
	switch t.Value.Kind {
	case query.Any:
		return "(" + as(anyLeaf) + " IS NOT NULL)"
	case query.Number, query.Bool:
		return "coalesce(" + as(numberLeaf) + " " + t.Op.String() + " CAST(" + s.arg(t.Value.Num) + " AS DOUBLE PRECISION), FALSE)"
	case query.Text, query.Prefix, query.Duration, query.Time:
	}
	return "coalesce(" + s.text(t, as(textLeaf)) + ", FALSE)"
}

// onMap compares a coordinate; without a location nothing holds.
func (s *selection) onMap(t *query.Term) string {
	column := "d.location_lat"
	if t.Field == query.Lon {
		column = "d.location_lon"
	}
	return "coalesce(" + column + " " + t.Op.String() + " CAST(" + s.arg(t.Value.Num) + " AS DOUBLE PRECISION), FALSE)"
}

func (s *selection) has(what string) string {
	switch what {
	case query.HasParent:
		return "(d.parent <> '')"
	case query.HasChildren:
		return "EXISTS (SELECT 1 FROM " + s.dialect.engine.devices() + " c WHERE c.parent = d.id AND c.parent <> '')"
	case query.HasTags:
		return "EXISTS (SELECT 1 FROM device_tag g WHERE g.device = d.id)"
	case query.HasLocation:
		return "(d.location_lat IS NOT NULL)"
	case query.HasNotes:
		return "(d.notes <> '')"
	case query.HasTwin:
		s.twin = true
		return "(coalesce(t.reported <> '{}', FALSE) OR coalesce(t.effective <> '{}', FALSE))"
	case query.HasCredential:
		return "EXISTS (SELECT 1 FROM credential c WHERE c.device = d.id)"
	case query.HasConnection:
		s.presence = true
		return connected
	}
	return "FALSE"
}

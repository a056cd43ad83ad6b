package querytest

import (
	"math"
	"strings"

	"pgregory.net/rapid"

	"muster"
	"muster/devices/query"
)

// numbers are those that telemetry holds; NaN is a hole.
func numbers() []float64 {
	return []float64{
		0, math.Copysign(0, -1), 1, -1, 2, 0.1, 0.3, 0.1 + 0.2, 15, 14.999999999999999, 100, 1e-7, 1 << 53, 1<<53 + 2, 1 << 63, 12345678901234567890,
		math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(),
	}
}

// DrawQuery draws a query whose groups are among groups, or do not exist.
func DrawQuery(t *rapid.T, groups []string) string {
	if chance(t, "empty query", 2) {
		return ""
	}
	return (&query.Expr{Root: drawNode(t, groups, 3)}).String()
}

func drawNode(t *rapid.T, groups []string, depth int) query.Node {
	kind := rapid.IntRange(0, 9).Draw(t, "node")
	if depth == 0 || kind < 4 {
		return drawTerm(t, groups)
	}
	if kind < 6 {
		return &query.Not{Node: drawNode(t, groups, depth-1)}
	}
	nodes := make([]query.Node, rapid.IntRange(2, 3).Draw(t, "nodes"))
	for i := range nodes {
		nodes[i] = drawNode(t, groups, depth-1)
	}
	if kind < 8 {
		return &query.And{Nodes: nodes}
	}
	return &query.Or{Nodes: nodes}
}

func drawTerm(t *rapid.T, groups []string) *query.Term {
	f := rapid.SampledFrom(fields()).Draw(t, "field")
	term := &query.Term{Field: f}
	switch f {
	case query.AnyText:
		term.Op, term.Value = query.Contains, query.Value{Kind: query.Text, Text: folded(some(t, "word", texts()))}
	case query.ID, query.Name:
		term.Op = one(t, "op", []query.Op{query.Eq, query.Ne, query.Lt, query.Le, query.Gt, query.Ge, query.Contains})
		drawText(t, term)
	case query.Profile, query.Parent, query.Firmware, query.Notes:
		term.Op = one(t, "op", []query.Op{query.Eq, query.Ne, query.Contains})
		drawText(t, term)
	case query.Tag:
		term.Path, term.Op = []string{one(t, "tag", tagKeys())}, one(t, "op", []query.Op{query.Eq, query.Ne, query.Contains})
		drawText(t, term)
	case query.Group:
		term.Op = equality(t)
		term.Value = query.Value{Kind: query.Text, Text: one(t, "group", append(groups, "nowhere"))}
	case query.Status:
		term.Op = equality(t)
		term.Value = query.Value{Kind: query.Text, Text: one(t, "status", []string{"online", "quiet", "offline", "never", "unknown", "updating", "updating", query.Silent, query.Silent})}
	case query.Seen, query.Created:
		drawTime(t, term)
	case query.Telemetry:
		term.Path = []string{some(t, "key", keys()[:5])}
		drawLeaf(t, term)
	case query.Reported, query.Desired:
		term.Path = []string{some(t, "key", keys())}
		if chance(t, "deeper", 30) {
			term.Path = append(term.Path, some(t, "key", keys()))
		}
		drawLeaf(t, term)
	case query.Converged:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Bool, Num: float64(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case query.Diverged:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Text, Text: some(t, "path", keys())}
	case query.Lat, query.Lon:
		term.Op = one(t, "op", []query.Op{query.Eq, query.Ne, query.Lt, query.Le, query.Gt, query.Ge})
		term.Value = query.Value{Kind: query.Number, Num: one(t, "degrees", degrees())}
	case query.Has:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Text, Text: one(t, "has", []string{
			query.HasParent, query.HasChildren, query.HasTags, query.HasLocation, query.HasNotes, query.HasTwin, query.HasCredential, query.HasConnection,
		})}
	}
	return term
}

// fields has those with the most to get wrong more often.
func fields() []query.Field {
	out := []query.Field{query.Tag, query.Status, query.Seen}
	for f := query.AnyText; f <= query.Has; f++ {
		out = append(out, f)
		if f == query.Telemetry || f == query.Reported || f == query.Desired {
			out = append(out, f, f)
		}
	}
	return out
}

func equality(t *rapid.T) query.Op { return one(t, "op", []query.Op{query.Eq, query.Ne}) }

// folded is s as the language folds it: ASCII only.
func folded(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// drawText gives t a text, the start of one, or *; ids and profiles often.
func drawText(t *rapid.T, term *query.Term) {
	from := texts()
	switch term.Field {
	case query.Profile:
		from = append(profiles(), "")
	case query.ID, query.Parent:
		from = append(make([]string, 0, 20), "", "é", "aa:b")
		for _, id := range ids() {
			from = append(from, string(id))
		}
	default:
	}
	text := some(t, "text", from)
	switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case term.Op == query.Contains:
		term.Value = query.Value{Kind: query.Text, Text: folded(text)}
	case kind == 0 && term.Op <= query.Ne:
		term.Value = query.Value{Kind: query.Any}
	case kind <= 2 && term.Op <= query.Ne:
		term.Value = query.Value{Kind: query.Prefix, Text: one(t, "prefix", []string{"a", "A", "ab", "d", "dev-", "é", "a%", "a_", `a\`, "'", "\uff00", "温", "z"})}
	default:
		term.Value = query.Value{Kind: query.Text, Text: text}
	}
}

func drawTime(t *rapid.T, term *query.Term) {
	const minute = 60_000_000
	term.Op = one(t, "op", []query.Op{query.Lt, query.Le, query.Gt, query.Ge})
	switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case kind == 0 && term.Field == query.Seen:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Any}
	case kind < 4:
		term.Value = query.Value{Kind: query.Time, Micros: one(t, "time", append(times(), -1))}
	default:
		term.Value = query.Value{Kind: query.Duration, Micros: one(t, "age", []muster.Micros{
			0, 1, minute, 10 * minute, 20 * minute, 60 * minute, 24 * 60 * minute, 60 * 365 * 24 * 60 * minute,
		})}
	}
}

// drawLeaf gives t something to compare a JSON value with.
func drawLeaf(t *rapid.T, term *query.Term) {
	switch kind := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case kind < 2:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Any}
	case kind < 3:
		term.Op, term.Value = equality(t), query.Value{Kind: query.Bool, Num: float64(rapid.IntRange(0, 1).Draw(t, "bool"))}
	case kind < 6:
		term.Op = one(t, "op", []query.Op{query.Eq, query.Ne, query.Lt, query.Le, query.Gt, query.Ge})
		n := some(t, "number", numbers())
		if math.IsNaN(n) || math.IsInf(n, 0) {
			n = 5
		}
		term.Value = query.Value{Kind: query.Number, Num: n}
	default:
		term.Op = one(t, "op", []query.Op{query.Eq, query.Ne, query.Contains})
		drawText(t, term)
	}
}

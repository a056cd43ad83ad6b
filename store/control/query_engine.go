package control

import (
	"encoding/json"
	"strings"
)

// leaf says as what a JSON value is wanted.
type leaf string

const (
	numberLeaf leaf = "number" // a number, 1 for true and 0 for false
	textLeaf   leaf = "text"   // a string
	anyLeaf    leaf = "any"    // something that is not NULL when the value is there
)

// engine is what the language's SQL has to say differently on each engine. What is not
// there, null, or of another kind than wanted is NULL.
type engine interface {
	// devices is the table of devices.
	devices() string
	// contains reports whether text x contains part, which is in lower case.
	contains(x, part string) string
	// latest is the newest value of a telemetry key of device d.
	latest(s *selection, key string, want leaf) string
	// twin is what lies at path in doc, a column of JSON text; it goes through objects only.
	twin(s *selection, doc string, path []string, want leaf) string
	// member reports whether the JSON array doc, as text, has the text x.
	member(doc, x string) string
}

// sqliteEngine is SQLite with json1. Telemetry is another file, which package
// store/sqlite attaches to Handles.Query with a function latest_value that reads it. It
// has a table device of its own: a connection that has not seen the newest schema of
// control.db yet would take that one for ours.
type sqliteEngine struct{}

func (sqliteEngine) devices() string { return "main.device" }

func (sqliteEngine) contains(x, part string) string {
	return "(instr(lower(" + x + "), " + part + ") > 0)"
}

func (sqliteEngine) latest(s *selection, key string, want leaf) string {
	return "(SELECT latest_value(l.vals, " + s.arg(key) + ", '" + string(want) + "') FROM telemetry.device n " +
		"JOIN telemetry.latest l ON l.device_id = n.id WHERE n.name = d.id)"
}

func (sqliteEngine) twin(s *selection, doc string, path []string, want leaf) string {
	var at strings.Builder
	at.WriteByte('$')
	for _, name := range path {
		quoted, _ := json.Marshal(name) // a string always can be
		at.WriteByte('.')
		at.Write(quoted)
	}
	in := "(" + doc + ", " + s.arg(at.String()) + ")"
	switch want {
	case numberLeaf:
		return "CASE json_type" + in + " WHEN 'integer' THEN CAST(json_extract" + in + " AS REAL) WHEN 'real' THEN json_extract" + in +
			" WHEN 'true' THEN 1.0 WHEN 'false' THEN 0.0 END"
	case textLeaf:
		return "CASE json_type" + in + " WHEN 'text' THEN json_extract" + in + " END"
	case anyLeaf:
	}
	return "nullif(json_type" + in + ", 'null')"
}

func (sqliteEngine) member(doc, x string) string {
	return "EXISTS (SELECT 1 FROM json_each(" + doc + ") m WHERE m.type = 'text' AND m.value = " + x + ")"
}

// postgresEngine is PostgreSQL 15 and newer. Telemetry lies beside the control data,
// with a view latest_values that reads it.
type postgresEngine struct{}

func (postgresEngine) devices() string { return "device" }

func (postgresEngine) contains(x, part string) string {
	return `(strpos(lower(` + x + ` COLLATE "C"), ` + part + `) > 0)`
}

func (postgresEngine) latest(s *selection, key string, want leaf) string {
	value := "CASE WHEN v.value IS NOT NULL OR jsonb_typeof(v.json) <> 'null' THEN 1 END"
	switch want {
	case numberLeaf:
		value = "coalesce(v.value, " + jsonNumber("v.json") + ")"
	case textLeaf:
		value = jsonText("v.json")
	case anyLeaf:
	}
	return "(SELECT " + value + ` FROM latest_values v WHERE v.device = d.id COLLATE "C" AND v.key = ` + s.arg(key) +
		" AND (v.value IS NOT NULL OR v.json IS NOT NULL) ORDER BY least(v.time, v.arrival) DESC, v.place DESC LIMIT 1)"
}

func (postgresEngine) twin(s *selection, doc string, path []string, want leaf) string {
	var at strings.Builder
	at.WriteString("CAST(" + doc + " AS JSONB)")
	for _, name := range path {
		at.WriteString(" -> CAST(" + s.arg(name) + " AS TEXT)")
	}
	value := "CASE WHEN jsonb_typeof(j.x) <> 'null' THEN 1 END"
	switch want {
	case numberLeaf:
		value = jsonNumber("j.x")
	case textLeaf:
		value = jsonText("j.x")
	case anyLeaf:
	}
	return "(SELECT " + value + " FROM (SELECT " + at.String() + " AS x) j)"
}

// jsonNumber is the jsonb expression x as a float64. A cast alone fails beyond its range.
func jsonNumber(x string) string {
	n := "CAST(" + x + " AS NUMERIC)"
	return "CASE jsonb_typeof(" + x + ") WHEN 'number' THEN CASE WHEN " + n + " > 1.7976931348623158e308 THEN CAST('Infinity' AS DOUBLE PRECISION)" +
		" WHEN " + n + " < -1.7976931348623158e308 THEN CAST('-Infinity' AS DOUBLE PRECISION)" +
		" WHEN abs(" + n + ") < 2.4703282292062328e-324 THEN 0 ELSE CAST(" + x + " AS DOUBLE PRECISION) END" +
		" WHEN 'boolean' THEN CASE WHEN CAST(" + x + " AS BOOLEAN) THEN 1 ELSE 0 END END"
}

func jsonText(x string) string {
	return "CASE jsonb_typeof(" + x + ") WHEN 'string' THEN " + x + " #>> '{}' END"
}

func (postgresEngine) member(doc, x string) string {
	return "coalesce(CAST(" + doc + " AS JSONB) @> to_jsonb(CAST(" + x + " AS TEXT)), FALSE)"
}

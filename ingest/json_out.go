package ingest

import (
	"encoding/json"
	"math"
	"strconv"

	"muster"
)

// AppendJSON appends r's values as a JSON object, {"key":value,...} in key order:
// numbers in shortest form, booleans as true and false, holes as null.
func AppendJSON(b []byte, r *muster.Reading) []byte {
	b = append(b, '{')
	first := true
	for v := range r.Values {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = AppendString(b, v.Key.Name)
		b = append(b, ':')
		b = AppendValue(b, v)
	}
	return append(b, '}')
}

// AppendValue appends v as JSON.
func AppendValue(b []byte, v muster.Value) []byte {
	switch {
	case v.Key.Kind == muster.JSON:
		return append(b, v.Text...)
	case math.IsNaN(v.Num) || math.IsInf(v.Num, 0):
		return append(b, "null"...)
	case v.Key.Kind == muster.Bool:
		return strconv.AppendBool(b, v.Num != 0)
	}
	format := byte('f')
	if abs := math.Abs(v.Num); abs != 0 && (abs < 1e-6 || abs >= 1e21) { // as JavaScript writes them
		format = 'e'
	}
	return strconv.AppendFloat(b, v.Num, format, -1, 64)
}

// AppendString appends s as a JSON string.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			q, err := json.Marshal(s)
			if err != nil { // a string always marshals
				return append(b, `""`...)
			}
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

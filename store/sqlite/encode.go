package sqlite

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"

	"muster"
)

const (
	// holeBits is how every NaN is written, so that equal readings are equal bytes.
	holeBits = 0x7FF8000000000001
	// maxNesting is how deep a JSON value may be: SQLite reads 1,000 levels, and one
	// deeper row would break every query of the view.
	maxNesting = 500
)

// check says why a reading cannot be stored, nil when it can. Its texts are
// checked when they are written.
func check(r *muster.Reading) error {
	switch l := r.Layout; {
	case l == nil:
		return muster.Errorf(muster.Invalid, "a reading has no layout")
	case len(r.Numbers) != l.Numbers:
		return muster.Errorf(muster.Invalid, "a reading has %d numbers, its layout %d", len(r.Numbers), l.Numbers)
	case len(r.Texts) != len(l.Keys)-l.Numbers:
		return muster.Errorf(muster.Invalid, "a reading has %d texts, its layout %d", len(r.Texts), len(l.Keys)-l.Numbers)
	}
	return nil
}

func appendFloat(b []byte, f float64) []byte {
	if math.IsNaN(f) {
		return binary.BigEndian.AppendUint64(b, holeBits)
	}
	return binary.BigEndian.AppendUint64(b, math.Float64bits(f))
}

// appendTexts appends a JSON array of the texts. One that is no JSON is an Invalid
// error.
func appendTexts(b []byte, texts []string) ([]byte, error) {
	b = append(b, '[')
	for i, s := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		start := len(b)
		b = append(b, s...)
		if !json.Valid(b[start:]) {
			return b, muster.Errorf(muster.Invalid, "value %d of a reading is not JSON", i+1)
		}
		if tooDeep(b[start:]) {
			return b, muster.Errorf(muster.Invalid, "value %d of a reading is nested more than %d deep", i+1, maxNesting)
		}
	}
	return append(b, ']'), nil
}

// tooDeep reports whether valid JSON is nested more than maxNesting deep.
func tooDeep(b []byte) bool {
	if bytes.Count(b, []byte{'['})+bytes.Count(b, []byte{'{'}) <= maxNesting {
		return false
	}
	depth, quoted := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return true
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false
}

// appendExtra appends the row's extra; nothing when there is nothing to say.
func appendExtra(b []byte, r *muster.Reading) ([]byte, error) {
	switch {
	case r.Layout.Loose:
		return appendLoose(b, r)
	case len(r.Texts) == 0:
		return b, nil
	}
	return appendTexts(b, r.Texts)
}

// appendLoose appends {"keys":[[name,kind,slot],...],"values":[...]}.
func appendLoose(b []byte, r *muster.Reading) ([]byte, error) {
	b = append(b, `{"keys":[`...)
	for i, slot := range slots(r.Layout) {
		if i > 0 {
			b = append(b, ',')
		}
		k := r.Layout.Keys[i]
		name, err := json.Marshal(k.Name)
		if err != nil {
			return b, fmt.Errorf("write a key's name: %w", err)
		}
		b = append(append(b, '['), name...)
		b = strconv.AppendInt(append(b, ','), int64(k.Kind), 10)
		b = strconv.AppendInt(append(b, ','), int64(slot), 10)
		b = append(b, ']')
	}
	b, err := appendTexts(append(b, `],"values":`...), r.Texts)
	return append(b, '}'), err
}

// looseExtra is what appendLoose wrote.
type looseExtra struct {
	Keys   []looseKey        `json:"keys"`
	Values []json.RawMessage `json:"values"`
}

type looseKey muster.Key

// UnmarshalJSON reads [name,kind,slot]; the slot is for SQL and follows from the
// order here.
func (k *looseKey) UnmarshalJSON(b []byte) error {
	return json.Unmarshal(b, &[]any{&k.Name, &k.Kind})
}

// decodeExtra returns the JSON values of a row and, for a loose one, its layout.
func decodeExtra(extra []byte, isLoose bool) (*muster.Layout, []json.RawMessage, error) {
	if !isLoose {
		if len(extra) == 0 {
			return nil, nil, nil
		}
		var texts []json.RawMessage
		err := json.Unmarshal(extra, &texts)
		return nil, texts, err
	}
	var x looseExtra
	if err := json.Unmarshal(extra, &x); err != nil {
		return nil, nil, err
	}
	keys := make([]muster.Key, len(x.Keys))
	for i, k := range x.Keys {
		keys[i] = muster.Key(k)
	}
	l := muster.NewLayout(keys)
	l.Loose = true
	return l, x.Values, nil
}

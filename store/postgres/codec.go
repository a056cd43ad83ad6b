package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"muster"
	"muster/ingest"
)

// latestVals is how one device's latest values lie in jsonb: by column, so that
// 100,000 devices load fast. Numbers are those of the Number and Bool keys in
// order, texts those of the JSON keys; times are in microseconds since 1970. Of
// kinds, times and arrivals there is one entry when all are equal, as they are when
// the device sends all keys in one message.
type latestVals struct {
	Keys     []string          `json:"keys"`
	Kinds    []uint16          `json:"kinds"`
	Numbers  []jsonFloat       `json:"numbers"`
	Texts    []json.RawMessage `json:"texts"`
	Times    []muster.Micros   `json:"times"`
	Arrivals []muster.Micros   `json:"arrivals"`
}

// jsonFloat is a float64 as JSON can hold it: null is NaN, and the infinities are
// strings.
type jsonFloat float64

// MarshalJSON implements json.Marshaler.
func (f jsonFloat) MarshalJSON() ([]byte, error) { return appendNumber(nil, float64(f)), nil }

// UnmarshalJSON implements json.Unmarshaler.
func (f *jsonFloat) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case "null":
		*f = jsonFloat(math.NaN())
	case `"Infinity"`:
		*f = jsonFloat(math.Inf(1))
	case `"-Infinity"`:
		*f = jsonFloat(math.Inf(-1))
	default:
		n, err := strconv.ParseFloat(string(b), 64)
		if err != nil {
			return fmt.Errorf("read a number: %w", err)
		}
		*f = jsonFloat(n)
	}
	return nil
}

func encodeLatest(values []ingest.LatestValue) ([]byte, error) {
	var l latestVals
	for _, v := range values {
		l.Keys = append(l.Keys, v.Key.Name)
		l.Kinds = append(l.Kinds, uint16(v.Key.Kind))
		l.Times = append(l.Times, v.Time)
		l.Arrivals = append(l.Arrivals, v.Arrival)
		if v.Key.Kind == muster.JSON {
			l.Texts = append(l.Texts, json.RawMessage(v.Text))
		} else {
			l.Numbers = append(l.Numbers, jsonFloat(v.Num))
		}
	}
	l.Kinds, l.Times, l.Arrivals = short(l.Kinds), short(l.Times), short(l.Arrivals)
	b, err := json.Marshal(&l)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "a latest value is malformed")
	}
	return b, nil
}

// short cuts a list of equal entries to one.
func short[T comparable](list []T) []T {
	for _, v := range list {
		if v != list[0] {
			return list
		}
	}
	return list[:min(1, len(list))]
}

// long undoes short: it returns list, or its only entry n times.
func long[T comparable](list []T, n int) []T {
	if len(list) == 1 && n > 1 {
		return slices.Repeat(list, n)
	}
	return list
}

var errLatest = errors.New("a row of the latest values is malformed")

// decodeLatest reads what encodeLatest wrote, as the database spells it.
func decodeLatest(b []byte) ([]ingest.LatestValue, error) {
	var l latestVals
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, fmt.Errorf("%w: %w", errLatest, err)
	}
	n := len(l.Keys)
	l.Kinds, l.Times, l.Arrivals = long(l.Kinds, n), long(l.Times, n), long(l.Arrivals, n)
	if len(l.Kinds) != n || len(l.Times) != n || len(l.Arrivals) != n || len(l.Numbers)+len(l.Texts) != n {
		return nil, errLatest
	}
	out := make([]ingest.LatestValue, n)
	numbers, texts := l.Numbers, l.Texts
	for i := range out {
		v := &out[i]
		v.Key = muster.Key{Name: l.Keys[i], Kind: muster.ValueKind(l.Kinds[i])}
		v.Time, v.Arrival = l.Times[i], l.Arrivals[i]
		switch {
		case v.Key.Kind == muster.JSON && len(texts) > 0:
			v.Text, texts = string(texts[0]), texts[1:]
		case v.Key.Kind < muster.JSON && len(numbers) > 0:
			v.Num, numbers = float64(numbers[0]), numbers[1:]
		default:
			return nil, errLatest
		}
	}
	return out, nil
}

// looseVals is how a loose reading lies in jsonb.
type looseVals struct {
	Numbers  map[string]jsonFloat       `json:"n"`
	Booleans map[string]jsonFloat       `json:"b"`
	Texts    map[string]json.RawMessage `json:"j"`
}

// decodeLoose reads what appendLoose wrote into r, taking only the wanted keys.
func decodeLoose(b []byte, want wanted, r *muster.Reading) error {
	var l looseVals
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("read a loose row: %w", err)
	}
	var keys []muster.Key
	add := func(name string, kind muster.ValueKind) {
		if want.key(name) {
			keys = append(keys, muster.Key{Name: name, Kind: kind})
		}
	}
	for name := range l.Numbers {
		add(name, muster.Number)
	}
	for name := range l.Booleans {
		add(name, muster.Bool)
	}
	for name := range l.Texts {
		add(name, muster.JSON)
	}
	r.Layout = muster.NewLayout(keys)
	r.Layout.Loose = true
	for _, k := range r.Layout.Keys {
		switch k.Kind {
		case muster.Number:
			r.Numbers = append(r.Numbers, float64(l.Numbers[k.Name]))
		case muster.Bool:
			r.Numbers = append(r.Numbers, float64(l.Booleans[k.Name]))
		case muster.JSON:
			r.Texts = append(r.Texts, string(l.Texts[k.Name]))
		}
	}
	return nil
}

var errArray = errors.New("an array of numbers is malformed")

// decodeNumbers reads a float8[] in binary form; a null element is NaN. Of a null
// array it returns none.
func decodeNumbers(b []byte) ([]float64, error) {
	if len(b) == 0 || len(b) == 12 {
		return nil, nil
	}
	if len(b) < 20 || be.Uint32(b) != 1 {
		return nil, errArray
	}
	n := be.Uint32(b[12:])
	b = b[20:]
	if uint64(n)*4 > uint64(len(b)) {
		return nil, errArray
	}
	out := make([]float64, n)
	for i := range out {
		if len(b) < 4 {
			return nil, errArray
		}
		size := be.Uint32(b)
		b = b[4:]
		switch {
		case size == math.MaxUint32:
			out[i] = math.NaN()
		case size == 8 && len(b) >= 8:
			out[i] = math.Float64frombits(be.Uint64(b))
			b = b[8:]
		default:
			return nil, errArray
		}
	}
	return out, nil
}

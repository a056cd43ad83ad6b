package ingest

import (
	"hash/maphash"
	"math"
	"strconv"
	"strings"
	"time"

	"muster"
)

// rawVal is a value of the message under way: num for numbers and booleans, text
// (aliasing the payload) for the rest.
type rawVal struct {
	num  float64
	text []byte
}

// decoded is one message of a payload; its values lie in the decoder's scratch.
type decoded struct {
	time    muster.Micros // 0 when the message named none
	layout  *muster.Layout
	numbers []float64
	texts   []string
}

// refused is one message of a payload that broke a rule.
type refused struct {
	fault   fault
	payload []byte // the message's own part of the payload
}

// decoder turns payloads into messages. It keeps its scratch between calls; what
// it hands out is good until the next call.
type decoder struct {
	layouts *Layouts
	mint    func() bool // may the device make another layout
	omit    string      // see Message.Omit

	sc       scanner
	keys     []rawKey
	vals     []rawVal
	tags     []lineTag // of the line under way
	quoted   []byte    // texts of the line under way, as JSON
	names    []byte    // flattened names
	numbers  []float64
	texts    []string
	messages []decoded
	refused  []refused

	trace    Trace // of the payload, nil when nobody follows it
	traced   Traced
	arrivals []muster.Micros // of the messages of a payload that somebody follows
}

// read decodes m, taken at now.
func (d *decoder) read(m *Message, now muster.Micros) {
	d.omit = m.Omit
	if m.Form == FormLine {
		d.decodeLine(m.Payload, m.Unit, now)
		return
	}
	d.decode(m.Tail, m.Payload, now)
}

// refusal says why the first message that broke a rule did.
func (d *decoder) refusal() Refusal {
	if len(d.refused) == 0 {
		return Refusal{}
	}
	return Refusal{d.refused[0].fault.code, d.refused[0].fault.reason}
}

// decode reads payload, published at devices/{id}/telemetry with tail behind it
// (empty or "a/b"), at time now. Messages that break a rule go to d.refused, the
// rest to d.messages.
func (d *decoder) decode(tail string, payload []byte, now muster.Micros) {
	d.reset(payload)
	prefix := strings.ReplaceAll(tail, "/", ".")
	if f := d.payload(prefix, now); f != nil {
		d.messages = d.messages[:0]
		d.refused = append(d.refused[:0], refused{*f, payload})
	}
}

func (d *decoder) reset(payload []byte) {
	d.sc = scanner{b: payload}
	d.names, d.numbers, d.texts = d.names[:0], d.numbers[:0], d.texts[:0]
	d.messages, d.refused = d.messages[:0], d.refused[:0]
}

func (d *decoder) payload(prefix string, now muster.Micros) *fault {
	switch d.sc.peek() {
	case 0:
		return &fault{code: "malformed", reason: "the payload is empty"}
	case '[':
		if d.arrayOfObjects() {
			return d.array(prefix, now)
		}
		if prefix == "" {
			return d.sc.fail("an array must hold objects")
		}
	}
	start := d.sc.i
	broken, f := d.message(prefix, now)
	if f == nil {
		f = d.sc.end()
	}
	if f == nil && broken != nil {
		d.refused = append(d.refused, refused{*broken, d.sc.b[start:d.sc.i]})
	}
	return f
}

// arrayOfObjects looks past the bracket without moving.
func (d *decoder) arrayOfObjects() bool {
	at := d.sc.i
	d.sc.i++
	c := d.sc.peek()
	d.sc.i = at
	return c == '{'
}

func (d *decoder) array(prefix string, now muster.Micros) *fault {
	count := 0
	f := d.sc.members(']', func() *fault {
		if count++; count > maxArray {
			return d.sc.fail("more than " + strconv.Itoa(maxArray) + " messages in one payload")
		}
		if d.sc.peek() != '{' {
			return d.sc.fail("an array must hold objects")
		}
		start := d.sc.i
		broken, f := d.message(prefix, now)
		if f == nil && broken != nil {
			d.refused = append(d.refused, refused{*broken, d.sc.b[start:d.sc.i]})
		}
		return f
	})
	if f != nil {
		return f
	}
	return d.sc.end()
}

// message reads one object or scalar. broken says that it is well-formed but
// breaks a rule; f that the payload can not be read on.
func (d *decoder) message(prefix string, now muster.Micros) (broken, f *fault) {
	d.keys, d.vals = d.keys[:0], d.vals[:0]
	if d.sc.peek() != '{' {
		if prefix == "" {
			prefix = "value"
		}
		if f := d.value(append(d.names[len(d.names):], prefix...), 1); f != nil {
			return nil, f
		}
		return d.finish(0, now), nil
	}
	at, broken, f := d.object(prefix)
	if broken != nil || f != nil {
		return broken, f
	}
	return d.finish(at, now), nil
}

// object reads a message's object: flat values, or {"ts","values"}.
func (d *decoder) object(prefix string) (at muster.Micros, broken, f *fault) {
	const valuesKey = "values"
	inValues, badTime, omitted := false, false, false
	start := d.sc.i
	flat := 0 // values that belong to neither form's fixed keys
	f = d.sc.members('}', func() *fault {
		name, _, f := d.sc.str()
		if f != nil {
			return f
		}
		if f := d.sc.expect(':'); f != nil {
			return f
		}
		if d.omit != "" && string(name) == d.omit {
			if omitted {
				return d.sc.fail("the member " + d.omit + " is there twice")
			}
			omitted = true
			return d.sc.skip(1)
		}
		if isTime := string(name) == "ts" || string(name) == "timestamp"; isTime && at == 0 {
			if t, ok := d.timeStamp(); ok {
				at = t
				return nil
			}
			badTime = true
		} else if string(name) == valuesKey && d.sc.peek() == '{' {
			inValues = true
		} else {
			flat++
		}
		return d.value(d.join(prefix, name), 1)
	})
	if f != nil || !inValues || flat > 0 {
		return at, nil, f
	}
	if badTime {
		return 0, &fault{code: "time", reason: "ts is neither RFC 3339 nor a number of at least 1e9", at: start}, nil
	}
	skip := len(valuesKey) + 1
	if prefix != "" {
		skip += len(prefix) + 1
	}
	for i, k := range d.keys {
		if len(k.name) < skip { // "values":{}
			return 0, &fault{code: "malformed", reason: "the message has no values", at: start}, nil
		}
		d.keys[i].name = d.join(prefix, k.name[skip:])
	}
	return at, nil, nil
}

// join returns prefix.name in the names scratch, name itself when prefix is empty.
func (d *decoder) join(prefix string, name []byte) []byte {
	if prefix == "" {
		return name
	}
	start := len(d.names)
	d.names = append(d.names, prefix...)
	d.names = append(d.names, '.')
	d.names = append(d.names, name...)
	return d.names[start:]
}

// timeStamp reads the next value as a time; when it is none the scanner has not
// moved.
func (d *decoder) timeStamp() (muster.Micros, bool) {
	c := d.sc.peek()
	back := d.sc.i
	if c == '"' {
		val, _, f := d.sc.str()
		if f == nil && len(val) <= 64 {
			if t, err := time.Parse(time.RFC3339Nano, string(val)); err == nil {
				return muster.MicrosOf(t), true
			}
		}
	} else if c == '-' || isDigit(c) {
		v, raw, exact, f := d.sc.number()
		if t, ok := epoch(v, raw, exact); f == nil && ok {
			return t, true
		}
	}
	d.sc.i = back
	return 0, false
}

// epoch reads a number as a time stamp.
func epoch(v float64, raw []byte, exact bool) (muster.Micros, bool) {
	if !(v >= 1e9) || v >= math.MaxInt64 {
		return 0, false
	}
	n := int64(v)
	if !exact { // nanoseconds exceed 2^53
		if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			n = i
		}
	}
	return muster.EpochMicros(v, n)
}

// value reads any value under name; objects flatten with a point.
func (d *decoder) value(name []byte, depth int) *fault {
	if depth > maxDepth {
		return &fault{code: "malformed", reason: "nested deeper than " + strconv.Itoa(maxDepth) + " levels", at: d.sc.i}
	}
	switch c := d.sc.peek(); {
	case c == '"':
		_, raw, f := d.sc.str()
		return d.add(name, muster.JSON, 0, raw, f)
	case c == '{':
		return d.nested(name, depth)
	case c == '[':
		start := d.sc.i
		f := d.sc.skip(depth)
		return d.add(name, muster.JSON, 0, d.sc.b[start:d.sc.i], f)
	case d.sc.word("true"):
		return d.add(name, muster.Bool, 1, nil, nil)
	case d.sc.word("false"):
		return d.add(name, muster.Bool, 0, nil, nil)
	case d.sc.word("null"):
		return d.add(name, muster.Number, math.NaN(), nil, nil)
	}
	v, raw, exact, f := d.sc.number()
	if f != nil || exact {
		return d.add(name, muster.Number, v, nil, f)
	}
	return d.add(name, muster.JSON, 0, raw, nil)
}

func (d *decoder) nested(name []byte, depth int) *fault {
	before, start := len(d.keys), d.sc.i
	f := d.sc.members('}', func() *fault {
		sub, _, f := d.sc.str()
		if f != nil {
			return f
		}
		if f := d.sc.expect(':'); f != nil {
			return f
		}
		at := len(d.names)
		d.names = append(append(append(d.names, name...), '.'), sub...)
		return d.value(d.names[at:], depth+1)
	})
	if f != nil || len(d.keys) > before {
		return f
	}
	return d.add(name, muster.JSON, 0, d.sc.b[start:d.sc.i], nil) // {} holds nothing to flatten
}

func (d *decoder) add(name []byte, kind muster.ValueKind, num float64, text []byte, f *fault) *fault {
	if f != nil {
		return f
	}
	if len(d.keys) >= maxKeys {
		return &fault{code: "malformed", reason: "more than " + strconv.Itoa(maxKeys) + " values in one message", at: d.sc.i}
	}
	if len(name) == 0 || len(name) > maxKeyBytes {
		return &fault{code: "malformed", reason: "a key must have 1 to " + strconv.Itoa(maxKeyBytes) + " bytes", at: d.sc.i}
	}
	d.keys = append(d.keys, rawKey{name, kind})
	d.vals = append(d.vals, rawVal{num, text})
	return nil
}

// finish checks the message under way and adds it to the messages.
func (d *decoder) finish(at, now muster.Micros) *fault {
	if len(d.keys) == 0 {
		return &fault{code: "malformed", reason: "the message has no values"}
	}
	if at != 0 {
		if err := muster.CheckStamp(at, now); err != nil {
			return &fault{code: "time", reason: muster.Public(err)}
		}
	}
	s := d.shape()
	n0, t0 := len(d.numbers), len(d.texts)
	l := s.layout
	d.numbers = append(d.numbers, make([]float64, l.Numbers)...)
	d.texts = append(d.texts, make([]string, len(l.Keys)-l.Numbers)...)
	numbers, texts := d.numbers[n0:], d.texts[t0:]
	for i, v := range d.vals {
		switch slot := s.slot[i]; {
		case slot < 0:
		case d.keys[i].kind == muster.JSON:
			texts[slot] = string(v.text)
		default:
			numbers[slot] = v.num
		}
	}
	d.messages = append(d.messages, decoded{at, l, numbers, texts})
	return nil
}

// shape finds or makes the shape of the keys under way.
func (d *decoder) shape() *shape {
	var h maphash.Hash
	h.SetSeed(d.layouts.seed)
	for _, k := range d.keys {
		_ = h.WriteByte(byte(k.kind))
		_, _ = h.Write(k.name)
		_ = h.WriteByte(0)
	}
	sum := h.Sum64()
	if s := d.layouts.lookupShape(sum, d.keys); s != nil {
		return s
	}
	return d.layouts.addShape(sum, d.keys, d.mint)
}

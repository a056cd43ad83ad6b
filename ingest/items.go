package ingest

import (
	"encoding/json"

	"muster"
)

// DeviceMember is the member of a message in a body of many that names its device.
const DeviceMember = "device"

// Item is one message of a body.
type Item struct {
	Device  []byte // whose it is, nil when the body does not say
	Payload []byte
	Omit    string // DeviceMember when Payload says it itself, for Message.Omit
	Wrong   string // why it can be no message; empty when it can
}

// Items calls take for each message of a JSON body, in order, until it returns an error.
// A message is an object that names its device, or
//
//	[ message... ]
//	{"devices": {"d1": payload, "d2": [ payload... ]}}
//
// When the device is known beforehand (named), body is one payload as over MQTT, and of an
// array each object is a message of its own. A body that is no JSON or has another form is
// Invalid, and nothing is taken of it. What Item has aliases body.
func Items(body []byte, named bool, take func(Item) error) error {
	if !json.Valid(body) {
		return muster.Errorf(muster.Invalid, "the text is not JSON")
	}
	it := items{sc: scanner{b: body}, take: take}
	switch c := it.sc.peek(); {
	case c == '[':
		it.each(func(wrong string) { it.message(named, wrong) })
	case c == '{' && !named && it.forMany():
		it.many()
	default:
		it.message(named, "")
	}
	return it.err
}

// items walks a body that is known to be JSON.
type items struct {
	sc   scanner
	take func(Item) error
	err  error
}

// stop is what ends a walk; err says why.
func (it *items) stop() *fault {
	if it.err != nil {
		return &fault{}
	}
	return nil
}

// end keeps why a walk ended that the taker did not end.
func (it *items) end(f *fault) {
	if f != nil && it.err == nil {
		it.err = muster.Errorf(muster.Invalid, "%s", f.reason)
	}
}

// inside returns the first byte within the bracket that comes, without moving.
func (it *items) inside() byte {
	s := scanner{b: it.sc.b, i: it.sc.i + 1}
	return s.peek()
}

// each takes the elements of an array by one, which is told whether the element is no
// object; an array whose first is none is one payload.
func (it *items) each(one func(wrong string)) {
	if c := it.inside(); c != '{' && c != ']' {
		one("")
		return
	}
	it.end(it.sc.members(']', func() *fault {
		wrong := ""
		if it.sc.peek() != '{' {
			wrong = "an array must hold objects"
		}
		one(wrong)
		return it.stop()
	}))
}

// message takes the value that comes.
func (it *items) message(named bool, wrong string) {
	i := Item{Payload: it.value(), Wrong: wrong}
	if !named {
		i.Device, i.Omit = memberOf(i.Payload, DeviceMember), DeviceMember
	}
	it.err = it.take(i)
}

// value passes the value that comes and returns its text.
func (it *items) value() []byte {
	it.sc.space()
	start := it.sc.i
	it.sc.pass()
	return it.sc.b[start:it.sc.i]
}

// pass passes a value of any depth that is known to be JSON.
func (s *scanner) pass() {
	depth, text := 0, false
	for ; s.i < len(s.b); s.i++ {
		c := s.b[s.i]
		switch {
		case text && c == '\\':
			s.i++
		case c == '"':
			text = !text
		case text:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			depth--
		}
		if depth < 0 { // what is around it ends
			return
		}
		if depth > 0 || text {
			continue
		}
		if c == '}' || c == ']' || c == '"' {
			s.i++
			return
		}
		if c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			return
		}
	}
}

// forMany says whether an object has the one member devices, an object.
func (it *items) forMany() bool {
	s := it.sc
	s.i++
	if s.peek() != '"' {
		return false
	}
	name, _, f := s.str()
	if f != nil || string(name) != "devices" || s.expect(':') != nil || s.peek() != '{' {
		return false
	}
	s.pass()
	return s.peek() == '}'
}

// many takes the payloads of {"devices":{...}}.
func (it *items) many() {
	it.sc.i++
	if _, _, f := it.sc.str(); f != nil || it.sc.expect(':') != nil || it.sc.peek() != '{' {
		it.end(f) // it cannot be: forMany has read it
		return
	}
	it.end(it.sc.members('}', func() *fault {
		id, _, f := it.sc.str()
		if f == nil {
			f = it.sc.expect(':')
		}
		if f != nil {
			return f
		}
		one := func(wrong string) { it.err = it.take(Item{Device: id, Payload: it.value(), Wrong: wrong}) }
		if it.sc.peek() == '[' {
			it.each(one)
		} else {
			one("")
		}
		return it.stop()
	}))
}

// memberOf returns the text of the first member of that name of an object that is known
// to be JSON, nil when there is none.
func memberOf(object []byte, name string) (text []byte) {
	s := scanner{b: object}
	if s.peek() != '{' {
		return nil
	}
	_ = s.members('}', func() *fault { // a member that can not be read ends the search
		have, _, f := s.str()
		if f != nil {
			return f
		}
		if f := s.expect(':'); f != nil {
			return f
		}
		if string(have) != name {
			s.peek()
			s.pass()
			return nil
		}
		if s.peek() == '"' {
			text, _, _ = s.str()
		}
		return &fault{}
	})
	return text
}

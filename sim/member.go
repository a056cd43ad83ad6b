package sim

import (
	"strconv"

	"muster"
)

// The ways in which a member falls silent.
const (
	speaks  = iota // it does not
	never          // it never speaks
	stops          // it says nothing after lastWords messages
	goesOff        // its gateway says that it is gone, after as many
)

// lastWords is how many messages a member sends before it falls silent.
const lastWords = 6

// member is a device for which a connection speaks.
type member struct {
	id       muster.DeviceID
	src      source
	topic    []byte // of telemetry, with its length in front
	firmware string // what it says at first that it runs; empty when it says nothing
	silence  int    // how it falls silent
	made     int    // messages made
	last     int64  // ts of the last one, in microseconds
}

func newMember(id muster.DeviceID, src source) *member {
	return &member{id: id, src: src, topic: appendString(nil, "devices/"+string(id)+"/telemetry")}
}

// mute says that the member has nothing to say any more.
func (m *member) mute() bool {
	switch m.silence {
	case never:
		return true
	case stops:
		return m.made >= lastWords
	case goesOff:
		return m.made > lastWords
	}
	return false
}

// next returns the member whose turn it is; nil when all are mute.
func (d *device) next() *member {
	for range d.members {
		m := d.members[d.turn]
		d.turn = (d.turn + 1) % len(d.members)
		if !m.mute() {
			return m
		}
	}
	return nil
}

// encode makes the next payload of m and returns its topic: at first what it runs, then values, and a
// goodbye as the last of one that goes.
func (d *device) encode(m *member) (topic []byte) {
	m.made++
	switch {
	case m.made == 1 && m.firmware != "":
		d.payload = append(d.payload[:0], `{"firmware":{"version":"`...)
		d.payload = append(append(d.payload, m.firmware...), `"}}`...)
		return appendString(nil, "devices/"+string(m.id)+"/reported")
	case m.silence == goesOff && m.made > lastWords:
		d.payload = appendNamed(d.payload[:0], m.id)
		return appendString(nil, "v1/gateway/disconnect")
	}
	d.encodeValues(m)
	return m.topic
}

// encodeValues makes a payload whose ts is later than that of m's last, for two messages of one
// time would be one row.
func (d *device) encodeValues(m *member) {
	step, unit := int64(1000), int64(1000)
	if d.fine {
		step, unit = 1, 1
	}
	ts := d.fleet.cfg.Now().UnixMicro() / unit * unit
	dt := 0.0
	if m.last != 0 {
		ts = max(ts, m.last+step)
		dt = float64(ts-m.last) / 1e6
	}
	m.last = ts
	d.payload = append(d.payload[:0], `{"ts":`...)
	d.payload = strconv.AppendInt(d.payload, ts/unit, 10)
	d.payload = append(d.payload, `,"values":{`...)
	d.payload = m.src.append(d.payload, dt)
	d.payload = append(d.payload, '}', '}')
}

// appendNamed appends what names a device in ThingsBoard's words for gateways.
func appendNamed(b []byte, id muster.DeviceID) []byte {
	b = append(b, `{"device":"`...)
	return append(append(b, id...), `"}`...) // an id needs no escapes
}

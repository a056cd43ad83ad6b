package ingest

import (
	"strings"

	"muster"
)

// Previewed is one message as Accept would take it.
type Previewed struct {
	Time   muster.Micros // 0 when the message names none
	Values []byte        // a JSON object: see AppendJSON
}

// Preview says what Accept would make of a payload at a topic, which need not be a
// telemetry topic: the messages it would keep, and why it would reject what it would not.
// It keeps nothing. At most 1,000 messages of a payload are read, as by Accept.
func Preview(topic string, payload []byte, now muster.Micros) (messages []Previewed, rejected []string) {
	_, tail, _ := strings.Cut(topic, "/telemetry/")
	d := &decoder{layouts: NewLayouts(), mint: func() bool { return true }}
	d.decode(tail, payload, now)
	for _, m := range d.messages {
		r := muster.Reading{Layout: m.layout, Numbers: m.numbers, Texts: m.texts}
		messages = append(messages, Previewed{m.time, AppendJSON(nil, &r)})
	}
	for _, f := range d.refused {
		rejected = append(rejected, f.fault.reason)
	}
	return messages, rejected
}

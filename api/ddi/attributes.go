package ddi

import (
	"encoding/json"
	"strconv"

	"muster"
	"muster/firmware/rollout"
)

// Mode says what becomes of the attributes that a device told before.
type Mode string

// The modes of hawkBit's DdiUpdateMode.
const (
	Merge   Mode = "merge" // the default
	Replace Mode = "replace"
	Remove  Mode = "remove" // those that are named, whatever their values
)

// Limits of attributes.
const (
	MaxAttributes = 100
	maxName       = 128 // bytes
	maxValue      = 512 // likewise
)

// ParseAttributes reads hawkBit's configData. A value is text, a number or a boolean.
func ParseAttributes(text []byte) (Mode, map[string]string, error) {
	var b struct {
		Mode Mode           `json:"mode"`
		Data map[string]any `json:"data"`
	}
	if err := decode(text, &b); err != nil {
		return "", nil, err
	}
	switch b.Mode {
	case "":
		b.Mode = Merge
	case Merge, Replace, Remove:
	default:
		return "", nil, muster.InvalidAt("mode", "mode is not merge, replace or remove")
	}
	if b.Data == nil {
		return "", nil, muster.InvalidAt("data", "data is missing")
	}
	if len(b.Data) > MaxAttributes {
		return "", nil, muster.InvalidAt("data", "there are %d attributes, at most %d are allowed", len(b.Data), MaxAttributes)
	}
	out := make(map[string]string, len(b.Data))
	for name, v := range b.Data {
		if name == "" || len(name) > maxName {
			return "", nil, muster.InvalidAt("data", "the name of an attribute has 1 to %d bytes", maxName)
		}
		value, ok := textOf(v)
		if !ok && b.Mode != Remove || len(value) > maxValue {
			return "", nil, muster.InvalidAt("data", "the value of an attribute is text, a number or a boolean of at most %d bytes", maxValue)
		}
		out[name] = value
	}
	return b.Mode, out, nil
}

func textOf(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case bool:
		return strconv.FormatBool(v), true
	case float64:
		text, err := json.Marshal(v)
		return string(text), err == nil
	}
	return "", false
}

// configData takes what a device says about itself. It is there then, also where it has not polled yet.
func (h *Handler) configData(w *recorder, q *request) {
	text, err := h.body(w, q)
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	mode, values, err := ParseAttributes(text)
	if err == nil {
		err = h.Attributes.Attributes(q.Context(), q.device, mode, values)
	}
	if err == nil && h.Asked != nil {
		_, err = h.Asked(q.Context(), q.device)
	}
	if err != nil {
		h.refuse(w, q, err)
		return
	}
	o, err := h.offer(q)
	h.memory.with(q.device, func(s *seen) {
		s.attributes = true
		if err == nil && !o.Stop && o.State == rollout.Rebooting {
			s.of(o.Action).asked = true
		}
	})
	done(w)
}

package live

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"muster"
)

// command is one object of a client's frame, with the fields of every type.
type command struct {
	T     string          `json:"t"`
	ID    *int64          `json:"id"`
	Token string          `json:"token"`
	Ch    string          `json:"ch"`
	Q     string          `json:"q"`
	Sort  string          `json:"sort"`
	After string          `json:"after"`
	Limit *int            `json:"limit"`
	Cols  []string        `json:"cols"`
	Types string          `json:"types"`
	Edits string          `json:"edits"`
	On    *bool           `json:"on"`
	TS    *int64          `json:"ts"`
	Notes []string        `json:"n"`
	State string          `json:"state"`
	Note  string          `json:"note"`
	Topic string          `json:"topic"`
	Msg   json.RawMessage `json:"msg"`
	Key   string          `json:"key"`
	By    string          `json:"by"`

	Version *uint64 `json:"version"`
	From    *int    `json:"from"`
	To      *int    `json:"to"`

	fault string // why it cannot be obeyed
}

const maxBatch = 128 // objects in one frame

// parse returns the commands of a frame: an object, or an array of objects. What
// is wrong with one of them stands in its fault.
func parse(data []byte) ([]command, error) {
	data = bytes.TrimLeft(data, " \t\r\n")
	if len(data) == 0 || data[0] != '[' {
		if !json.Valid(data) {
			return nil, muster.Errorf(muster.Invalid, "the frame is not JSON")
		}
		return []command{parseOne(data)}, nil
	}
	var raw []json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the frame is not JSON")
	}
	if len(raw) > maxBatch {
		return nil, muster.Errorf(muster.Invalid, "the frame has %d commands, at most %d are allowed", len(raw), maxBatch)
	}
	cmds := make([]command, len(raw))
	for i := range raw {
		cmds[i] = parseOne(raw[i])
	}
	return cmds, nil
}

func parseOne(data []byte) command {
	var cmd command
	err := json.Unmarshal(data, &cmd)
	wrong, isType := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case err == nil && data[0] != '{': // null
		cmd.fault = "a command is an object"
	case isType && wrong.Field == "":
		cmd.fault = "a command is an object"
	case isType:
		cmd.fault = fmt.Sprintf("the field %q cannot be a %s", wrong.Field, wrong.Value)
	case err != nil:
		cmd.fault = "the command cannot be read"
	}
	return cmd
}

// bucket is a token bucket for commands, and a count of those refused.
type bucket struct {
	used    float64 // of the burst
	at      time.Time
	refuses int
	since   time.Time
}

func (b *bucket) take(now time.Time, burst int) bool {
	if !b.at.IsZero() {
		b.used = max(0, b.used-now.Sub(b.at).Seconds()*float64(burst)/commandsRefill.Seconds())
	}
	b.at = now
	if b.used+1 > float64(burst) {
		return false
	}
	b.used++
	return true
}

// refused counts a refusal and returns how many there were in the window.
func (b *bucket) refused(now time.Time) int {
	if now.Sub(b.since) > refusalWindow {
		b.since, b.refuses = now, 0
	}
	b.refuses++
	return b.refuses
}

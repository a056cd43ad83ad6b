package devices

import (
	"encoding/base64"
	"encoding/binary"
	"slices"

	"muster"
)

// historyVersion begins a history as it is kept.
const historyVersion = 1

// maxHistoryText is the longest history as it is kept, in bytes: base64 of a version,
// four numbers and two for each day and mark, of at most five bytes.
const maxHistoryText = (1 + 5*(5+2*maxDays+2*maxMarks)) * 4 / 3

// encode writes a history as base64 of numbers in LEB128: since, upto, first, the days' two
// numbers, and the marks' states and times after the mark before.
func (h *history) encode() string {
	b := make([]byte, 0, 64+6*len(h.days)+4*len(h.marks))
	b = append(b, historyVersion)
	b = binary.AppendUvarint(b, uint64(h.since))
	b = binary.AppendUvarint(b, uint64(h.upto))
	b = binary.AppendUvarint(b, uint64(h.first))
	b = binary.AppendUvarint(b, uint64(len(h.days)))
	for _, d := range h.days {
		b = binary.AppendUvarint(b, uint64(d.online))
		b = binary.AppendUvarint(b, uint64(d.offline))
	}
	b = binary.AppendUvarint(b, uint64(len(h.marks)))
	var last uint32
	for _, m := range h.marks {
		b = append(b, byte(m.state))
		b = binary.AppendUvarint(b, uint64(m.at-last))
		last = m.at
	}
	return base64.RawStdEncoding.EncodeToString(b)
}

// decodeHistory reads what encode wrote, or answers Invalid.
func decodeHistory(text string) (*history, error) {
	if len(text) > maxHistoryText {
		return nil, errHistory()
	}
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 || b[0] != historyVersion {
		return nil, errHistory()
	}
	n := numbers{b: b[1:]}
	h := &history{
		since: uint32(n.next(1<<32 - 1)), upto: uint32(n.next(1<<32 - 1)), first: int32(n.next((1<<32 - 1) / daySeconds)),
	}
	days := int(n.next(maxDays))
	for range days {
		h.days = append(h.days, spent{uint32(n.next(daySeconds)), uint32(n.next(daySeconds))})
	}
	marks := int(n.next(maxMarks))
	var at uint64
	for range marks {
		s := state(n.next(uint64(len(stateNames) - 1)))
		at += n.next(1<<32 - 1)
		if at > 1<<32-1 {
			n.bad = true
		}
		h.marks = append(h.marks, moment{uint32(at), s})
	}
	if n.bad || len(n.b) > 0 || marks == 0 || !h.sound() {
		return nil, errHistory()
	}
	return h, nil
}

// sound says whether h could have been written.
func (h *history) sound() bool {
	for _, d := range h.days {
		if d.online+d.offline > daySeconds {
			return false
		}
	}
	return !slices.ContainsFunc(h.marks, func(m moment) bool { return int(m.state) >= len(stateNames) })
}

func errHistory() error { return muster.Errorf(muster.Invalid, "a presence history cannot be read") }

// numbers reads a list of numbers; bad stays true after the first that is wrong.
type numbers struct {
	b   []byte
	bad bool
}

func (n *numbers) next(most uint64) uint64 {
	v, size := binary.Uvarint(n.b)
	if n.bad || size <= 0 || v > most {
		n.bad = true
		return 0
	}
	n.b = n.b[size:]
	return v
}

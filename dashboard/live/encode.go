package live

import (
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"muster"
	"muster/devices"
	"muster/ingest"
)

// The longest JSON text of one value that is sent whole. Of a longer one a string
// with its beginning and an ellipsis is sent.
const (
	maxListText = 512
	maxPageText = 8 << 10
)

// appendListItem appends r as it stands in a snapshot of a list.
func (r *row) appendListItem(b []byte, cols []string) []byte {
	b = append(b, `{"id":`...)
	b = appendString(b, string(r.id))
	for f := range fieldsInList {
		if f != fieldMore || len(r.cells) > maxListKeys && cols == nil {
			b = r.appendField(append(b, ','), f)
		}
	}
	b = append(b, `,"values":{`...)
	first := true
	for i := range r.cells {
		if c := &r.cells[i]; c.shown(cols) {
			b = appendComma(b, &first)
			b = c.appendShort(b)
		}
	}
	return append(b, "}}"...)
}

// appendListPatch appends `"id":{...}` with what lists show of r and changed
// after pass since; nothing when nothing did. Without cols the bytes are shared.
func (r *row) appendListPatch(b []byte, since uint64, cols []string) []byte {
	if cols != nil {
		return r.encodeListPatch(b, since, cols)
	}
	at := r.listAt
	if at <= since {
		return b
	}
	for i := range r.patch {
		if p := &r.patch[i]; p.body != nil && p.since == since && p.at == at {
			return append(b, p.body...)
		}
	}
	r.patch[0], r.patch[1] = r.patch[1], r.patch[0]
	p := &r.patch[0]
	p.since, p.at, p.body = since, at, r.encodeListPatch(p.body[:0], since, nil)
	return append(b, p.body...)
}

func (r *row) encodeListPatch(b []byte, since uint64, cols []string) []byte {
	start := len(b)
	b = appendString(b, string(r.id))
	b = append(b, ':', '{')
	first := true
	for f := range fieldsInList {
		if r.changed[f] > since && (f != fieldMore || len(r.cells) > maxListKeys && cols == nil) {
			b = appendComma(b, &first)
			b = r.appendField(b, f)
		}
	}
	values := true
	for i := range r.cells {
		c := &r.cells[i]
		if c.pass <= since || !c.shown(cols) {
			continue
		}
		if values {
			b = appendComma(b, &first)
			b = append(b, `"values":{`...)
		}
		b = appendComma(b, &values)
		b = c.appendShort(b)
	}
	if first {
		return b[:start]
	}
	if !values {
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendPage appends the members of r's page that changed after pass since;
// whole is for a snapshot, with the members that never change.
func (r *row) appendPage(b []byte, since uint64, whole bool) []byte {
	b = append(b, '{')
	first := true
	if whole {
		b = append(b, `"id":`...)
		b = appendString(b, string(r.id))
		b = append(b, `,"created_at":`...)
		b = appendMillis(b, r.state.Created)
		first = false
	}
	for f := range fieldCount {
		if f == fieldMore || !whole && r.changed[f] <= since {
			continue
		}
		b = appendComma(b, &first)
		b = r.appendField(b, f)
	}
	values := true
	for i := range r.cells {
		c := &r.cells[i]
		if c.rank >= maxPageKeys || !whole && c.pass <= since {
			continue
		}
		if values {
			b = appendComma(b, &first)
			b = append(b, `"values":{`...)
		}
		b = appendComma(b, &values)
		b = c.appendLong(b)
	}
	switch {
	case !values:
		b = append(b, '}')
	case whole:
		b = append(b, `,"values":{}`...)
	}
	return append(b, '}')
}

func (r *row) appendField(b []byte, f field) []byte {
	switch f {
	case fieldName:
		return appendString(append(b, `"name":`...), r.state.Name)
	case fieldState:
		return appendString(append(b, `"state":`...), string(r.state.State))
	case fieldStatus:
		return appendString(append(b, `"status":`...), string(r.state.Status))
	case fieldSince:
		return appendMillis(append(b, `"since":`...), r.state.Since)
	case fieldSeen:
		return appendMillis(append(b, `"last_seen":`...), r.state.LastSeen)
	case fieldReason:
		return appendString(append(b, `"reason":`...), r.state.Reason)
	case fieldParent:
		return appendString(append(b, `"parent":`...), string(r.state.Parent))
	case fieldProfile:
		return appendString(append(b, `"profile":`...), r.state.Profile)
	case fieldFirmware:
		return appendString(append(b, `"firmware":`...), r.state.Firmware)
	case fieldGroups:
		return appendGroups(append(b, `"groups":[`...), r.state.Groups)
	case fieldTags:
		return appendTags(append(b, `"tags":{`...), r.state.Tags)
	case fieldMore:
		return strconv.AppendInt(append(b, `"more":`...), int64(len(r.cells)-maxListKeys), 10)
	case fieldConnection:
		return appendConnection(append(b, `"connection":`...), r.state.Connection)
	default:
		return appendLedger(append(b, `"ledger":`...), r.ledger)
	}
}

func (it FleetItem) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"total":`...), int64(it.Total), 10)
	b = it.Counts.append(append(b, `,"counts":`...))
	b = appendNumber(append(b, `,"rates":{"received":`...), it.Rates.Received)
	b = appendNumber(append(b, `,"stored":`...), it.Rates.Stored)
	b = strconv.AppendUint(append(b, `},"queued":`...), it.Queued, 10)
	b = strconv.AppendInt(append(b, `,"log_bytes":`...), it.LogBytes, 10)
	b = appendString(append(b, `,"store":`...), it.Store)
	b = strconv.AppendUint(append(b, `,"storing":{"batches":`...), it.Storing.Batches, 10)
	b = appendNumber(append(b, `,"p99_ms":`...), it.Storing.P99)
	b = strconv.AppendInt(append(b, `},"commands":{"ended":`...), it.Commands.Ended, 10)
	b = strconv.AppendInt(append(b, `,"acked":`...), it.Commands.Acked, 10)
	b = it.Change.append(append(b, `},"change":`...))
	return append(b, '}')
}

func (c FleetCounts) append(b []byte) []byte {
	b = PresenceCounts{c.Online, c.Offline, c.Never, c.Unknown, c.Quiet}.members(b)
	return append(strconv.AppendInt(append(b, `,"updating":`...), int64(c.Updating), 10), '}')
}

func (c PresenceCounts) append(b []byte) []byte { return append(c.members(b), '}') }

func (c PresenceCounts) members(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"online":`...), int64(c.Online), 10)
	b = strconv.AppendInt(append(b, `,"offline":`...), int64(c.Offline), 10)
	b = strconv.AppendInt(append(b, `,"never":`...), int64(c.Never), 10)
	b = strconv.AppendInt(append(b, `,"unknown":`...), int64(c.Unknown), 10)
	return strconv.AppendInt(append(b, `,"quiet":`...), int64(c.Quiet), 10)
}

func (c *FleetChange) append(b []byte) []byte {
	b = appendMillis(append(b, `{"since":`...), c.Since)
	b = c.Counts.append(append(b, `,"counts":`...))
	b = strconv.AppendInt(append(b, `,"silent":`...), int64(c.Silent), 10)
	if c.Cause.Kind == "" {
		return append(b, '}')
	}
	b = appendString(append(b, `,"cause":{"kind":`...), c.Cause.Kind)
	b = appendString(append(b, `,"name":`...), c.Cause.Name)
	b = appendString(append(b, `,"state":`...), string(c.Cause.State))
	b = strconv.AppendInt(append(b, `,"devices":`...), int64(c.Cause.Devices), 10)
	b = strconv.AppendInt(append(b, `,"together":`...), int64(c.Cause.Together), 10)
	b = appendMillis(append(b, `,"at":`...), c.Cause.At)
	return append(b, "}}"...)
}

func appendGroups(b []byte, groups devices.Groups) []byte {
	first := true
	for name := range groups.All() {
		b = appendString(appendComma(b, &first), name)
	}
	return append(b, ']')
}

func appendTags(b []byte, tags devices.Tags) []byte {
	first := true
	for key, value := range tags.All() {
		b = append(appendString(appendComma(b, &first), key), ':')
		b = appendString(b, value)
	}
	return append(b, '}')
}

func appendConnection(b []byte, c *devices.Connection) []byte {
	if c == nil {
		return append(b, "null"...)
	}
	b = appendString(append(b, `{"peer":`...), c.Peer)
	b = appendString(append(b, `,"client_id":`...), c.ClientID)
	b = strconv.AppendInt(append(b, `,"protocol":`...), int64(c.Protocol), 10)
	b = appendString(append(b, `,"transport":`...), c.Transport)
	b = strconv.AppendInt(append(b, `,"keep_alive_s":`...), int64(c.KeepAlive.Seconds()), 10)
	b = strconv.AppendInt(append(b, `,"since":`...), c.At.UnixMilli(), 10)
	return append(b, '}')
}

func appendLedger(b []byte, l ingest.Ledger) []byte {
	b = strconv.AppendUint(append(b, `{"received":`...), l.Received, 10)
	b = strconv.AppendUint(append(b, `,"recovered":`...), l.Recovered, 10)
	b = strconv.AppendUint(append(b, `,"stored":`...), l.Stored, 10)
	b = strconv.AppendUint(append(b, `,"duplicate":`...), l.Duplicate, 10)
	b = strconv.AppendUint(append(b, `,"replaced":`...), l.Replaced, 10)
	b = strconv.AppendUint(append(b, `,"rejected":`...), l.Rejected, 10)
	b = strconv.AppendUint(append(b, `,"dropped":`...), l.Dropped, 10)
	b = strconv.AppendUint(append(b, `,"queued":`...), l.Queued, 10)
	return append(b, '}')
}

// appendShort appends `"key":[value,time]`, as lists have it.
func (c *cell) appendShort(b []byte) []byte {
	b = appendString(b, c.v.Key.Name)
	b = append(b, ':', '[')
	b = appendValue(b, c.v.Value, maxListText)
	b = append(b, ',')
	b = appendMillis(b, c.v.Time)
	return append(b, ']')
}

// appendLong appends `"key":{"v","time","arrival"}`, as a device's page has it.
func (c *cell) appendLong(b []byte) []byte {
	b = appendString(b, c.v.Key.Name)
	b = append(b, `:{"v":`...)
	b = appendValue(b, c.v.Value, maxPageText)
	b = append(b, `,"time":`...)
	b = appendMillis(b, c.v.Time)
	b = append(b, `,"arrival":`...)
	b = appendMillis(b, c.v.Arrival)
	return append(b, '}')
}

func appendValue(b []byte, v muster.Value, maxText int) []byte {
	switch {
	case v.Key.Kind == muster.JSON && v.Text == "":
		return append(b, "null"...)
	case v.Key.Kind == muster.JSON && len(v.Text) > maxText:
		return appendString(b, beginning(v.Text, maxText/2)+"…")
	case v.Key.Kind == muster.JSON:
		return append(b, v.Text...)
	case v.Key.Kind == muster.Bool && !math.IsNaN(v.Num):
		return strconv.AppendBool(b, v.Num != 0)
	default:
		return appendNumber(b, v.Num)
	}
}

// beginning returns at most n bytes of s, cut between characters.
func beginning(s string, n int) string {
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// appendNumber appends f as JSON has it: a hole (NaN) is null, and so is an
// infinity.
func appendNumber(b []byte, f float64) []byte {
	switch abs := math.Abs(f); {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return append(b, "null"...)
	case abs != 0 && (abs < 1e-6 || abs >= 1e21):
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	default:
		return strconv.AppendFloat(b, f, 'f', -1, 64)
	}
}

// appendMillis appends m in milliseconds, rounded down.
func appendMillis(b []byte, m muster.Micros) []byte {
	return strconv.AppendInt(b, m.Time().UnixMilli(), 10)
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always marshals
				quoted = []byte(`""`)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendComma(b []byte, first *bool) []byte {
	if *first {
		*first = false
		return b
	}
	return append(b, ',')
}

package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices/trail"
	"muster/ingest"
)

// EventPager gives what happened on devices.
type EventPager interface {
	Page(ctx context.Context, q trail.EventQuery) ([]trail.Event, *trail.EventPlace, error)
}

// LogPager gives what devices logged.
type LogPager interface {
	Page(ctx context.Context, q trail.PageQuery) ([]trail.PlacedLine, *trail.LinePlace, error)
}

// TraceReader gives the last messages of a device.
type TraceReader interface {
	Messages(device muster.DeviceID) []trail.Message
}

// Trail is what devices tell beside values, and what became of all they sent.
type Trail struct {
	Events EventPager
	Logs   LogPager
	Trace  TraceReader
}

type event struct {
	Type    string          `json:"type"`
	Time    string          `json:"time" format:"date-time" doc:"The device's own, or arrival"`
	Arrival string          `json:"arrival" format:"date-time"`
	Source  string          `json:"source" enum:"device,system" doc:"system for what Muster itself noticed"`
	By      muster.DeviceID `json:"by,omitempty" doc:"The gateway that published it"`
	Payload rawJSON         `json:"payload"`
}

type logLine struct {
	Time    string  `json:"time" format:"date-time" doc:"The device's own, or arrival"`
	Arrival string  `json:"arrival" format:"date-time" doc:"Of the first of the lines that were stored together"`
	Level   string  `json:"level" enum:"debug,info,warn,error"`
	Text    string  `json:"text"`
	Fields  rawJSON `json:"fields" doc:"What else the line said, null for nothing"`
}

// traced is a message as the trace shows it.
type traced struct {
	Kind        string          `json:"kind" enum:"telemetry,reported,event,log,result,other"`
	Topic       string          `json:"topic"`
	By          muster.DeviceID `json:"by,omitempty" doc:"The gateway that published it"`
	QoS         int             `json:"qos"`
	Payload     []byte          `json:"payload" doc:"The first 4 KiB"`
	PayloadText *string         `json:"payload_text,omitempty" doc:"The same, when it is UTF-8"`
	Size        int             `json:"size" doc:"Bytes of the whole payload"`
	Decoded     rawJSON         `json:"decoded" doc:"Telemetry: the first 10 of its readings with time, values and verdict. Log: its lines. Else its JSON. Null when there is nothing to show"`
	Count       int             `json:"count" doc:"Readings of a telemetry message"`
	Verdict     string          `json:"verdict" enum:"stored,duplicate,replaced,rejected,dropped,pending" doc:"The worst of its readings'"`
	Code        string          `json:"code,omitempty" doc:"Why it was rejected"`
	Reason      string          `json:"reason,omitempty"`
	ReceivedAt  string          `json:"received_at" format:"date-time"`
	DecodedAt   *string         `json:"decoded_at" format:"date-time"`
	DurableAt   *string         `json:"durable_at" format:"date-time" doc:"In the log; null for what goes to the store at once"`
	AckedAt     *string         `json:"acked_at" format:"date-time" doc:"Null for QoS 0"`
	StoredAt    *string         `json:"stored_at" format:"date-time"`
}

// item is a reading of a traced message, or what was refused of it.
type item struct {
	Time    string  `json:"time,omitempty"`
	Arrival string  `json:"arrival,omitempty"`
	Values  rawJSON `json:"values,omitempty"`
	Verdict string  `json:"verdict"`
	Code    string  `json:"code,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

func (a *API) trailRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-events", Method: http.MethodGet, Path: "/devices/{device}/events", Tags: []string{"devices"},
		Summary: "A device's events, the newest first", Errors: []int{404},
	}, a.listEvents)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-log-lines", Method: http.MethodGet, Path: "/devices/{device}/logs", Tags: []string{"devices"},
		Summary: "A device's log lines, the newest first", Errors: []int{404},
	}, a.listLogs)
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-trace", Method: http.MethodGet, Path: "/devices/{device}/trace", Tags: []string{"devices"},
		Summary:     "The last 20 messages of a device, the newest first, and what became of each",
		Description: "Since the server's start, at most 10 a second. In large fleets all of a device's messages are followed for 15 minutes from this request on, and a share before it.",
		Errors:      []int{404},
	}, a.getTrace)
}

func (a *API) listEvents(ctx context.Context, in *struct {
	DevicePath
	Type   string `query:"type" maxLength:"64" doc:"Only events of this type"`
	From   string `query:"from" maxLength:"64" doc:"First time: RFC 3339 or now-3h; the beginning when absent"`
	To     string `query:"to" maxLength:"64" doc:"Time before which to end, the same way; the end when absent"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"512" doc:"The cursor of the page before"`
},
) (*body[page[event]], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	if strings.IndexByte(in.Type, 0) >= 0 { // PostgreSQL can not even be asked for it
		return lone([]event{}), nil
	}
	q := trail.EventQuery{Device: id, Type: in.Type, Limit: in.Limit, Before: trail.EventPlace{Time: math.MaxInt64}}
	if q.From, err = a.when(in.From, 0); err != nil {
		return nil, muster.At(err, "from")
	}
	if q.Before.Time, err = a.when(in.To, math.MaxInt64); err != nil {
		return nil, muster.At(err, "to")
	}
	if in.Cursor != "" {
		if err := readCursor(in.Cursor, &q.Before); err != nil {
			return nil, err
		}
	}
	found, next, err := a.Trail.Events.Page(ctx, q)
	if err != nil {
		return nil, err
	}
	items := make([]event, len(found))
	for i, e := range found {
		items[i] = event{
			Type: e.Type, Time: stamp(e.Time), Arrival: stamp(e.Arrival), Source: "device", By: e.By, Payload: rawJSON(e.Payload),
		}
		if e.System {
			items[i].Source = "system"
		}
	}
	if next == nil {
		return list(items, ""), nil
	}
	return list(items, writeCursor(next)), nil
}

// when reads a point in time; absent it is other.
func (a *API) when(s string, other muster.Micros) (muster.Micros, error) {
	if s == "" {
		return other, nil
	}
	return parseWhen(s, a.Now())
}

// writeCursor makes a cursor of a place.
func writeCursor(place any) string {
	b, err := json.Marshal(place)
	if err != nil { // places are integers
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// readCursor reads what writeCursor made of a place of the same type.
func readCursor(s string, place any) error {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, place)
	}
	if err != nil {
		return errCursor()
	}
	return nil
}

func (a *API) listLogs(ctx context.Context, in *struct {
	DevicePath
	Level  string `query:"level" default:"debug" enum:"debug,info,warn,error" doc:"Only lines at least as grave"`
	Q      string `query:"q" maxLength:"200" doc:"Only lines whose text or fields contain this, without regard to case"`
	From   string `query:"from" maxLength:"64" doc:"Only lines that arrived since: RFC 3339 or now-3h"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	Cursor string `query:"cursor" maxLength:"512" doc:"The cursor of the page before"`
},
) (*body[page[logLine]], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	q := trail.PageQuery{Device: id, Text: in.Q, Limit: in.Limit, Before: trail.LinePlace{Arrival: math.MaxInt64}}
	if q.Level, err = trail.ParseLevel(in.Level); err != nil {
		return nil, err
	}
	if q.From, err = a.when(in.From, 0); err != nil {
		return nil, muster.At(err, "from")
	}
	if in.Cursor != "" {
		if err := readCursor(in.Cursor, &q.Before); err != nil {
			return nil, err
		}
	}
	found, next, err := a.Trail.Logs.Page(ctx, q)
	if err != nil {
		return nil, err
	}
	items := make([]logLine, len(found))
	for i, l := range found {
		items[i] = lineOf(l.Line)
		items[i].Arrival = stamp(l.Place.Arrival)
	}
	if next == nil {
		return list(items, ""), nil
	}
	return list(items, writeCursor(next)), nil
}

func lineOf(l trail.Line) logLine {
	out := logLine{Time: stamp(l.Time), Level: l.Level.String(), Text: l.Text, Fields: rawJSON("null")}
	if l.Fields != "" {
		out.Fields = rawJSON(l.Fields)
	}
	return out
}

func (a *API) getTrace(_ context.Context, in *DevicePath) (*body[page[traced]], error) {
	id, err := a.existing(*in)
	if err != nil {
		return nil, err
	}
	found := a.Trail.Trace.Messages(id)
	items := make([]traced, len(found))
	for i := range found {
		items[i] = tracedOf(&found[i])
	}
	return list(items, ""), nil
}

func tracedOf(m *trail.Message) traced {
	out := traced{
		Kind: m.Kind, Topic: m.Topic, By: m.By, QoS: int(m.QoS), Payload: append([]byte{}, m.Raw...), Size: m.Size, Decoded: decodedOf(m),
		Count: m.Count, Verdict: m.Verdict, Code: m.Code, Reason: m.Reason, ReceivedAt: stamp(m.Received),
		DecodedAt: stampOrNull(m.Decoded), DurableAt: stampOrNull(m.Durable), AckedAt: stampOrNull(m.Acked), StoredAt: stampOrNull(m.Stored),
	}
	if text, ok := textOf(m.Raw, m.Size); ok {
		out.PayloadText = &text
	}
	return out
}

// textOf returns raw as text when it is UTF-8, without a last character that was cut.
func textOf(raw []byte, size int) (string, bool) {
	for n := 0; n < utf8.UTFMax && n <= len(raw) && (n == 0 || len(raw) < size); n++ {
		if utf8.Valid(raw[:len(raw)-n]) {
			return string(raw[:len(raw)-n]), true
		}
	}
	return "", false
}

// decodedOf shows what Muster read out of m.
func decodedOf(m *trail.Message) rawJSON {
	var v any
	whole := len(m.Raw) == m.Size
	switch {
	case len(m.Items) > 0:
		v = itemsOf(m)
	case m.Kind == "log" && whole:
		lines, err := trail.ParseLines(m.Raw, m.Received)
		if err != nil {
			return rawJSON("null")
		}
		shown := make([]logLine, len(lines))
		for i, l := range lines {
			shown[i] = lineOf(l)
			shown[i].Arrival = stamp(m.Received)
		}
		v = shown
	case whole && utf8.Valid(m.Raw) && json.Valid(m.Raw):
		return m.Raw
	}
	b, err := json.Marshal(v)
	if err != nil { // strings, and JSON that was decoded before
		return rawJSON("null")
	}
	return b
}

func itemsOf(m *trail.Message) []item {
	items := make([]item, len(m.Items))
	for i := range m.Items {
		it := &m.Items[i]
		items[i] = item{Verdict: it.Verdict, Code: it.Code, Reason: it.Reason}
		if it.Layout != nil {
			items[i].Values = ingest.AppendJSON(nil, &it.Reading)
		}
		if it.Time != 0 {
			items[i].Time = stamp(it.Time)
		}
		if it.Arrival != 0 {
			items[i].Arrival = stamp(it.Arrival)
		}
	}
	return items
}

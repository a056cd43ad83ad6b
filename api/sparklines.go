package api

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/ingest"
)

const (
	maxSparklines = 100 // devices at once
	maxSparkReads = 600 // readings of a device that are looked at, the newest
)

// sparklines are small lines of one key, for many devices on one axis.
type sparklines struct {
	Key   string      `json:"key"`
	From  string      `json:"from" format:"date-time"`
	To    string      `json:"to" format:"date-time"`
	Items []sparkline `json:"items" nullable:"false" doc:"Devices that are not there are left out"`
}

// sparkline has as many points as were asked for, evenly spaced.
type sparkline struct {
	Device muster.DeviceID `json:"device"`
	Min    []*float64      `json:"min" nullable:"false" doc:"The least value of each point, null where there is no reading"`
	Max    []*float64      `json:"max" nullable:"false" doc:"The greatest value of each point"`
	Since  *string         `json:"since" format:"date-time" doc:"The oldest reading that was looked at, when there are more before it; else null"`
}

func (a *API) sparklineRoute() {
	route(a, accounts.TelemetryRead, huma.Operation{
		OperationID: "list-sparklines", Method: http.MethodGet, Path: "/devices:sparklines", Tags: []string{"telemetry"},
		Summary: "Read one key of many devices as small lines",
		Description: "Each line has the least and the greatest number within each of its points; true and false are 1 and 0, texts are left out. " +
			"The newest 600 readings of a device are looked at.",
	}, a.listSparklines)
}

func (a *API) listSparklines(ctx context.Context, in *struct {
	IDs    string `query:"ids" required:"true" minLength:"1" maxLength:"16384" doc:"Comma-separated ids of devices, at most 100"`
	Key    string `query:"key" required:"true" minLength:"1" maxLength:"256" doc:"A key of telemetry"`
	From   string `query:"from" default:"now-1h" maxLength:"64" doc:"First time: RFC 3339 or now-3h"`
	To     string `query:"to" default:"now" maxLength:"64" doc:"Time before which to end, the same way"`
	Points int    `query:"points" default:"32" minimum:"2" maximum:"200" doc:"How many points a line has"`
},
) (*body[sparklines], error) {
	ids, err := parseIDs(in.IDs)
	if err != nil {
		return nil, err
	}
	if strings.ContainsRune(in.Key, 0) {
		return nil, muster.InvalidAt("key", "no key has a NUL")
	}
	now := a.Now()
	q := ingest.RangeQuery{Keys: []string{in.Key}, Limit: maxSparkReads, Desc: true}
	if q.From, err = parseWhen(in.From, now); err != nil {
		return nil, muster.At(err, "from")
	}
	if q.To, err = parseWhen(in.To, now); err != nil {
		return nil, muster.At(err, "to")
	}
	if q.To <= q.From {
		return nil, muster.InvalidAt("to", "to must be after from")
	}
	out := sparklines{Key: in.Key, From: stamp(q.From), To: stamp(q.To), Items: make([]sparkline, 0, len(ids))}
	for _, id := range ids {
		if _, err := a.registry(ctx).Get(id); err != nil {
			continue
		}
		q.Device = id
		line, err := a.sparkline(ctx, q, in.Points)
		if err != nil {
			return nil, err
		}
		out.Items = append(out.Items, line)
	}
	return &body[sparklines]{out}, nil
}

// parseIDs reads ids of devices, each once.
func parseIDs(s string) ([]muster.DeviceID, error) {
	var out []muster.DeviceID
	have := map[muster.DeviceID]bool{}
	for part := range strings.SplitSeq(s, ",") {
		id, err := muster.ParseDeviceID(part)
		if err != nil {
			return nil, muster.At(err, "ids")
		}
		if len(out) == maxSparklines {
			return nil, muster.InvalidAt("ids", "ids has more than %d ids", maxSparklines)
		}
		if !have[id] {
			have[id] = true
			out = append(out, id)
		}
	}
	return out, nil
}

func (a *API) sparkline(ctx context.Context, q ingest.RangeQuery, points int) (sparkline, error) {
	out := sparkline{Device: q.Device, Min: make([]*float64, points), Max: make([]*float64, points)}
	step, n := float64(q.To-q.From)/float64(points), 0
	for r, err := range a.Telemetry.Range(ctx, q) {
		if err != nil {
			return out, fmt.Errorf("read telemetry: %w", err)
		}
		if n++; n == q.Limit {
			since := stamp(r.Time)
			out.Since = &since
		}
		at := min(int(float64(r.Time-q.From)/step), points-1)
		for _, v := range r.Numbers { // of the one key
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				out.take(at, v)
			}
		}
	}
	return out, nil
}

func (s *sparkline) take(at int, v float64) {
	if s.Min[at] == nil || v < *s.Min[at] {
		s.Min[at] = &v
	}
	if s.Max[at] == nil || v > *s.Max[at] {
		s.Max[at] = &v
	}
}

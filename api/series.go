package api

import (
	"context"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/ingest"
)

const (
	seriesKeys     = 64        // drawn at once
	seriesReadings = 2_000_000 // looked at for one answer
)

type seriesInput struct {
	DevicePath
	Keys string `query:"keys" maxLength:"16384" doc:"Comma-separated keys; the first 64 numeric ones when absent"`
	From string `query:"from" default:"now-3h" maxLength:"64" doc:"First time: RFC 3339 or now-3h"`
	To   string `query:"to" maxLength:"64" doc:"Time before which to end, the same way; now when absent"`
	PX   int    `query:"px" default:"600" minimum:"1" maximum:"4000" doc:"Into how many pixels the time is divided"`
}

// chartKey is a numeric key, ready to be drawn. Times are in milliseconds since 1970.
type chartKey struct {
	Key   string    `json:"key"`
	Count int       `json:"count" doc:"Readings that had it as a number"`
	T     []int64   `json:"t" nullable:"false" doc:"For each pixel with readings the time of the oldest, in ms since 1970, rising"`
	Min   []float64 `json:"min" nullable:"false" doc:"For each of t the least value"`
	Max   []float64 `json:"max" nullable:"false" doc:"For each of t the greatest value"`
	Gaps  [][]int64 `json:"gaps" nullable:"false" doc:"Silences of more than five times the usual interval, and of more than a pixel: from the reading before to the one after, in ms; the 200 longest"`
}

type chart struct {
	Device   muster.DeviceID `json:"device"`
	From     string          `json:"from" format:"date-time" doc:"As asked for, or of the oldest reading that was looked at"`
	To       string          `json:"to" format:"date-time"`
	StepMS   float64         `json:"step_ms" doc:"Time of one pixel"`
	Readings int             `json:"readings" doc:"How many were looked at"`
	Whole    bool            `json:"whole" doc:"False when there were more than 2,000,000: the newest were looked at"`
	KeysLeft int             `json:"keys_left" doc:"Numeric keys that there was no room for"`
	Items    []chartKey      `json:"items" nullable:"false" doc:"By key"`
}

func (a *API) seriesRoute() {
	route(a, accounts.TelemetryRead, huma.Operation{
		OperationID: "get-chart", Method: http.MethodGet, Path: "/devices/{device}/telemetry/chart", Tags: []string{"telemetry"},
		Summary:     "What a chart of some pixels needs of a device's telemetry",
		Description: "The least and the greatest value of each numeric key in each pixel, and the silences. However many readings there are, the answer is bounded by keys and pixels.",
		Errors:      []int{404},
	}, a.chart)
}

func (a *API) chart(ctx context.Context, in *seriesInput) (*body[chart], error) {
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	q := ingest.RangeQuery{Device: id, Desc: true, Limit: seriesReadings + 1}
	if q.Keys, err = parseKeys(in.Keys); err != nil {
		return nil, err
	}
	if len(q.Keys) > seriesKeys {
		return nil, muster.InvalidAt("keys", "keys has more than %d keys", seriesKeys)
	}
	now := a.Now()
	if q.From, err = parseWhen(in.From, now); err != nil {
		return nil, muster.At(err, "from")
	}
	if q.To, err = a.when(in.To, muster.MicrosOf(now)+1); err != nil {
		return nil, muster.At(err, "to")
	}
	if q.From >= q.To {
		return nil, muster.InvalidAt("from", "from must be before to")
	}
	return a.fold(ctx, q, in.PX)
}

// fold looks at the readings of q, and keeps none.
func (a *API) fold(ctx context.Context, q ingest.RangeQuery, px int) (*body[chart], error) {
	f := ingest.NewFold(q.From, q.To, px, seriesKeys)
	out := chart{Device: q.Device, To: stamp(q.To), StepMS: float64(f.Step()) / 1000, Whole: true, Items: []chartKey{}}
	oldest := q.To
	for r, err := range a.Telemetry.Range(ctx, q) {
		if err != nil {
			return nil, fmt.Errorf("read telemetry for a chart: %w", err)
		}
		if out.Readings == seriesReadings {
			out.Whole, q.From = false, oldest
			break
		}
		out.Readings++
		oldest = r.Time
		f.Add(&r)
	}
	out.From, out.KeysLeft = stamp(q.From), f.Left()
	for _, k := range f.Keys() {
		out.Items = append(out.Items, chartKey{Key: k.Key, Count: k.Count, T: millis(k.T), Min: k.Min, Max: k.Max, Gaps: gapsOf(k.Gaps)})
	}
	return &body[chart]{out}, nil
}

func millis(at []muster.Micros) []int64 {
	out := make([]int64, len(at))
	for i, t := range at {
		out[i] = int64(t) / 1000
	}
	return out
}

func gapsOf(gaps [][2]muster.Micros) [][]int64 {
	out := make([][]int64, len(gaps))
	for i, g := range gaps {
		out[i] = millis(g[:])
	}
	return out
}

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/traffic"
)

// Fleet knows how all devices are, and what passes.
type Fleet interface {
	Figures() FleetFigures
	// Minutes is traffic.Minutes.From.
	Minutes(from time.Time) (since time.Time, minutes []traffic.Minute)
}

// FleetFigures are what is counted of all devices.
type FleetFigures struct {
	Total     int
	Counts    FleetCounts
	Rates     FleetRates
	Queued    uint64 // messages in the log, not yet in the store
	LogBytes  int64  // of those messages
	StoreDown bool
	Storing   FleetStoring
	Commands  FleetCommands

	Since  muster.Micros  // what the fleet is compared with
	Change PresenceCounts // now, less then
	Silent int            // devices that are offline or quiet, and were online at some time since
	Cause  devices.Cause  // of that; its kind is empty for none
}

// FleetCounts are devices by status. It is exported because others count them too.
type FleetCounts struct {
	Online   int `json:"online" doc:"Connected, and not updating"`
	Offline  int `json:"offline"`
	Never    int `json:"never"`
	Unknown  int `json:"unknown"`
	Quiet    int `json:"quiet" doc:"Connected, silent beyond their own rhythm, and not updating"`
	Updating int `json:"updating" doc:"Connected, with a firmware action under way"`
}

// PresenceCounts are devices by presence state, whatever goes on at them.
type PresenceCounts struct {
	Online  int `json:"online"`
	Offline int `json:"offline"`
	Never   int `json:"never"`
	Unknown int `json:"unknown"`
	Quiet   int `json:"quiet"`
}

// FleetRates are in messages of telemetry a second, as they were within the last seconds.
type FleetRates struct {
	Received float64 `json:"received" minimum:"0"`
	Stored   float64 `json:"stored" minimum:"0"`
}

// FleetStoring is how long batches of messages took to store, within the last minute.
type FleetStoring struct {
	Batches uint64  `json:"batches"`
	P99     float64 `json:"p99_ms" minimum:"0" doc:"99 of 100 took no longer, in milliseconds, by the buckets of muster_store_append_seconds; 0 without any"`
}

// FleetCommands are the commands that ended within the last hour.
type FleetCommands struct {
	Ended int64 `json:"ended" minimum:"0" doc:"But for those that were called off"`
	Acked int64 `json:"acked" minimum:"0" doc:"Of those, which their devices acknowledged or answered"`
}

// fleetBody has the words of the channel fleet of the live gateway.
type fleetBody struct {
	Total    int           `json:"total" minimum:"0" doc:"Devices"`
	Counts   FleetCounts   `json:"counts" doc:"Devices with each status: online and updating together are those that answer"`
	Rates    FleetRates    `json:"rates" doc:"Messages of telemetry a second"`
	Queued   uint64        `json:"queued" doc:"Messages in the log that are not in the store yet"`
	LogBytes int64         `json:"log_bytes" minimum:"0" doc:"Bytes of those"`
	Store    string        `json:"store" enum:"ok,down"`
	Storing  FleetStoring  `json:"storing" doc:"Batches of messages that were stored within the last minute"`
	Commands FleetCommands `json:"commands" doc:"Commands that ended within the last hour, counted every ten seconds"`
	Change   fleetChange   `json:"change"`
}

type fleetChange struct {
	Since  string         `json:"since" format:"date-time" doc:"An hour ago, to the minute"`
	Counts PresenceCounts `json:"counts" doc:"Of the devices that were there then: how many are in each presence state now, less how many were"`
	Silent int            `json:"silent" minimum:"0" doc:"Devices that are offline or quiet, and were online at some time since"`
	Cause  *fleetCause    `json:"cause,omitempty" doc:"What at least half of these have in common, and no fewer than five; absent when there is no such thing"`
}

type fleetCause struct {
	Kind     string `json:"kind" enum:"gateway,group,firmware" doc:"A group or a version is named only when it has more of them than of all devices"`
	Name     string `json:"name" doc:"The gateway, the group or the version"`
	State    string `json:"state" enum:"offline,quiet," doc:"When all of them are that; else empty"`
	Devices  int    `json:"devices" minimum:"5" doc:"How many of those that went silent it has"`
	Together int    `json:"together" minimum:"1" doc:"How many of these did so within one minute"`
	At       string `json:"at" format:"date-time" doc:"When that minute began"`
}

type fleetTraffic struct {
	Since string          `json:"since" format:"date-time" doc:"When counting began, which is when the server started"`
	Items []trafficMinute `json:"items" nullable:"false" doc:"The oldest first. A minute of which nothing is known is left out"`
}

type trafficMinute struct {
	At       string  `json:"at" format:"date-time" doc:"When the minute began"`
	Seconds  float64 `json:"seconds" minimum:"0" doc:"How much of it was counted: less than 60 of the first, and of the one under way"`
	Received uint64  `json:"received" doc:"Messages of telemetry that came in it"`
	Stored   uint64  `json:"stored" doc:"Those that the store was done with in it, duplicates and what replaced others among them"`
}

func (a *API) fleetRoutes() {
	tags := []string{"devices"}
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-fleet", Method: http.MethodGet, Path: "/fleet", Tags: tags,
		Summary:     "How all devices are, and what changed within an hour",
		Description: "The same as the channel fleet of the stream and the socket, which have it live. The comparison is at most two seconds old.",
	}, func(context.Context, *struct{}) (*body[fleetBody], error) {
		f := a.Fleet.Figures()
		return &body[fleetBody]{fleetBodyOf(&f)}, nil
	})
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-fleet-traffic", Method: http.MethodGet, Path: "/fleet/traffic", Tags: tags,
		Summary:     "Messages of telemetry by the minute",
		Description: "Counted in memory since the server started, and kept for a day.",
	}, a.fleetTraffic)
}

func fleetBodyOf(f *FleetFigures) fleetBody {
	out := fleetBody{
		Total: f.Total, Counts: f.Counts, Rates: f.Rates, Queued: f.Queued, LogBytes: f.LogBytes, Store: "ok",
		Storing: f.Storing, Commands: f.Commands,
		Change: fleetChange{Since: stamp(f.Since), Counts: f.Change, Silent: f.Silent},
	}
	if f.StoreDown {
		out.Store = "down"
	}
	if c := f.Cause; c.Kind != "" {
		out.Change.Cause = &fleetCause{c.Kind, c.Name, string(c.State), c.Devices, c.Together, stamp(c.At)}
	}
	return out
}

func (a *API) fleetTraffic(_ context.Context, in *struct {
	From string `query:"from" default:"now-3h" maxLength:"64" doc:"First time: RFC 3339 or now-3h"`
},
) (*body[fleetTraffic], error) {
	from, err := a.when(in.From, 0)
	if err != nil {
		return nil, muster.At(err, "from")
	}
	since, minutes := a.Fleet.Minutes(from.Time())
	out := fleetTraffic{Since: stamp(muster.MicrosOf(since)), Items: make([]trafficMinute, len(minutes))}
	for i, m := range minutes {
		out.Items[i] = trafficMinute{stamp(muster.MicrosOf(m.At)), m.Counted.Seconds(), m.Received, m.Stored}
	}
	return &body[fleetTraffic]{out}, nil
}

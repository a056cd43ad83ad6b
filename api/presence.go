package api

import (
	"context"
	"math"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
)

// PresenceKeeper knows how devices fared.
type PresenceKeeper interface {
	PresenceDetail(id muster.DeviceID) (devices.PresenceDetail, bool)
}

type presenceDetail struct {
	State    muster.PresenceState `json:"state" enum:"never,online,quiet,offline,unknown"`
	Since    string               `json:"since" format:"date-time"`
	LastSeen *string              `json:"last_seen" format:"date-time" doc:"Null when it never was"`
	Reason   string               `json:"reason" doc:"Why it is what it is; empty for online"`
	RhythmS  *int64               `json:"rhythm_s" doc:"Seconds between its messages as learned from them; null while it is not known"`
	CheckInS int64                `json:"check_in_s" doc:"Seconds between messages that are expected: what is set on the device, else its rhythm, else 600"`
	Flaps    int                  `json:"flaps" doc:"How often it lost its connection and was back within a minute, in this and the last hour"`
	Strip    []stretch            `json:"strip" nullable:"false" doc:"The last 24 hours, oldest first, without gaps"`
	Uptime   uptime               `json:"uptime_30d"`
}

type stretch struct {
	State muster.PresenceState `json:"state" enum:"never,online,quiet,offline,unknown"`
	From  string               `json:"from" format:"date-time"`
	To    string               `json:"to" format:"date-time"`
}

type uptime struct {
	OnlineS  int64    `json:"online_s" doc:"Seconds online or quiet"`
	OfflineS int64    `json:"offline_s"`
	UnknownS int64    `json:"unknown_s" doc:"Seconds in which the server did not run, or waited for the device after its start. They do not count"`
	Percent  *float64 `json:"percent" doc:"Share of online in online and offline, with two decimals; null before both"`
}

func (a *API) presenceRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-presence", Method: http.MethodGet, Path: "/devices/{device}/presence", Tags: []string{"devices"},
		Summary: "How a device is, and how it fared", Errors: []int{404},
	}, func(_ context.Context, in *DevicePath) (*body[presenceDetail], error) {
		id, err := a.existing(*in)
		if err != nil {
			return nil, err
		}
		d, ok := a.Presence.PresenceDetail(id)
		if !ok {
			return nil, muster.Errorf(muster.NotFound, "there is no such device")
		}
		return &body[presenceDetail]{presenceDetailOf(&d)}, nil
	})
}

func presenceDetailOf(d *devices.PresenceDetail) presenceDetail {
	out := presenceDetail{
		State: d.State, Since: stamp(d.Since), LastSeen: stampOrNull(d.LastSeen), Reason: d.Reason,
		CheckInS: d.CheckIn, Flaps: d.Flaps, Strip: make([]stretch, len(d.Strip)),
		Uptime: uptime{OnlineS: d.Uptime.Online, OfflineS: d.Uptime.Offline, UnknownS: d.Uptime.Unknown},
	}
	if d.Rhythm > 0 {
		out.RhythmS = &d.Rhythm
	}
	for i, s := range d.Strip {
		out.Strip[i] = stretch{State: s.State, From: stamp(s.From), To: stamp(s.To)}
	}
	if percent, ok := d.Uptime.Percent(); ok {
		percent = math.Round(100*percent) / 100
		out.Uptime.Percent = &percent
	}
	return out
}

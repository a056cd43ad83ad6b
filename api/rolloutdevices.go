package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/firmware/operator"
	"muster/firmware/rollout"
)

// RolloutDevice is a device in a rollout as it is shown. It is exported because huma looks into exported
// embedded fields only.
type RolloutDevice struct {
	Rollout    string          `json:"rollout"`
	Device     muster.DeviceID `json:"device"`
	Phase      int             `json:"phase" minimum:"1" doc:"From 1"`
	State      string          `json:"state" enum:"queued,offered,downloading,downloaded,installing,rebooting,confirmed,failed,rolled_back,timed_out,skipped,canceled"`
	Reason     string          `json:"reason,omitempty" doc:"Why it is there, or why its last attempt failed"`
	Detail     string          `json:"detail,omitempty" doc:"What the device said of a failure"`
	Action     int32           `json:"action,omitempty" doc:"Number of what it was offered, for all doors"`
	Attempt    int             `json:"attempt" minimum:"0" doc:"From 1; 0 before the first offer"`
	Failures   int             `json:"failures" minimum:"0" doc:"Attempts that failed"`
	Progress   int             `json:"progress" minimum:"0" maximum:"100" doc:"Percent of the download, the most that it reported"`
	From       string          `json:"from,omitempty" doc:"Version that it had when it was offered the release"`
	Soaking    bool            `json:"soaking,omitempty" doc:"It has the version, and is not confirmed yet"`
	Late       string          `json:"late,omitempty" enum:"installing,installed,failed,rolled_back" doc:"What it did after the attempt was over or taken back, which changes no state"`
	DueAt      *string         `json:"due_at,omitempty" format:"date-time" doc:"When it is looked at next, where that is known: it is queued, or waits with the image for its maintenance window"`
	DeadlineAt *string         `json:"deadline_at,omitempty" format:"date-time" doc:"When silence ends the attempt, or when the soak is over"`
	UpdatedAt  string          `json:"updated_at" format:"date-time"`
}

func rolloutDeviceOf(d *rollout.Device) RolloutDevice {
	out := RolloutDevice{
		Rollout: d.Rollout, Device: d.ID, Phase: d.Phase + 1, State: d.State.String(), Reason: string(d.Reason), Detail: d.Detail, Action: d.Action, Attempt: d.Attempt,
		Failures: d.Failures, Progress: d.Progress, From: d.From, Soaking: d.Soaking, Late: string(d.Late), UpdatedAt: stamp(d.Updated),
	}
	if !d.Parked() {
		out.DeadlineAt = stampOrNull(d.Deadline)
	}
	if (d.State == rollout.Queued || d.Parked()) && d.Due > 0 && d.Due < operator.Never {
		out.DueAt = stampOrNull(d.Due)
	}
	return out
}

type rolloutRule struct {
	Name   string  `json:"name" example:"window_open"`
	Holds  bool    `json:"holds"`
	Detail string  `json:"detail" doc:"In words"`
	Until  *string `json:"until,omitempty" format:"date-time" doc:"When it holds by itself, where that is known"`
}

type rolloutWhy struct {
	Rollout string          `json:"rollout"`
	Device  muster.DeviceID `json:"device"`
	Words   string          `json:"words" doc:"The answer in a sentence"`
	Held    *string         `json:"held" doc:"Name of the rule that holds the release back first; null when none does, or the device has the release"`
	Version string          `json:"version,omitempty" doc:"That the device reports"`
	State   *RolloutDevice  `json:"state,omitempty" doc:"Absent when the device is not in the rollout"`
	Rules   []rolloutRule   `json:"rules" nullable:"false" doc:"Every rule of an offer, in the order in which they are looked at: the device is offered the release if, and only if, all hold"`
}

type rolloutChange struct {
	Number  int64           `json:"number" doc:"In the rollout, from 1, in the order of commits"`
	Device  muster.DeviceID `json:"device"`
	Event   string          `json:"event" example:"target_version" doc:"What happened"`
	From    string          `json:"from" doc:"State before"`
	To      string          `json:"to" doc:"State after"`
	Reason  string          `json:"reason,omitempty"`
	Detail  string          `json:"detail,omitempty"`
	Action  int32           `json:"action,omitempty"`
	Attempt int             `json:"attempt"`
	At      string          `json:"at" format:"date-time"`
}

// deviceFirmware is what a device has, is to do, and did.
type deviceFirmware struct {
	Device  muster.DeviceID  `json:"device"`
	Version string           `json:"version" doc:"That the device reports; empty when it never did"`
	Current *firmwareAction  `json:"current,omitempty" doc:"What it is being updated by now; absent for nothing"`
	Files   []firmwareFile   `json:"files" nullable:"false" doc:"What it is to fetch for current, in the manifest's order; empty for nothing"`
	Waiting []firmwareAction `json:"waiting" nullable:"false" doc:"Open rollouts that it was not offered yet"`
	Actions []firmwareAction `json:"actions" nullable:"false" doc:"The newest that it was offered, at most 20"`
}

// firmwareFile is an image that a device is to fetch. Its address is the device's alone: who has it spends what the
// device may fetch.
type firmwareFile struct {
	Filename string         `json:"filename"`
	Size     int64          `json:"size" doc:"In bytes"`
	SHA256   string         `json:"sha256"`
	Patch    *firmwarePatch `json:"patch,omitempty" doc:"By which the device can make it of the image that it has; absent for none"`
}

// firmwarePatch is a patch of an image, which has an address likewise.
type firmwarePatch struct {
	From   string `json:"from" doc:"SHA-256 of the image that it is of"`
	Size   int64  `json:"size" doc:"Of the patch, in bytes"`
	SHA256 string `json:"sha256" doc:"Of the patch"`
}

type firmwareAction struct {
	RolloutDevice

	Name    string `json:"name" doc:"Of the rollout"`
	Release string `json:"release"`
	Status  string `json:"status" enum:"draft,scheduled,running,paused,completed,aborted" doc:"Of the rollout"`
}

func (a *API) rolloutDeviceRoutes() {
	tags := []string{"rollouts"}
	const devices = "/rollouts/{rollout}/devices"
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-rollout-devices", Method: http.MethodGet, Path: devices, Tags: tags, Summary: "List the devices of a rollout, by id", Errors: []int{404},
	}, a.listRolloutDevices)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-rollout-device", Method: http.MethodGet, Path: devices + "/{device}", Tags: tags, Summary: "Get a device of a rollout", Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		RolloutPath
		DevicePath
	},
	) (*body[RolloutDevice], error) {
		d, err := a.rolloutDevice(ctx, in.Rollout, in.DevicePath)
		if err != nil {
			return nil, err
		}
		return &body[RolloutDevice]{rolloutDeviceOf(&d)}, nil
	})
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "explain-rollout-device", Method: http.MethodGet, Path: devices + "/{device}/why", Tags: tags,
		Summary: "Why a device does, or does not, get a rollout's release", Description: "A device that is not in the rollout is answered too.", Errors: []int{404},
	}, a.explainRolloutDevice)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "list-rollout-log", Method: http.MethodGet, Path: "/rollouts/{rollout}/log", Tags: tags,
		Summary: "List every change of a device's state in a rollout, oldest first unless order is desc", Errors: []int{404},
	}, a.listRolloutLog)
	route(a, accounts.FirmwareRead, huma.Operation{
		OperationID: "get-device-firmware", Method: http.MethodGet, Path: "/devices/{device}/firmware", Tags: []string{"devices"},
		Summary: "What firmware a device has, is offered, waits for, and was offered", Errors: []int{404},
	}, a.deviceFirmware)
}

// seenBatches bounds how often a page is filled up for a key that sees some devices only.
const seenBatches = 20

func (a *API) listRolloutDevices(ctx context.Context, in *struct {
	RolloutPath
	State  string `query:"state" enum:"queued,offered,downloading,downloaded,installing,rebooting,confirmed,failed,rolled_back,timed_out,skipped,canceled"`
	Phase  int    `query:"phase" minimum:"0" maximum:"32" doc:"From 1; all when 0 or absent"`
	Reason string `query:"reason" maxLength:"64"`
	After
},
) (*body[page[RolloutDevice]], error) {
	after, err := deviceCursor(in.After.After)
	if err != nil {
		return nil, err
	}
	read := a.Rollouts.Read()
	if _, err := read.Rollout(ctx, in.Rollout); err != nil {
		return nil, err
	}
	q := operator.DeviceQuery{Rollout: in.Rollout, State: in.State, Phase: in.Phase - 1, Reason: rollout.Reason(plainReason(in.Reason)), After: after, Limit: in.Limit + 1}
	items, next := []RolloutDevice{}, ""
	for range seenBatches {
		found, err := read.RolloutMembers(ctx, q)
		if err != nil {
			return nil, err
		}
		rest := len(found) > in.Limit
		for i := range found[:min(len(found), in.Limit)] {
			q.After = found[i].ID
			if a.sees(ctx, found[i].ID) {
				items = append(items, rolloutDeviceOf(&found[i]))
			}
			if len(items) == in.Limit {
				rest = rest || i+1 < len(found)
				break
			}
		}
		if next = ""; rest {
			next = string(q.After)
		}
		if !rest || len(items) == in.Limit {
			break
		}
	}
	return list(items, next), nil
}

// deviceCursor reads a cursor that is a device's id; empty for none.
func deviceCursor(text string) (muster.DeviceID, error) {
	if text == "" {
		return "", nil
	}
	id, err := muster.ParseDeviceID(text)
	if err != nil {
		return "", errCursor()
	}
	return id, nil
}

// plainReason is text that a database can be asked for; else one that nothing has.
func plainReason(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return "?"
		}
	}
	return s
}

func (a *API) rolloutDevice(ctx context.Context, id string, in DevicePath) (rollout.Device, error) {
	device, err := muster.ParseDeviceID(in.Device)
	if err != nil {
		return rollout.Device{}, muster.At(err, "device")
	}
	read := a.Rollouts.Read()
	if _, err := read.Rollout(ctx, id); err != nil {
		return rollout.Device{}, err
	}
	found, err := read.RolloutMembers(ctx, operator.DeviceQuery{Rollout: id, Phase: -1, Device: device, Limit: 1})
	if err == nil && len(found) == 0 {
		err = muster.Errorf(muster.NotFound, "the device is not in the rollout")
	}
	if err != nil {
		return rollout.Device{}, err
	}
	return found[0], nil
}

func (a *API) explainRolloutDevice(ctx context.Context, in *struct {
	RolloutPath
	DevicePath
},
) (*body[rolloutWhy], error) {
	device, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	w, err := a.Rollouts.Why(ctx, in.Rollout, device)
	if err != nil {
		return nil, err
	}
	out := rolloutWhy{Rollout: w.Rollout, Device: device, Words: w.Words, Version: w.Version, Rules: make([]rolloutRule, len(w.Rules))}
	if w.Held != "" {
		out.Held = &w.Held
	}
	if w.In {
		d := rolloutDeviceOf(&w.Device)
		out.State = &d
	}
	for i, rule := range w.Rules {
		out.Rules[i] = rolloutRule{rule.Name, rule.Holds, rule.Detail, stampOrNull(rule.Until)}
	}
	return &body[rolloutWhy]{out}, nil
}

func (a *API) listRolloutLog(ctx context.Context, in *struct {
	RolloutPath
	Device string `query:"device" maxLength:"128" doc:"Only of this device"`
	Order  string `query:"order" enum:"asc,desc" default:"asc" doc:"desc: the newest first"`
	After
},
) (*body[page[rolloutChange]], error) {
	after, err := parseNumber(in.After.After)
	if err != nil {
		return nil, err
	}
	device, err := deviceCursor(in.Device)
	if err != nil {
		return nil, muster.InvalidAt("device", "device is the id of a device")
	}
	read := a.Rollouts.Read()
	if _, err := read.Rollout(ctx, in.Rollout); err != nil {
		return nil, err
	}
	found, err := read.RolloutLog(ctx, operator.LogQuery{Rollout: in.Rollout, Device: device, Newest: in.Order == "desc", After: after, Limit: in.Limit + 1})
	if err != nil {
		return nil, err
	}
	found, next := paged(found, in.Limit, func(e *operator.LogEntry) string { return idOrEmpty(e.Number) })
	items := make([]rolloutChange, len(found))
	for i, e := range found {
		items[i] = rolloutChange{e.Number, e.Device, e.Event, e.From, e.To, string(e.Reason), e.Detail, e.Action, e.Attempt, stamp(e.At)}
	}
	return list(items, next), nil
}

// shownActions is how many actions a device shows.
const shownActions = 20

func (a *API) deviceFirmware(ctx context.Context, in *DevicePath) (*body[deviceFirmware], error) {
	id, err := a.existing(*in)
	if err != nil {
		return nil, err
	}
	d, err := a.Registry.Get(id)
	if err != nil {
		return nil, err
	}
	found, err := a.Rollouts.Read().RolloutsOf(ctx, id, shownActions)
	if err != nil {
		return nil, err
	}
	out := deviceFirmware{Device: id, Version: d.Firmware, Files: []firmwareFile{}, Waiting: []firmwareAction{}, Actions: []firmwareAction{}}
	for i := range found {
		e := &found[i]
		shown := firmwareAction{rolloutDeviceOf(&e.Device), e.Name, e.Release, string(e.Status)}
		if e.Device.State.InFlight() {
			out.Current = &shown
		}
		if e.Device.Action == 0 && e.Device.State == rollout.Queued {
			out.Waiting = append(out.Waiting, shown)
		}
		if e.Device.Action > 0 {
			out.Actions = append(out.Actions, shown)
		}
	}
	if out.Current != nil {
		out.Files, err = a.firmwareFiles(ctx, id, out.Current.Action)
	}
	return &body[deviceFirmware]{out}, err
}

// firmwareFiles returns what a device is to fetch for an action.
func (a *API) firmwareFiles(ctx context.Context, id muster.DeviceID, action int32) ([]firmwareFile, error) {
	if a.Offers == nil {
		return []firmwareFile{}, nil
	}
	found, err := a.Offers.Files(ctx, id, action)
	if muster.KindOf(err) == muster.NotFound && err != nil {
		return []firmwareFile{}, nil //nolint:nilerr // it ended just now: there is nothing to fetch
	}
	if err != nil {
		return nil, err
	}
	out := make([]firmwareFile, len(found))
	for i, f := range found {
		out[i] = firmwareFile{Filename: f.Filename, Size: f.Size, SHA256: f.SHA256}
		if f.Patch != nil {
			out[i].Patch = &firmwarePatch{From: f.Patch.From, Size: f.Patch.Size, SHA256: f.Patch.SHA256}
		}
	}
	return out, nil
}

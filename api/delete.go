package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/devices"
)

// DeviceDeleter deletes devices.
type DeviceDeleter interface {
	Delete(ctx context.Context, id muster.DeviceID, data devices.Data) error
	DeleteMany(ctx context.Context, ids []muster.DeviceID, data devices.Data) error
	// IsErasing says whether the telemetry of a deleted device is being deleted.
	IsErasing(id muster.DeviceID) bool
}

// deleted says what was done.
type deleted struct {
	ID     muster.DeviceID `json:"id"`
	Data   devices.Data    `json:"data" enum:"keep,delete"`
	Detail string          `json:"detail" doc:"What became of its telemetry, for people"`
}

// deletion is the answer to a DELETE: 202 while something is still being done.
type deletion struct {
	Status int
	Body   deleted
}

func (a *API) deleteRoute() {
	op := huma.Operation{
		OperationID: "delete-device", Method: http.MethodDelete, Path: "/devices/{device}", Tags: []string{"devices"},
		Summary: "Delete a device, and its telemetry or not",
		Description: "Its credentials and all that is kept in its name go. data says what becomes of its telemetry: its readings, latest values and " +
			"rejected messages. keep leaves them in the store, and a device made again with the id continues them. delete deletes all of them for " +
			"good: they cannot be read from then on, and are removed in the background; until that is done the answer to making a device with the id is 409. " +
			"What the device had sent before is dealt with like the rest.",
		// Documented here and checked by ParseData, whose error says what each means.
		Parameters: []*huma.Param{{
			Name: "data", In: "query", Required: true, Description: "What becomes of its telemetry",
			Schema: &huma.Schema{Type: huma.TypeString, Enum: []any{string(devices.KeepData), string(devices.EraseData)}},
		}},
		DefaultStatus: http.StatusOK, Errors: []int{404},
		Responses: map[string]*huma.Response{"202": {Description: "The device is deleted; its telemetry is being deleted"}},
	}
	route(a, accounts.DevicesWrite, op, a.deleteDevice)
}

func (a *API) deleteDevice(ctx context.Context, in *struct {
	DevicePath
	Conditions
	Data string `query:"data" maxLength:"16"`
},
) (*deletion, error) {
	data, err := devices.ParseData(in.Data)
	if err != nil {
		return nil, err
	}
	id, err := a.existing(in.DevicePath)
	if err != nil {
		return nil, err
	}
	if ctx, err = bound(ctx, in.Conditions, deviceTag); err != nil {
		return nil, err
	}
	if err := a.Registry.Delete(ctx, id, data); err != nil {
		return nil, err
	}
	out := &deletion{http.StatusOK, deleted{id, data, "Its telemetry is kept: a device made again with this id continues it."}}
	if data == devices.EraseData {
		out.Status = http.StatusAccepted
		out.Body.Detail = "Its telemetry is being deleted for good. Until that is done no device can be made with this id."
	}
	return out, nil
}

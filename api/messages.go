package api

import (
	"context"
	"encoding/base64"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// MessagePublisher publishes over MQTT.
type MessagePublisher interface {
	// PublishToDevice publishes a message at devices/{device}/{rest}. It is Invalid when rest is one of
	// Muster's own topics or none at all, Unavailable when the broker does not run.
	PublishToDevice(ctx context.Context, device muster.DeviceID, rest string, payload []byte, retain bool, qos byte) error
}

// publication is what is to be published. One of the payloads is given at most.
type publication struct {
	Topic       string `json:"topic" minLength:"1" maxLength:"1024" doc:"Below devices/{id}/; not one of Muster's own, such as commands or desired" example:"display/text"`
	PayloadText string `json:"payload_text,omitempty" maxLength:"65536" doc:"The payload as text"`
	Payload     string `json:"payload,omitempty" maxLength:"87384" doc:"Or as bytes, in base64 (RFC 4648)"`
	QoS         int    `json:"qos,omitempty" minimum:"0" maximum:"2" default:"1"`
	Retain      bool   `json:"retain,omitempty" doc:"Keep it for who subscribes later; an empty payload takes it away"`
}

func (a *API) messageRoutes() {
	route(a, accounts.CommandsSend, huma.Operation{
		OperationID: "publish-to-device", Method: http.MethodPost, Path: "/devices/{device}/messages", Tags: []string{"devices"}, DefaultStatus: http.StatusAccepted,
		Summary: "Publish an MQTT message at a topic of a device",
		Description: "Whoever subscribes to the topic gets it: the device itself when its profile lets it. Topics that mean something to Muster are refused: " +
			"commands, wanted documents and firmware have operations of their own, and telemetry is written with `POST /telemetry`. With qos 1 and 2 the answer comes " +
			"when what is queued or retained is durable.",
		Errors: []int{404},
	}, func(ctx context.Context, in *struct {
		DevicePath
		Body publication
	},
	) (*struct{}, error) {
		id, err := a.existing(in.DevicePath)
		if err != nil {
			return nil, err
		}
		payload, err := base64.StdEncoding.DecodeString(in.Body.Payload)
		if err != nil {
			return nil, muster.InvalidAt("payload", "is not base64")
		}
		if in.Body.PayloadText != "" {
			if len(payload) > 0 {
				return nil, muster.InvalidAt("payload", "give payload or payload_text")
			}
			payload = []byte(in.Body.PayloadText)
		}
		if err := a.Messages.PublishToDevice(ctx, id, in.Body.Topic, payload, in.Body.Retain, byte(in.Body.QoS)); err != nil {
			return nil, err
		}
		return nil, nil //nolint:nilnil // there is nothing to say
	})
}

package server

import (
	"context"

	"muster"
	"muster/broker"
)

// publisher publishes for the API.
type publisher struct{ *broker.Broker }

// PublishToDevice implements api.MessagePublisher.
func (p publisher) PublishToDevice(ctx context.Context, device muster.DeviceID, rest string, payload []byte, retain bool, qos byte) error {
	if broker.IsOwn(rest) {
		return muster.InvalidAt("topic", "this is one of Muster's own topics")
	}
	return muster.At(p.Publish(ctx, "devices/"+string(device)+"/"+rest, payload, retain, qos), "topic")
}

package server

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"

	"muster"
	"muster/broker"
	"muster/broker/topic"
	"muster/devices"
)

// statePublisher tells connected clients of a state topic; it is *broker.Broker.
type statePublisher interface {
	PublishState(ctx context.Context, topic string, payload []byte) error
}

// presenceStates is what the topics devices/{id}/presence are at: a broker.States.
type presenceStates struct{ registry *devices.Registry }

const (
	deviceTopics  = "devices/"
	presenceTopic = "/presence"
)

// presencePayload is what such a topic carries.
type presencePayload struct {
	State  muster.PresenceState `json:"state"`
	Since  string               `json:"since"` // RFC 3339
	Reason string               `json:"reason"`
}

func encodePresence(s muster.PresenceState, since muster.Micros, reason string) []byte {
	b, err := json.Marshal(presencePayload{s, since.Time().Format("2006-01-02T15:04:05.000000Z"), reason})
	if err != nil { // strings always can be
		return nil
	}
	return b
}

// State implements broker.States.
func (p presenceStates) State(name string) ([]byte, bool) {
	tail, ok := strings.CutPrefix(name, deviceTopics)
	id, is := strings.CutSuffix(tail, presenceTopic)
	if !ok || !is {
		return nil, false
	}
	at, ok := p.registry.Presence(muster.DeviceID(id))
	if !ok {
		return nil, false
	}
	return encodePresence(at.State, at.Since, at.Reason), true
}

// Each implements broker.States.
func (p presenceStates) Each(filter string, yield func(topic string) bool) {
	if !topic.Overlaps(filter, deviceTopics+"+"+presenceTopic) {
		return
	}
	if name := deviceTopics + strings.Split(filter+"//", "/")[1] + presenceTopic; topic.Matches(filter, name) {
		if _, ok := p.State(name); ok { // the filter names one device
			yield(name)
			return
		}
	}
	p.registry.EachID(func(id muster.DeviceID) bool {
		name := deviceTopics + string(id) + presenceTopic
		return !topic.Matches(filter, name) || yield(name)
	})
}

// allStates answers for several owners of state topics.
type allStates []broker.States

// State implements broker.States.
func (a allStates) State(name string) ([]byte, bool) {
	for _, s := range a {
		if payload, ok := s.State(name); ok {
			return payload, true
		}
	}
	return nil, false
}

// Each implements broker.States.
func (a allStates) Each(filter string, yield func(topic string) bool) {
	more := true
	for _, s := range a {
		if !more {
			return
		}
		s.Each(filter, func(name string) bool {
			more = yield(name)
			return more
		})
	}
}

// tellPresence returns what publishes changes of presence, in their order.
func tellPresence(ctx context.Context, to statePublisher, log *slog.Logger) func([]devices.Transition) {
	return func(ts []devices.Transition) {
		for i := range ts {
			t := &ts[i]
			err := to.PublishState(ctx, deviceTopics+string(t.Device)+presenceTopic, encodePresence(t.To, t.At, t.Reason))
			if err != nil { // the broker has stopped: clients get the state when they are back
				log.Debug("a change of presence is not published", "err", err)
				return
			}
		}
	}
}

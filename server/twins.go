package server

import (
	"context"
	"strings"

	"muster"
	"muster/broker"
	"muster/broker/topic"
	"muster/devices/intake"
	"muster/devices/query"
	"muster/devices/twin"
	"muster/firmware/director"
)

// desiredStates shows the effective desired documents at devices/{id}/desired. It has
// the methods of broker.States.
type desiredStates struct{ twins *twin.Twins }

func desiredTopic(id muster.DeviceID) string { return "devices/" + string(id) + "/desired" }

// State implements broker.States.
func (s desiredStates) State(name string) ([]byte, bool) {
	rest, ok := strings.CutPrefix(name, "devices/")
	if !ok {
		return nil, false
	}
	id, ok := strings.CutSuffix(rest, "/desired")
	if !ok {
		return nil, false
	}
	return s.twins.DesiredPayload(muster.DeviceID(id))
}

// Each implements broker.States.
func (s desiredStates) Each(filter string, yield func(topic string) bool) {
	if !strings.ContainsAny(filter, "+#") {
		if _, ok := s.State(filter); ok {
			yield(filter)
		}
		return
	}
	if !topic.Overlaps(filter, "devices/+/desired") {
		return
	}
	for id := range s.twins.Told() {
		if name := desiredTopic(id); topic.Matches(filter, name) && !yield(name) {
			return
		}
	}
}

// tellDesired tells the clients that listen of desired documents that changed.
func (s *Server) tellDesired(changes []twin.Change) {
	for i := range changes {
		c := &changes[i]
		err := s.broker.PublishState(context.Background(), desiredTopic(c.Device), twin.Payload(c.Version, c.Next))
		if err == nil {
			continue
		}
		if muster.KindOf(err) != muster.Unavailable { // else the broker is not up: all are told when they come
			s.cfg.Logger.Error("devices are not told of their desired documents", "devices", len(changes)-i, "err", err)
		}
		return
	}
}

// twinAnswers answers the registry's queries, once there are twins.
type twinAnswers struct{ server *Server }

// Leaf implements devices.Twins.
func (a twinAnswers) Leaf(id muster.DeviceID, side query.Field, path []string) string {
	return a.server.twins.Leaf(id, side, path)
}

// Difference implements devices.Twins.
func (a twinAnswers) Difference(id muster.DeviceID, path string) (converged, differs bool) {
	return a.server.twins.Difference(id, path)
}

// HasTwin implements devices.Twins.
func (a twinAnswers) HasTwin(id muster.DeviceID) bool { return a.server.twins.HasTwin(id) }

// reportedOwner keeps what devices report. It is an intake.Owner.
type reportedOwner struct {
	twins *twin.Twins
	seen  func(ctx context.Context, list []director.Report) // is told who named versions
}

// Take implements intake.Owner.
func (o reportedOwner) Take(ctx context.Context, ms []intake.Message) []error {
	batch := make([]twin.Report, len(ms))
	for i := range ms {
		batch[i] = twin.Report{Device: ms[i].Device, Patch: ms[i].Payload}
	}
	errs := o.twins.ApplyReported(ctx, batch)
	var named []director.Report
	for i, err := range errs {
		if err == nil {
			if of := twin.VersionsOf(batch[i].Patch); of != nil {
				named = append(named, director.SeenReport(batch[i].Device, of...))
			}
			continue
		}
		switch kind := muster.KindOf(err); kind {
		case muster.Invalid, muster.TooLarge, muster.NotFound: // this one's own fault
			errs[i] = intake.Refused(kind.String(), muster.Public(err))
		default:
		}
	}
	if len(named) > 0 {
		o.seen(ctx, named)
	}
	return errs
}

// The seams that are filled here.
var (
	_ broker.States = desiredStates{}
	_ intake.Owner  = reportedOwner{}
)

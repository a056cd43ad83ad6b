package server

import (
	"context"
	"strings"

	"muster"
	"muster/broker"
	"muster/devices"
	"muster/devices/command"
	"muster/devices/intake"
	"muster/devices/twin"
)

// commandSender sends commands over MQTT. It is a command.Sender.
type commandSender struct{ server *Server }

// Send implements command.Sender.
func (c commandSender) Send(d command.Delivery) bool {
	return c.server.broker.Send(broker.Delivery{
		Device: d.Device, Topic: d.Topic, Payload: d.Payload, Expires: d.Expires, Response: d.Response, Correlation: d.Correlation,
		ContentType: "application/json", Done: func(o broker.Outcome) { d.Done(outcomeOf(o)) },
	})
}

func outcomeOf(o broker.Outcome) command.Outcome {
	switch o {
	case broker.Acked:
		return command.Acked
	case broker.Sent:
		return command.Handed
	default:
		return command.Lost
	}
}

// selector answers the queries of jobs. It is a command.Selector.
type selector struct{ registry *devices.Registry }

// Select implements command.Selector.
func (s selector) Select(_ context.Context, q string, after muster.DeviceID, limit int) ([]muster.DeviceID, error) {
	e, err := s.registry.Compile(q)
	if err != nil {
		return nil, err
	}
	return s.registry.MatchAfter(e, after, limit), nil
}

// Count implements command.Selector.
func (s selector) Count(_ context.Context, q string) (int, error) {
	e, err := s.registry.Compile(q)
	if err != nil {
		return 0, err
	}
	page, err := s.registry.Select(devices.Selection{Query: e, Total: true})
	return page.Total, err
}

// desirer changes what devices are wanted to be, for jobs. It is a command.Desirer.
type desirer struct{ twins *twin.Twins }

// Desire implements command.Desirer.
func (d desirer) Desire(ctx context.Context, ids []muster.DeviceID, patch []byte, _ string) []error {
	errs := make([]error, len(ids))
	for i, id := range ids {
		_, errs[i] = d.twins.PatchDesired(ctx, twin.Device(id), patch, nil)
	}
	return errs
}

// resultOwner keeps what devices answer to commands. It is an intake.Owner.
type resultOwner struct{ commands *command.Commands }

// Take implements intake.Owner.
func (o resultOwner) Take(ctx context.Context, ms []intake.Message) []error {
	reports := make([]command.Report, len(ms))
	for i := range ms {
		reports[i] = command.Report{Device: ms[i].Device, Command: ms[i].Tail, Payload: ms[i].Payload}
	}
	errs := o.commands.Results(ctx, reports)
	for i, err := range errs {
		if err == nil {
			continue
		}
		switch kind := muster.KindOf(err); kind {
		case muster.Invalid, muster.TooLarge, muster.NotFound, muster.Conflict, muster.Forbidden: // this one's own fault
			errs[i] = intake.Refused(kind.String(), muster.Public(err))
		default:
		}
	}
	return errs
}

// commandOf returns the id in devices/{id}/commands/{cid}/result.
func commandOf(topic string) string {
	_, rest, _ := strings.Cut(topic, "/commands/")
	cid, _, _ := strings.Cut(rest, "/")
	return cid
}

// The seams that are filled here.
var (
	_ command.Sender   = commandSender{}
	_ command.Selector = selector{}
	_ command.Desirer  = desirer{}
	_ intake.Owner     = resultOwner{}
)

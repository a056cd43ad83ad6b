package server

import (
	"context"

	"muster"
	"muster/broker"
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

// desirer changes what devices are wanted to be, for jobs. It is a command.Desirer.
type desirer struct{ twins *twin.Twins }

// Desire implements command.Desirer.
func (d desirer) Desire(ctx context.Context, ids []muster.DeviceID, patch []byte, _ string) []error {
	return d.twins.PatchDevices(ctx, ids, patch)
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

// The seams that are filled here.
var (
	_ command.Sender  = commandSender{}
	_ command.Desirer = desirer{}
	_ intake.Owner    = resultOwner{}
)

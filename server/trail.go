package server

import (
	"context"
	"strings"

	"muster"
	"muster/api"
	"muster/broker"
	"muster/devices"
	"muster/devices/intake"
	"muster/devices/trail"
	"muster/ingest"
)

// said is what devices say beside telemetry, and the trace of all they say.
type said struct {
	intake *intake.Intake
	events *trail.Events
	logs   *trail.Logs
	trace  *trail.Trace
}

// buildSaid makes the rooms that take what devices say beside telemetry. What they
// refuse is kept by ingest, which is built after them.
func (s *Server) buildSaid() (err error) {
	cfg := &s.cfg
	s.said.trace = trail.NewTrace(cfg.Now)
	s.said.events = trail.NewEvents(trail.EventsConfig{Store: s.stores.control, Now: cfg.Now, Logger: cfg.Logger})
	s.said.logs = trail.NewLogs(trail.LogsConfig{Store: s.stores.control, Now: cfg.Now, Logger: cfg.Logger})
	s.said.intake, err = intake.New(intake.Config{
		Owners: map[intake.Kind]intake.Owner{
			intake.Event: s.said.events, intake.Log: s.said.logs,
			intake.Reported: reportedOwner{s.twins, s.seenVersions}, intake.Result: resultOwner{s.commands}, intake.Notify: notifyOwner{s}, intake.NotificationAck: ackOwner{s},
			intake.Firmware: firmwareOwner{s},
		},
		Refuse: func(m intake.Message, code, reason string) {
			s.ingest.Refuse(ingest.Message{Device: m.Device, Topic: m.Topic, Payload: m.Payload, Untraced: true}, code, reason, len(m.Payload))
		},
		Trace: s.said.trace.Intake(), Logger: cfg.Logger, Metrics: s.metrics, Now: cfg.Now,
	})
	return err
}

// start starts their loops; those that end with the server's, but for intake's.
func (d *said) start(s *Server) {
	d.intake.Start()
	s.loops.Go("events", d.events.Run)
	s.loops.Go("events-trim", d.events.Trim)
	s.loops.Go("logs", d.logs.Run)
	s.loops.Go("logs-trim", d.logs.Trim)
}

// api returns what the API reads of them.
func (d *said) api() api.Trail { return api.Trail{Events: d.events, Logs: d.logs, Trace: d.trace} }

// tracer is the trace as ingest tells it.
type tracer struct{ *trail.Trace }

// Begin implements ingest.Tracer.
func (t tracer) Begin(m *ingest.Traced) ingest.Trace {
	s := trail.Start{
		Kind: "telemetry", Device: m.Message.Device, By: m.Message.By, Topic: m.Message.Topic, QoS: m.Message.QoS, Payload: m.Message.Payload,
		Size: m.Size, Received: m.Received, Decoded: m.Decoded, Readings: m.Readings,
	}
	if !strings.Contains(s.Topic, "/telemetry") {
		s.Kind = "other"
	}
	for _, r := range m.Refused {
		s.Refused = append(s.Refused, trail.Refusal(r))
	}
	return t.Trace.Begin(&s)
}

// sink hands what the broker takes from devices to ingest and to intake.
type sink struct {
	in       *ingest.Ingest
	intake   *intake.Intake
	registry *devices.Registry
	join     joining
	requests requests
	firmware *updates
}

func (s *Server) sink() sink {
	return sink{s.ingest, s.said.intake, s.registry, joining{s.join, s.logins}, requests{s.twins, s.join, s.ingest, &s.updates}, &s.updates}
}

// Accept implements broker.Sink.
func (s sink) Accept(ctx context.Context, m broker.Message) error {
	if m.Kind == broker.KindTelemetry {
		return s.in.Accept(ctx, message(m))
	}
	if s.join.accept(ctx, m) || s.requests.accept(ctx, m) {
		return nil
	}
	s.hear(m)
	if m.Kind == broker.KindFirmwareGet {
		s.get(ctx, m)
		return nil
	}
	said, ok := intakeMessage(m)
	if !ok || !s.intake.Takes(said.Kind) { // for whoever subscribes to it
		if m.From != nil {
			m.From.Acked(m.Token, nil)
		}
		return nil
	}
	if _, err := s.registry.Get(m.Device); err != nil {
		s.in.Refuse(message(m), "device", muster.Public(err), len(m.Payload)) //nolint:contextcheck // it waits for nobody
		if m.From != nil {
			m.From.Acked(m.Token, err)
		}
		return nil
	}
	return s.intake.Accept(ctx, said)
}

// hear tells presence of what a device, or its gateway for it, has published: ingest
// tells of telemetry. Last wills, which have no client, are no signs of life.
func (s sink) hear(m broker.Message) {
	if m.Client == nil || m.Device == "" {
		return
	}
	if by := m.Client.Origin().Identity.Device; by == m.Device || by != "" && by == m.By {
		s.registry.Heard(m.Device, 0)
	}
}

// Refuse implements broker.Sink.
func (s sink) Refuse(m broker.Message, code, reason string, size int) {
	s.in.Refuse(message(m), code, reason, size)
}

// message is m for ingest.
func message(m broker.Message) ingest.Message {
	_, tail, _ := strings.Cut(m.Topic, "/telemetry/")
	out := ingest.Message{Device: m.Device, By: m.By, Topic: m.Topic, Tail: tail, Payload: m.Payload, QoS: m.QoS, Token: m.Token}
	if m.From != nil {
		out.From = m.From
	}
	return out
}

// intakeMessage is m for intake; ok is false for what is not intake's.
func intakeMessage(m broker.Message) (out intake.Message, ok bool) {
	out = intake.Message{Device: m.Device, By: m.By, Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Token: m.Token}
	if m.From != nil {
		out.From = m.From
	}
	switch m.Kind {
	case broker.KindReported:
		out.Kind = intake.Reported
	case broker.KindEvent:
		out.Kind = intake.Event
		_, out.Tail, _ = strings.Cut(m.Topic, "/events/")
	case broker.KindLog:
		out.Kind = intake.Log
	case broker.KindResult:
		out.Kind = intake.Result
		_, rest, _ := strings.Cut(m.Topic, "/commands/")
		out.Tail = strings.TrimSuffix(rest, "/result")
	case broker.KindNotify:
		out.Kind = intake.Notify
		_, out.Tail, _ = strings.Cut(m.Topic, "/notify/")
	case broker.KindNotificationAck:
		out.Kind = intake.NotificationAck
		_, rest, _ := strings.Cut(m.Topic, "/notifications/")
		out.Tail = strings.TrimSuffix(rest, "/ack")
	case broker.KindFirmware:
		out.Kind = intake.Firmware
		_, out.Tail, _ = strings.Cut(m.Topic, "/firmware/")
	default:
		return out, false
	}
	return out, true
}

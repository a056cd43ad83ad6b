package server

import (
	"context"
	"fmt"

	"muster"
	"muster/audit"
	"muster/devices"
	"muster/sim"
)

// DemoDevices is how many devices --demo simulates.
const DemoDevices = 25

// startDemo makes the demo's devices, labelled as such, and has them publish over
// the real broker.
func (s *Server) startDemo(ctx context.Context) error {
	cfg := sim.Config{
		Addr: s.MQTTAddr(), Devices: DemoDevices, Rate: 1, Profile: sim.Mixed, Prefix: "demo", QoS: 1, Seed: 1,
		Firmware: true, FirmwareFailures: demoFailures, FirmwareHTTP: s.HTTPAddr(), FirmwareDDI: demoByDDI,
	}
	if s.ddi == nil {
		cfg.FirmwareDDI = 0
	}
	ctx = audit.With(ctx, audit.Actor{Kind: audit.System, Name: "demo"}, s.cfg.Now)
	tokens := make([]string, DemoDevices)
	for i := range tokens {
		token, err := s.demoToken(ctx, cfg.ID(i), cfg.ProfileOf(i))
		if err != nil {
			return fmt.Errorf("make the demo's devices: %w", err)
		}
		tokens[i] = token
	}
	cfg.Credentials = func(i int) (string, string) { return tokens[i], "" }
	if err := s.demoRollout(ctx); err != nil { // as where two keys must sign
		s.cfg.Logger.Info("the demo has no rollout", "err", err)
	}
	s.loops.Go("demo", func(ctx context.Context) error { return sim.Run(ctx, cfg, nil) })
	return nil
}

// demoToken returns a token for a demo device, made anew at each start.
func (s *Server) demoToken(ctx context.Context, id muster.DeviceID, profile string) (string, error) {
	return s.freshToken(ctx, devices.Spec{ID: id, Name: "Simulated " + profile, Credential: devices.Token})
}

// freshToken makes a device and returns its token; one that is there has a new token instead of
// the credentials it had.
func (s *Server) freshToken(ctx context.Context, spec devices.Spec) (string, error) {
	_, issued, err := s.registry.Create(ctx, spec)
	if muster.KindOf(err) != muster.Conflict || err == nil {
		return issued.Token, err
	}
	old, err := s.registry.Credentials(spec.ID)
	if err != nil {
		return "", err
	}
	for _, c := range old {
		if err := s.registry.RemoveCredential(ctx, spec.ID, c.ID); err != nil {
			return "", err
		}
	}
	issued, err = s.registry.AddCredential(ctx, spec.ID, devices.Token, "")
	return issued.Token, err
}

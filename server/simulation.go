package server

import (
	"context"
	"fmt"
	"sync"

	"muster"
	"muster/api"
	"muster/devices"
	"muster/internal/lifecycle"
	"muster/sim"
)

const (
	simPrefix  = "simulated" // of the ids; muster sim has another
	simTag     = "sim"
	mostOfSims = 25
)

// simulation is the devices that the server simulates when somebody asks for it on the
// dashboard. It implements api.Simulator. It ends with the server, or when it is ended.
type simulation struct {
	s *Server

	mu      sync.Mutex
	running *lifecycle.Group // nil while they do not publish
	n       int              // that publish
	stopped bool             // the server is
}

// Simulation implements api.Simulator.
func (x *simulation) Simulation() api.Simulation {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now()
}

func (x *simulation) now() api.Simulation {
	return api.Simulation{Running: x.running != nil, Devices: len(x.there())}
}

// there returns the simulated devices that the registry has.
func (x *simulation) there() (ids []muster.DeviceID) {
	c := sim.Config{Prefix: simPrefix}
	for i := range mostOfSims {
		if x.isOurs(c.ID(i)) {
			ids = append(ids, c.ID(i))
		}
	}
	return ids
}

// isOurs says whether a device was made by a simulation: somebody may have made one with such an id.
func (x *simulation) isOurs(id muster.DeviceID) bool {
	d, err := x.s.registry.Get(id)
	if err != nil {
		return false
	}
	_, ok := d.Tags.Get(simTag)
	return ok
}

// Simulate implements api.Simulator.
func (x *simulation) Simulate(ctx context.Context, n int) (api.Simulation, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.stopped || x.s.broker.Addr() == nil:
		return api.Simulation{}, muster.Errorf(muster.Unavailable, "the MQTT broker does not run")
	case x.running != nil && x.n >= n:
		return x.now(), nil
	}
	cfg := sim.Config{Addr: x.s.MQTTAddr(), Devices: min(n, mostOfSims), Rate: 1, Profile: sim.Mixed, Prefix: simPrefix, QoS: 1, Seed: 1}
	tags, err := devices.TagsOf(map[string]string{simTag: ""})
	if err != nil {
		return api.Simulation{}, fmt.Errorf("label the simulated devices: %w", err)
	}
	tokens := make([]string, cfg.Devices)
	for i := range tokens {
		id := cfg.ID(i)
		if _, err := x.s.registry.Get(id); err == nil && !x.isOurs(id) {
			return api.Simulation{}, muster.Errorf(muster.Conflict, "there is a device %s without the tag %s: it is not simulated", id, simTag)
		}
		spec := devices.Spec{ID: id, Name: "Simulated " + cfg.ProfileOf(i), Credential: devices.Token, Tags: tags}
		token, err := x.s.freshToken(ctx, spec)
		if err != nil {
			return api.Simulation{}, fmt.Errorf("make the simulated devices: %w", err)
		}
		tokens[i] = token
	}
	if err := x.halt(ctx); err != nil {
		return api.Simulation{}, err
	}
	cfg.Credentials = func(i int) (string, string) { return tokens[i], "" }
	x.running, x.n = lifecycle.NewGroup(x.s.cfg.Logger), cfg.Devices
	x.running.Go("simulation", func(ctx context.Context) error { return sim.Run(ctx, cfg, nil) })
	return x.now(), nil
}

// EndSimulation implements api.Simulator.
func (x *simulation) EndSimulation(ctx context.Context) (api.Simulation, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := x.halt(ctx); err != nil {
		return api.Simulation{}, err
	}
	if ids := x.there(); len(ids) > 0 {
		if err := x.s.registry.DeleteMany(ctx, ids, devices.EraseData); err != nil {
			return api.Simulation{}, fmt.Errorf("delete the simulated devices: %w", err)
		}
	}
	return x.now(), nil
}

// halt has the devices publish no more, and waits for them.
func (x *simulation) halt(ctx context.Context) error {
	if x.running == nil {
		return nil
	}
	group := x.running
	x.running, x.n = nil, 0
	if err := group.Stop(ctx); err != nil {
		return fmt.Errorf("stop the simulated devices: %w", err)
	}
	return nil
}

// stop ends the simulation with the server.
func (x *simulation) stop(ctx context.Context) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stopped = true
	return x.halt(ctx)
}

package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster/accounts"
)

// Simulator has simulated devices connect to the server itself.
type Simulator interface {
	// Simulation says what there is now.
	Simulation() Simulation
	// Simulate makes n devices, or takes up those that are there, and has them publish. With more
	// running than that it changes nothing.
	Simulate(ctx context.Context, n int) (Simulation, error)
	// EndSimulation stops them and deletes them with all their data.
	EndSimulation(ctx context.Context) (Simulation, error)
}

// Simulation is the simulated devices that the server runs.
type Simulation struct {
	Running bool `json:"running" doc:"They publish now. After a restart of the server they do not until they are asked to again"`
	Devices int  `json:"devices" doc:"How many there are in the registry"`
}

type newSimulation struct {
	Devices int `json:"devices,omitempty" minimum:"1" maximum:"25" default:"25"`
}

func (a *API) simulationRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "get-simulation", Method: http.MethodGet, Path: "/simulation", Tags: []string{"devices"},
		Summary: "The simulated devices of this server",
	}, func(context.Context, *struct{}) (*body[Simulation], error) {
		return &body[Simulation]{a.Simulator.Simulation()}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "start-simulation", Method: http.MethodPost, Path: "/simulation", Tags: []string{"devices"},
		Summary: "Simulate up to 25 devices",
		Description: "The server itself makes the devices `simulated-0001` and so on with the tag `sim`, and publishes as them over its own MQTT listener, once a second each. " +
			"They are ordinary devices. The simulation ends with the server or with DELETE; asked for again it takes up the devices that are there.",
		Errors: []int{409},
	}, func(ctx context.Context, in *struct{ Body newSimulation }) (*body[Simulation], error) {
		s, err := a.Simulator.Simulate(ctx, in.Body.Devices)
		if err != nil {
			return nil, err
		}
		return &body[Simulation]{s}, nil
	})
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "end-simulation", Method: http.MethodDelete, Path: "/simulation", Tags: []string{"devices"},
		Summary: "Stop the simulated devices, and delete them with their telemetry", DefaultStatus: http.StatusOK,
	}, func(ctx context.Context, _ *struct{}) (*body[Simulation], error) {
		s, err := a.Simulator.EndSimulation(ctx)
		if err != nil {
			return nil, err
		}
		return &body[Simulation]{s}, nil
	})
}

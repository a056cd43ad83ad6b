package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"muster"
	"muster/client"
	"muster/sim"
)

const (
	importLines = 20_000           // of one list
	importTime  = 10 * time.Minute // for it
	maxAnswer   = 64 << 20         // bytes of what is answered to it
	leastCheck  = 10               // seconds: shorter check-ins are learned, not set
)

// simLine is a device in the form of devices:import.
type simLine struct {
	ID         muster.DeviceID   `json:"id"`
	Name       string            `json:"name"`
	Parent     muster.DeviceID   `json:"parent"`
	Tags       map[string]string `json:"tags"`
	Groups     []string          `json:"groups"`
	Location   simSpot           `json:"location"`
	CheckIn    int64             `json:"check_in_s"`
	Credential string            `json:"credential"`
}

type simSpot struct {
	Lat   float64 `json:"lat"`
	Lon   float64 `json:"lon"`
	Label string  `json:"label"`
}

// createGateways makes the gateways of cfg, whose tokens it returns, their groups and the devices
// behind them. What exists is made as it would have been.
func createGateways(ctx context.Context, addr, key string, cfg sim.Config, progress func(done int)) ([]string, error) {
	base, err := sim.BaseURL(addr)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong with the address
	}
	web := &http.Client{Timeout: importTime}
	defer web.CloseIdleConnections()
	api, err := client.New(base, key, client.WithHTTPClient(web))
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "address %q: %w", addr, err)
	}
	tokens := make([]string, cfg.Gateways)
	groups := make(map[string]bool)
	for g := range tokens {
		p := cfg.PlaceOfGateway(g)
		if !groups[p.Group] {
			groups[p.Group] = true
			if _, err := api.PutGroup(ctx, p.Group, &client.GroupParts{}, nil); err != nil {
				return nil, muster.Errorf(muster.Unavailable, "make the group %s: %w", p.Group, err)
			}
		}
		spot := client.Location{Lat: &p.Lat, Lon: &p.Lon, Label: &p.Site}
		made := client.NewDevice{ID: string(cfg.GatewayID(g)), Name: &p.Name, Tags: map[string]string{"site": p.Site, "country": p.Country}, Location: &spot, Groups: []string{p.Group}}
		if tokens[g], err = createDevice(ctx, api, &made); err != nil {
			return nil, err
		}
	}
	for first := 0; first < cfg.Devices; first += importLines {
		end := min(first+importLines, cfg.Devices)
		if err := importChildren(ctx, api, cfg, first, end); err != nil {
			return nil, err
		}
		progress(end)
	}
	return tokens, nil
}

// importChildren makes the devices from first to before end.
func importChildren(ctx context.Context, api *client.Client, cfg sim.Config, first, end int) error {
	var list bytes.Buffer
	enc := json.NewEncoder(&list)
	for i := first; i < end; i++ {
		p := cfg.Place(i)
		line := simLine{
			ID: cfg.ID(i), Name: p.Name, Parent: p.Gateway, Tags: map[string]string{"site": p.Site, "country": p.Country}, Groups: []string{p.Group},
			Location: simSpot{Lat: p.Lat, Lon: p.Lon, Label: p.Site}, CheckIn: checkIn(cfg.Rate), Credential: "none",
		}
		if err := enc.Encode(line); err != nil {
			return fmt.Errorf("write %s: %w", line.ID, err)
		}
	}
	res, err := api.ImportDevicesStream(ctx, "application/x-ndjson", &list, &client.ImportDevicesParams{Update: true})
	if err != nil {
		return muster.Errorf(muster.Unavailable, "make devices: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	return readImport(res.Body)
}

// checkIn returns the seconds between two messages that are expected at a rate.
func checkIn(rate float64) int64 {
	if rate <= 0 {
		return leastCheck
	}
	return max(leastCheck, int64(math.Ceil(1/rate)))
}

// readImport reads the answer of devices:import to its end, and returns what was refused.
func readImport(r io.Reader) error {
	dec := json.NewDecoder(io.LimitReader(r, maxAnswer))
	for {
		var line struct {
			Error  *struct{ Detail string }
			Report *struct {
				Refused  int
				Refusals []struct{ ID, Detail string }
			}
		}
		switch err := dec.Decode(&line); {
		case errors.Is(err, io.EOF):
			return muster.Errorf(muster.Unavailable, "the server did not say what became of the devices")
		case err != nil:
			return muster.Errorf(muster.Unavailable, "read what became of the devices: %w", err)
		case line.Error != nil:
			return muster.Errorf(muster.Unavailable, "make devices: %s", line.Error.Detail)
		case line.Report == nil:
			continue
		case line.Report.Refused > 0:
			var why []string
			for _, r := range line.Report.Refusals[:min(3, len(line.Report.Refusals))] {
				why = append(why, r.ID+": "+r.Detail)
			}
			return muster.Errorf(muster.Conflict, "%d devices are refused: %s", line.Report.Refused, strings.Join(why, "; "))
		}
		return nil
	}
}

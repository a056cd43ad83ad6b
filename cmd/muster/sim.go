package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"muster"
	"muster/sim"
)

type simCmd struct {
	MQTT     string  `name:"mqtt" default:"127.0.0.1:1883" help:"Address of the broker." placeholder:"ADDR"`
	HTTP     string  `name:"http" default:"127.0.0.1:8080" help:"The API, where the devices are created: host:port, or an http or https URL." placeholder:"ADDR"`
	AdminKey string  `name:"admin-key" env:"MUSTER_ADMIN_KEY" help:"API key with devices:write, to create the devices." placeholder:"KEY"`
	Devices  int     `default:"10" help:"How many devices."`
	Rate     float64 `default:"1" help:"Messages per second and device; 0 means as fast as acknowledgements allow."`
	Profile  string  `default:"mixed" enum:"sensor,meter,tracker,cold,pump,light,mixed" help:"What they measure: ${enum}."`
	Prefix   string  `default:"sim" help:"Of the device ids."`
	QoS      int     `name:"qos" default:"1" help:"0 or 1."`
	Window   int     `default:"16" help:"Most unacknowledged messages of a device."`
	Seed     uint64  `default:"1" help:"The same seed makes the same values."`

	Gateways int           `default:"0" help:"They share so many connections: each gateway is at a site, and speaks for the devices there, which have groups, tags, versions and places." placeholder:"N"`
	Silent   float64       `default:"0.005" help:"With --gateways: part of the devices that fall silent, 0 to 0.5." placeholder:"PART"`
	Cut      time.Duration `default:"0" help:"With --gateways: one gateway is without its connection for so long." placeholder:"DURATION"`
	CutAfter time.Duration `name:"cut-after" default:"1m" help:"So long after the start." placeholder:"DURATION"`

	Firmware         bool    `help:"The devices install firmware that they are offered, each on a second connection."`
	FirmwarePatches  bool    `name:"firmware-patches" help:"They keep the image that they installed, one copy for all, in a temporary directory, and take patches of it."`
	FirmwareFailures float64 `name:"firmware-failures" default:"0" help:"Part of updates that go wrong, 0 to 1." placeholder:"PART"`
	FirmwareDDI      int     `name:"firmware-ddi" default:"0" help:"So many of the devices update by hawkBit's DDI instead of MQTT." placeholder:"N"`
}

// Run creates the devices that do not exist and publishes until ctx ends.
func (s *simCmd) Run(ctx context.Context, c *console) (err error) {
	if s.QoS != 0 && s.QoS != 1 {
		return muster.Errorf(muster.Invalid, "qos %d is not 0 or 1", s.QoS)
	}
	cfg := sim.Config{
		Addr: s.MQTT, Devices: s.Devices, Rate: s.Rate, Profile: s.Profile, Prefix: s.Prefix,
		QoS: byte(s.QoS), Window: s.Window, Seed: s.Seed,
		Firmware: s.Firmware || s.FirmwarePatches || s.FirmwareFailures > 0 || s.FirmwareDDI > 0, FirmwareFailures: s.FirmwareFailures, FirmwareDDI: s.FirmwareDDI, FirmwareHTTP: s.HTTP,
	}
	if s.AdminKey == "" {
		return muster.Errorf(muster.Invalid, "sim needs an API key to create its devices: start the server with MUSTER_ADMIN_KEY=mst_... and give the same to sim")
	}
	create := createDevices
	if cfg.Gateways = s.Gateways; s.Gateways != 0 {
		create, cfg.Silent, cfg.Cut, cfg.CutAfter = createGateways, s.Silent, s.Cut, s.CutAfter
	}
	if err := cfg.Check(); err != nil {
		return err //nolint:wrapcheck // it says what is wrong with the fleet
	}
	tokens, err := create(ctx, s.HTTP, s.AdminKey, cfg, func(n int) {
		c.printf("\rcreating devices: %d of %d", n, s.Devices)
	})
	c.printf("\n")
	if err != nil {
		return err
	}
	if s.FirmwarePatches {
		if cfg.FirmwareImages, err = os.MkdirTemp("", "muster-sim-"); err != nil {
			return fmt.Errorf("make a directory for images: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.FirmwareImages)) }()
	}
	cfg.Credentials = func(i int) (string, string) { return tokens[i], "" }
	began, last := time.Now(), sim.Stats{}
	at := began
	err = sim.Run(ctx, cfg, func(st sim.Stats) {
		now := time.Now()
		per := now.Sub(at).Seconds()
		c.printf("%4.0f s  %d connected  %.0f sent/s  %.0f acks/s  p50 %s  p99 %s  resent %d  errors %d %s\n",
			now.Sub(began).Seconds(), st.Connected, float64(st.Sent-last.Sent)/per, float64(st.Acked-last.Acked)/per,
			st.AckP50.Round(10*time.Microsecond), st.AckP99.Round(10*time.Microsecond), st.Resent, st.Errors, st.LastError)
		last, at = st, now
	})
	c.printf("%d sent, %d acknowledged, %d sent again\n", last.Sent, last.Acked, last.Resent)
	if s.FirmwarePatches {
		c.printf("%d updates by patches\n", last.Patched)
	}
	return err
}

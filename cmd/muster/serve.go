package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/alecthomas/kong"

	"muster"
	"muster/ingest"
	"muster/server"
)

type serveCmd struct {
	Data        string          `default:"./muster-data" help:"Directory of everything Muster keeps." placeholder:"DIR"`
	HTTP        string          `name:"http" default:":8080" help:"Address of the dashboard and the API." placeholder:"ADDR"`
	MQTT        string          `name:"mqtt" default:":1883" help:"Address of the MQTT broker." placeholder:"ADDR"`
	Database    string          `help:"postgres://... for telemetry and registry; SQLite in the data directory when empty." placeholder:"URL"`
	Config      kong.ConfigFlag `help:"JSON file with the same names as the flags." placeholder:"FILE"`
	PublicURL   string          `name:"public-url" help:"How browsers reach the dashboard, for links." placeholder:"URL"`
	Ack         string          `default:"durable" enum:"received,durable,stored" help:"When a message is acknowledged: received (in memory), durable (fsynced), stored (in the database)."`
	LogMaxBytes int64           `name:"log-max-bytes" default:"4294967296" help:"Bound of the durable log, in bytes."`
	MaxPacket   int             `name:"max-packet" default:"262144" help:"Largest MQTT packet, in bytes."`
	AdminKey    string          `name:"admin-key" env:"MUSTER_ADMIN_KEY" help:"An admin API key, mst_ and at least 20 characters. Better given by environment." placeholder:"KEY"`
	Demo        bool            `help:"Add a small, labelled, simulated fleet."`
	LogLevel    string          `name:"log-level" default:"info" enum:"debug,info,warn,error" help:"Least level of log lines."`
}

// stopGrace is how long a stop may take before it is cut short: long enough to
// store what the log holds on a healthy database.
const stopGrace = 20 * time.Second

// Run serves until ctx ends.
func (s *serveCmd) Run(ctx context.Context, c *console) error {
	level, err := ingest.ParseAckLevel(s.Ack)
	if err != nil {
		return err
	}
	var least slog.Level
	if err := least.UnmarshalText([]byte(s.LogLevel)); err != nil {
		return muster.Errorf(muster.Invalid, "log level %q is not debug, info, warn or error", s.LogLevel)
	}
	log := slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: least}))
	cfg := server.Config{
		DataDir: s.Data, HTTPAddr: s.HTTP, MQTTAddr: s.MQTT, DatabaseURL: s.Database, PublicURL: s.PublicURL,
		AckLevel: level, LogMaxBytes: s.LogMaxBytes, MaxPacket: s.MaxPacket, AdminKey: s.AdminKey, Demo: s.Demo,
		Version: version, Logger: log, Now: time.Now,
		Progress: func(what string) { c.printf("%s\n", what) },
	}
	srv, err := server.New(ctx, cfg)
	if err != nil {
		return err
	}
	if err := srv.Start(ctx); err != nil {
		return err
	}
	s.greet(c, srv)
	select {
	case <-ctx.Done():
	case err = <-srv.Failed():
	}
	c.printf("stopping: taking no new connections, storing what was accepted\n")
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if serr := srv.Stop(stopCtx); serr != nil && err == nil {
		err = serr
	}
	if err == nil {
		c.printf("stopped\n")
	}
	return err
}

func (s *serveCmd) greet(c *console, srv *server.Server) {
	c.printf("\nMuster %s\n  dashboard  %s\n  MQTT       %s\n  data       %s\n", version, srv.URL(), srv.BrokerAddr(), s.Data)
	if link := srv.SetupLink(); link != "" {
		c.printf("\n  Open this link once to sign in as admin:\n  %s\n", link)
	}
	if s.Demo {
		c.printf("\n  --demo: %d simulated devices are publishing\n", server.DemoDevices)
	}
	c.printf("\n  Ctrl-C stops it.\n\n")
}

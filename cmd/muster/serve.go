package main

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/alecthomas/kong"

	"muster"
	"muster/api"
	"muster/api/ddi"
	"muster/broker"
	"muster/broker/listen"
	"muster/firmware/deliver"
	"muster/ingest"
	"muster/server"
)

type serveCmd struct {
	Data        string          `default:"./muster-data" help:"Directory of everything Muster keeps." placeholder:"DIR"`
	HTTP        string          `name:"http" default:":8080" help:"Address of the dashboard and the API." placeholder:"ADDR"`
	MQTT        string          `name:"mqtt" default:":1883" help:"Address of the MQTT broker." placeholder:"ADDR"`
	MQTTS       string          `name:"mqtts" help:"Address of MQTT over TLS, such as :8883; none when empty." placeholder:"ADDR"`
	MQTTUnix    string          `name:"mqtt-unix" help:"Path of a unix socket for MQTT; none when empty." placeholder:"PATH"`
	TLSCert     []string        `name:"tls-cert" help:"Certificate chains (PEM) for MQTT over TLS; several for several names." placeholder:"FILE"`
	TLSKey      []string        `name:"tls-key" help:"Their keys, in the same order." placeholder:"FILE"`
	TLSClientCA string          `name:"tls-client-ca" help:"CAs of client certificates (PEM)." placeholder:"FILE"`
	TLSClient   string          `name:"tls-client" default:"request" enum:"none,request,verify,require" help:"Client certificates: none, request (asked for; devices are told by those that are pinned or of a registered authority), verify (those given must be of tls-client-ca besides), require."`
	Proxy       []string        `name:"proxy-protocol" help:"Networks whose MQTT connections begin with a PROXY protocol header." placeholder:"CIDR"`
	Drain       time.Duration   `default:"0s" help:"How long a stop takes to tell MQTT clients to go; 10 s for 10,000 in proportion when 0."`
	MaxClients  int             `name:"mqtt-max-connections" default:"100000" help:"MQTT connections at once."`
	MaxQueued   int             `name:"mqtt-max-queued" default:"1000" help:"QoS 1 and 2 messages that wait for one session; the oldest is dropped beyond."`
	MaxAlive    time.Duration   `name:"mqtt-max-keepalive" default:"0s" help:"Keep alive imposed on MQTT 5 clients that ask for more or none; none is imposed when 0."`
	MaxRate     int             `name:"mqtt-rate" default:"20000" help:"Messages a second that one client may publish."`
	ConnectRate int             `name:"mqtt-connect-rate" default:"10000" help:"New MQTT connections a second; -1 for no limit."`
	AddressRate int             `name:"mqtt-address-rate" default:"2000" help:"New MQTT connections a second from one address; -1 for no limit."`
	Database    string          `help:"postgres://... for telemetry and registry; SQLite in the data directory when empty." placeholder:"URL"`
	Config      kong.ConfigFlag `help:"JSON file with the same names as the flags." placeholder:"FILE"`
	PublicURL   string          `name:"public-url" help:"How browsers reach the dashboard, for links." placeholder:"URL"`
	APIRate     int             `name:"api-rate" default:"100" help:"HTTP requests a second of one key or session; of an admin's ten times that."`
	APIBurst    int             `name:"api-burst" default:"400" help:"HTTP requests at once of one key or session, likewise."`
	SignInRate  int             `name:"sign-in-rate" default:"10" help:"Tries to sign in, a minute and address."`
	CORS        []string        `name:"cors-origin" help:"Origins whose pages may use the API with a key, or *; none when empty." placeholder:"ORIGIN"`
	Trusted     []netip.Prefix  `name:"trusted-proxy" help:"Networks of proxies whose X-Forwarded-For and X-Forwarded-Proto count." placeholder:"CIDR"`
	Ack         string          `default:"durable" enum:"received,durable,stored" help:"When a message is acknowledged: received (in memory), durable (fsynced), stored (in the database)."`
	LogMaxBytes int64           `name:"log-max-bytes" default:"4294967296" help:"Bound of the durable log, in bytes."`
	MaxPacket   int             `name:"max-packet" default:"262144" help:"Largest MQTT packet, in bytes; at most 524288."`
	AdminKey    string          `name:"admin-key" env:"MUSTER_ADMIN_KEY" help:"An admin API key, mst_ and at least 20 characters. Better given by environment." placeholder:"KEY"`
	AdminEmail  string          `name:"admin-email" env:"MUSTER_ADMIN_EMAIL" help:"E-mail of the admin user that the first start makes." placeholder:"EMAIL"`
	AdminPass   string          `name:"admin-password" env:"MUSTER_ADMIN_PASSWORD" help:"His password, 10 to 128 characters. Better given by environment." placeholder:"PASSWORD"`
	OIDC        oidcFlags       `embed:"" prefix:"oidc-"`
	DDI         ddiFlags        `embed:"" prefix:"ddi-"`
	Grace       time.Duration   `name:"presence-grace" default:"10s" help:"How long a device that lost its connection may take to come back before it is offline; 0 for none."`
	SMTP        string          `name:"smtp" help:"Mail server: smtp[s]://user:password@host:port?from=address&starttls=required|opportunistic|off; no mail when empty. Better given by environment." placeholder:"URL"`
	HookAllow   []string        `name:"webhook-allow" help:"Inner networks that webhooks may reach; none when empty." placeholder:"CIDR"`
	ImageRate   int64           `name:"firmware-bandwidth" default:"67108864" help:"Bytes a second of all downloads of firmware together; -1 for no limit."`
	FWMaxSize   int64           `name:"firmware-max-size" default:"17179869184" help:"Largest image of firmware, in bytes."`
	FWThreshold int             `name:"firmware-threshold" default:"1" help:"How many keys must have signed a release of firmware at least; the API sets no fewer."`
	Approvals   int             `name:"rollout-approvals" default:"0" help:"How many people besides who wrote a rollout must agree before it starts, at least; a rollout may ask for more." placeholder:"N"`
	FWNoPatches bool            `name:"firmware-no-patches" help:"Make and offer no patches of firmware: devices get whole images."`
	FWS3        string          `name:"firmware-s3" help:"Object store for images that speaks S3 and that several servers share: https://HOST/BUCKET[/PREFIX]; ?region=NAME, and ?style=host for a bucket in the host's name. Images lie in the data directory alone when empty." placeholder:"URL"`
	FWS3Access  string          `name:"firmware-s3-access-key" env:"MUSTER_FIRMWARE_S3_ACCESS_KEY" help:"Its access key. Better given by environment." placeholder:"KEY"`
	FWS3Secret  string          `name:"firmware-s3-secret-key" env:"MUSTER_FIRMWARE_S3_SECRET_KEY" help:"Its secret key. Better given by environment." placeholder:"KEY"`
	FWS3Keys    string          `name:"firmware-s3-keys" help:"File with both, a line each, in the place of the environment." placeholder:"FILE"`
	FWCache     int64           `name:"firmware-cache" default:"21474836480" help:"Bytes of images that the data directory has with --firmware-s3: what was not used longest goes."`
	FWUnsigned  bool            `name:"insecure-unsigned" help:"Let releases of firmware be published and offered that nobody signed."`
	Demo        bool            `help:"Add a small, labelled, simulated fleet."`
	LogLevel    string          `name:"log-level" default:"info" enum:"debug,info,warn,error" help:"Least level of log lines."`
}

// oidcFlags are those of the OpenID provider, in the order of server.OIDCConfig.
type oidcFlags struct {
	Issuer       string   `help:"OpenID provider by which people may sign in, as it spells itself: https://id.example.com. Its callback is PUBLIC-URL/api/v1/oidc/callback." placeholder:"URL"`
	ClientID     string   `help:"The client's id there." placeholder:"ID"`
	ClientSecret string   `env:"MUSTER_OIDC_CLIENT_SECRET" help:"The client's secret there. Better given by environment." placeholder:"SECRET"`
	Name         string   `help:"What the button says; the provider's host when empty." placeholder:"TEXT"`
	RoleClaim    string   `help:"Claim with the user's groups, such as groups or realm_access.roles: the provider decides about roles. They are given here when empty." placeholder:"CLAIM"`
	Admin        []string `help:"Groups whose members are admins." placeholder:"GROUP"`
	Operator     []string `help:"Groups whose members are operators; all others are viewers." placeholder:"GROUP"`
	Create       bool     `help:"Make a user of whoever signs in there and is not known here."`
	LinkEmail    bool     `help:"Take who has a verified e-mail there for the user who has it here."`
}

// ddiFlags are those of hawkBit's API for devices.
type ddiFlags struct {
	Off          bool          `help:"Serve no hawkBit API for devices (SWUpdate, RAUC, Zephyr)."`
	Tenant       string        `default:"default" help:"Tenant of the hawkBit API, in any case of letters." placeholder:"NAME"`
	URL          string        `help:"How devices reach the hawkBit API, for links; as each request came when empty." placeholder:"URL"`
	Idle         time.Duration `default:"5m" help:"How long a device with nothing to do is told to sleep between polls, a fifth more or less."`
	Busy         time.Duration `default:"15s" help:"How long one with something to do is."`
	Confirm      string        `default:"version" enum:"version,ddi" help:"What confirms an update: a version that the device reports, or its word (closed with success)."`
	Attempt      bool          `help:"Leave it to devices when they install, instead of forcing them."`
	AskPeople    bool          `help:"Wait for people at the device to confirm before it installs."`
	Reboot       time.Duration `default:"1m" help:"How long after it installed a device is not asked for its attributes, which may still be the old ones."`
	GatewayToken string        `env:"MUSTER_DDI_GATEWAY_TOKEN" help:"Token by which a gateway speaks for the devices of a group, at least 20 characters; none when empty. Better given by environment." placeholder:"TOKEN"`
	GatewayGroup string        `help:"That group." placeholder:"GROUP"`
}

// settings returns them as the server takes them.
func (d *ddiFlags) settings() ddi.Settings {
	set := ddi.Settings{
		Off: d.Off, Tenant: d.Tenant, URL: d.URL, Idle: d.Idle, Busy: d.Busy, Confirm: ddi.Confirm(d.Confirm), Attempt: d.Attempt, AskPeople: d.AskPeople,
		Reboot: d.Reboot, Gateway: ddi.Gateway{Token: d.GatewayToken, Group: d.GatewayGroup},
	}
	if d.Reboot <= 0 { // for which zero is the default
		set.Reboot = -1
	}
	return set
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
	mqtt, err := s.mqtt()
	if err != nil {
		return err
	}
	cfg := server.Config{
		MQTT: mqtt,
		Web: server.WebConfig{
			Limits: api.Limits{Rate: s.APIRate, Burst: s.APIBurst, SignIn: s.SignInRate}, CORSOrigins: s.CORS, TrustedProxies: s.Trusted,
		},
		DataDir: s.Data, HTTPAddr: s.HTTP, MQTTAddr: s.MQTT, DatabaseURL: s.Database, PublicURL: s.PublicURL,
		Firmware: server.FirmwareConfig{
			MaxSize: s.FWMaxSize, Threshold: s.FWThreshold, Approvals: s.Approvals, NoPatches: s.FWNoPatches, InsecureUnsigned: s.FWUnsigned,
			S3: s.FWS3, S3Keys: server.S3Keys{Access: s.FWS3Access, Secret: s.FWS3Secret, File: s.FWS3Keys}, Cache: s.FWCache,
		},
		AckLevel: level, LogMaxBytes: s.LogMaxBytes, MaxPacket: s.MaxPacket, AdminKey: s.AdminKey, Demo: s.Demo,
		AdminEmail: s.AdminEmail, AdminPassword: s.AdminPass, OIDC: server.OIDCConfig(s.OIDC),
		DDI:           s.DDI.settings(),
		PresenceGrace: s.grace(), SMTP: s.SMTP, WebhookAllow: s.HookAllow, Downloads: deliver.Limits{Bandwidth: s.ImageRate}, Version: version, Logger: log, Now: time.Now,
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

// grace is the server's presence grace, for which zero is the default.
func (s *serveCmd) grace() time.Duration {
	if s.Grace <= 0 {
		return -1
	}
	return s.Grace
}

// mqtt gathers the flags of the broker.
func (s *serveCmd) mqtt() (server.MQTTConfig, error) {
	if len(s.TLSCert) != len(s.TLSKey) {
		return server.MQTTConfig{}, muster.Errorf(muster.Invalid, "there must be as many tls-key as tls-cert")
	}
	m := server.MQTTConfig{
		TLSAddr: s.MQTTS, UnixPath: s.MQTTUnix, ClientCA: s.TLSClientCA, ClientAuth: s.TLSClient, Proxy: s.Proxy,
		Drain: s.Drain, MaxConnections: s.MaxClients, MaxQueued: s.MaxQueued, MaxKeepAlive: s.MaxAlive,
		Rate: broker.Rate{Messages: s.MaxRate}, ConnectRate: s.ConnectRate, AddressRate: s.AddressRate,
	}
	for i := range s.TLSCert {
		m.Certs = append(m.Certs, listen.Pair{Cert: s.TLSCert[i], Key: s.TLSKey[i]})
	}
	return m, nil
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

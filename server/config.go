package server

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/api/ddi"
	"muster/firmware/deliver"
	"muster/ingest"
	"muster/notify"
	"muster/notify/outbox"
)

// Config is what New needs. DataDir, the two addresses, Logger and Now must be set.
type Config struct {
	DataDir     string // made when it is missing
	HTTPAddr    string // host:port; :0 takes a free port
	MQTTAddr    string
	MQTT        MQTTConfig
	Web         WebConfig
	DatabaseURL string // postgres://...; empty for SQLite in DataDir
	PublicURL   string // how browsers reach the dashboard; from HTTPAddr when empty
	AckLevel    ingest.AckLevel
	LogMaxBytes int64 // bound of the durable log
	MaxPacket   int   // bytes of the largest MQTT packet
	AdminKey    string
	// AdminEmail and AdminPassword make the first admin user; both or none.
	AdminEmail, AdminPassword string
	OIDC                      OIDCConfig
	DDI                       ddi.Settings // of hawkBit's door
	// PresenceGrace is how long a device that lost its connection may take to come back
	// before it is offline; 10 s when zero, none when negative.
	PresenceGrace time.Duration
	Firmware      FirmwareConfig
	// SMTP is the URL of the mail server (email.Config), empty for none.
	SMTP   string
	Notify NotifyConfig
	// WebhookAllow are the inner networks that webhooks may reach, as CIDR.
	WebhookAllow []string
	// Downloads bounds what devices fetch of images over HTTP; a bandwidth of 0 stands for 64 MiB/s, one below for none.
	Downloads deliver.Limits
	Demo      bool
	Version   string
	Logger    *slog.Logger
	Now       func() time.Time
	Progress  func(what string) // told what a slow start is doing; may be nil
}

// NotifyConfig is how notifications go out; zero values stand for the rooms' defaults.
type NotifyConfig struct {
	Limits   notify.Limits
	Channels map[string]outbox.Settings // by name: "email", "webhook", "mqtt"
	Poll     time.Duration              // how often the store is asked for what other processes queued
}

// WebConfig is what the HTTP port does for whom.
type WebConfig struct {
	Limits api.Limits // the zero value of each is its default
	// CORSOrigins are whose pages may use the API with a key: "https://app.example", or "*".
	CORSOrigins []string
	// TrustedProxies are whose X-Forwarded-For and X-Forwarded-Proto count.
	TrustedProxies []netip.Prefix
}

// check refuses an origin that no browser would send.
func (c *WebConfig) check() error {
	for _, o := range c.CORSOrigins {
		u, err := url.Parse(o)
		if o != "*" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || o != u.Scheme+"://"+u.Host || o != strings.ToLower(o)) {
			return muster.Errorf(muster.Invalid, "cors-origin %q is not * or an origin such as https://app.example", o)
		}
	}
	return nil
}

// The smallest log and packet that make sense, and the largest packet of MQTT.
const (
	minLog    = 1 << 20
	minPacket = 1 << 10
	maxPacket = 512 << 10
)

// check refuses a Config that cannot work, before anything is opened.
func (c *Config) check() error {
	switch {
	case c.LogMaxBytes < minLog:
		return muster.Errorf(muster.Invalid, "log-max-bytes %d is less than %d", c.LogMaxBytes, minLog)
	case c.MaxPacket < minPacket || c.MaxPacket > maxPacket:
		return muster.Errorf(muster.Invalid, "max-packet %d is not between %d and %d", c.MaxPacket, minPacket, maxPacket)
	}
	if _, err := c.publicURL(); err != nil {
		return err
	}
	if err := c.checkOutward(); err != nil {
		return err
	}
	if err := c.Web.check(); err != nil {
		return err
	}
	if err := c.Firmware.check(); err != nil {
		return err
	}
	if c.DatabaseURL != "" {
		u, err := url.Parse(c.DatabaseURL)
		if err != nil { // its text may hold the password
			return muster.Errorf(muster.Invalid, "the database URL is not a valid URL")
		}
		if u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return muster.Errorf(muster.Invalid, "the database URL does not begin with postgres://")
		}
	}
	if c.HTTPAddr == c.MQTTAddr && !strings.HasSuffix(c.HTTPAddr, ":0") {
		return muster.Errorf(muster.Invalid, "http and mqtt can not both listen on %s", c.HTTPAddr)
	}
	if c.DataDir == "" {
		return muster.Errorf(muster.Invalid, "the data directory is not named")
	}
	if c.AdminKey != "" {
		if err := accounts.CheckGivenKey(c.AdminKey); err != nil {
			return err
		}
	}
	if err := c.checkAdmin(); err != nil {
		return err
	}
	if err := c.OIDC.check(); err != nil {
		return err
	}
	if err := c.DDI.Check(); err != nil {
		return err //nolint:wrapcheck // it names the setting
	}
	for _, addr := range []string{c.HTTPAddr, c.MQTTAddr} {
		if err := probePort(addr); err != nil {
			return err
		}
	}
	return nil
}

// publicURL returns the parsed PublicURL, nil when there is none.
func (c *Config) publicURL() (*url.URL, error) {
	if c.PublicURL == "" {
		return nil, nil
	}
	u, err := url.Parse(c.PublicURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, muster.Errorf(muster.Invalid, "public-url %q is not http://host or https://host", c.PublicURL)
	}
	return u, nil
}

// probePort says now, in one sentence, that a port cannot be had.
func probePort(addr string) error {
	l, err := net.Listen("tcp", addr) //nolint:noctx // binding does not wait
	if err != nil {
		return muster.Errorf(muster.Unavailable, "cannot listen on %s: %w", addr, err)
	}
	return l.Close()
}

// probeFiles says now that what the data directory holds cannot be written.
func probeFiles(dir string) error {
	for _, name := range []string{"control.db", "telemetry.db"} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return muster.Errorf(muster.Invalid, "cannot write to the data directory: %w", err)
		}
	}
	log := filepath.Join(dir, "log")
	if err := os.MkdirAll(log, 0o750); err != nil {
		return muster.Errorf(muster.Invalid, "cannot write to the data directory: %w", err)
	}
	f, err := os.CreateTemp(log, "probe-*")
	if err != nil {
		return muster.Errorf(muster.Invalid, "cannot write to the log's directory: %w", err)
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// lockDir makes the data directory and locks it against a second server; the lock
// ends with the file or the process.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, muster.Errorf(muster.Invalid, "cannot make the data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "cannot write to the data directory: %w", err)
	}
	if err := probeFiles(dir); err != nil {
		_ = f.Close()
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, muster.Errorf(muster.Conflict, "another muster is running on the data directory %s", dir)
	}
	return f, nil
}

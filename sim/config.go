package sim

import (
	"fmt"
	"net"
	"time"

	"muster"
)

// The profiles of virtual devices.
const (
	Sensor  = "sensor"  // temperature, humidity, battery
	Meter   = "meter"   // power, energy, voltage
	Tracker = "tracker" // lat, lon, speed, heading, battery
	Cold    = "cold"    // cold stores: temperature, door, battery
	Pump    = "pump"    // pressure, flow, power
	Light   = "light"   // street lights: power, brightness
	Mixed   = "mixed"   // sensors, meters and trackers in turn; with gateways, what each gateway's site has
)

// The bounds of a Config.
const (
	MaxDevices = 1_000_000
	MaxWindow  = 1024 // the server's answers to a full window fit in any socket buffer
	MaxRate    = 100_000
	MaxSilent  = 0.5
)

const (
	defaultWindow = 16
	defaultRamp   = 500
	defaultPrefix = "sim"
)

// Config describes a fleet. The zero value of every field but Addr and Devices
// is usable.
type Config struct {
	Addr    string  // host:port of the MQTT listener
	Devices int     // 1 to MaxDevices; the process needs as many file descriptors
	Rate    float64 // messages per second per device; 0 means as fast as acks allow
	Profile string  // Sensor, Meter, Tracker or Mixed (default)
	Prefix  string  // of the device ids: PREFIX-0001 and so on; default "sim"
	QoS     byte    // 0 or 1
	Window  int     // most unacked messages per device at QoS 1; default 16
	Ramp    float64 // first connections per second; default 500
	Limit   int     // messages per device, after which it leaves; 0 means no end
	Seed    uint64  // the same seed makes the same values

	// Gateways is how many connections the devices share: each gateway is at one site and speaks for
	// the devices there, which are its children and have no credential. 0 for none: each device has its
	// own connection. Credentials are then asked for gateways, and Limit counts for each device on the average.
	Gateways int
	// Silent is the part of the devices behind gateways, 0 to MaxSilent, that fall silent: a third each never
	// speaks, stops after a few messages, and is taken off by its gateway after a few.
	Silent float64
	// Cut is for how long one gateway, CutGateway, loses its connection, without a goodbye; 0 for not at all.
	Cut time.Duration
	// CutAfter is when that happens, counted from the start of the run.
	CutAfter time.Duration

	// Firmware has each device hold a second connection, on which it installs what it is
	// offered, restarts and says what it runs then.
	Firmware bool
	// FirmwareFailures is the part of updates, 0 to 1, that go wrong: a third each says so,
	// comes back with the old version, and is not heard of again.
	FirmwareFailures float64
	// FirmwareDDI is how many of the devices, the first, update by hawkBit's DDI instead of MQTT. It
	// needs FirmwareHTTP.
	FirmwareDDI int
	// FirmwareHTTP is the server's HTTP listener, as BaseURL takes it, from which every second device
	// fetches its images; empty for none: all do over MQTT.
	FirmwareHTTP string
	// FirmwareImages is an empty directory for the images that devices install, one copy of each: who has
	// one takes patches of it. Empty for none: all fetch whole images.
	FirmwareImages string

	// Credentials returns what device i presents; nil means its id as user name
	// and no password. It is called from the device's goroutine at each connect.
	Credentials func(i int) (user, pass string)
	// Now stamps the messages; nil means time.Now. Deadlines use the real clock.
	Now func() time.Time
}

// ID returns the device id of device i, counted from 0: ID(0) is "sim-0001", and with
// gateways as "sim-mtr-00001".
func (c Config) ID(i int) muster.DeviceID {
	if c.Gateways > 0 {
		return muster.DeviceID(fmt.Sprintf("%s-%s-%05d", c.prefix(), c.lotOf(c.GatewayOf(i)).prefix, i+1))
	}
	return muster.DeviceID(fmt.Sprintf("%s-%04d", c.prefix(), i+1))
}

func (c Config) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

// ProfileOf returns the profile of device i, never Mixed.
func (c Config) ProfileOf(i int) string {
	if c.Profile != Mixed && c.Profile != "" {
		return c.Profile
	}
	if c.Gateways > 0 {
		return c.lotOf(c.GatewayOf(i)).kind
	}
	return [...]string{Sensor, Meter, Tracker}[i%3]
}

// Check returns an Invalid error that names the field at fault, if there is one.
func (c Config) Check() error {
	_, err := c.withDefaults()
	return err
}

// withDefaults returns c with its zero fields filled in, or an Invalid error
// that names the field at fault.
func (c Config) withDefaults() (Config, error) {
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		return c, muster.Errorf(muster.Invalid, "address %q: %w", c.Addr, err)
	}
	c.fill()
	if c.FirmwareHTTP != "" {
		base, err := BaseURL(c.FirmwareHTTP)
		if err != nil {
			return c, err
		}
		c.FirmwareHTTP = base
	}
	switch {
	case c.Devices < 1 || c.Devices > MaxDevices:
		return c, muster.Errorf(muster.Invalid, "%d devices: from 1 to %d are possible", c.Devices, MaxDevices)
	case !(c.Rate >= 0 && c.Rate <= MaxRate): // also refuses NaN
		return c, muster.Errorf(muster.Invalid, "rate %v: from 0 to %d messages per second are possible", c.Rate, MaxRate)
	case c.QoS > 1:
		return c, muster.Errorf(muster.Invalid, "QoS %d: only 0 and 1 are possible", c.QoS)
	case c.Window < 1 || c.Window > MaxWindow:
		return c, muster.Errorf(muster.Invalid, "window %d: from 1 to %d are possible", c.Window, MaxWindow)
	case !(c.Ramp > 0):
		return c, muster.Errorf(muster.Invalid, "ramp %v: connections per second must be more than 0", c.Ramp)
	case !(c.FirmwareFailures >= 0 && c.FirmwareFailures <= 1):
		return c, muster.Errorf(muster.Invalid, "firmware failures %v: from 0 to 1 are possible", c.FirmwareFailures)
	case c.FirmwareDDI < 0 || c.FirmwareDDI > c.Devices:
		return c, muster.Errorf(muster.Invalid, "%d devices by DDI: from 0 to all %d are possible", c.FirmwareDDI, c.Devices)
	case c.FirmwareDDI > 0 && c.FirmwareHTTP == "":
		return c, muster.Errorf(muster.Invalid, "devices that update by DDI need the address of the HTTP listener")
	case c.Limit < 0:
		return c, muster.Errorf(muster.Invalid, "limit %d is negative", c.Limit)
	}
	if err := c.checkGateways(); err != nil {
		return c, err
	}
	switch c.Profile {
	case Sensor, Meter, Tracker, Cold, Pump, Light, Mixed:
	default:
		return c, muster.Errorf(muster.Invalid, "profile %q: sensor, meter, tracker, cold, pump, light and mixed are possible", c.Profile)
	}
	if _, err := muster.ParseDeviceID(string(c.ID(c.Devices - 1))); err != nil {
		return c, fmt.Errorf("prefix %q: %w", c.Prefix, err)
	}
	if c.Gateways > 0 {
		if _, err := muster.ParseDeviceID(string(c.GatewayID(0)) + "-longer-site"); err != nil {
			return c, fmt.Errorf("prefix %q: %w", c.Prefix, err)
		}
	}
	return c, nil
}

func (c *Config) fill() {
	if c.Profile == "" {
		c.Profile = Mixed
	}
	if c.Prefix == "" {
		c.Prefix = defaultPrefix
	}
	if c.Window == 0 {
		c.Window = defaultWindow
	}
	if c.Ramp == 0 {
		c.Ramp = defaultRamp
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Credentials == nil {
		id := c.ID
		if c.Gateways > 0 {
			id = c.GatewayID
		}
		c.Credentials = func(i int) (string, string) { return string(id(i)), "" }
	}
}

package ddi

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/devices"
	"muster/firmware/desk"
	"muster/firmware/director"
)

// Desk tells what a device is to do, and takes what it says. It is a *desk.Desk.
type Desk interface {
	Offer(ctx context.Context, device muster.DeviceID) (desk.Offer, error)
	Report(ctx context.Context, r director.Report) error
	Stopped(ctx context.Context, device muster.DeviceID, action int32) error
}

// Devices knows tokens and groups. It is a *devices.Registry.
type Devices interface {
	// Authenticate returns whose token username is, and compares it in constant time.
	Authenticate(username string, password []byte) (device muster.DeviceID, credential string, err error)
	Get(id muster.DeviceID) (devices.Device, error)
}

// Images sends an image of an action to its device: whole, or a range of it. It answers the
// request itself, whatever comes of it.
type Images interface {
	Serve(w http.ResponseWriter, r *http.Request, device muster.DeviceID, action int32, sha256 string)
}

// Attributes takes what devices say about themselves, durably. An Invalid error is the
// device's own fault.
type Attributes interface {
	Attributes(ctx context.Context, device muster.DeviceID, mode Mode, values map[string]string) error
}

// Past knows what devices had. It is a *control.Control.
type Past interface {
	// InstalledAction returns the newest action that a device has confirmed, and its release;
	// NotFound for none.
	InstalledAction(ctx context.Context, device muster.DeviceID) (action int32, release string, err error)
	// ActionLog returns what happened in an action of a device, the newest first, at most limit.
	ActionLog(ctx context.Context, device muster.DeviceID, action int32, limit int) ([]string, error)
}

// Consents keeps what people at devices said. It is a *control.Control.
type Consents interface {
	// Consent returns the zero Consent for a device at which nobody said anything.
	Consent(ctx context.Context, device muster.DeviceID) (desk.Consent, error)
	SetConsent(ctx context.Context, device muster.DeviceID, c desk.Consent) error
}

// Confirm says what makes an update a success.
type Confirm string

// What confirms.
const (
	ByVersion Confirm = "version" // a version report of the device: the default
	ByDDI     Confirm = "ddi"     // its own word, closed with success
)

// Config is what New needs. Desk, Devices, Images, Attributes, Releases, Past, Consents, Now
// and Log must be set.
type Config struct {
	Desk       Desk
	Devices    Devices
	Images     Images
	Attributes Attributes
	Releases   desk.Releases
	Past       Past
	Consents   Consents

	Settings
	// Secure says whether a request came over https, by a trusted proxy's word too; nil for
	// by its own connection only.
	Secure func(r *http.Request) bool
	// Asked is told of each poll of a device, and says whether something may be offered to it
	// soon; nil for never.
	Asked func(ctx context.Context, device muster.DeviceID) (soon bool, err error)
	// Denied is told of each request that was refused for its token; it does not wait. May be nil.
	Denied func(r *http.Request, device muster.DeviceID, err error)

	Metrics prometheus.Registerer // nil for none
	Now     func() time.Time
	Log     *slog.Logger
}

// Settings are a person's. The zero value of each is its default.
type Settings struct {
	Off     bool          // nothing is served
	Tenant  string        // "default"; compared without regard to case
	URL     string        // where devices reach us, for links: from the request when empty
	Idle    time.Duration // between the polls of a device that has nothing to do: 5 min, and a fifth more or less by the device
	Busy    time.Duration // of one that has: 15 s
	Confirm Confirm
	// Attempt leaves it to the device when it downloads and installs; else it is forced to.
	Attempt bool
	// AskPeople waits for the confirmation of people at the device before it is told to install, or gets the
	// image, by any door. The desk holds it; here they are asked.
	AskPeople bool
	// Reboot is for how long after a device said that it has installed it is not asked for its
	// version, which might still be the old one: 1 min. Negative for asked at once.
	Reboot time.Duration
	// Gateway is a token by which a gateway speaks for the devices of one group; none when empty.
	Gateway Gateway
}

// Gateway is a token, of at least 20 characters, and the group that it is good for.
type Gateway struct{ Token, Group string }

// leastToken is the shortest gateway token, in bytes.
const leastToken = 20

// longestSleep is what HH:MM:SS can say, and what clients parse.
const longestSleep = 24*time.Hour - time.Second

// Check says what cannot work.
func (s *Settings) Check() error {
	switch {
	case s.Confirm != "" && s.Confirm != ByVersion && s.Confirm != ByDDI:
		return muster.Errorf(muster.Invalid, "what confirms an update is %q, not version or ddi", s.Confirm)
	case s.Idle < 0 || s.Idle > longestSleep*5/6 || s.Busy < 0 || s.Busy > longestSleep*5/6:
		return muster.Errorf(muster.Invalid, "a device cannot be told to poll so rarely")
	case s.Idle > 0 && s.Idle < time.Second || s.Busy > 0 && s.Busy < time.Second:
		return muster.Errorf(muster.Invalid, "a device cannot be told to poll more often than each second")
	case !s.urlIsGood():
		return muster.Errorf(muster.Invalid, "the address for devices is not http://host or https://host")
	case s.Off && s.AskPeople:
		return muster.Errorf(muster.Invalid, "people at devices cannot be asked while DDI is off: they answer by it")
	case strings.ContainsAny(s.Tenant, "/%?#"):
		return muster.Errorf(muster.Invalid, "the tenant is not one part of a path")
	case s.Gateway.Token == "" && s.Gateway.Group == "":
		return nil
	case len(s.Gateway.Token) < leastToken:
		return muster.Errorf(muster.Invalid, "the gateway token has less than %d characters", leastToken)
	case s.Gateway.Group == "":
		return muster.Errorf(muster.Invalid, "the gateway token is for no group")
	}
	return nil
}

func (s *Settings) urlIsGood() bool {
	if s.URL == "" {
		return true
	}
	u, err := url.Parse(s.URL)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && s.URL == u.Scheme+"://"+u.Host+strings.TrimSuffix(u.EscapedPath(), "/")
}

func (s Settings) withDefaults() Settings {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	or(&s.Idle, 5*time.Minute)
	or(&s.Busy, 15*time.Second)
	or(&s.Reboot, time.Minute)
	if s.Tenant == "" {
		s.Tenant = "default"
	}
	return s
}

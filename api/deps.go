package api

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/devices/query"
	"muster/firmware/talk"
	"muster/ingest"
	"muster/traffic"
)

// DeviceReader finds devices.
type DeviceReader interface {
	Get(id muster.DeviceID) (devices.Device, error)
	// Compile reads a query for Select.
	Compile(q string) (*query.Expr, error)
	Select(s devices.Selection) (devices.Selected, error)
}

// DeviceWriter makes, changes and deletes devices.
type DeviceWriter interface {
	Create(ctx context.Context, s devices.Spec) (devices.Device, devices.Issued, error)
	Update(ctx context.Context, id muster.DeviceID, c devices.Change) (devices.Device, error)
}

// CredentialKeeper keeps the credentials of devices.
type CredentialKeeper interface {
	AddGrant(ctx context.Context, device muster.DeviceID, g devices.Grant) (devices.Issued, error)
	Rotate(ctx context.Context, device muster.DeviceID, id string, overlap time.Duration, g devices.Grant) (devices.Issued, error)
	Credentials(device muster.DeviceID) ([]devices.Credential, error)
	RemoveCredential(ctx context.Context, device muster.DeviceID, id string) error
}

// ProfileReader finds profiles.
type ProfileReader interface {
	Profiles() []devices.Profile
	Profile(name string) (devices.Profile, error)
}

// ProfileWriter makes, replaces and deletes profiles.
type ProfileWriter interface {
	PutProfile(ctx context.Context, p devices.Profile) error
	DeleteProfile(ctx context.Context, name string) error
}

// PresenceReader says which devices are connected.
type PresenceReader interface {
	Presence(id muster.DeviceID) (muster.Presence, bool)
	Status(id muster.DeviceID) (muster.Status, muster.Presence, bool)
	Connection(id muster.DeviceID) (devices.Connection, bool)
}

// Registry is what the API needs of *devices.Registry.
type Registry interface {
	DeviceReader
	DeviceCounter
	DeviceWriter
	CredentialKeeper
	ProfileReader
	ProfileWriter
	GroupKeeper
	BulkKeeper
	Selecting
	DeviceMatcher
	DeviceDeleter
	PresenceReader
}

// Authenticator knows who presents a key or a cookie, in memory.
type Authenticator interface {
	Authenticate(bearer string) (accounts.Principal, error)
	AuthenticateSession(cookie string) (accounts.Principal, error)
}

// SessionMaker signs browsers in and out.
type SessionMaker interface {
	SignInFrom(ctx context.Context, key string, from accounts.Client) (cookie string, s accounts.Session, err error)
	SignOut(ctx context.Context, cookie string) error
	RedeemSetupFrom(ctx context.Context, token string, from accounts.Client) (cookie string, s accounts.Session, err error)
}

// KeyKeeper keeps API keys.
type KeyKeeper interface {
	CreateKey(ctx context.Context, spec accounts.KeySpec) (accounts.APIKey, string, error)
	Keys() []accounts.APIKey
	DeleteKey(ctx context.Context, id string) error
}

// ServiceReader finds service accounts.
type ServiceReader interface {
	ServiceAccounts() []accounts.ServiceAccount
	ServiceAccount(id string) (accounts.ServiceAccount, error)
}

// ServiceWriter makes, changes and deletes service accounts.
type ServiceWriter interface {
	CreateServiceAccount(ctx context.Context, spec accounts.ServiceSpec) (accounts.ServiceAccount, string, error)
	UpdateServiceAccount(ctx context.Context, id string, c accounts.ServiceChange) (accounts.ServiceAccount, error)
	DeleteServiceAccount(ctx context.Context, id string) error
}

// Accounts is what the API needs of *accounts.Accounts.
type Accounts interface {
	Authenticator
	SessionMaker
	KeyKeeper
	KeyReader
	ServiceReader
	ServiceWriter
	People
}

// Live gives what ingest knows without asking the store.
type Live interface {
	Latest(id muster.DeviceID) (ingest.LatestRow, bool)
	DeviceLedger(id muster.DeviceID) ingest.Ledger
}

// Reason is one part that is not ready, and why.
type Reason struct {
	Part   string `json:"part"`
	Detail string `json:"detail"`
}

// Section returns one part of the System page: a name, and data that is written
// as JSON. It must be quick.
type Section func() (name string, data any)

// FirmwareOffers knows what devices are to fetch; it is firmware/talk's.
type FirmwareOffers interface {
	// Files returns the images of a device's action; NotFound when that is not, or not any more, what
	// it is to do.
	Files(ctx context.Context, device muster.DeviceID, action int32) ([]talk.OfferFile, error)
}

// Deps are the parts an API works with. Page, LiveSocket, MQTTSocket, Channels, Offers, OIDC and
// ChannelTester may be nil, and so may PublicURL; all else is needed.
type Deps struct {
	Registry  Registry
	Accounts  Accounts
	Telemetry ingest.RangeStore
	Live      Live
	Fleet     Fleet
	Clients   ClientKeeper
	Trail     Trail
	Twins     Twins
	Presence  PresenceKeeper
	Logins    FailedLogins
	Joining   Joining
	Commands  Commands
	Messages  MessagePublisher
	Simulator Simulator
	Tasks     Tasks
	Audit     AuditLog
	Feed      EventFeed
	Channels  Channels
	Webhooks  Webhooks
	Notify    Notify
	Rollouts  Rollouts
	Views     ViewKeeper
	// Deliveries are those of the outbox.
	Deliveries Deliveries
	// ChannelTester sends tests over the channels that the server has.
	ChannelTester ChannelTester
	Writer        TelemetryWriter
	Firmware      Firmware
	// OfferKey is the public key that devices check offers of firmware with.
	OfferKey ed25519.PublicKey
	// Offers knows what devices are to fetch; nil for nothing.
	Offers FirmwareOffers
	Once   Once
	// Traffic counts the streams and their events; nil for nobody.
	Traffic *traffic.Meter
	// Ready returns what is not ready yet, nothing when all is.
	Ready   func(ctx context.Context) []Reason
	System  []Section
	Version string
	// PublicURL is the address users reach Muster at; when it is https, cookies are
	// Secure even though the request came without TLS.
	PublicURL *url.URL

	// OIDC signs people in by an OpenID provider.
	OIDC Provider

	Limits Limits
	// CORSOrigins are whose pages may use the API with a key: "https://app.example", or "*".
	CORSOrigins []string
	// TrustedProxies are whose X-Forwarded-For and X-Forwarded-Proto count.
	TrustedProxies []netip.Prefix

	// LiveSocket serves /api/v1/live. It checks Origin itself.
	LiveSocket http.Handler
	// MQTTSocket serves MQTT over WebSocket at /mqtt.
	MQTTSocket http.Handler
	// Images sends firmware at /fw/blob/, to signed addresses; nil for none.
	Images http.Handler
	// DDI serves hawkBit's API for devices, /{tenant}/controller/v1/...; nil for none.
	DDI http.Handler
	// Page serves every path that is not the API's own.
	Page http.Handler

	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer
	Now        func() time.Time
	Log        *slog.Logger
}

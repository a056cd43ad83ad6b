package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

// maxClientID and maxReason are what MQTT clients are told at most, in bytes: the
// broker takes no longer id, and cuts longer reasons.
const (
	maxClientID   = 256
	maxReason     = 200
	defaultReason = "cut by an operator"
)

// Client is one MQTT session and its connection, as the broker counts it. Device or
// Account is set, never both.
type Client struct {
	ClientID      string          `json:"client_id" doc:"Chosen by the client, or given by the server"`
	Device        muster.DeviceID `json:"device,omitempty" doc:"Whose session it is, when it is a device's"`
	Account       string          `json:"account,omitempty" doc:"The service account's name, or the API key's name and id, when it is one's; for admins only"`
	Connected     bool            `json:"connected" doc:"False for a session that waits for its client to come back"`
	Peer          string          `json:"peer,omitempty" doc:"Address and port the connection comes from; absent for a unix socket"`
	Listener      string          `json:"listener,omitempty" enum:"tcp,tls,ws,unix" doc:"While connected"`
	Protocol      int             `json:"protocol,omitempty" doc:"3 for MQTT 3.1, 4 for 3.1.1, 5 for 5; while connected"`
	KeepAlive     int             `json:"keepalive" doc:"Seconds; 0 for none"`
	Since         time.Time       `json:"since" doc:"When it connected, or when its connection ended"`
	Subscriptions int             `json:"subscriptions"`
	Queued        int             `json:"queued" doc:"QoS 1 and 2 messages that wait to be sent"`
	Inflight      int             `json:"inflight" doc:"QoS 1 and 2 messages sent and not acknowledged by the client"`
	Backlog       int             `json:"backlog" doc:"Bytes that wait: in the queue, in flight, and on the way to the socket"`
	Dropped       uint64          `json:"dropped" doc:"Messages this session lost since it began or the server started: queue full, read too slowly, larger than the client takes"`
	Unacked       int             `json:"unacked" doc:"QoS 1 and 2 messages from the client that are not acknowledged yet"`
	Received      uint64          `json:"received" doc:"PUBLISH packets from the client on this connection"`
	Sent          uint64          `json:"sent" doc:"PUBLISH packets to the client on this connection"`
	ReceivedBytes uint64          `json:"received_bytes" doc:"Bytes of the PUBLISH packets received on this connection, without their fixed headers"`
	SentBytes     uint64          `json:"sent_bytes" doc:"Bytes of all packets written on this connection"`
	ReceivedRate  float64         `json:"received_rate" doc:"PUBLISH packets a second from the client since it was last listed; 0 when that is less than a second ago"`
	SentRate      float64         `json:"sent_rate" doc:"PUBLISH packets a second to the client since it was last listed; 0 when that is less than a second ago"`
}

// ClientsQuery asks for one page of clients.
type ClientsQuery struct {
	Device      muster.DeviceID // only of this device; empty for all
	Search      string          // only with this in client id, device or account
	Sort        string          // id, or a number's name: largest first
	DevicesOnly bool            // no service accounts and API keys
	Offset      int             // in the list that this query gives
	Limit       int             // 1 to 1000
}

// DeviceSessions is what the MQTT sessions that a device has now add up to.
type DeviceSessions struct {
	Sessions int    `json:"sessions" doc:"Connected or kept"`
	Queued   int    `json:"queued" doc:"QoS 1 and 2 messages for the device that wait to be sent"`
	Inflight int    `json:"inflight" doc:"QoS 1 and 2 messages sent to the device and not acknowledged by it"`
	Backlog  int    `json:"backlog" doc:"Bytes that wait: in the queues, in flight, and on the way to the sockets"`
	Dropped  uint64 `json:"dropped" doc:"Messages for the device that these sessions lost since each began or the server started"`
}

// ClientKeeper knows the MQTT clients.
type ClientKeeper interface {
	// Clients returns one page, and whether there is more behind it.
	Clients(ctx context.Context, q ClientsQuery) (page []Client, more bool, err error)
	// KickClient cuts the connection of one client; NotFound when it has none.
	KickClient(device muster.DeviceID, account, clientID, reason string) error
	// DeviceSessions adds up the sessions of a device.
	DeviceSessions(id muster.DeviceID) DeviceSessions
}

// clientsCursor is a place in one list of clients. The list is of this moment: what
// moved between two pages may be on both, or on neither.
type clientsCursor struct {
	Offset int    `json:"o"`
	Device string `json:"d,omitempty"`
	Search string `json:"q,omitempty"`
	Sort   string `json:"s"`
}

// maxClients is more than the broker has sessions.
const maxClients = 10_000_000

func (c clientsCursor) String() string {
	b, err := json.Marshal(c)
	if err != nil { // strings and an integer always marshal
		panic(fmt.Errorf("write a cursor: %w", err))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// parseClientsCursor reads the cursor of a page, which must be of the same list as
// want.
func parseClientsCursor(s string, want clientsCursor) (offset int, err error) {
	if s == "" {
		return 0, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return 0, errCursor()
	}
	var c clientsCursor
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil || d.More() || c.Offset < 1 || c.Offset > maxClients {
		return 0, errCursor()
	}
	want.Offset = c.Offset
	if c != want {
		return 0, errCursor()
	}
	return c.Offset, nil
}

func (a *API) clientRoutes() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "list-clients", Method: http.MethodGet, Path: "/clients", Tags: []string{"clients"}, Summary: "List MQTT clients",
		Description: "Connected clients, and sessions that are kept for clients that are away. Clients of service accounts and API keys are for admins only: others do not see them, and a search does not find them.",
	}, a.listClients)
	route(a, accounts.DevicesWrite, huma.Operation{
		OperationID: "kick-client", Method: http.MethodPost, Path: "/clients:kick", Tags: []string{"clients"},
		Summary: "Cut the connection of one MQTT client",
		Description: "An MQTT 5 client is sent DISCONNECT 0x98 with the reason. Its session stays, and it may connect again at once: " +
			"to keep it out, revoke its credential. A client of a service account or API key is for admins only.",
		Errors: []int{404},
	}, a.kickClient)
}

func (a *API) listClients(ctx context.Context, in *struct {
	Device string `query:"device" maxLength:"128" doc:"Only the clients of this device"`
	Q      string `query:"q" maxLength:"200" doc:"Part of the client id, the device or the account, as it is written"`
	Sort   string `query:"sort" default:"id" enum:"id,backlog,dropped,queued,received,sent" doc:"By device, account and client id; or by a number, largest first"`
	Limit  int    `query:"limit" default:"100" minimum:"1" maximum:"1000"`
	After  string `query:"after" maxLength:"4096" doc:"The cursor of the page before, with the same device, q and sort"`
},
) (*body[page[Client]], error) {
	here := clientsCursor{Device: in.Device, Search: in.Q, Sort: in.Sort}
	offset, err := parseClientsCursor(in.After, here)
	if err != nil {
		return nil, err
	}
	q := ClientsQuery{Search: in.Q, Sort: in.Sort, Offset: offset, Limit: in.Limit}
	q.DevicesOnly = !requestOf(ctx).who.Allows(accounts.Admin)
	if in.Device != "" {
		if q.Device, err = muster.ParseDeviceID(in.Device); err != nil {
			return nil, muster.At(err, "device")
		}
	}
	found, more, err := a.Clients.Clients(ctx, q)
	if err != nil {
		return nil, err
	}
	next := ""
	if more {
		here.Offset = offset + len(found)
		next = here.String()
	}
	return list(found, next), nil
}

// kickedClient names a client and says why it is cut.
type kickedClient struct {
	Device   string `json:"device,omitempty" maxLength:"128" doc:"Its device; or"`
	Account  string `json:"account,omitempty" maxLength:"256" doc:"its service account or API key, as the list of clients has it"`
	ClientID string `json:"client_id" minLength:"1" maxLength:"256"`
	Reason   string `json:"reason,omitempty" maxLength:"200" doc:"Told to the client, and shown as the reason it is offline"`
}

func (a *API) kickClient(ctx context.Context, in *body[kickedClient]) (*struct{}, error) {
	b, who := in.Body, requestOf(ctx).who
	if b.Account != "" && !who.Allows(accounts.Admin) {
		return nil, muster.Errorf(muster.Forbidden, "the client of an account needs the scope %s", accounts.Admin)
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	reason := strings.TrimSpace(b.Reason)
	if reason == "" {
		reason = defaultReason
	}
	id := muster.DeviceID("")
	if b.Device != "" {
		var err error
		if id, err = muster.ParseDeviceID(b.Device); err != nil {
			return nil, muster.At(err, "device")
		}
	}
	if err := a.Clients.KickClient(id, b.Account, b.ClientID, reason); err != nil {
		return nil, err
	}
	a.Log.Info("an MQTT client was cut through the API", "device", string(id), "account", b.Account, "by", who.ID)
	return nil, nil
}

func (b *kickedClient) check() error {
	switch {
	case (b.Device == "") == (b.Account == ""):
		return muster.At(muster.Errorf(muster.Invalid, "give a device or an account, and not both"), "device", "account")
	case len(b.ClientID) > maxClientID:
		return muster.InvalidAt("client_id", "the client id has more than %d bytes", maxClientID)
	case len(b.Reason) > maxReason || strings.ContainsFunc(b.Reason, unicode.IsControl):
		return muster.InvalidAt("reason", "the reason is one line of at most %d bytes", maxReason)
	}
	return nil
}

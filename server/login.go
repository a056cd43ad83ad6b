package server

import (
	"context"
	"errors"
	"time"

	"muster"
	"muster/accounts"
	"muster/broker"
	"muster/devices"
	"muster/devices/join"
)

// joinTime bounds the login of a client that is made a device by it.
const joinTime = 15 * time.Second

// login decides who an MQTT client is, a device, a service account or an API key, or
// one that asks to become a device, and what it may do. It answers in memory, but for a
// device that is made just in time.
type login struct {
	registry *devices.Registry
	accounts *accounts.Accounts
	join     *join.Join
	logins   *devices.Logins
}

// Authenticate implements broker.Authenticator. A device is looked for first; a
// client that is nobody is told no more than that its credentials are wrong. Why is
// kept for those who look after the devices that it named.
func (l login) Authenticate(in broker.Login) (broker.Identity, error) {
	who, err := l.identify(in)
	if err == nil {
		return who, nil
	}
	a := devices.Attempt{Username: in.Username, ClientID: in.ClientID, Peer: in.Peer, Listener: in.Listener}
	if len(in.Certificates) > 0 {
		a.Subject = in.Certificates[0].Subject.CommonName
	}
	l.logins.Failed(a, err)
	return broker.Identity{}, err
}

func (l login) identify(in broker.Login) (broker.Identity, error) {
	id, credential, err := l.registry.Authenticate(in.Username, in.Password)
	if err == nil {
		return l.device(id, credential)
	}
	if muster.KindOf(err) != muster.Unauthorized {
		return broker.Identity{}, err
	}
	if in.Username == "" && len(in.Password) == 0 && len(in.Certificates) == 0 {
		return broker.Identity{}, devices.Deny("the client presented no credential")
	}
	if len(in.Certificates) > 0 {
		who, cerr := l.certificate(in)
		if cerr == nil || muster.KindOf(cerr) != muster.Unauthorized || in.Username == "" {
			return who, cerr
		}
		err = both(cerr, err)
	}
	guest, id, credential, known, gerr := l.join.Greet(join.Hello{
		ClientID: in.ClientID, Username: in.Username, Password: in.Password, Peer: in.Peer, Listener: in.Listener,
	})
	switch {
	case known && gerr != nil:
		return broker.Identity{}, gerr
	case known && id != "":
		return l.device(id, credential)
	case known:
		return l.guest(guest), nil
	}
	who, aerr := l.account(l.accounts.AuthenticateMQTT(in.Username, in.Password))
	if aerr == nil || muster.KindOf(aerr) != muster.Unauthorized {
		return who, aerr
	}
	return broker.Identity{}, err
}

// both is one refusal for two.
func both(certificate, password error) error {
	var reason string
	var about []muster.DeviceID
	for _, err := range []error{certificate, password} {
		if d, ok := errors.AsType[*devices.Denied](err); ok {
			if reason != "" {
				reason += "; and "
			}
			reason += d.Reason
			about = append(about, d.Devices...)
		}
	}
	return devices.Deny(reason, about...)
}

// certificate lets in who has shown a certificate in the TLS handshake, which may
// have been an earlier one of the same session.
func (l login) certificate(in broker.Login) (broker.Identity, error) {
	ctx, cancel := context.WithTimeout(context.Background(), joinTime)
	defer cancel()
	id, credential, err := l.join.Certificate(ctx, in.Certificates)
	if err != nil {
		return broker.Identity{}, err
	}
	return l.device(id, credential)
}

func (l login) guest(g join.Guest) broker.Identity {
	who := broker.Identity{Name: g.Name, Credential: g.Credential, Place: broker.Provisioning}
	if g.Quarantine {
		who.Place = broker.Quarantine
	}
	return who
}

func (l login) device(id muster.DeviceID, credential string) (broker.Identity, error) {
	return l.Refresh(broker.Identity{Device: id, Credential: credential})
}

// Refresh implements broker.Authenticator.
func (l login) Refresh(who broker.Identity) (broker.Identity, error) {
	if who.Place != broker.Normal {
		return who, l.join.RefreshGuest(who.Credential)
	}
	if who.Device == "" {
		return l.account(l.accounts.RefreshMQTT(who.Credential))
	}
	r, err := l.registry.Refresh(who.Device, who.Credential)
	if err != nil {
		return broker.Identity{}, err
	}
	return broker.Identity{
		Device: who.Device, Credential: who.Credential, Publish: r.Publish, Subscribe: r.Subscribe,
		Rate: broker.Rate{Messages: int(r.MessageRate), Bytes: int(r.ByteRate)}, Brings: r.CreateChildren,
	}, nil
}

// Parent implements broker.Authenticator.
func (l login) Parent(id muster.DeviceID) muster.DeviceID { return l.registry.Parent(id) }

func (l login) account(c accounts.MQTTClient, err error) (broker.Identity, error) {
	if err != nil {
		return broker.Identity{}, err
	}
	who := broker.Identity{
		Name: c.Name, Credential: c.ID, Admin: c.Admin, Publish: c.Publish, Subscribe: c.Subscribe,
		ReadFree: c.ReadFree, WriteFree: c.WriteFree,
	}
	if c.Selector != "" {
		who.May = func(id muster.DeviceID) bool { return l.registry.Covers(c.Selector, id) }
	}
	return who, nil
}

// recheckDevices has the broker look again at the connections of devices that a
// change is about.
func (s *Server) recheckDevices(affects func(device muster.DeviceID, credential string) bool) {
	s.broker.Recheck(func(who broker.Identity) bool { return who.Device != "" && affects(who.Device, who.Credential) })
}

// recheckAccounts has the broker look again at the connections of service accounts
// and API keys that a change is about.
func (s *Server) recheckAccounts(affects func(credential string) bool) {
	s.broker.Recheck(func(who broker.Identity) bool { return who.Device == "" && affects(who.Credential) })
}

// recheckGuests has the broker look again at the connections of clients that are to
// become devices.
func (s *Server) recheckGuests(affects func(credential string) bool) {
	s.broker.Recheck(func(who broker.Identity) bool { return who.Place != broker.Normal && affects(who.Credential) })
}

package server

import (
	"muster"
	"muster/accounts"
	"muster/broker"
	"muster/devices"
)

// login decides who an MQTT client is, a device, a service account or an API key,
// and what it may do. It answers in memory.
type login struct {
	registry *devices.Registry
	accounts *accounts.Accounts
}

// Authenticate implements broker.Authenticator. A device is looked for first; a
// client that is neither is told no more than that its credentials are wrong.
func (l login) Authenticate(in broker.Login) (broker.Identity, error) {
	id, credential, err := l.registry.Authenticate(in.Username, in.Password)
	if err == nil {
		return l.Refresh(broker.Identity{Device: id, Credential: credential})
	}
	if muster.KindOf(err) != muster.Unauthorized {
		return broker.Identity{}, err
	}
	return accountIdentity(l.accounts.AuthenticateMQTT(in.Username, in.Password))
}

// Refresh implements broker.Authenticator.
func (l login) Refresh(who broker.Identity) (broker.Identity, error) {
	if who.Device == "" {
		return accountIdentity(l.accounts.RefreshMQTT(who.Credential))
	}
	r, err := l.registry.Refresh(who.Device, who.Credential)
	if err != nil {
		return broker.Identity{}, err
	}
	return broker.Identity{
		Device: who.Device, Credential: who.Credential, Publish: r.Publish, Subscribe: r.Subscribe,
		Rate: broker.Rate{Messages: int(r.MessageRate), Bytes: int(r.ByteRate)},
	}, nil
}

// Parent implements broker.Authenticator.
func (l login) Parent(id muster.DeviceID) muster.DeviceID { return l.registry.Parent(id) }

func accountIdentity(c accounts.Client, err error) (broker.Identity, error) {
	if err != nil {
		return broker.Identity{}, err
	}
	return broker.Identity{
		Name: c.Name, Credential: c.ID, Admin: c.Admin, Publish: c.Publish, Subscribe: c.Subscribe,
		ReadFree: c.ReadFree, WriteFree: c.WriteFree,
	}, nil
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

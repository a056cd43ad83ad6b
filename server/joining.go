package server

import (
	"context"

	"muster"
	"muster/broker"
	"muster/broker/thingsboard"
	"muster/devices"
	"muster/devices/join"
)

// The topics of self-registration: Muster's, and ThingsBoard's with its own payloads.
const (
	provisionRequest  = "provision/request"
	provisionResponse = "provision/response"
	provisionTB       = "/provision/request"
)

// joining takes in what clients send that are to become devices.
type joining struct {
	join   *join.Join
	logins *devices.Logins
}

// accept says whether m was from such a client. Requests are answered on the spot: it
// is the client's own connection that waits.
func (j joining) accept(ctx context.Context, m broker.Message) bool {
	switch {
	case m.Kind == broker.KindSample:
		j.join.Sample(m.Client.Origin().Identity.Credential, m.Topic, m.Payload)
	case m.Kind == broker.KindRequest && m.Topic == provisionRequest:
		m.Client.Reply(provisionResponse, j.register(ctx, m)) // a client that does not listen any more needs no answer
	case m.Kind == broker.KindRequest && m.Topic == provisionTB:
		r := j.registerTB(ctx, m)
		m.Client.Reply(r.Topic, r.Payload) // likewise
	default:
		return false
	}
	return true
}

func (j joining) register(ctx context.Context, m broker.Message) []byte {
	q, err := join.ParseRequest(m.Payload)
	if err != nil {
		j.refused(m, "", err)
		return join.Answer(join.Response{}, err)
	}
	res, err := j.provision(ctx, m, q)
	return join.Answer(res, err)
}

// provision registers a device. That it is refused is kept for the operator too.
func (j joining) provision(ctx context.Context, m broker.Message, q join.Request) (join.Response, error) {
	res, err := j.join.Provision(ctx, m.Client.Origin().Peer, q)
	if err != nil {
		j.refused(m, muster.DeviceID(q.ID), err)
	}
	return res, err
}

func (j joining) refused(m broker.Message, id muster.DeviceID, err error) {
	o := m.Client.Origin()
	j.logins.Unregistered(devices.Attempt{Username: join.ProvisionUser, ClientID: o.ClientID, Peer: o.Peer, Listener: o.Listener}, id, err)
}

// registerTB is register as ThingsBoard's devices ask for it.
func (j joining) registerTB(ctx context.Context, m broker.Message) thingsboard.Reply {
	up, err := thingsboard.Up(m.Topic, "", m.Payload)
	if err != nil {
		j.refused(m, "", err)
		return failedTB(err)
	}
	var last thingsboard.Reply
	for _, q := range up.Requests {
		res, err := j.provision(ctx, m, requestOfTB(q.Provision))
		if err != nil {
			last = failedTB(err)
			continue
		}
		last = answerTB(q.Provision, res).Reply()
	}
	return last
}

func requestOfTB(p thingsboard.ProvisionRequest) join.Request {
	q := join.Request{ProfileKey: p.Key, ProfileSecret: p.Secret, ID: string(p.Device)}
	if string(p.Device) != p.DeviceName {
		q.Name = p.DeviceName
	}
	switch p.CredentialsType {
	case thingsboard.MQTTBasic:
		q.Credential, q.ClientID, q.Username, q.Password = string(devices.Basic), p.ClientID, p.Username, p.Password
	case thingsboard.X509Certificate:
		q.Credential, q.Certificate = string(devices.X509), p.Hash
	default:
		q.Credential, q.Token = string(devices.Token), p.Token
	}
	return q
}

func answerTB(p thingsboard.ProvisionRequest, res join.Response) thingsboard.ProvisionResponse {
	out := thingsboard.ProvisionResponse{Status: thingsboard.Success, CredentialsType: thingsboard.AccessToken, Value: res.Token}
	switch p.CredentialsType {
	case thingsboard.MQTTBasic:
		out = thingsboard.ProvisionResponse{
			Status: thingsboard.Success, CredentialsType: thingsboard.MQTTBasic, ClientID: p.ClientID, Username: res.Username, Password: res.Password,
		}
	case thingsboard.X509Certificate:
		out.CredentialsType, out.Value = thingsboard.X509Certificate, p.Hash
	}
	return out
}

func failedTB(err error) thingsboard.Reply {
	if muster.KindOf(err) == muster.Unauthorized { // ThingsBoard's word for a wrong key or secret
		return thingsboard.ProvisionResponse{Status: thingsboard.NotFound}.Reply()
	}
	return thingsboard.ProvisionResponse{Status: thingsboard.Failure, Reason: muster.Public(err)}.Reply()
}

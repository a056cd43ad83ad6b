package thingsboard

import (
	"muster"
)

// The types of credentials of ThingsBoard's self-registration that are taken.
const (
	AccessToken     = "ACCESS_TOKEN"
	MQTTBasic       = "MQTT_BASIC"
	X509Certificate = "X509_CERTIFICATE"
)

// ProvisionRequest is what a device asks that registers itself. Key and Secret name
// the profile and are never empty.
type ProvisionRequest struct {
	DeviceName  string
	Device      muster.DeviceID // what stands for DeviceName; empty when the device names none
	Key, Secret string
	// CredentialsType is AccessToken, MQTTBasic, X509Certificate, or empty, then the
	// server makes a token.
	CredentialsType              string
	Token                        string // of AccessToken; empty: the server makes one
	ClientID, Username, Password string // of MQTTBasic; each may be empty
	Hash                         string // of X509Certificate: the certificate, PEM or its base64 alone
	Gateway                      bool   // the device is a gateway
}

// maxCertificate is the longest Hash, in bytes.
const maxCertificate = 16 << 10

// upProvision reads what is published to /provision/request.
func upProvision(payload []byte) (Result, error) {
	doc, err := object(payload)
	if err != nil {
		return Result{}, err
	}
	var p ProvisionRequest
	for m := range members(doc) {
		if err := p.set(m); err != nil {
			return Result{}, err
		}
	}
	if err := p.check(); err != nil {
		return Result{}, err
	}
	return Result{Requests: []Request{{Kind: AskProvision, Provision: p}}}, nil
}

func (p *ProvisionRequest) set(m member) error {
	var to *string
	field := m.key()
	switch field {
	case "deviceName":
		to = &p.DeviceName
	case "provisionDeviceKey":
		to = &p.Key
	case "provisionDeviceSecret":
		to = &p.Secret
	case "credentialsType":
		to = &p.CredentialsType
	case "token":
		to = &p.Token
	case "clientId":
		to = &p.ClientID
	case "username":
		to = &p.Username
	case "password":
		to = &p.Password
	case "hash":
		if m.value[0] != '"' || len(m.value) > maxCertificate {
			return muster.Errorf(muster.Invalid, "hash is not a certificate of at most %d bytes as text", maxCertificate)
		}
		p.Hash = member{name: m.value}.key()
		return nil
	case "gateway":
		p.Gateway = m.value[0] == 't'
		return nil
	}
	if to == nil || isNull(m.value) {
		return nil
	}
	s, err := text(field, m.value)
	*to = s
	return err
}

func (p *ProvisionRequest) check() error {
	if p.Key == "" || p.Secret == "" {
		return muster.Errorf(muster.Invalid, "provisionDeviceKey and provisionDeviceSecret are both needed")
	}
	switch p.CredentialsType {
	case "", AccessToken, MQTTBasic:
	case X509Certificate:
		if p.Hash == "" {
			return muster.Errorf(muster.Invalid, "credentials of type X509_CERTIFICATE need hash, the certificate")
		}
	default:
		return muster.Errorf(muster.Invalid, "credentialsType is none of ACCESS_TOKEN, MQTT_BASIC and X509_CERTIFICATE")
	}
	if p.DeviceName == "" {
		return nil
	}
	var err error
	p.Device, err = ID(p.DeviceName)
	return err
}

// Status is how a registration ended.
type Status string

// The statuses of ThingsBoard.
const (
	Success  Status = "SUCCESS"
	Failure  Status = "FAILURE"   // the device may not register, or is registered already
	NotFound Status = "NOT_FOUND" // no profile has this key and secret
)

// ProvisionResponse is the answer to a ProvisionRequest.
type ProvisionResponse struct {
	Status Status
	Reason string // for people; empty: ThingsBoard's own words. Not with Success

	CredentialsType              string // with Success
	Value                        string // token, or certificate as it was sent
	ClientID, Username, Password string // of MQTTBasic
}

// Reply returns the answer for /provision/response. The status is told twice: as
// status, which ThingsBoard sends, and as provisionDeviceStatus, which parts of its
// documentation show.
func (p ProvisionResponse) Reply() Reply {
	out := appendMember([]byte{'{'}, []byte(`"status"`), appendText(nil, string(p.Status)))
	out = appendMember(out, []byte(`"provisionDeviceStatus"`), appendText(nil, string(p.Status)))
	if p.Status != Success {
		out = appendMember(out, []byte(`"errorMsg"`), appendText(nil, p.reason()))
		return Reply{provisionResponse, append(out, '}')}
	}
	out = appendMember(out, []byte(`"credentialsType"`), appendText(nil, p.CredentialsType))
	value := appendText(nil, p.Value)
	if p.CredentialsType == MQTTBasic {
		value = appendMember([]byte{'{'}, []byte(`"clientId"`), appendText(nil, p.ClientID))
		value = appendMember(value, []byte(`"userName"`), appendText(nil, p.Username))
		value = append(appendMember(value, []byte(`"password"`), appendText(nil, p.Password)), '}')
	}
	out = appendMember(out, []byte(`"credentialsValue"`), value)
	return Reply{provisionResponse, append(out, '}')}
}

func (p ProvisionResponse) reason() string {
	switch {
	case p.Reason != "":
		return p.Reason
	case p.Status == NotFound:
		return "Provision data was not found!"
	}
	return "Failed to provision device!"
}

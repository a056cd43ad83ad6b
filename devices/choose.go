package devices

import (
	"crypto/rand"

	"muster"
)

// Choose fixes the token or secret that CreateMany would make for s and returns it as it
// is to be handed out, zero when s asks for none. Those who must have it in a safe place
// before the device is made call it; its id is known afterwards only.
func (s *Spec) Choose() Issued {
	is := Issued{Kind: s.Credential, Username: string(s.ID)}
	switch s.Credential {
	case Token:
		if s.Given == "" {
			s.Given = tokenPrefix + rand.Text()
		}
		is.Token, is.Username = s.Given, s.Given
	case Secret:
		if s.Given == "" {
			s.Given = secretPrefix + rand.Text()
		}
		is.Password = s.Given
	default:
		return Issued{}
	}
	return is
}

// Preview returns the device id as c would make it now: the error is CheckChange's.
func (r *Registry) Preview(id muster.DeviceID, c Change) (Device, error) {
	e, err := r.entry(id)
	if err != nil {
		return Device{}, err
	}
	return r.changed(e, c)
}

// The prefixes of tokens and secrets that Muster makes.
const (
	tokenPrefix  = "mdt_"
	secretPrefix = "mds_"
)

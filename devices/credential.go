package devices

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	// MaxCredentials is the most credentials a device may have at once.
	MaxCredentials = 16
	// MinToken is the fewest bytes of a token that a user chooses.
	MinToken = 20
	// MinSecret is the fewest bytes of a secret that a user chooses.
	MinSecret = 16

	maxGiven = 256 // bytes of a chosen token or secret
)

// Issued is a credential as it is shown to the user, once. Printing or logging
// it shows no secret.
type Issued struct {
	ID       string
	Kind     CredentialKind
	Token    string // of kind Token
	Username string // what goes into CONNECT's user name
	Password string // of kind Secret
}

// String returns the credential's kind and id only, so that no secret reaches a log.
func (i Issued) String() string { return fmt.Sprintf("%s %s", i.Kind, i.ID) }

// GoString is String, for %#v.
func (i Issued) GoString() string { return i.String() }

// newCredential makes a credential of kind for device from given or, when that
// is empty, from 130 random bits.
func newCredential(device muster.DeviceID, kind CredentialKind, given string, at muster.Micros) (Credential, Issued, error) {
	is := Issued{ID: "cred_" + rand.Text(), Kind: kind, Username: string(device)}
	text := given
	switch kind {
	case Token:
		if text == "" {
			text = "mdt_" + rand.Text()
		} else if err := checkToken(text); err != nil {
			return Credential{}, Issued{}, err
		}
		is.Token, is.Username = text, text
	case Secret:
		if text == "" {
			text = "mds_" + rand.Text()
		} else if err := checkSecret(text); err != nil {
			return Credential{}, Issued{}, err
		}
		is.Password = text
	default:
		return Credential{}, Issued{}, muster.Errorf(muster.Invalid, "credential kind is neither token nor secret")
	}
	c := Credential{ID: is.ID, Device: device, Kind: kind, Hash: sha256.Sum256([]byte(text)), Created: at}
	return c, is, nil
}

// checkToken allows printable ASCII without space: a token is an MQTT user name,
// an HTTP header and often typed.
func checkToken(s string) error {
	if len(s) < MinToken || len(s) > maxGiven {
		return muster.Errorf(muster.Invalid, "a token has %d to %d characters", MinToken, maxGiven)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return muster.Errorf(muster.Invalid, "a token has printable ASCII characters only, and no space")
		}
	}
	return nil
}

func checkSecret(s string) error {
	if len(s) < MinSecret || len(s) > maxGiven {
		return muster.Errorf(muster.Invalid, "a secret has %d to %d bytes", MinSecret, maxGiven)
	}
	if !utf8.ValidString(s) {
		return muster.Errorf(muster.Invalid, "a secret is not UTF-8")
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return muster.Errorf(muster.Invalid, "a secret has no control characters")
		}
	}
	return nil
}

// AddCredential gives device one more credential of kind: given, or made by
// Muster when given is empty. A chosen token has 20 to 256 printable ASCII
// characters and belongs to one device only (else Conflict); a chosen secret has
// 16 to 256 bytes.
func (r *Registry) AddCredential(ctx context.Context, device muster.DeviceID, kind CredentialKind, given string) (Issued, error) {
	cred, is, err := newCredential(device, kind, given, muster.MicrosOf(r.now()))
	if err != nil {
		return Issued{}, err
	}
	err = r.change(ctx, func(ctx context.Context) error { return r.addCredential(ctx, cred, is.Token) })
	if err != nil {
		return Issued{}, err
	}
	r.watch.changed([]muster.DeviceID{device})
	return is, nil
}

func (r *Registry) addCredential(ctx context.Context, cred Credential, token string) error {
	e, err := r.entry(cred.Device)
	if err != nil {
		return err
	}
	if len(e.creds) >= MaxCredentials {
		return muster.Errorf(muster.Conflict, "the device has %d credentials already: remove one first", MaxCredentials)
	}
	if cred.Kind == Token {
		if _, err := r.Get(muster.DeviceID(token)); err == nil || r.auth.taken(cred.Hash) {
			return errTokenTaken()
		}
	}
	if err := r.store.InsertCredential(ctx, cred); err != nil {
		return fmt.Errorf("insert credential: %w", err)
	}
	r.setCredentials(e, append(slices.Clone(e.creds), cred))
	r.auth.add(cred)
	return nil
}

// Credentials returns device's credentials, oldest first, or NotFound.
func (r *Registry) Credentials(device muster.DeviceID) ([]Credential, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[device]
	if !ok {
		return nil, errNoDevice()
	}
	return slices.Clone(e.creds), nil
}

// RemoveCredential revokes one credential and reports those who came in by it to
// OnRights; the device's other connections stay. NotFound when the device or the credential is not there.
func (r *Registry) RemoveCredential(ctx context.Context, device muster.DeviceID, id string) error {
	err := r.change(ctx, func(ctx context.Context) error { return r.removeCredential(ctx, device, id) })
	if err != nil {
		return err
	}
	r.onRights(func(d muster.DeviceID, credential string) bool { return d == device && credential == id })
	r.watch.changed([]muster.DeviceID{device})
	return nil
}

func (r *Registry) removeCredential(ctx context.Context, device muster.DeviceID, id string) error {
	e, err := r.entry(device)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(e.creds, func(c Credential) bool { return c.ID == id })
	if i < 0 {
		return muster.Errorf(muster.NotFound, "the device has no such credential")
	}
	cred := e.creds[i]
	if err := r.store.DeleteCredential(ctx, device, id); err != nil {
		return fmt.Errorf("delete credential: %w", err)
	}
	r.auth.remove(cred)
	r.setCredentials(e, slices.Delete(slices.Clone(e.creds), i, i+1))
	return nil
}

func (r *Registry) setCredentials(e *entry, cs []Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.creds = cs
}

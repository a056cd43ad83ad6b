package devices

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	// MaxCredentials is the most credentials a device may have at once.
	MaxCredentials = 16
	// MaxCredentialLabel is the longest label of a credential, in bytes.
	MaxCredentialLabel = 100
	// MinToken is the fewest bytes of a token that a user chooses.
	MinToken = 20
	// MinSecret is the fewest bytes of a secret that a user chooses.
	MinSecret = 16

	maxGiven = 256 // bytes of a chosen token, secret, user name or client id
)

// Grant describes a credential to be made.
type Grant struct {
	Kind CredentialKind
	// Given is the token or secret when the user chose it: a token of 20 to 256 printable
	// ASCII characters, a secret or password of 16 to 256 bytes. Empty lets Muster make
	// one.
	Given string
	// Hash of an Adoption credential: see AdoptionHash.
	Hash [32]byte
	// Username and ClientID are what of Basic is presented beside the password; an empty
	// ClientID stands for any.
	Username, ClientID string
	// Certificate is what of X509 is pinned by its key. It never opens longer than the
	// certificate is valid.
	Certificate *x509.Certificate
	Label       string
	Expires     time.Time // zero for never
	// CA is for join: see Credential.
	CA string
	// First makes it a Conflict when the device has a credential already.
	First bool
}

// Issued is a credential as it is shown to the user, once. Printing or logging
// it shows no secret.
type Issued struct {
	ID       string
	Kind     CredentialKind
	Token    string // of kind Token
	Username string // what goes into CONNECT's user name
	Password string // of kinds Secret and Basic
	Expires  muster.Micros
}

// String returns the credential's kind and id only, so that no secret reaches a log.
func (i Issued) String() string { return fmt.Sprintf("%s %s", i.Kind, i.ID) }

// GoString is String, for %#v.
func (i Issued) GoString() string { return i.String() }

// credential makes what g describes for device; what Muster chooses has 130 random
// bits.
func (g *Grant) credential(device muster.DeviceID, now time.Time) (Credential, Issued, error) {
	if err := g.check(now); err != nil {
		return Credential{}, Issued{}, err
	}
	c := Credential{ID: "cred_" + rand.Text(), Device: device, Kind: g.Kind, Created: muster.MicrosOf(now), Label: g.Label, CA: g.CA}
	if !g.Expires.IsZero() {
		c.Expires = muster.MicrosOf(g.Expires)
	}
	is := Issued{ID: c.ID, Kind: g.Kind, Username: string(device)}
	var err error
	switch g.Kind {
	case Token:
		err = g.token(&c, &is)
	case Secret:
		err = g.secret(&c, &is)
	case Basic:
		err = g.basic(&c, &is)
	case Adoption:
		c.Hash = g.Hash
	case X509:
		err = g.certificate(&c, now)
	default:
		err = muster.InvalidAt("kind", "a credential's kind is token, secret or x509")
	}
	is.Expires = c.Expires
	return c, is, err
}

func (g *Grant) check(now time.Time) error {
	if err := checkText("the credential's label", g.Label, MaxCredentialLabel); err != nil {
		return muster.At(err, "label")
	}
	if !g.Expires.IsZero() && !g.Expires.After(now) {
		return muster.InvalidAt("expires_at", "the credential's expiry is not in the future")
	}
	return nil
}

func (g *Grant) token(c *Credential, is *Issued) error {
	text := g.Given
	if text == "" {
		text = tokenPrefix + rand.Text()
	} else if err := checkToken(text); err != nil {
		return err
	}
	is.Token, is.Username = text, text
	c.Hash = sha256.Sum256([]byte(text))
	return nil
}

func (g *Grant) secret(c *Credential, is *Issued) error {
	text := g.Given
	if text == "" {
		text = secretPrefix + rand.Text()
	} else if err := checkSecret(text); err != nil {
		return err
	}
	is.Password = text
	c.Hash = sha256.Sum256([]byte(text))
	return nil
}

// basic is a secret under another user name than the device's id.
func (g *Grant) basic(c *Credential, is *Issued) error {
	if len(g.ClientID) > maxGiven || g.Username == "" || checkText("the user name", g.Username, maxGiven) != nil {
		return muster.InvalidAt("username", "a basic credential needs a user name of plain text; it and the client id have at most %d bytes", maxGiven)
	}
	if err := g.secret(c, is); err != nil {
		return err
	}
	is.Username = g.Username
	c.Hash = wholeHash(Basic, g.ClientID, g.Username, is.Password)
	return nil
}

// AdoptionHash is the hash of the credential that lets a client in which presents an
// adoption key with this client id and this user name, empty when that is the key.
func AdoptionHash(clientID, username, key string) [32]byte {
	return wholeHash(Adoption, clientID, username, key)
}

// wholeHash is the hash of a credential that is made of three texts. No token has the
// same: it begins with no control character.
func wholeHash(kind CredentialKind, clientID, username, password string) [32]byte {
	b := append([]byte{0}, kind...)
	for _, part := range []string{clientID, username, password} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return sha256.Sum256(b)
}

// checkToken allows printable ASCII without space: a token is an MQTT user name,
// an HTTP header and often typed.
func checkToken(s string) error {
	if len(s) < MinToken || len(s) > maxGiven {
		return muster.InvalidAt("token", "a token has %d to %d characters", MinToken, maxGiven)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return muster.InvalidAt("token", "a token has printable ASCII characters only, and no space")
		}
	}
	return nil
}

func checkSecret(s string) error {
	if len(s) < MinSecret || len(s) > maxGiven {
		return muster.InvalidAt("secret", "a secret has %d to %d bytes", MinSecret, maxGiven)
	}
	if !utf8.ValidString(s) {
		return muster.InvalidAt("secret", "a secret is not UTF-8")
	}
	for _, c := range s {
		if unicode.IsControl(c) {
			return muster.InvalidAt("secret", "a secret has no control characters")
		}
	}
	return nil
}

// AddCredential gives device one more credential of kind, Token or Secret: given, or
// made by Muster when given is empty. See AddGrant.
func (r *Registry) AddCredential(ctx context.Context, device muster.DeviceID, kind CredentialKind, given string) (Issued, error) {
	return r.AddGrant(ctx, device, Grant{Kind: kind, Given: given})
}

// AddGrant gives device one more credential. Invalid when a rule of Grant is broken;
// Conflict when another device has this token, key or basic credential, or the device
// has MaxCredentials that have not expired.
func (r *Registry) AddGrant(ctx context.Context, device muster.DeviceID, g Grant) (Issued, error) {
	cred, is, err := g.credential(device, r.now())
	if err != nil {
		return Issued{}, err
	}
	err = r.change(ctx, func(ctx context.Context) error { return r.addCredential(ctx, cred, is, nil, g.First) })
	if err != nil {
		return Issued{}, err
	}
	r.watch.changed([]muster.DeviceID{device})
	return is, nil
}

// addCredential stores cred, and with it ends the credential rotated when that is
// given. It is called in turn.
func (r *Registry) addCredential(ctx context.Context, cred Credential, is Issued, rotated *swap, first bool) error {
	e, err := r.entry(cred.Device)
	if err != nil {
		return err
	}
	if first && len(e.creds) > 0 {
		return muster.Errorf(muster.Conflict, "the device has a credential already")
	}
	revived, err := r.checkHash(cred, is)
	if err != nil {
		return err
	}
	drop := r.toDrop(e, revived)
	if len(e.creds)-len(drop) >= MaxCredentials {
		return muster.Errorf(muster.Conflict, "the device has %d credentials already: remove one first", MaxCredentials)
	}
	put, ids := []Credential{cred}, make([]string, len(drop))
	for i, h := range drop {
		ids[i] = h.ID
	}
	if rotated != nil {
		put = append(put, rotated.fresh.Credential)
	}
	r.noteAdded(ctx, &cred, drop, rotated)
	if err := r.store.ReplaceCredentials(ctx, put, ids); err != nil {
		return fmt.Errorf("insert credential: %w", err)
	}
	for _, h := range drop {
		r.drop(e, h)
	}
	if rotated != nil {
		r.swap(e, rotated)
	}
	r.keep(e, hold(cred))
	return nil
}

// checkHash refuses a credential that somebody has. revived is the device's own
// revoked key, which giving it again makes good.
func (r *Registry) checkHash(cred Credential, is Issued) (revived *held, err error) {
	switch cred.Kind {
	case Secret:
		return nil, nil
	case Token:
		if _, err := r.Get(muster.DeviceID(is.Token)); err == nil || r.auth.taken(cred.Hash) {
			return nil, errTokenTaken()
		}
		return nil, nil
	case X509:
		h := r.auth.find(X509, cred.Hash)
		switch {
		case h == nil && r.auth.taken(cred.Hash):
			return nil, errTokenTaken()
		case h == nil:
			return nil, nil
		case h.Device != cred.Device:
			return nil, muster.Errorf(muster.Conflict, "another device, %s, has this key: two devices may not share one", h.Device)
		case h.over(cred.Created) == "":
			return nil, muster.Errorf(muster.Conflict, "the device has this key already")
		}
		return h, nil
	default:
		if r.auth.taken(cred.Hash) {
			return nil, muster.Errorf(muster.Conflict, "this credential is taken")
		}
		return nil, nil
	}
}

// toDrop returns what goes to make room: the key that is given anew, and of a full
// device what expired first. A revoked key keeps its place, or it would be let in.
func (r *Registry) toDrop(e *entry, revived *held) []*held {
	if revived != nil {
		return []*held{revived}
	}
	if len(e.creds) < MaxCredentials {
		return nil
	}
	at := muster.MicrosOf(r.now())
	var first *held
	for _, h := range e.creds {
		if h.Revoked == 0 && h.over(at) != "" && (first == nil || h.Expires < first.Expires) {
			first = h
		}
	}
	if first == nil {
		return nil
	}
	return []*held{first}
}

// Credentials returns device's credentials, oldest first, or NotFound.
func (r *Registry) Credentials(device muster.DeviceID) ([]Credential, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.byID[device]
	if !ok {
		return nil, errNoDevice()
	}
	var out []Credential
	for _, h := range e.creds {
		out = append(out, h.snapshot())
	}
	return out, nil
}

// RemoveCredential revokes one credential and reports those who came in by it to
// OnRights; the device's other connections stay. A key that came by a CA stays as
// revoked until its certificate expires. NotFound when the device or the credential is
// not there; Conflict when it is revoked already.
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
	e, h, err := r.credential(device, id)
	if err != nil {
		return err
	}
	if h.Revoked != 0 {
		return muster.Errorf(muster.Conflict, "the credential is revoked already")
	}
	at := muster.MicrosOf(r.now())
	was := h.snapshot()
	if h.CA == "" || h.over(at) != "" {
		r.noteRemoved(ctx, &was, nil)
		if err := r.store.ReplaceCredentials(ctx, nil, []string{id}); err != nil {
			return fmt.Errorf("delete credential: %w", err)
		}
		r.drop(e, h)
		return nil
	}
	s := &swap{old: h, fresh: hold(h.snapshot())}
	s.fresh.Revoked = at
	r.noteRemoved(ctx, &was, &s.fresh.Credential)
	if err := r.store.ReplaceCredentials(ctx, []Credential{s.fresh.Credential}, nil); err != nil {
		return fmt.Errorf("revoke credential: %w", err)
	}
	r.swap(e, s)
	return nil
}

// credential returns one credential of a device. It is called in turn.
func (r *Registry) credential(device muster.DeviceID, id string) (*entry, *held, error) {
	e, err := r.entry(device)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(e.creds, func(h *held) bool { return h.ID == id })
	if i < 0 {
		return nil, nil, muster.Errorf(muster.NotFound, "the device has no such credential")
	}
	return e, e.creds[i], nil
}

// swap is a credential that becomes another one.
type swap struct{ old, fresh *held }

// keep, swap and drop change what is in memory, in turn: a credential opens only
// while it is among its device's.
func (r *Registry) keep(e *entry, h *held) {
	r.setCredentials(e, append(slices.Clone(e.creds), h))
	r.expiry.set(h)
	r.auth.add(h)
}

func (r *Registry) swap(e *entry, s *swap) {
	list := slices.Clone(e.creds)
	list[slices.Index(list, s.old)] = s.fresh
	r.expiry.remove(s.old)
	r.expiry.set(s.fresh)
	r.setCredentials(e, list)
	r.auth.replace(s.old, s.fresh)
	r.uses.forget(s.old)
	if at := s.old.used.Load(); at != int64(s.fresh.LastUsed) { // used since it was copied
		s.fresh.used.Store(at)
		r.uses.soil(s.fresh)
	}
}

func (r *Registry) drop(e *entry, h *held) {
	r.auth.remove(h)
	r.forget(h)
	r.setCredentials(e, slices.DeleteFunc(slices.Clone(e.creds), func(o *held) bool { return o == h }))
}

// forget ends what is kept about h beside the device and the index.
func (r *Registry) forget(h *held) {
	r.expiry.remove(h)
	r.uses.forget(h)
}

func (r *Registry) setCredentials(e *entry, cs []*held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(cs) == 0 {
		cs = nil
	}
	e.creds = cs
}

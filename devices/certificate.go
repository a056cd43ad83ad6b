package devices

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"muster"
)

const (
	// MaxCertificate is the longest text of a certificate, in bytes.
	MaxCertificate = 16 << 10

	minRSA = 2048 // bits; the shortest that NIST SP 800-57 allows after 2030 is 3072, before 2048
	maxRSA = 8192 // bits; crypto/tls takes no longer one either

	pemBegin = "-----BEGIN CERTIFICATE-----"
	pemEnd   = "-----END CERTIFICATE-----"
)

// ParseCertificate reads exactly one X.509 certificate in PEM (RFC 7468), also without
// line breaks, or its bare base64, of at most MaxCertificate bytes. All else is Invalid.
func ParseCertificate(text string) (*x509.Certificate, error) {
	if len(text) > MaxCertificate {
		return nil, muster.Errorf(muster.TooLarge, "the certificate is longer than %d bytes", MaxCertificate)
	}
	body := strings.TrimSpace(text)
	if rest, ok := strings.CutPrefix(body, pemBegin); ok {
		if body, ok = strings.CutSuffix(rest, pemEnd); !ok {
			return nil, muster.InvalidAt("certificate", "the text does not end with the certificate it begins with: give one certificate")
		}
	}
	body = strings.Map(func(c rune) rune {
		if unicode.IsSpace(c) {
			return -1
		}
		return c
	}, body)
	der, err := base64.StdEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, muster.InvalidAt("certificate", "the text is not one certificate in PEM")
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, muster.InvalidAt("certificate", "the certificate cannot be read: %w", err)
	}
	return c, nil
}

// KeyHash is what a certificate's key is known by: the SHA-256 of its
// SubjectPublicKeyInfo in DER (RFC 5280, 4.1.2.7), written anew, so that one key has one
// hash in all certificates. Invalid for a key of a kind that is not spoken.
func KeyHash(c *x509.Certificate) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(c.PublicKey)
	if err != nil {
		return [32]byte{}, muster.InvalidAt("certificate", "the certificate's key is neither RSA, ECDSA nor Ed25519")
	}
	return sha256.Sum256(der), nil
}

// CheckKey returns Invalid for a key that is too weak or of another kind than RSA of
// 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, and Ed25519.
func CheckKey(c *x509.Certificate) error {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n < minRSA || n > maxRSA {
			return muster.InvalidAt("certificate", "an RSA key of %d bits is not between %d and %d", n, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return muster.InvalidAt("certificate", "an ECDSA key is not on P-256, P-384 or P-521")
		}
	case ed25519.PublicKey:
	default:
		return muster.InvalidAt("certificate", "the certificate's key is neither RSA, ECDSA nor Ed25519")
	}
	return nil
}

// CheckDevice returns Invalid unless c may be a device's certificate as far as it
// says itself: its key, its validity now, and its purposes when it names any (RFC 5280,
// 4.2.1.12).
func CheckDevice(c *x509.Certificate, now time.Time) error {
	switch {
	case now.Before(c.NotBefore):
		return muster.InvalidAt("certificate", "the certificate is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	case now.After(c.NotAfter):
		return muster.InvalidAt("certificate", "the certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	named := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	if named && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return muster.InvalidAt("certificate", "the certificate's purposes do not include client authentication")
	}
	return CheckKey(c)
}

// certificate pins g's certificate. One of a CA has been judged by join.
func (g *Grant) certificate(c *Credential, now time.Time) error {
	cert := g.Certificate
	if cert == nil {
		return muster.InvalidAt("certificate", "a credential of kind x509 needs a certificate")
	}
	if err := CheckDevice(cert, latest(now, cert.NotBefore)); err != nil {
		return err
	}
	hash, err := KeyHash(cert)
	if err != nil {
		return err
	}
	c.Hash = hash
	if ends := muster.MicrosOf(cert.NotAfter) + 1; c.Expires == 0 || ends < c.Expires {
		c.Expires = ends
	}
	if c.Label == "" {
		c.Label = plainLabel(cert.Subject.String())
	}
	return nil
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// plainLabel cuts s to a label, without what a label may not have.
func plainLabel(s string) string {
	s = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return -1
		}
		return c
	}, strings.ToValidUTF8(s, ""))
	for len(s) > MaxCredentialLabel {
		s = strings.ToValidUTF8(s[:MaxCredentialLabel], "")
	}
	return s
}

// Key returns the credential that this hash of a key (KeyHash) is, false when it is
// no device's.
func (r *Registry) Key(hash [32]byte) (Credential, bool) {
	h := r.auth.find(X509, hash)
	if h == nil {
		return Credential{}, false
	}
	return h.snapshot(), true
}

// AuthenticateKey is Authenticate for a client that has shown in a TLS handshake that
// the key with this hash is its own, and has nobody else's word for it than a pin.
func (r *Registry) AuthenticateKey(hash [32]byte) (device muster.DeviceID, credential string, err error) {
	h := r.auth.find(X509, hash)
	if h == nil || h.CA != "" {
		return "", "", Deny("the certificate's key is pinned for no device")
	}
	return r.admitBy(h)
}

// Learn lets device in by a certificate of the authority g.CA, g.Expires being when it
// or one above it runs out, and remembers the key as the device's. It is remembered in
// memory, and saved by RunUses. Unauthorized when the key is another device's or was
// revoked, or the device has MaxCredentials others; NotFound when there is no such device.
func (r *Registry) Learn(ctx context.Context, device muster.DeviceID, g Grant) (credential string, err error) {
	g.Kind = X509
	cred, _, err := g.credential(device, r.now())
	if err != nil {
		return "", err
	}
	switch h := r.auth.find(X509, cred.Hash); {
	case h == nil:
	case h.Device != device:
		return "", errShared(device, h.Device)
	case known(h, &cred):
		_, credential, err = r.admitBy(h)
		return credential, err
	}
	var forgotten string
	err = r.change(ctx, func(ctx context.Context) (err error) {
		credential, forgotten, err = r.learn(ctx, cred)
		return err
	})
	if forgotten != "" {
		r.onRights(func(d muster.DeviceID, credential string) bool { return d == device && credential == forgotten })
	}
	return credential, err
}

// known says that nothing is to be learned of the device's own key: it is by the same
// CA until the same time, or was revoked, or somebody gave it to the device.
func known(h *held, c *Credential) bool {
	return h.Revoked != 0 || h.CA == c.CA && h.Expires == c.Expires || h.CA == "" && h.over(c.Created) == ""
}

// learn is called in turn. It returns the credential's id, and that of one that was
// forgotten to make room.
func (r *Registry) learn(ctx context.Context, cred Credential) (id, forgotten string, err error) {
	e, err := r.entry(cred.Device)
	if err != nil {
		return "", "", err
	}
	old := r.auth.find(X509, cred.Hash)
	switch {
	case old == nil:
	case old.Device != cred.Device:
		return "", "", errShared(cred.Device, old.Device)
	case known(old, &cred):
		_, id, err := r.admitBy(old)
		return id, "", err
	default: // the certificate was renewed, or is another CA's now
		fresh := old.snapshot()
		fresh.CA, fresh.Expires, fresh.Label = cred.CA, cred.Expires, cred.Label
		s := &swap{old, hold(fresh)}
		r.swap(e, s)
		r.uses.note(s.fresh, cred.Created)
		return s.fresh.ID, "", nil
	}
	if forgotten, err = r.makeRoomFor(ctx, e); err != nil {
		return "", "", err
	}
	h := hold(cred)
	r.keep(e, h)
	r.uses.note(h, cred.Created)
	return h.ID, forgotten, nil
}

// makeRoomFor forgets of a full device the key of a CA that was not used for longest,
// and returns its id, empty when there was room.
func (r *Registry) makeRoomFor(ctx context.Context, e *entry) (forgotten string, err error) {
	if len(e.creds) < MaxCredentials {
		return "", nil
	}
	drop := r.toDrop(e, nil)
	if len(drop) == 0 {
		var oldest *held
		for _, h := range e.creds {
			if h.CA != "" && h.Revoked == 0 && (oldest == nil || h.used.Load() < oldest.used.Load()) {
				oldest = h
			}
		}
		if oldest == nil {
			return "", Deny(fmt.Sprintf("the device has %d credentials already: remove one first", MaxCredentials), e.ID)
		}
		drop = []*held{oldest}
	}
	if err := r.store.ReplaceCredentials(ctx, nil, []string{drop[0].ID}); err != nil {
		return "", fmt.Errorf("forget a certificate's key: %w", err)
	}
	r.drop(e, drop[0])
	return drop[0].ID, nil
}

func errShared(device, owner muster.DeviceID) error {
	return Deny(fmt.Sprintf("a certificate for %s has the key of %s: two devices may not share one", device, owner), device, owner)
}

// ForgetAuthority runs commit, which takes the authority ca and the keys that came by
// it out of the store, forgets these keys, and reports who came in by one to OnRights.
// Keys that were revoked stay so. Without commit it takes the keys out itself.
func (r *Registry) ForgetAuthority(ctx context.Context, ca string, commit func(ctx context.Context) error) error {
	var gone []*held
	ids := map[string]struct{}{}
	err := r.change(ctx, func(ctx context.Context) error {
		gone = r.learnedBy(ca)
		if commit == nil {
			commit = func(ctx context.Context) error { return r.deleteAll(ctx, gone) }
		}
		if err := commit(ctx); err != nil {
			gone = nil
			return err
		}
		for _, h := range gone {
			ids[h.ID] = struct{}{}
			e, err := r.entry(h.Device)
			if err != nil {
				return err
			}
			r.drop(e, h)
		}
		return nil
	})
	if len(ids) > 0 {
		r.onRights(func(_ muster.DeviceID, credential string) bool { _, ok := ids[credential]; return ok })
		devices := make([]muster.DeviceID, len(gone))
		for i, h := range gone {
			devices[i] = h.Device
		}
		r.watch.changed(devices)
	}
	return err
}

func (r *Registry) learnedBy(ca string) (out []*held) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.order {
		for _, h := range e.creds {
			if h.CA == ca && h.Revoked == 0 {
				out = append(out, h)
			}
		}
	}
	return out
}

func (r *Registry) deleteAll(ctx context.Context, list []*held) error {
	ids := make([]string, len(list))
	for i, h := range list {
		ids[i] = h.ID
	}
	if err := r.store.ReplaceCredentials(ctx, nil, ids); err != nil {
		return fmt.Errorf("delete %d credentials: %w", len(ids), err)
	}
	return nil
}

// dropAll forgets keys whose certificates have expired.
func (r *Registry) dropAll(ctx context.Context, list []*held) error {
	if len(list) == 0 {
		return nil
	}
	return r.change(ctx, func(ctx context.Context) error {
		var still []*held // one that was renewed meanwhile is another
		var of []*entry
		for _, h := range list {
			if e, err := r.entry(h.Device); err == nil && slices.Contains(e.creds, h) {
				still, of = append(still, h), append(of, e)
			}
		}
		if err := r.deleteAll(ctx, still); err != nil {
			return err
		}
		for i, h := range still {
			r.drop(of[i], h)
		}
		return nil
	})
}

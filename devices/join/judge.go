package join

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/devices"
)

const (
	maxPath      = 3 // certificates from the device's to the authority's
	maxPresented = 8 // certificates that a client may send
)

// verdict is what a chain of certificates proves.
type verdict struct {
	ca    Authority
	until time.Time // the first of the path to run out does so then
}

// judge says by which authority certs, a client's own certificate first, is good now.
// An error is Invalid and says what keeps it from that.
func (a *anchors) judge(certs []*x509.Certificate, now time.Time) (verdict, error) {
	leaf := certs[0]
	if len(certs) > maxPresented {
		return verdict{}, muster.Errorf(muster.Invalid, "the client sent %d certificates, at most %d are read", len(certs), maxPresented)
	}
	if err := devices.CheckDevice(leaf, now); err != nil {
		return verdict{}, err
	}
	if leaf.IsCA {
		return verdict{}, muster.Errorf(muster.Invalid, "the certificate is an authority's and not a device's")
	}
	if err := checkSigned(leaf); err != nil {
		return verdict{}, err
	}
	if len(a.list) == 0 {
		return verdict{}, muster.Errorf(muster.Invalid, "no certificate authority is registered and the key is pinned for no device")
	}
	between := x509.NewCertPool()
	for _, c := range certs[1:] {
		between.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.pool, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return verdict{}, explain(err, certs, now)
	}
	return a.choose(chains)
}

// checkSigned refuses a signature that others can make too.
func checkSigned(c *x509.Certificate) error {
	switch c.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm, x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256, x509.ECDSAWithSHA1:
		return muster.Errorf(muster.Invalid, "the certificate of %s is signed with %s, which proves nothing", subject(c), c.SignatureAlgorithm)
	default:
		return nil
	}
}

// choose returns what the first chain proves that may prove anything.
func (a *anchors) choose(chains [][]*x509.Certificate) (verdict, error) {
	var why error
	for _, chain := range chains {
		v, err := a.path(chain)
		if err == nil {
			return v, nil
		}
		why = err
	}
	return verdict{}, why
}

func (a *anchors) path(chain []*x509.Certificate) (verdict, error) {
	if len(chain) > maxPath {
		return verdict{}, muster.Errorf(muster.Invalid, "the path to the authority has %d certificates, at most %d are allowed", len(chain), maxPath)
	}
	v := verdict{until: chain[0].NotAfter}
	for i, c := range chain {
		if i < len(chain)-1 { // who vouches for the authority does not matter
			if err := checkSigned(c); err != nil {
				return verdict{}, err
			}
		}
		if err := devices.CheckKey(c); err != nil {
			return verdict{}, muster.Errorf(muster.Invalid, "the certificate of %s: %w", subject(c), err)
		}
		if c.NotAfter.Before(v.until) {
			v.until = c.NotAfter
		}
	}
	var ok bool
	if v.ca, ok = a.of(chain[len(chain)-1]); !ok || len(chain) < 2 {
		return verdict{}, muster.Errorf(muster.Invalid, "the path does not end at a registered authority")
	}
	if v.ca.Verified == 0 {
		return verdict{}, muster.Errorf(muster.Invalid, "the authority %s is not verified yet: nobody has shown that they have its key", v.ca.Name)
	}
	if v.ca.Code != "" && chain[0].Subject.CommonName == v.ca.Code {
		return verdict{}, muster.Errorf(muster.Invalid, "the certificate is the one that verified the authority %s, and not a device's", v.ca.Name)
	}
	return v, nil
}

// explain says in our words why x509 found no path.
func explain(err error, certs []*x509.Certificate, now time.Time) error {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		for _, c := range certs[1:] {
			if err := checkSigned(c); err != nil {
				return err
			}
			if !c.IsCA && bytes.Equal(c.RawSubject, certs[0].RawIssuer) {
				return errNoCA(c)
			}
		}
		return muster.Errorf(muster.Invalid, "no registered authority signed the certificate; its issuer is %s", cut(certs[0].Issuer.String()))
	}
	e, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || e.Cert == nil {
		if _, ok := errors.AsType[x509.UnhandledCriticalExtension](err); ok {
			return muster.Errorf(muster.Invalid, "a certificate of the path has a critical extension that is not known")
		}
		return muster.Errorf(muster.Invalid, "the certificate cannot be verified: %s", cut(err.Error()))
	}
	switch e.Reason {
	case x509.Expired:
		if now.Before(e.Cert.NotBefore) {
			return muster.Errorf(muster.Invalid, "the certificate of %s above it is not valid before %s", subject(e.Cert), e.Cert.NotBefore.UTC().Format(time.RFC3339))
		}
		return muster.Errorf(muster.Invalid, "the certificate of %s above it expired at %s", subject(e.Cert), e.Cert.NotAfter.UTC().Format(time.RFC3339))
	case x509.IncompatibleUsage:
		return muster.Errorf(muster.Invalid, "the purposes of an authority above it do not include client authentication")
	case x509.NotAuthorizedToSign:
		return errNoCA(e.Cert)
	case x509.TooManyIntermediates:
		return muster.Errorf(muster.Invalid, "there are more authorities between than one above it allows")
	default:
		return muster.Errorf(muster.Invalid, "the certificate cannot be verified: %s", cut(e.Error()))
	}
}

func errNoCA(c *x509.Certificate) error {
	return muster.Errorf(muster.Invalid, "%s above it is no authority: its basic constraints do not say CA", subject(c))
}

func subject(c *x509.Certificate) string { return cut(c.Subject.String()) }

func cut(s string) string {
	const most = 100
	if s == "" {
		return "(no name)"
	}
	if len(s) > most {
		s = s[:most]
	}
	return strings.ToValidUTF8(s, "?")
}

// idOf returns the device that a certificate names: its one common name.
func idOf(c *x509.Certificate) (muster.DeviceID, error) {
	if n := commonNames(c); n != 1 {
		return "", muster.Errorf(muster.Invalid, "the certificate has %d common names, and needs one: a device's id", n)
	}
	id, err := muster.ParseDeviceID(c.Subject.CommonName)
	if err != nil {
		return "", muster.Errorf(muster.Invalid, "the certificate's common name is no device id: %w", err)
	}
	return id, nil
}

// commonNames counts those of c.
func commonNames(c *x509.Certificate) (n int) {
	commonName := asn1.ObjectIdentifier{2, 5, 4, 3}
	for _, attr := range c.Subject.Names {
		if attr.Type.Equal(commonName) {
			n++
		}
	}
	return n
}

// Certificate returns the device that a client is which has shown in a TLS handshake
// that certs, its own first, are its own, and the id of the credential it came in by:
// its key, pinned or learned from a registered authority's certificate. A device that
// is to be made just in time is made. Unauthorized with a *devices.Denied otherwise.
func (j *Join) Certificate(ctx context.Context, certs []*x509.Certificate) (muster.DeviceID, string, error) {
	if len(certs) == 0 {
		return "", "", devices.Deny("the client has no certificate")
	}
	leaf, now := certs[0], j.now()
	hash, err := devices.KeyHash(leaf)
	if err != nil {
		return "", "", devices.Deny(err.Error())
	}
	owner, owned := j.registry.Key(hash)
	pinned := owned && owner.CA == ""
	v, err := j.authorities.now.Load().judge(certs, now)
	if err != nil {
		if pinned {
			return j.pinned(leaf, hash, owner.Device, now)
		}
		if owned {
			return "", "", devices.Deny(err.Error(), owner.Device)
		}
		return "", "", devices.Deny(err.Error())
	}
	id, err := idOf(leaf)
	if err != nil {
		if pinned {
			return j.pinned(leaf, hash, owner.Device, now)
		}
		return "", "", devices.Deny(err.Error())
	}
	credential, err := j.learn(ctx, id, leaf, v)
	if err != nil {
		return "", "", err
	}
	if c, ok := j.registry.Key(hash); ok && c.CA != "" && !j.authorities.now.Load().has(c.CA) { // taken away meanwhile
		err := j.registry.ForgetAuthority(ctx, c.CA, nil)
		return "", "", errors.Join(devices.Deny("the certificate's authority was taken away", id), err)
	}
	return id, credential, nil
}

// pinned lets in whoever has a pinned key. What signed its certificate does not matter.
func (j *Join) pinned(leaf *x509.Certificate, hash [32]byte, owner muster.DeviceID, now time.Time) (muster.DeviceID, string, error) {
	if err := devices.CheckDevice(leaf, now); err != nil {
		return "", "", devices.Deny(err.Error(), owner)
	}
	return j.registry.AuthenticateKey(hash)
}

// learn lets the device id in by v, and makes it when it is to be made just in time.
func (j *Join) learn(ctx context.Context, id muster.DeviceID, leaf *x509.Certificate, v verdict) (string, error) {
	g := devices.Grant{Kind: devices.X509, Certificate: leaf, CA: v.ca.ID, Expires: v.until.Add(time.Microsecond)}
	credential, err := j.registry.Learn(ctx, id, g)
	if err == nil || muster.KindOf(err) != muster.NotFound {
		return credential, denied(err, id)
	}
	if !v.ca.JIT {
		return "", devices.Deny(fmt.Sprintf("there is no device %s, and the authority %s makes none", id, v.ca.Name))
	}
	_, _, err = j.registry.Create(ctx, devices.Spec{ID: id, Profile: v.ca.Profile, Grants: []devices.Grant{g}})
	if err != nil && muster.KindOf(err) != muster.Conflict {
		return "", denied(err, id)
	}
	// On a Conflict it was made meanwhile, or the key is another's: Learn knows.
	credential, err = j.registry.Learn(ctx, id, g)
	return credential, denied(err, id)
}

// denied makes an error about what the client is an Unauthorized one; what may pass
// (Busy, Unavailable) and faults stay what they are.
func denied(err error, id muster.DeviceID) error {
	if err == nil || !slices.Contains([]muster.Kind{muster.Invalid, muster.Conflict, muster.NotFound, muster.TooLarge}, muster.KindOf(err)) {
		return err
	}
	return devices.Deny(muster.Public(err), id)
}

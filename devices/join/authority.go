package join

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"muster"
	"muster/devices"
)

// MaxAuthorities is the most authorities that may be registered.
const MaxAuthorities = 100

// authorities are read without a lock: set replaces all.
type authorities struct{ now atomic.Pointer[anchors] }

// anchors are the authorities of one moment. They never change.
type anchors struct {
	list []Authority // oldest first
	pool *x509.CertPool
}

func (as *authorities) set(list []Authority) {
	a := &anchors{list: slices.Clone(list), pool: x509.NewCertPool()}
	slices.SortFunc(a.list, func(x, y Authority) int { return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID)) })
	for _, x := range a.list {
		a.pool.AddCert(x.Cert)
	}
	as.now.Store(a)
}

// of returns the authority whose certificate this is.
func (a *anchors) of(cert *x509.Certificate) (Authority, bool) {
	i := slices.IndexFunc(a.list, func(x Authority) bool { return bytes.Equal(x.Cert.Raw, cert.Raw) })
	if i < 0 {
		return Authority{}, false
	}
	return a.list[i], true
}

func (a *anchors) has(id string) bool {
	return slices.ContainsFunc(a.list, func(x Authority) bool { return x.ID == id })
}

// AuthoritySpec describes an authority to be registered.
type AuthoritySpec struct {
	Name    string
	PEM     string // one certificate
	Profile string // empty for the default one
	JIT     bool
	Proof   Proof // empty for ByCertificate
}

// AuthorityChange says what of an authority is to be another; nil leaves a part as it is.
type AuthorityChange struct {
	Name, Profile *string
	JIT           *bool
}

// Fingerprint is the SHA-256 of a certificate.
func Fingerprint(c *x509.Certificate) [32]byte { return sha256.Sum256(c.Raw) }

// Authorities returns every authority, oldest first.
func (j *Join) Authorities() []Authority { return slices.Clone(j.authorities.now.Load().list) }

// Authority returns one, or NotFound.
func (j *Join) Authority(id string) (Authority, error) {
	list := j.authorities.now.Load().list
	i := slices.IndexFunc(list, func(x Authority) bool { return x.ID == id })
	if i < 0 {
		return Authority{}, muster.Errorf(muster.NotFound, "there is no such certificate authority")
	}
	return list[i], nil
}

// AddAuthority registers an authority. It lets nobody in before VerifyAuthority, unless
// its proof is NoProof. Invalid unless its certificate is an authority's,
// not expired, with a key that CheckKey allows, and for client authentication if it names
// purposes; Conflict when it is registered already or there are MaxAuthorities.
func (j *Join) AddAuthority(ctx context.Context, s AuthoritySpec) (Authority, error) {
	if err := checkName("a certificate authority", s.Name); err != nil {
		return Authority{}, err
	}
	cert, err := devices.ParseCertificate(s.PEM)
	if err != nil {
		return Authority{}, err
	}
	now := j.now()
	if err := checkAuthority(cert, now); err != nil {
		return Authority{}, err
	}
	a := Authority{
		ID: "ca_" + rand.Text(), Name: s.Name, Cert: cert, Profile: cmp.Or(s.Profile, devices.DefaultProfile), JIT: s.JIT,
		Created: muster.MicrosOf(now), Proof: cmp.Or(s.Proof, ByCertificate),
	}
	switch a.Proof {
	case ByCertificate:
		a.Code = rand.Text()
	case NoProof:
		a.Verified = a.Created
	default:
		return Authority{}, muster.Errorf(muster.Invalid, "the proof is neither %q nor %q", ByCertificate, NoProof)
	}
	return a, j.change(ctx, func(ctx context.Context) error {
		have := j.authorities.now.Load()
		if _, ok := have.of(cert); ok {
			return muster.Errorf(muster.Conflict, "this certificate authority is registered already")
		}
		if len(have.list) >= MaxAuthorities {
			return muster.Errorf(muster.Conflict, "there are %d certificate authorities already: delete some first", MaxAuthorities)
		}
		return j.putAuthority(ctx, a, have.list)
	})
}

// putAuthority is called in turn; others are those beside a.
func (j *Join) putAuthority(ctx context.Context, a Authority, others []Authority) error {
	if _, err := j.registry.Profile(a.Profile); err != nil {
		return muster.InvalidAt("profile", "there is no profile of that name")
	}
	var was *Authority
	if before, err := j.Authority(a.ID); err == nil {
		was = &before
	}
	noteAuthority(ctx, "certificate_authority.put", a.ID, was, &a)
	if err := j.store.PutAuthority(ctx, a); err != nil {
		return fmt.Errorf("put certificate authority: %w", err)
	}
	j.authorities.set(append(slices.Clone(others), a))
	return nil
}

// VerifyAuthority takes the proof that whoever registered an authority has its key: a
// certificate that it has signed, valid now, whose one common name is the authority's
// Code. The authority lets devices in from then on. Invalid for any other certificate,
// Conflict when it is verified already.
func (j *Join) VerifyAuthority(ctx context.Context, id, pem string) (a Authority, err error) {
	cert, err := devices.ParseCertificate(pem)
	if err != nil {
		return Authority{}, err
	}
	now := j.now()
	err = j.change(ctx, func(ctx context.Context) error {
		if a, err = j.Authority(id); err != nil {
			return err
		}
		if a.Verified != 0 {
			return muster.Errorf(muster.Conflict, "the certificate authority is verified already")
		}
		if err := a.proved(cert, now); err != nil {
			return err
		}
		a.Verified = muster.MicrosOf(now)
		others := slices.DeleteFunc(j.Authorities(), func(x Authority) bool { return x.ID == id })
		return j.putAuthority(ctx, a, others)
	})
	return a, err
}

// proved returns Invalid unless c could only be made with a's key, for this proof.
func (a *Authority) proved(c *x509.Certificate, now time.Time) error {
	if err := checkSigned(c); err != nil {
		return err
	}
	if err := c.CheckSignatureFrom(a.Cert); err != nil {
		return muster.InvalidAt("certificate", "the authority %s did not sign the certificate", a.Name)
	}
	switch {
	case now.Before(c.NotBefore) || now.After(c.NotAfter):
		return muster.InvalidAt("certificate", "the certificate is valid from %s to %s, and not now", c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
	case commonNames(c) != 1 || c.Subject.CommonName != a.Code:
		return muster.InvalidAt("certificate", "the certificate's common name is not the verification code %s", a.Code)
	}
	return nil
}

// ChangeAuthority changes an authority and returns it as it is then, or NotFound. Devices
// it has made keep their profile.
func (j *Join) ChangeAuthority(ctx context.Context, id string, c AuthorityChange) (a Authority, err error) {
	err = j.change(ctx, func(ctx context.Context) error {
		if a, err = j.Authority(id); err != nil {
			return err
		}
		if c.Name != nil {
			if err := checkName("a certificate authority", *c.Name); err != nil {
				return err
			}
			a.Name = *c.Name
		}
		if c.Profile != nil {
			a.Profile = cmp.Or(*c.Profile, devices.DefaultProfile)
		}
		if c.JIT != nil {
			a.JIT = *c.JIT
		}
		others := slices.DeleteFunc(j.Authorities(), func(x Authority) bool { return x.ID == id })
		return j.putAuthority(ctx, a, others)
	})
	return a, err
}

// DeleteAuthority takes an authority away, or returns NotFound. Connections that came in
// by it are cut; its devices stay, with their other credentials.
func (j *Join) DeleteAuthority(ctx context.Context, id string) error {
	return j.change(ctx, func(ctx context.Context) error {
		a, err := j.Authority(id)
		if err != nil {
			return err
		}
		return j.registry.ForgetAuthority(ctx, id, func(ctx context.Context) error {
			noteAuthority(ctx, "certificate_authority.delete", id, &a, nil)
			if err := j.store.DeleteAuthority(ctx, id); err != nil {
				return fmt.Errorf("delete certificate authority: %w", err)
			}
			j.authorities.set(slices.DeleteFunc(j.Authorities(), func(x Authority) bool { return x.ID == id }))
			return nil
		})
	})
}

func checkAuthority(c *x509.Certificate, now time.Time) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return muster.InvalidAt("certificate", "the certificate is not an authority's: its basic constraints do not say CA")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return muster.InvalidAt("certificate", "the certificate's key is not for signing certificates")
	case now.After(c.NotAfter):
		return muster.InvalidAt("certificate", "the certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	case len(c.UnhandledCriticalExtensions) > 0:
		return muster.InvalidAt("certificate", "the certificate has a critical extension that is not known")
	}
	named := len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0
	if named && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny) {
		return muster.InvalidAt("certificate", "the certificate's purposes do not include client authentication")
	}
	return devices.CheckKey(c)
}

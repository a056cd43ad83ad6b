package join

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"maps"
	"slices"
	"strings"

	"muster"
	"muster/devices"
)

const (
	minKey    = 8   // characters of a chosen provisioning key
	minSecret = 16  // of a chosen provisioning secret
	maxSecret = 128 // of either
)

// ProvisioningSpec describes how devices of a profile may register themselves.
type ProvisioningSpec struct {
	Strategy Strategy
	// Key and Secret are what devices know already: 8 and 16 to 128 printable ASCII
	// characters. Empty lets Muster make them.
	Key, Secret string
	// Keep leaves key and secret as they are, for another strategy.
	Keep bool
}

// Provisionings returns every provisioning, by profile.
func (j *Join) Provisionings() []Provisioning {
	j.mu.RLock()
	out := slices.Collect(maps.Values(j.profiles))
	j.mu.RUnlock()
	slices.SortFunc(out, func(x, y Provisioning) int { return cmp.Compare(x.Profile, y.Profile) })
	return out
}

// Provisioning returns that of a profile, or NotFound.
func (j *Join) Provisioning(profile string) (Provisioning, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	p, ok := j.profiles[profile]
	if !ok {
		return Provisioning{}, muster.Errorf(muster.NotFound, "devices cannot register themselves with this profile")
	}
	return p, nil
}

// PutProvisioning lets devices of a profile register themselves, or changes how, and
// returns the secret if it is new. NotFound when there is no such profile, Invalid when
// a rule of ProvisioningSpec is broken, Conflict when another profile has the key.
func (j *Join) PutProvisioning(ctx context.Context, profile string, s ProvisioningSpec) (p Provisioning, secret string, err error) {
	if s.Strategy != Create && s.Strategy != Preprovisioned {
		return p, "", muster.InvalidAt("strategy", "the strategy is neither %s nor %s", Create, Preprovisioned)
	}
	if err := cmpErr(checkGiven("key", s.Key, minKey), checkGiven("secret", s.Secret, minSecret)); err != nil {
		return p, "", err
	}
	if s.Keep && (s.Key != "" || s.Secret != "") {
		return p, "", muster.Errorf(muster.Invalid, "key and secret cannot be kept and given")
	}
	err = j.change(ctx, func(ctx context.Context) error {
		p, secret, err = j.newProvisioning(profile, s)
		if err != nil {
			return err
		}
		noteProvisioning(ctx, "provisioning.put", profile, provisioningView{p.Profile, p.Strategy, p.Key})
		if err := j.store.PutProvisioning(ctx, p); err != nil {
			return fmt.Errorf("put provisioning: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.putProvisioning(p)
		return nil
	})
	if err != nil {
		return Provisioning{}, "", err
	}
	return p, secret, nil
}

func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// newProvisioning is called in turn.
func (j *Join) newProvisioning(profile string, s ProvisioningSpec) (Provisioning, string, error) {
	if _, err := j.registry.Profile(profile); err != nil {
		return Provisioning{}, "", err
	}
	if s.Keep {
		p, err := j.Provisioning(profile)
		p.Strategy = s.Strategy
		return p, "", err
	}
	key, secret := cmp.Or(s.Key, "mpk_"+rand.Text()), cmp.Or(s.Secret, "mps_"+rand.Text())
	j.mu.RLock()
	other, taken := j.byKey[key]
	j.mu.RUnlock()
	if taken && other != profile {
		return Provisioning{}, "", muster.Errorf(muster.Conflict, "another profile has this provisioning key")
	}
	p := Provisioning{Profile: profile, Strategy: s.Strategy, Key: key, Hash: sha256.Sum256([]byte(secret)), Created: muster.MicrosOf(j.now())}
	if s.Secret != "" {
		secret = ""
	}
	return p, secret, nil
}

// putProvisioning is called with the lock held.
func (j *Join) putProvisioning(p Provisioning) {
	delete(j.byKey, j.profiles[p.Profile].Key)
	j.profiles[p.Profile], j.byKey[p.Key] = p, p.Profile
}

// DeleteProvisioning lets devices of a profile register themselves no more, or returns
// NotFound.
func (j *Join) DeleteProvisioning(ctx context.Context, profile string) error {
	err := j.change(ctx, func(ctx context.Context) error {
		p, err := j.Provisioning(profile)
		if err != nil {
			return err
		}
		noteProvisioning(ctx, "provisioning.delete", profile, nil)
		if err := j.store.DeleteProvisioning(ctx, profile); err != nil {
			return fmt.Errorf("delete provisioning: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.byKey, p.Key)
		delete(j.profiles, profile)
		return nil
	})
	if err == nil {
		j.onGuests(func(credential string) bool { return credential == provisionGuest })
	}
	return err
}

// Provision registers the device of peer (host:port) that r asks for. Unauthorized when
// key and secret are no profile's; Invalid when a rule of Request is broken; Conflict when
// the device exists (Create) or has a credential (Preprovisioned); NotFound when it does
// not exist (Preprovisioned); Busy when an address or a key is tried too often.
func (j *Join) Provision(ctx context.Context, peer string, r Request) (Response, error) {
	from := address(peer)
	if err := j.limits.requests.take(from); err != nil {
		return Response{}, err
	}
	p, wrong := j.profileOf(r.ProfileKey, r.ProfileSecret)
	err := j.limits.provision.judge(wrong == nil, limited{"address " + from, wrongByAddress}, limited{"key " + cut(r.ProfileKey), wrongByKey})
	if err := cmpErr(err, wrong); err != nil {
		return Response{}, err
	}
	id, g, err := r.wish()
	if err != nil {
		return Response{}, err
	}
	var is devices.Issued
	if p.Strategy == Preprovisioned {
		is, err = j.handOut(ctx, p.Profile, id, g)
	} else {
		is, err = j.create(ctx, p.Profile, id, r.Name, g)
	}
	if err != nil {
		return Response{}, err
	}
	return Response{ID: id, Profile: p.Profile, Credential: string(is.Kind), Token: is.Token, Username: is.Username, Password: is.Password}, nil
}

func (j *Join) profileOf(key, secret string) (Provisioning, error) {
	hash := sha256.Sum256([]byte(secret))
	j.mu.RLock()
	p := j.profiles[j.byKey[key]] // of an unknown key: the zero hash, compared all the same
	j.mu.RUnlock()
	if subtle.ConstantTimeCompare(p.Hash[:], hash[:]) != 1 {
		return Provisioning{}, muster.Errorf(muster.Unauthorized, "the profile's key or secret is wrong")
	}
	return p, nil
}

// create makes the device with the credential that g describes.
func (j *Join) create(ctx context.Context, profile string, id muster.DeviceID, name string, g devices.Grant) (devices.Issued, error) {
	spec := devices.Spec{ID: id, Name: name, Profile: profile}
	if g.Kind == devices.Token || g.Kind == devices.Secret {
		spec.Credential, spec.Given = g.Kind, g.Given
		_, is, err := j.registry.Create(ctx, spec)
		return is, err
	}
	spec.Grants = []devices.Grant{g}
	_, _, err := j.registry.Create(ctx, spec)
	is := devices.Issued{Kind: g.Kind, Username: string(id)}
	if g.Kind == devices.Basic {
		is.Username, is.Password = g.Username, g.Given
	}
	return is, err
}

// handOut gives a device that was made beforehand its credential, once.
func (j *Join) handOut(ctx context.Context, profile string, id muster.DeviceID, g devices.Grant) (devices.Issued, error) {
	d, err := j.registry.Get(id)
	if err != nil || d.Profile != profile {
		return devices.Issued{}, muster.Errorf(muster.NotFound, "there is no such device of this profile")
	}
	g.First = true
	return j.registry.AddGrant(ctx, id, g)
}

// checkGiven allows printable ASCII without space, and nothing.
func checkGiven(what, s string, least int) error {
	if s == "" {
		return nil
	}
	if len(s) < least || len(s) > maxSecret || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return muster.InvalidAt(what, "the provisioning %s has %d to %d printable ASCII characters and no space", what, least, maxSecret)
	}
	return nil
}

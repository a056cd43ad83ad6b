package accounts

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/audit"
	"muster/internal/precondition"
)

const (
	// MaxServiceAccounts is the most service accounts there may be at once.
	MaxServiceAccounts = 1000
	// MaxServiceName is the longest name of a service account, in bytes.
	MaxServiceName = 64

	servicePrefix = "svc_" // of ids
	secretPrefix  = "mss_" // of secrets
)

// ServiceAccount lets a third party in over MQTT and nowhere else, with the topics
// listed on it. Its secret ("mss_...") is shown once; Hash is its SHA-256.
type ServiceAccount struct {
	ID      string // "svc_..."
	Name    string // unique: [A-Za-z0-9._:@-]{1,64}
	Hash    [32]byte
	Publish []string // filters of topics it may publish to, at most 32
	// Subscribe has the filters it may subscribe to, or to a part of, at most 32.
	Subscribe []string
	Disabled  bool // lets nobody in
	Created   muster.Micros
	Expires   muster.Micros // 0 for never
}

func (s ServiceAccount) clone() ServiceAccount {
	s.Publish, s.Subscribe = slices.Clone(s.Publish), slices.Clone(s.Subscribe)
	return s
}

func (s ServiceAccount) usable(at muster.Micros) bool {
	return !s.Disabled && (s.Expires == 0 || at < s.Expires)
}

// check returns Invalid unless s may be a service account.
func (s ServiceAccount) check() error {
	if s.Name == "" || len(s.Name) > MaxServiceName {
		return muster.InvalidAt("name", "a service account's name has 1 to %d characters", MaxServiceName)
	}
	for i := range len(s.Name) {
		c := s.Name[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("._:@-", rune(c)) {
			return muster.InvalidAt("name", "a service account's name has letters, digits and . _ : @ - only")
		}
	}
	if strings.HasPrefix(s.Name, keyPrefix) || strings.HasPrefix(s.Name, secretPrefix) {
		return muster.InvalidAt("name", "a service account's name is not spelled like a key or a secret")
	}
	if err := muster.CheckRights(s.Publish, s.Subscribe); err != nil {
		return err
	}
	for _, f := range slices.Concat(s.Publish, s.Subscribe) {
		if strings.Contains(f, "{id}") {
			return muster.At(muster.Errorf(muster.Invalid, "{id} stands for a device's id, and a service account is none"), "publish", "subscribe")
		}
	}
	return nil
}

// ServiceSpec describes a service account to be made.
type ServiceSpec struct {
	Name               string
	Publish, Subscribe []string
	Expires            time.Time // zero for never
}

// CreateServiceAccount makes a service account and returns it with its secret of
// 130 random bits, which is shown this once. A taken name and one more than
// MaxServiceAccounts are a Conflict; a broken rule and a past expiry are Invalid.
func (a *Accounts) CreateServiceAccount(ctx context.Context, spec ServiceSpec) (ServiceAccount, string, error) {
	now := a.now()
	if !spec.Expires.IsZero() && !spec.Expires.After(now) {
		return ServiceAccount{}, "", muster.InvalidAt("expires_at", "the account's expiry is not in the future")
	}
	secret := secretPrefix + rand.Text()
	s := ServiceAccount{
		ID: servicePrefix + rand.Text(), Name: spec.Name, Hash: sha256.Sum256([]byte(secret)),
		Publish: spec.Publish, Subscribe: spec.Subscribe, Created: muster.MicrosOf(now),
	}.clone()
	if !spec.Expires.IsZero() {
		s.Expires = muster.MicrosOf(spec.Expires)
	}
	if err := s.check(); err != nil {
		return ServiceAccount{}, "", err
	}
	if err := a.change(ctx, func(ctx context.Context) error { return a.insertService(ctx, s) }); err != nil {
		return ServiceAccount{}, "", err
	}
	a.wakeExpiry()
	return s.clone(), secret, nil
}

// insertService is called in turn.
func (a *Accounts) insertService(ctx context.Context, s ServiceAccount) error {
	a.mu.RLock()
	n := len(a.services)
	_, taken := a.serviceNames[s.Name]
	a.mu.RUnlock()
	switch {
	case taken:
		return muster.Errorf(muster.Conflict, "there is a service account of this name already")
	case n >= MaxServiceAccounts:
		return muster.Errorf(muster.Conflict, "there are %d service accounts already: delete some first", n)
	}
	audit.Note(ctx, "service_account.create", "service-accounts/"+s.ID, nil, viewOfService(s))
	if err := a.store.InsertServiceAccount(ctx, s); err != nil {
		return fmt.Errorf("insert service account: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.addService(s)
	return nil
}

// addService is called with the lock held.
func (a *Accounts) addService(s ServiceAccount) {
	a.services[s.ID] = s
	a.serviceNames[s.Name] = s.ID
	a.serviceHashes[s.Hash] = s.ID
}

// ServiceAccounts returns every service account, by name.
func (a *Accounts) ServiceAccounts() []ServiceAccount {
	a.mu.RLock()
	out := slices.Collect(maps.Values(a.services))
	a.mu.RUnlock()
	for i := range out {
		out[i] = out[i].clone()
	}
	slices.SortFunc(out, func(x, y ServiceAccount) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// ServiceAccount returns the service account id, or NotFound.
func (a *Accounts) ServiceAccount(id string) (ServiceAccount, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	s, ok := a.services[id]
	if !ok {
		return ServiceAccount{}, errNoService()
	}
	return s.clone(), nil
}

// ServiceChange says what of a service account is to be another; nil leaves a part
// as it is.
type ServiceChange struct {
	Publish, Subscribe *[]string
	Disabled           *bool
}

// UpdateServiceAccount changes a service account, all parts or none, and returns it
// as it is then; its connections are reported to OnRights. NotFound, or Invalid when
// a rule is broken.
func (a *Accounts) UpdateServiceAccount(ctx context.Context, id string, c ServiceChange) (ServiceAccount, error) {
	var s ServiceAccount
	err := a.change(ctx, func(ctx context.Context) (err error) {
		s, err = a.updateService(ctx, id, c)
		return err
	})
	if err != nil {
		return ServiceAccount{}, err
	}
	a.onRights(func(credential string) bool { return credential == id })
	return s.clone(), nil
}

// updateService is called in turn.
func (a *Accounts) updateService(ctx context.Context, id string, c ServiceChange) (ServiceAccount, error) {
	s, err := a.ServiceAccount(id)
	if err != nil {
		return s, err
	}
	if err := precondition.Check(ctx, s); err != nil {
		return s, err
	}
	before := viewOfService(s)
	if c.Publish != nil {
		s.Publish = slices.Clone(*c.Publish)
	}
	if c.Subscribe != nil {
		s.Subscribe = slices.Clone(*c.Subscribe)
	}
	if c.Disabled != nil {
		s.Disabled = *c.Disabled
	}
	if err := s.check(); err != nil {
		return s, err
	}
	audit.Note(ctx, "service_account.update", "service-accounts/"+id, before, viewOfService(s))
	if err := a.store.UpdateServiceAccount(ctx, s); err != nil {
		return s, fmt.Errorf("update service account: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.services[id] = s
	return s, nil
}

// DeleteServiceAccount deletes a service account, whose connections are reported to
// OnRights, or returns NotFound.
func (a *Accounts) DeleteServiceAccount(ctx context.Context, id string) error {
	var name string
	err := a.change(ctx, func(ctx context.Context) error {
		s, err := a.ServiceAccount(id)
		if err != nil {
			return err
		}
		if err := precondition.Check(ctx, s); err != nil {
			return err
		}
		name = s.Name
		audit.Note(ctx, "service_account.delete", "service-accounts/"+id, viewOfService(s), nil)
		if err := a.store.DeleteServiceAccount(ctx, id); err != nil {
			return fmt.Errorf("delete service account: %w", err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.services, id)
		delete(a.serviceNames, s.Name)
		delete(a.serviceHashes, s.Hash)
		return nil
	})
	if err == nil {
		a.onDeleted(name)
		a.onRights(func(credential string) bool { return credential == id })
	}
	return err
}

func errNoService() error {
	return muster.Errorf(muster.NotFound, "there is no such service account")
}

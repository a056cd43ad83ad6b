package join

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"muster"
	"muster/devices"
)

const (
	// MaxAdoptionKeys is the most adoption keys there may be.
	MaxAdoptionKeys = 100
	// MaxBlocks is the most clients that may be blocked.
	MaxBlocks = 10_000

	// ProvisionUser is the user name of clients that register themselves (DESIGN, section 4).
	ProvisionUser = "provision"

	adoptionPrefix = "mak_"
	provisionGuest = "provision" // their Guest.Credential
	candidateGuest = "inbox_"    // begins that of candidates
	maxPresentedID = 256         // bytes of a client id, user name or key
)

// Hello is what a client presented that is no device by its credentials.
type Hello struct {
	ClientID, Username string
	Password           []byte
	Peer               string // host:port
	Listener           string // tcp, tls, ws or unix
}

// Guest is a client that is let in to become a device, and to do nothing else.
type Guest struct {
	Credential string // for RefreshGuest and Options.OnGuests
	Name       string // for people
	Quarantine bool   // what it publishes goes to Sample; else it may ask to be registered
}

// key returns what of h is an adoption key, and the user name beside it.
func (h *Hello) key() (key, username string, ok bool) {
	switch {
	case strings.HasPrefix(h.Username, adoptionPrefix):
		return h.Username, "", true
	case strings.HasPrefix(string(h.Password), adoptionPrefix):
		return string(h.Password), h.Username, true
	}
	return "", "", false
}

// CreateAdoptionKey makes an adoption key of 130 random bits and returns it with its
// text, which is shown this once. A zero expires means never; a past one and a bad name
// are Invalid.
func (j *Join) CreateAdoptionKey(ctx context.Context, name string, expires time.Time) (AdoptionKey, string, error) {
	if err := checkName("an adoption key", name); err != nil {
		return AdoptionKey{}, "", err
	}
	now := j.now()
	if !expires.IsZero() && !expires.After(now) {
		return AdoptionKey{}, "", muster.Errorf(muster.Invalid, "the key's expiry is not in the future")
	}
	text := adoptionPrefix + rand.Text()
	k := AdoptionKey{ID: "adk_" + rand.Text(), Name: name, Hash: sha256.Sum256([]byte(text)), Created: muster.MicrosOf(now)}
	if !expires.IsZero() {
		k.Expires = muster.MicrosOf(expires)
	}
	err := j.change(ctx, func(ctx context.Context) error {
		if len(j.AdoptionKeys()) >= MaxAdoptionKeys {
			return muster.Errorf(muster.Conflict, "there are %d adoption keys already: delete some first", MaxAdoptionKeys)
		}
		noteAdoptionKey(ctx, "adoption_key.create", k.ID, nil, keyView{k.ID, k.Name, k.Expires})
		if err := j.store.InsertAdoptionKey(ctx, k); err != nil {
			return fmt.Errorf("insert adoption key: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		j.keys[k.Hash] = k
		return nil
	})
	if err != nil {
		return AdoptionKey{}, "", err
	}
	select {
	case j.wake <- struct{}{}:
	default: // a signal that waits already is enough
	}
	return k, text, nil
}

// AdoptionKeys returns every adoption key, oldest first.
func (j *Join) AdoptionKeys() []AdoptionKey {
	j.mu.RLock()
	out := slices.Collect(maps.Values(j.keys))
	j.mu.RUnlock()
	slices.SortFunc(out, func(x, y AdoptionKey) int {
		return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// DeleteAdoptionKey revokes an adoption key, or returns NotFound. Who is in the inbox
// by it is cut and leaves the inbox; devices that were adopted stay.
func (j *Join) DeleteAdoptionKey(ctx context.Context, id string) error {
	err := j.change(ctx, func(ctx context.Context) error {
		i := slices.IndexFunc(j.AdoptionKeys(), func(k AdoptionKey) bool { return k.ID == id })
		if i < 0 {
			return muster.Errorf(muster.NotFound, "there is no such adoption key")
		}
		k := j.AdoptionKeys()[i]
		noteAdoptionKey(ctx, "adoption_key.delete", id, keyView{k.ID, k.Name, k.Expires}, nil)
		if err := j.store.DeleteAdoptionKey(ctx, id); err != nil {
			return fmt.Errorf("delete adoption key: %w", err)
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.keys, k.Hash)
		return nil
	})
	if err != nil {
		return err
	}
	if gone := j.inbox.leaveBy(id); len(gone) > 0 {
		j.onGuests(func(credential string) bool { return slices.Contains(gone, credential) })
	}
	return nil
}

// cutGuestsOf reports the guests of adoption keys that have expired. They stay listed:
// they came in time, and may still be adopted.
func (j *Join) cutGuestsOf(keys ...string) {
	j.onGuests(func(credential string) bool {
		k, ok := j.inbox.keyOf(credential)
		return ok && slices.Contains(keys, k)
	})
}

// sweep reports the guests of keys that have expired since the last sweep and returns
// how long to wait for the next.
func (j *Join) sweep() time.Duration {
	at := muster.MicrosOf(j.now())
	wait := tidyEvery
	var gone []string
	j.mu.Lock()
	for _, k := range j.keys {
		switch {
		case k.Expires == 0 || k.Expires <= j.swept:
		case k.Expires <= at:
			gone = append(gone, k.ID)
		default:
			wait = min(wait, expiryStep, time.Duration(k.Expires-at)*time.Microsecond)
		}
	}
	j.swept = at
	j.mu.Unlock()
	if len(gone) > 0 {
		j.cutGuestsOf(gone...)
	}
	return wait
}

// Greet decides about a client that presents no credential of a device or account:
// Unauthorized with a *devices.Denied unless it may register itself, was adopted, or goes
// to the inbox. known says that it presented something of ours at all. A client that was
// adopted gets device and credential.
func (j *Join) Greet(h Hello) (g Guest, device muster.DeviceID, credential string, known bool, err error) {
	if h.Username == ProvisionUser {
		if len(j.Provisionings()) == 0 {
			return Guest{}, "", "", true, devices.Deny("devices can register themselves with no profile")
		}
		return Guest{Credential: provisionGuest, Name: ProvisionUser}, "", "", true, nil
	}
	device, credential, err = j.registry.AuthenticateWhole(devices.Basic, h.ClientID, h.Username, h.Password)
	if err == nil || ofDevice(err) {
		return Guest{}, device, credential, true, err
	}
	key, username, ok := h.key()
	if !ok {
		return Guest{}, "", "", false, err
	}
	device, credential, err = j.registry.AuthenticateWhole(devices.Adoption, h.ClientID, username, []byte(key))
	if err == nil || ofDevice(err) {
		return Guest{}, device, credential, true, err
	}
	g, err = j.quarantine(h, key, username)
	return g, "", "", true, err
}

// ofDevice says that what was presented is a device's, though it may not come in by it.
func ofDevice(err error) bool {
	d, ok := errors.AsType[*devices.Denied](err)
	return ok && len(d.Devices) > 0
}

// quarantine lets an unknown client into the inbox.
func (j *Join) quarantine(h Hello, key, username string) (Guest, error) {
	if len(h.ClientID) > maxPresentedID || len(username) > maxPresentedID || len(key) > maxPresentedID {
		return Guest{}, devices.Deny("the client id, user name or adoption key is over its limit")
	}
	hash := sha256.Sum256([]byte(key))
	who := clientHash(h.ClientID, username)
	at := muster.MicrosOf(j.now())
	j.mu.RLock()
	k, ok := j.keys[hash]
	_, blocked := j.blocks[who]
	j.mu.RUnlock()
	switch {
	case !ok:
		return Guest{}, devices.Deny("the adoption key is unknown")
	case k.Expires != 0 && at >= k.Expires:
		return Guest{}, devices.Deny("the adoption key " + k.Name + " has expired")
	case blocked:
		return Guest{}, devices.Deny("the client was refused in the adoption inbox")
	case h.ClientID == "" && username == "":
		return Guest{}, devices.Deny("a client that is to be adopted needs a client id or a user name")
	}
	for _, name := range []string{h.ClientID, username} {
		if d, err := j.registry.Get(muster.DeviceID(name)); name != "" && err == nil {
			return Guest{}, devices.Deny("an adoption key was presented in the name of a device that exists", d.ID)
		}
	}
	c := j.inbox.enter(arrival{
		who: who, clientID: h.ClientID, username: username, peer: h.Peer, listener: h.Listener, key: k.ID, keyName: k.Name,
		grant: devices.AdoptionHash(h.ClientID, username, key), at: at, taken: j.taken,
	})
	j.mu.RLock()
	_, still := j.keys[hash]
	j.mu.RUnlock()
	if !still { // deleted meanwhile: who was in the inbox then has left it
		j.inbox.leaveBy(k.ID)
		return Guest{}, devices.Deny("the adoption key is unknown")
	}
	return Guest{Credential: candidateGuest + c.ID, Name: "candidate " + c.ID, Quarantine: true}, nil
}

func (j *Join) taken(id string) bool {
	_, err := j.registry.Get(muster.DeviceID(id))
	return err == nil
}

func clientHash(clientID, username string) [32]byte {
	return devices.AdoptionHash(clientID, username, "")
}

// RefreshGuest returns Unauthorized when a guest may not be here any more.
func (j *Join) RefreshGuest(credential string) error {
	if credential == provisionGuest {
		if len(j.Provisionings()) == 0 {
			return devices.Deny("devices can register themselves with no profile")
		}
		return nil
	}
	id, ok := j.inbox.keyOf(credential)
	if !ok {
		return devices.Deny("the client is not in the adoption inbox any more")
	}
	at := muster.MicrosOf(j.now())
	if !slices.ContainsFunc(j.AdoptionKeys(), func(k AdoptionKey) bool { return k.ID == id && (k.Expires == 0 || at < k.Expires) }) {
		return devices.Deny("the adoption key is no more")
	}
	return nil
}

// Adoption says what device a candidate becomes.
type Adoption struct {
	ID      muster.DeviceID // empty for the candidate's
	Name    string
	Profile string // empty for the default one
	Tags    devices.Tags
}

// Adopt makes a device of a candidate: the client is let in as that device from its next
// connect on, for which it is cut, and a token is issued that is better than the adoption
// key. NotFound when there is no such candidate; see devices.Registry.Create.
func (j *Join) Adopt(ctx context.Context, candidate string, a Adoption) (d devices.Device, is devices.Issued, err error) {
	err = j.change(ctx, func(ctx context.Context) error {
		c, ok := j.inbox.get(candidate)
		if !ok {
			return errNoCandidate()
		}
		id, err := muster.ParseDeviceID(cmp.Or(string(a.ID), c.ID))
		if err != nil {
			return err
		}
		d, is, err = j.registry.Create(ctx, devices.Spec{
			ID: id, Name: a.Name, Profile: a.Profile, Tags: a.Tags, Credential: devices.Token,
			Grants: []devices.Grant{{Kind: devices.Adoption, Hash: c.grant, Label: "adopted by its adoption key"}},
		})
		if err != nil {
			return err
		}
		j.inbox.leave(candidate)
		return nil
	})
	if err != nil {
		return devices.Device{}, devices.Issued{}, err
	}
	j.onGuests(func(credential string) bool { return credential == candidateGuest+candidate })
	return d, is, nil
}

// Refuse takes a candidate out of the inbox, cuts it and keeps it out. NotFound when
// there is none, Conflict when MaxBlocks are blocked.
func (j *Join) Refuse(ctx context.Context, candidate string) error {
	err := j.change(ctx, func(ctx context.Context) error {
		c, ok := j.inbox.get(candidate)
		if !ok {
			return errNoCandidate()
		}
		b := Block{Hash: c.who, Label: c.ID, Created: muster.MicrosOf(j.now())}
		j.mu.RLock()
		n := len(j.blocks)
		j.mu.RUnlock()
		if n >= MaxBlocks {
			return muster.Errorf(muster.Conflict, "%d clients are blocked already: delete their adoption key instead", MaxBlocks)
		}
		noteBlock(ctx, "inbox.refuse", b.Hash, blockView{b.Label})
		if err := j.store.InsertBlock(ctx, b); err != nil {
			return fmt.Errorf("block a client: %w", err)
		}
		j.mu.Lock()
		j.blocks[b.Hash] = b
		j.mu.Unlock()
		j.inbox.leave(candidate)
		return nil
	})
	if err == nil {
		j.onGuests(func(credential string) bool { return credential == candidateGuest+candidate })
	}
	return err
}

// Blocks returns who is kept out of the inbox, newest first.
func (j *Join) Blocks() []Block {
	j.mu.RLock()
	out := slices.Collect(maps.Values(j.blocks))
	j.mu.RUnlock()
	slices.SortFunc(out, func(x, y Block) int {
		return cmp.Or(cmp.Compare(y.Created, x.Created), slices.Compare(x.Hash[:], y.Hash[:]))
	})
	return out
}

// Unblock lets a client into the inbox again, or returns NotFound.
func (j *Join) Unblock(ctx context.Context, hash [32]byte) error {
	return j.change(ctx, func(ctx context.Context) error {
		noteBlock(ctx, "inbox.unblock", hash, nil)
		if err := j.store.DeleteBlock(ctx, hash); err != nil {
			return err
		}
		j.mu.Lock()
		defer j.mu.Unlock()
		delete(j.blocks, hash)
		return nil
	})
}

func errNoCandidate() error {
	return muster.Errorf(muster.NotFound, "there is no such candidate in the adoption inbox")
}

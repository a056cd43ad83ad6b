package devices

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"muster"
)

// authShards spreads the locks of CONNECT; a power of two.
const authShards = 64

// held is a credential in memory. What it is never changes: a credential that
// becomes another one is replaced.
type held struct {
	Credential
	used  atomic.Int64 // Micros, 0 for never
	dirty atomic.Bool  // waits to be saved
	slot  int          // place among the expiries, -1 for none; under their lock
}

func hold(c Credential) *held {
	h := &held{Credential: c, slot: -1}
	h.used.Store(int64(c.LastUsed))
	return h
}

// snapshot returns the credential as it is now.
func (h *held) snapshot() Credential {
	c := h.Credential
	c.LastUsed = muster.Micros(h.used.Load())
	return c
}

// over says why the credential lets nobody in at a time, empty when it does.
func (h *held) over(at muster.Micros) string {
	switch {
	case h.Revoked != 0:
		return "was revoked at " + stamp(h.Revoked)
	case h.Expires != 0 && at >= h.Expires:
		return "expired at " + stamp(h.Expires)
	}
	return ""
}

func stamp(m muster.Micros) string { return m.Time().Format(time.RFC3339) }

// authIndex answers "whose credential is this". All but secrets are found by the
// first half of their hash and compared in constant time as a whole.
type authIndex struct {
	seed   maphash.Seed
	decoy  []*held // stands for the secrets of a device that has none
	shards [authShards]authShard
}

type authShard struct {
	mu      sync.RWMutex
	hashes  map[[16]byte]*held
	secrets map[muster.DeviceID][]*held // lists are replaced, never changed in place
}

func newAuthIndex() *authIndex {
	decoy := hold(Credential{Hash: sha256.Sum256([]byte(rand.Text()))})
	x := &authIndex{seed: maphash.MakeSeed(), decoy: []*held{decoy}}
	for i := range x.shards {
		x.shards[i].hashes = map[[16]byte]*held{}
		x.shards[i].secrets = map[muster.DeviceID][]*held{}
	}
	return x
}

func (x *authIndex) ofHash(hash [32]byte) (*authShard, [16]byte) {
	return &x.shards[hash[31]%authShards], [16]byte(hash[:16])
}

func (x *authIndex) ofDevice(id muster.DeviceID) *authShard {
	return &x.shards[maphash.String(x.seed, string(id))%authShards]
}

func (x *authIndex) add(h *held) {
	if h.Kind != Secret {
		s, key := x.ofHash(h.Hash)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hashes[key] = h
		return
	}
	s := x.ofDevice(h.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[h.Device] = append(slices.Clone(s.secrets[h.Device]), h)
}

func (x *authIndex) remove(h *held) {
	if h.Kind != Secret {
		s, key := x.ofHash(h.Hash)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.hashes[key] == h {
			delete(s.hashes, key)
		}
		return
	}
	s := x.ofDevice(h.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.Clone(s.secrets[h.Device])
	if i := slices.Index(left, h); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if len(left) == 0 {
		delete(s.secrets, h.Device)
		return
	}
	s.secrets[h.Device] = left
}

// replace puts fresh, of the same kind, device and hash, in the place of old; nobody
// finds neither meanwhile.
func (x *authIndex) replace(old, fresh *held) {
	if old.Kind != Secret {
		x.add(fresh)
		return
	}
	s := x.ofDevice(old.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.secrets[old.Device])
	if i := slices.Index(list, old); i >= 0 {
		list[i] = fresh
	}
	s.secrets[old.Device] = list
}

// taken says whether some device has the credential with this hash, or one that the
// index could not tell from it.
func (x *authIndex) taken(hash [32]byte) bool {
	s, key := x.ofHash(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.hashes[key]
	return ok
}

// find returns the credential of kind that has this hash, nil for none.
func (x *authIndex) find(kind CredentialKind, hash [32]byte) *held {
	s, key := x.ofHash(hash)
	s.mu.RLock()
	h, ok := s.hashes[key]
	s.mu.RUnlock()
	if !ok {
		h = x.decoy[0] // compared all the same
	}
	if subtle.ConstantTimeCompare(h.Hash[:], hash[:]) != 1 || h.Kind != kind {
		return nil
	}
	return h
}

// secret returns id's secret that has this hash, nil for none, and how many it has.
func (x *authIndex) secret(id muster.DeviceID, hash [32]byte) (match *held, n int) {
	s := x.ofDevice(id)
	s.mu.RLock()
	list := s.secrets[id]
	s.mu.RUnlock()
	if n = len(list); n == 0 {
		list = x.decoy
	}
	at, found := 0, 0
	for i, h := range list {
		same := subtle.ConstantTimeCompare(h.Hash[:], hash[:])
		at = subtle.ConstantTimeSelect(same, i, at)
		found |= same
	}
	if found != 1 {
		return nil, n
	}
	return list[at], n
}

// Authenticate returns the device that a client is and the id of the credential it
// presents, in memory: a token alone as user name with any password, or a device id
// with its secret as password. An unknown user name and a wrong secret cost and
// answer the same: Unauthorized, with a *Denied that says why to those who may know.
// The credential may be revoked as soon as this returns: see Refresh.
func (r *Registry) Authenticate(username string, password []byte) (device muster.DeviceID, credential string, err error) {
	if len(username) > maxGiven || len(password) > maxGiven {
		return "", "", Deny("the user name or password is over the limit of a credential")
	}
	asToken := sha256.Sum256([]byte(username))
	asSecret := sha256.Sum256(password)
	token := r.auth.find(Token, asToken)
	secret, n := r.auth.secret(muster.DeviceID(username), asSecret)
	switch {
	case secret != nil && (token == nil || secret.over(muster.MicrosOf(r.now())) == ""):
		return r.admitBy(secret)
	case token != nil:
		return r.admitBy(token)
	default:
		return "", "", Deny(r.whyUnknown(muster.DeviceID(username), len(password), n))
	}
}

// whyUnknown says why nothing that a client presented fits.
func (r *Registry) whyUnknown(username muster.DeviceID, password, secrets int) string {
	if _, err := r.Get(username); err != nil {
		return "the user name is neither a device nor a token"
	}
	switch {
	case secrets == 0:
		return "the device has no secret"
	case password == 0:
		return "no password was given"
	default:
		return "the password is none of the device's secrets"
	}
}

// AuthenticateWhole is Authenticate for credentials of kind, Basic or Adoption, that
// are made of client id, user name and password.
func (r *Registry) AuthenticateWhole(kind CredentialKind, clientID, username string, password []byte) (device muster.DeviceID, credential string, err error) {
	if len(clientID) > maxGiven || len(username) > maxGiven || len(password) > maxGiven {
		return "", "", Deny("the client id, user name or password is over the limit of a credential")
	}
	h := r.auth.find(kind, wholeHash(kind, clientID, username, string(password)))
	if kind == Basic && h == nil {
		h = r.auth.find(kind, wholeHash(kind, "", username, string(password)))
	}
	if h == nil {
		return "", "", Deny("client id, user name and password belong to no device")
	}
	return r.admitBy(h)
}

// admitBy lets a client in that has shown h, unless it is over.
func (r *Registry) admitBy(h *held) (device muster.DeviceID, credential string, err error) {
	at := muster.MicrosOf(r.now())
	if why := h.over(at); why != "" {
		return "", "", Deny("the credential "+h.ID+" "+why, h.Device)
	}
	r.uses.note(h, at)
	return h.Device, h.ID, nil
}

// Denied is why a login was refused, for those who look after the devices. The
// client is never told.
type Denied struct { //nolint:errname // it says what happened
	Reason  string            // one sentence, no secret in it
	Devices []muster.DeviceID // whom it is about, beside those that the client named
}

// Error returns the reason.
func (d *Denied) Error() string { return d.Reason }

// Deny returns an Unauthorized error that tells the client no more than that its
// credentials are wrong, and has a *Denied as its cause.
func Deny(reason string, about ...muster.DeviceID) error {
	return &muster.Error{Kind: muster.Unauthorized, Msg: "bad user name or password", Err: &Denied{Reason: reason, Devices: about}}
}

package devices

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash/maphash"
	"slices"
	"sync"

	"muster"
)

// authShards spreads the locks of CONNECT; a power of two.
const authShards = 64

// authIndex answers "whose credential is this". Tokens are found by the first
// half of their hash and compared in constant time as a whole.
type authIndex struct {
	seed   maphash.Seed
	decoy  []secretOf // stands for the secrets of a device that has none
	shards [authShards]authShard
}

type authShard struct {
	mu      sync.RWMutex
	tokens  map[[16]byte]tokenOwner
	secrets map[muster.DeviceID][]secretOf // lists are replaced, never changed in place
}

type tokenOwner struct {
	hash       [32]byte
	device     muster.DeviceID
	credential string // its id
}

type secretOf struct {
	hash       [32]byte
	credential string // its id
}

func newAuthIndex() *authIndex {
	x := &authIndex{seed: maphash.MakeSeed(), decoy: []secretOf{{hash: sha256.Sum256([]byte(rand.Text()))}}}
	for i := range x.shards {
		x.shards[i].tokens = map[[16]byte]tokenOwner{}
		x.shards[i].secrets = map[muster.DeviceID][]secretOf{}
	}
	return x
}

func (x *authIndex) ofToken(hash [32]byte) (*authShard, [16]byte) {
	return &x.shards[hash[31]%authShards], [16]byte(hash[:16])
}

func (x *authIndex) ofDevice(id muster.DeviceID) *authShard {
	return &x.shards[maphash.String(x.seed, string(id))%authShards]
}

func (x *authIndex) add(c Credential) {
	if c.Kind == Token {
		s, key := x.ofToken(c.Hash)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tokens[key] = tokenOwner{c.Hash, c.Device, c.ID}
		return
	}
	s := x.ofDevice(c.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[c.Device] = append(slices.Clone(s.secrets[c.Device]), secretOf{c.Hash, c.ID})
}

func (x *authIndex) remove(c Credential) {
	if c.Kind == Token {
		s, key := x.ofToken(c.Hash)
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tokens, key)
		return
	}
	s := x.ofDevice(c.Device)
	s.mu.Lock()
	defer s.mu.Unlock()
	left := slices.Clone(s.secrets[c.Device])
	if i := slices.Index(left, secretOf{c.Hash, c.ID}); i >= 0 {
		left = slices.Delete(left, i, i+1)
	}
	if len(left) == 0 {
		delete(s.secrets, c.Device)
		return
	}
	s.secrets[c.Device] = left
}

// taken says whether some device has the token with this hash, or one that the
// index could not tell from it.
func (x *authIndex) taken(hash [32]byte) bool {
	s, key := x.ofToken(hash)
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, ok := s.tokens[key]
	return ok
}

// token returns the owner of the token that has this hash.
func (x *authIndex) token(hash [32]byte) (tokenOwner, bool) {
	s, key := x.ofToken(hash)
	s.mu.RLock()
	o := s.tokens[key] // of an unknown token: the zero hash, compared all the same
	s.mu.RUnlock()
	return o, subtle.ConstantTimeCompare(o.hash[:], hash[:]) == 1
}

// secret returns the id of id's secret that has this hash.
func (x *authIndex) secret(id muster.DeviceID, hash [32]byte) (credential string, ok bool) {
	s := x.ofDevice(id)
	s.mu.RLock()
	hashes := s.secrets[id]
	s.mu.RUnlock()
	if len(hashes) == 0 {
		hashes = x.decoy
	}
	at, match := 0, 0
	for i := range hashes {
		same := subtle.ConstantTimeCompare(hashes[i].hash[:], hash[:])
		at = subtle.ConstantTimeSelect(same, i, at)
		match |= same
	}
	return hashes[at].credential, match == 1
}

// Authenticate returns the device that a client is and the id of the credential it
// presents, in memory: a token alone as user name with any password, or a device id
// with its secret as password. An unknown user name and a wrong secret cost and
// answer the same: Unauthorized. The credential may be revoked as soon as this
// returns: see Refresh.
func (r *Registry) Authenticate(username string, password []byte) (device muster.DeviceID, credential string, err error) {
	if len(username) > maxGiven || len(password) > maxGiven {
		return "", "", errCredentials()
	}
	asToken := sha256.Sum256([]byte(username))
	asSecret := sha256.Sum256(password)
	owner, isToken := r.auth.token(asToken)
	secret, isSecret := r.auth.secret(muster.DeviceID(username), asSecret)
	switch {
	case isSecret:
		return muster.DeviceID(username), secret, nil
	case isToken:
		return owner.device, owner.credential, nil
	default:
		return "", "", errCredentials()
	}
}

func errCredentials() error {
	return muster.Errorf(muster.Unauthorized, "bad user name or password")
}

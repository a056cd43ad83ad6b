package deliver

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"muster"
)

// Path is what the addresses of images begin with; the image's SHA-256 in small hex digits follows.
const Path = "/fw/blob/"

const (
	domain   = "muster firmware address v1\x00" // what else is signed with a key is no address
	keyBytes = 32                               // the least of a key
)

// Grant is what an address gives a right to.
type Grant struct {
	Digest  [sha256.Size]byte
	Device  muster.DeviceID
	Action  int64
	Expires time.Time // in whole seconds
}

// Signer makes the addresses of images, and knows its own. It is safe for concurrent use.
type Signer struct{ keys [][]byte }

// NewSigner returns the signer of a key, which has at least 32 random bytes. Addresses signed with
// the previous key are still good, if there is one.
func NewSigner(current, previous []byte) (*Signer, error) {
	s := &Signer{keys: [][]byte{current}}
	if len(previous) > 0 {
		s.keys = append(s.keys, previous)
	}
	for _, k := range s.keys {
		if len(k) < keyBytes {
			return nil, muster.Errorf(muster.Invalid, "a key of firmware addresses has %d bytes, at least %d are needed", len(k), keyBytes)
		}
	}
	return s, nil
}

// URL returns where a device fetches an image for an action until expires, which counts in whole
// seconds. base is the server's own address, without a path.
func (s *Signer) URL(base string, digest [sha256.Size]byte, device muster.DeviceID, action int64, expires time.Time) string {
	g := Grant{Digest: digest, Device: device, Action: action, Expires: expires}
	query := "?d=" + url.QueryEscape(string(device)) + "&a=" + strconv.FormatInt(action, 10) +
		"&exp=" + strconv.FormatInt(expires.Unix(), 10) + "&sig=" + base64.RawURLEncoding.EncodeToString(mac(s.keys[0], &g))
	return strings.TrimSuffix(base, "/") + Path + hex.EncodeToString(digest[:]) + query
}

// mac signs all of a grant. The parts before the device are of fixed length, so that no two
// grants are the same bytes.
func mac(key []byte, g *Grant) []byte {
	h := hmac.New(sha256.New, key)
	b := make([]byte, 0, len(domain)+sha256.Size+16+muster.MaxDeviceID)
	b = append(append(b, domain...), g.Digest[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(g.Action))
	b = binary.BigEndian.AppendUint64(b, uint64(g.Expires.Unix()))
	_, _ = h.Write(append(b, g.Device...)) // a hash never fails
	return h.Sum(nil)
}

// Check returns what the address of r gives a right to. One that names no image is NotFound, one
// without a signature Unauthorized, and Forbidden is one with another's signature (of another
// image, device, action or time, or of nobody) and one that has expired.
func (s *Signer) Check(r *http.Request, now time.Time) (Grant, error) {
	g, sig, err := read(r)
	if err != nil {
		return Grant{}, err
	}
	good := false
	for _, key := range s.keys {
		good = hmac.Equal(mac(key, &g), sig) || good
	}
	switch {
	case !good:
		return Grant{}, muster.Errorf(muster.Forbidden, "the address is not signed for this device, action, image and time")
	case !now.Before(g.Expires):
		return Grant{}, muster.Errorf(muster.Forbidden, "the address has expired: ask for a new offer")
	}
	return g, nil
}

// read takes an address apart. There is one way to write each.
func read(r *http.Request) (g Grant, sig []byte, err error) {
	name, ok := strings.CutPrefix(r.URL.Path, Path)
	digest, err := hex.DecodeString(name)
	if !ok || err != nil || len(digest) != sha256.Size || name != strings.ToLower(name) {
		return g, nil, muster.Errorf(muster.NotFound, "there is no such image")
	}
	g.Digest = [sha256.Size]byte(digest)
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || !query.Has("sig") {
		return g, nil, muster.Errorf(muster.Unauthorized, "the address is not signed")
	}
	for _, name := range []string{"d", "a", "exp", "sig"} {
		if len(query[name]) != 1 {
			return g, nil, errNotOurs()
		}
	}
	expires, ok1 := number(query.Get("exp"))
	action, ok2 := number(query.Get("a"))
	g.Device, err = muster.ParseDeviceID(query.Get("d"))
	if err != nil || !ok1 || !ok2 {
		return g, nil, errNotOurs()
	}
	g.Action, g.Expires = action, time.Unix(expires, 0)
	if sig, err = base64.RawURLEncoding.Strict().DecodeString(query.Get("sig")); err != nil {
		return g, nil, errNotOurs()
	}
	return g, sig, nil
}

func errNotOurs() error {
	return muster.Errorf(muster.Forbidden, "the address is not one that was made here")
}

// number reads a number as it is written here.
func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && strconv.FormatInt(n, 10) == s
}

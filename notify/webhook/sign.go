package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"muster"
	"muster/notify/hooks"
)

// The headers ("Webhook headers").
const (
	HeaderID        = "webhook-id"
	HeaderTimestamp = "webhook-timestamp"
	HeaderSignature = "webhook-signature"
)

const (
	// Tolerance is how far a timestamp may be from the receiver's clock ("Verifying
	// signatures"); five minutes, as the specification's libraries have it.
	Tolerance = 5 * time.Minute

	symmetric = "v1," // HMAC-SHA256 ("Signature scheme")
	// What secrets may be, in bytes ("Signature scheme": 192 to 512 bits).
	minKey, maxKey = 24, 64
	maxSignatures  = 16 // that Verify looks at
	maxID          = 64 // bytes
)

// Sign returns the value of webhook-signature: one signature for each key, of
// "id.timestamp.body", with spaces between.
func Sign(keys [][]byte, id string, at time.Time, body []byte) string {
	parts := make([]string, len(keys))
	for i, key := range keys {
		parts[i] = symmetric + base64.StdEncoding.EncodeToString(mac(key, id, strconv.FormatInt(at.Unix(), 10), body))
	}
	return strings.Join(parts, " ")
}

func mac(key []byte, id, timestamp string, body []byte) []byte {
	h := hmac.New(sha256.New, key)
	_, _ = h.Write([]byte(id + "." + timestamp + ".")) // a hash takes everything
	_, _ = h.Write(body)                               // likewise
	return h.Sum(nil)
}

// ParseSecret returns the key of a secret, whsec_ and base64; the prefix may be
// missing. Invalid when it is not 24 to 64 bytes.
func ParseSecret(secret string) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, hooks.SecretPrefix))
	if err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, muster.Errorf(muster.Invalid, "the secret is not %s and base64 of %d to %d bytes", hooks.SecretPrefix, minKey, maxKey)
	}
	return key, nil
}

// Verify says whether a request with these headers and this body was signed with
// secret, and within Tolerance of now. Invalid for a bad secret, Unauthorized for
// anything else. It does not remember ids: a receiver that must not act twice does.
func Verify(secret string, h http.Header, body []byte, now time.Time) error {
	key, err := ParseSecret(secret)
	if err != nil {
		return err
	}
	id, stamp, signatures := h.Get(HeaderID), h.Get(HeaderTimestamp), strings.Fields(h.Get(HeaderSignature))
	if id == "" || stamp == "" || len(signatures) == 0 {
		return muster.Errorf(muster.Unauthorized, "one of the headers %s, %s and %s is missing", HeaderID, HeaderTimestamp, HeaderSignature)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || seconds < 0 || strconv.FormatInt(seconds, 10) != stamp {
		return muster.Errorf(muster.Unauthorized, "%s is not a time in seconds", HeaderTimestamp)
	}
	if at := time.Unix(seconds, 0); at.Before(now.Add(-Tolerance)) || at.After(now.Add(Tolerance)) {
		return muster.Errorf(muster.Unauthorized, "%s is more than %v from now", HeaderTimestamp, Tolerance)
	}
	want := mac(key, id, stamp, body)
	for _, s := range signatures[:min(len(signatures), maxSignatures)] {
		text, ok := strings.CutPrefix(s, symmetric)
		if !ok {
			continue // another scheme, or a later version
		}
		if got, err := base64.StdEncoding.DecodeString(text); err == nil && hmac.Equal(got, want) {
			return nil
		}
	}
	return muster.Errorf(muster.Unauthorized, "no signature is right")
}

// checkID refuses ids that could be mistaken in what is signed ("Signature scheme": no
// full stop).
func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return muster.Errorf(muster.Invalid, "the event's id has not 1 to %d characters", maxID)
	}
	for i := range len(id) {
		c := id[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return muster.Errorf(muster.Invalid, "the event's id has other characters than letters, digits, _ and -")
		}
	}
	return nil
}

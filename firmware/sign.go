package firmware

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"slices"
	"time"

	"muster"
)

// signedFor stands before what is signed, so that a signature of something else, made with
// the same key, is none of a manifest.
const signedFor = "muster-firmware-manifest-v1\n"

// MaxSignatures bounds those that a release carries.
const MaxSignatures = 16

// Signature is one key's over a manifest.
type Signature struct {
	Key string `json:"key"` // id of the key
	Sig []byte `json:"sig"` // Ed25519 (RFC 8032) over "muster-firmware-manifest-v1\n" and the manifest's canonical bytes
}

// Signed is a manifest with its signatures, as a file and in the API.
type Signed struct {
	Manifest   json.RawMessage `json:"manifest"`
	Signatures []Signature     `json:"signatures"`
}

// KeyID names a key: the first 16 bytes of the SHA-256 of its 32 bytes, in hex.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:16])
}

// Sign signs a manifest.
func Sign(key ed25519.PrivateKey, m *Manifest) (Signature, error) {
	text, err := m.Bytes()
	if err != nil {
		return Signature{}, err
	}
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return Signature{}, muster.Errorf(muster.Invalid, "the key is not one of Ed25519")
	}
	return Signature{Key: KeyID(pub), Sig: ed25519.Sign(key, append([]byte(signedFor), text...))}, nil
}

// Add puts a signature beside the others; one of the same key takes its place.
func (s *Signed) Add(sig Signature) {
	s.Signatures = slices.DeleteFunc(s.Signatures, func(old Signature) bool { return old.Key == sig.Key })
	s.Signatures = append(s.Signatures, sig)
}

// TrustedKey is a public key that releases may be signed with.
type TrustedKey struct {
	ID      string
	Key     ed25519.PublicKey
	Revoked bool
}

// Verify says whether a manifest has good signatures of at least threshold of the keys that
// are not revoked, and is not out of date. A signature that is not good, of whatever key, makes
// it Invalid even where enough others are: somebody changed something. So do too few.
func Verify(m *Manifest, sigs []Signature, keys []TrustedKey, threshold int, now time.Time) error {
	text, err := m.Bytes()
	if err != nil {
		return err
	}
	text = append([]byte(signedFor), text...)
	if len(sigs) > MaxSignatures {
		return muster.Errorf(muster.Invalid, "there are %d signatures, at most %d are allowed", len(sigs), MaxSignatures)
	}
	good := map[string]bool{}
	for _, sig := range sigs {
		at := slices.IndexFunc(keys, func(k TrustedKey) bool { return k.ID == sig.Key })
		if at < 0 || keys[at].Revoked {
			continue
		}
		if len(keys[at].Key) != ed25519.PublicKeySize || !ed25519.Verify(keys[at].Key, text, sig.Sig) {
			return muster.Errorf(muster.Invalid, "a signature is not one of this manifest")
		}
		good[sig.Key] = true
	}
	switch {
	case len(good) < max(threshold, 1):
		return muster.Errorf(muster.Invalid, "the manifest has %d good signatures of keys that count, %d are needed", len(good), max(threshold, 1))
	case !m.Expires.IsZero() && !now.Before(m.Expires):
		return muster.Errorf(muster.Invalid, "the manifest is out of date")
	}
	return nil
}

// Blocks of PEM files (RFC 7468), as openssl reads and writes them.
const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
	maxKeyFile   = 16 << 10
)

// PrivatePEM returns a key as a file of PKCS #8.
func PrivatePEM(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "encode the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// PublicPEM returns a public key as a file.
func PublicPEM(key ed25519.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, muster.Errorf(muster.Internal, "encode the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der}), nil
}

// ParsePrivate reads the file of a private key. What is wrong with it never repeats it.
func ParsePrivate(file []byte) (ed25519.PrivateKey, error) {
	der, err := block(file, privateBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, muster.Errorf(muster.Invalid, "the file holds no private key of Ed25519")
	}
	return key, nil
}

// ParsePublic reads the file of a public key.
func ParsePublic(file []byte) (ed25519.PublicKey, error) {
	der, err := block(file, publicBlock)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, muster.Errorf(muster.Invalid, "the file holds no public key of Ed25519")
	}
	return key, nil
}

func block(file []byte, want string) ([]byte, error) {
	if len(file) > maxKeyFile {
		return nil, muster.Errorf(muster.TooLarge, "the file of the key has over %d bytes", maxKeyFile)
	}
	b, _ := pem.Decode(file)
	if b == nil || b.Type != want {
		return nil, muster.Errorf(muster.Invalid, "the file is not a %s in PEM", want)
	}
	return b.Bytes, nil
}

package hooks

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"muster"
)

const (
	// SecretPrefix begins a secret as people see it (Standard Webhooks, "Signature scheme").
	SecretPrefix = "whsec_"
	// MaxOverlap is how long two secrets may sign.
	MaxOverlap = 7 * 24 * time.Hour

	secretBytes = 32 // the specification has 24 to 64
)

// Sealer keeps secrets from those who read the database. bind is what a sealed text
// belongs to: it opens with the same only.
type Sealer interface {
	Seal(plain []byte, bind string) ([]byte, error)
	Open(sealed []byte, bind string) ([]byte, error)
}

// newSecret makes a key and its text, which is shown this once.
func (w *Webhooks) newSecret(id string, at muster.Micros) (Secret, string, error) {
	key := make([]byte, secretBytes)
	_, _ = rand.Read(key) // never fails
	sealed, err := w.seal(id, key, at)
	if err != nil {
		return Secret{}, "", err
	}
	return sealed, SecretPrefix + base64.StdEncoding.EncodeToString(key), nil
}

func (w *Webhooks) seal(id string, plain []byte, at muster.Micros) (Secret, error) {
	sealed, err := w.options.Sealer.Seal(plain, bindOf(id))
	if err != nil {
		return Secret{}, fmt.Errorf("seal the webhook's secret: %w", err)
	}
	return Secret{Sealed: sealed, Created: at}, nil
}

// Keys returns what signs events for h now, the newest first; of a chat service its service
// URL alone. Internal when a secret
// does not open: the data directory has another key than it was sealed with.
func (w *Webhooks) Keys(h Webhook) ([][]byte, error) {
	now := muster.MicrosOf(w.options.Now())
	var keys [][]byte
	for _, s := range h.Secrets {
		if s.Ends != 0 && s.Ends <= now {
			continue
		}
		key, err := w.options.Sealer.Open(s.Sealed, bindOf(h.ID))
		if err != nil {
			return nil, &muster.Error{Kind: muster.Internal, Msg: "open the secret of webhook " + h.ID, Err: err}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func bindOf(id string) string { return "webhook " + id }

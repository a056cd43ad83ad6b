package talk

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"muster"
	"muster/firmware"
	"muster/firmware/chunk"
	"muster/firmware/desk"
)

// signedFor stands before what the server signs of an offer, so that a signature of
// something else is none of an offer.
const signedFor = "muster-firmware-offer-v1\n"

// validFor is how long an offer's signature counts. It is made anew each time it is sent.
const validFor = 24 * time.Hour

// Offer is the message at devices/{id}/firmware.
type Offer struct {
	Device   muster.DeviceID `json:"device"`
	Rollout  string          `json:"rollout"`
	Action   int32           `json:"action"`
	Attempt  int             `json:"attempt"`
	State    string          `json:"state"` // of the attempt, as the server has it
	NotAfter int64           `json:"not_after"`
	// ManifestSHA256 is the digest, in hex, of Manifest in its canonical form (RFC 8785), which
	// is the form it is sent in.
	ManifestSHA256 string               `json:"manifest_sha256"`
	Manifest       json.RawMessage      `json:"manifest"`
	Signatures     []firmware.Signature `json:"signatures"` // of the manifest, by offline keys
	Files          []OfferFile          `json:"files"`
	Chunks         Chunks               `json:"mqtt"`
	Window         *OfferWindow         `json:"window,omitempty"` // nil where the device may install at any time
	Key            string               `json:"key"`              // id of the server's key
	Sig            []byte               `json:"sig"`              // see Ticket
}

// OfferWindow is when the device may install what it is offered. It may fetch the image at any time.
type OfferWindow struct {
	Open   bool  `json:"open"`             // it may install now; else it waits with the image, and is told again when it may
	Opens  int64 `json:"opens,omitempty"`  // when its maintenance window does, in seconds since 1970; 0 where that is open, or never is
	Closes int64 `json:"closes,omitempty"` // when its maintenance window does, and it is not to begin any more; likewise
}

// OfferFile is an image of the offer, in the manifest's order.
type OfferFile struct {
	Filename string `json:"filename"`
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"`
	URL      string `json:"url,omitempty"` // where it can be fetched over HTTP, by this device
	// Patch makes the image of one that the device has, if there is such a patch.
	Patch *OfferPatch `json:"patch,omitempty"`
}

// OfferPatch is a zstd frame (RFC 8878) whose raw dictionary is another image, as zstd --patch-from
// takes it. What it makes is the file's image if, and only if, it has the file's digest.
type OfferPatch struct {
	From   string `json:"from"`   // SHA-256, in hex, of the image that it is of
	Size   int64  `json:"size"`   // of the patch, in bytes
	SHA256 string `json:"sha256"` // of the patch, in hex
	URL    string `json:"url,omitempty"`
}

// Chunks says what a device may ask for over MQTT.
type Chunks struct {
	MaxLen int `json:"max_len"`
	MaxN   int `json:"max_n"`
}

// Ticket returns what the server signs: lines, so that a small device need not parse to
// check it. "muster-firmware-offer-v1", the device, the rollout, the action, the attempt, the
// manifest's digest and not_after in seconds since 1970, each with a newline behind it.
func (o *Offer) Ticket() []byte {
	return fmt.Appendf(nil, "%s%s\n%s\n%d\n%d\n%s\n%d\n", signedFor, o.Device, o.Rollout, o.Action, o.Attempt, o.ManifestSHA256, o.NotAfter)
}

// Verify is what a device does with an offer before anything else: it is for this device,
// made by the server's key, not too old, and of this manifest. It returns the manifest, whose
// own signatures firmware.Verify checks.
func (o *Offer) Verify(key ed25519.PublicKey, device muster.DeviceID, now time.Time) (*firmware.Manifest, error) {
	switch {
	case o.Device != device:
		return nil, muster.Errorf(muster.Forbidden, "the offer is for another device")
	case len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, o.Ticket(), o.Sig):
		return nil, muster.Errorf(muster.Forbidden, "the offer is not signed by the server")
	case now.Unix() > o.NotAfter:
		return nil, muster.Errorf(muster.Forbidden, "the offer is out of date")
	}
	m, err := firmware.ParseManifest(o.Manifest)
	if err != nil {
		return nil, fmt.Errorf("read the offer's manifest: %w", err)
	}
	text, err := m.Bytes()
	if err != nil {
		return nil, fmt.Errorf("read the offer's manifest: %w", err)
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != o.ManifestSHA256 {
		return nil, muster.Errorf(muster.Forbidden, "the offer is of another manifest")
	}
	return m, nil
}

// offer makes the message of what a device is to do.
func (t *Talk) offer(d *desk.Offer) (*Offer, error) {
	text, err := d.Release.Manifest.Bytes()
	if err != nil {
		return nil, fmt.Errorf("make an offer: %w", err)
	}
	sum := sha256.Sum256(text)
	now := t.cfg.Now()
	o := &Offer{
		Device: d.Device, Rollout: d.Rollout, Action: d.Action, Attempt: d.Attempt, State: d.State.String(),
		NotAfter: now.Add(validFor).Unix(), ManifestSHA256: hex.EncodeToString(sum[:]), Manifest: text,
		Signatures: d.Release.Signed.Signatures, Files: files(d, t.addresses(d, now.Add(validFor))),
		Chunks: Chunks{MaxLen: chunk.MaxLen, MaxN: chunk.MaxPieces}, Key: t.keyID,
	}
	if d.Hours.Bound || d.Parked {
		o.Window = &OfferWindow{Open: !d.Parked, Opens: seconds(d.Hours.Opens), Closes: seconds(d.Hours.Closes)}
	}
	if o.Signatures == nil {
		o.Signatures = []firmware.Signature{}
	}
	o.Sig = ed25519.Sign(t.cfg.Key, o.Ticket())
	return o, nil
}

// seconds is a time as devices are told it; 0 for none.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

// addresses returns where the device of an offer fetches an image until a time.
func (t *Talk) addresses(d *desk.Offer, until time.Time) func(sha256 string) string {
	return func(sha256 string) string {
		if t.cfg.URL == nil {
			return ""
		}
		return t.cfg.URL(d.Device, d.Action, sha256, until)
	}
}

// files are the images of an offer, with their addresses.
func files(d *desk.Offer, url func(sha256 string) string) []OfferFile {
	out := make([]OfferFile, len(d.Release.Files))
	for i, f := range d.Release.Files {
		out[i] = OfferFile{Filename: f.Filename, Size: f.Size, SHA256: f.SHA256, URL: url(f.SHA256)}
		if p := f.Patch; p != nil {
			out[i].Patch = &OfferPatch{From: p.From, Size: p.Size, SHA256: p.SHA256, URL: url(p.SHA256)}
		}
	}
	return out
}

// Files returns what a device is to fetch for its action, as the offer over MQTT has it but without
// addresses, which are for the device alone. NotFound when that is not, or not any more, what it is to do.
func (t *Talk) Files(ctx context.Context, device muster.DeviceID, action int32) ([]OfferFile, error) {
	d, err := t.cfg.Desk.Offer(ctx, device)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what it was doing
	}
	if d.Stop || d.Action != action {
		return nil, muster.Errorf(muster.NotFound, "the action is not the device's current one")
	}
	return files(&d, func(string) string { return "" }), nil
}

// cancelled is the message at devices/{id}/firmware/cancel.
func cancelled(d *desk.Offer) []byte {
	out := append([]byte(`{"action":`), strconv.Itoa(int(d.Action))...)
	return append(strconv.AppendInt(append(out, `,"attempt":`...), int64(d.Attempt), 10), '}')
}

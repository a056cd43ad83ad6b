package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"muster"
	"muster/firmware"
	"muster/firmware/image"
)

// PolicyPath is the policy's, as the audit log has it.
const PolicyPath = "firmware/policy"

// KeyPath returns the path of a key, as the audit log has it.
func KeyPath(id string) string { return "firmware/keys/" + id }

// ReleasePath returns the path of a release, as the audit log has it.
func ReleasePath(id string) string { return "firmware/releases/" + id }

// ArtifactPath returns the path of an artifact, as the audit log has it.
func ArtifactPath(sha256 string) string { return "firmware/artifacts/" + sha256 }

// The views have all that is kept of a thing, long texts by their digests, so that the audit log vouches for
// it: see control.VerifyAudited. No member is left out when it is empty; what is left out is not compared.

// KeyView is a key as the audit log shows it.
type KeyView struct {
	ID        string        `json:"id"`
	Name      string        `json:"name"`
	Revoked   bool          `json:"revoked"`
	Reason    string        `json:"reason"`
	PEM       string        `json:"pem"`
	CreatedBy string        `json:"created_by"`
	Created   muster.Micros `json:"created"`
	RevokedBy string        `json:"revoked_by"`
	RevokedAt muster.Micros `json:"revoked_at"`
	Revision  int64         `json:"revision"`
}

// ViewOfKey returns it.
func ViewOfKey(k *Key) KeyView {
	return KeyView{k.ID, k.Name, k.Revoked != 0, k.Reason, k.PEM, k.CreatedBy, k.Created, k.RevokedBy, k.Revoked, k.Revision}
}

// PolicyView is the policy as the audit log shows it.
type PolicyView struct {
	Threshold int   `json:"threshold"`
	Revision  int64 `json:"revision"`
}

// ViewOfPolicy returns it.
func ViewOfPolicy(p *Policy) PolicyView { return PolicyView{p.Threshold, p.Revision} }

// ReleaseView is a release as the audit log shows it.
type ReleaseView struct {
	Number      int64         `json:"number"`
	Product     string        `json:"product"`
	Version     string        `json:"version"`
	Channel     string        `json:"channel"`
	State       State         `json:"state"`
	Manifest    string        `json:"manifest_sha256"` // of its bytes
	Notes       string        `json:"notes"`           // how long they are, when they are long
	NotesSHA256 string        `json:"notes_sha256"`    // of long ones
	Reason      string        `json:"reason"`
	Signed      []string      `json:"signed_by"`         // ids of keys
	Signatures  string        `json:"signatures_sha256"` // of their JSON
	Files       []string      `json:"files"`             // SHA-256
	CreatedBy   string        `json:"created_by"`
	Created     muster.Micros `json:"created"`
	PublishedBy string        `json:"published_by"`
	Published   muster.Micros `json:"published"`
	EndedBy     string        `json:"ended_by"`
	Ended       muster.Micros `json:"ended"`
	Revision    int64         `json:"revision"`
}

// ViewOfRelease returns it.
func ViewOfRelease(r *Release) ReleaseView {
	v := ReleaseView{
		Number: r.Number, Product: r.Product, Version: r.Version, Channel: r.Channel, State: r.State, Manifest: digestOf(r.Manifest), Notes: r.Notes, Reason: r.Reason,
		CreatedBy: r.CreatedBy, Created: r.Created, PublishedBy: r.PublishedBy, Published: r.Published, EndedBy: r.EndedBy, Ended: r.Ended, Revision: r.Revision,
	}
	if len(v.Notes) > MaxReason {
		v.Notes, v.NotesSHA256 = fmt.Sprintf("%d bytes", len(v.Notes)), digestOf([]byte(v.Notes))
	}
	for _, s := range r.Signatures {
		v.Signed = append(v.Signed, s.Key)
	}
	if len(r.Signatures) > 0 {
		text, err := json.Marshal(r.Signatures)
		if err != nil { // a text and bytes
			panic(fmt.Errorf("write the signatures of a release: %w", err))
		}
		v.Signatures = digestOf(text)
	}
	if m, err := firmware.ParseManifest(r.Manifest); err == nil {
		v.Files = Digests(m)
	}
	return v
}

// ArtifactView is an artifact as the audit log shows it.
type ArtifactView struct {
	Number    int64         `json:"number"`
	SHA256    string        `json:"sha256"`
	SHA1      string        `json:"sha1"`
	MD5       string        `json:"md5"`
	Size      int64         `json:"size"`
	Filename  string        `json:"filename"`
	Format    string        `json:"format"`
	Version   string        `json:"version"`
	Image     image.Info    `json:"image"`
	CreatedBy string        `json:"created_by"`
	Created   muster.Micros `json:"created"`
}

// ViewOfArtifact returns it.
func ViewOfArtifact(a *Artifact) ArtifactView {
	return ArtifactView{
		Number: a.Number, SHA256: a.SHA256, SHA1: a.SHA1, MD5: a.MD5, Size: a.Size, Filename: a.Filename, Format: string(a.Image.Format), Version: a.Image.Version,
		Image: a.Image, CreatedBy: a.CreatedBy, Created: a.Created,
	}
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

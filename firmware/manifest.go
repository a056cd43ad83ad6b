package firmware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/gowebpki/jcs"

	"muster"
	"muster/firmware/image"
)

// Schema is the manifest's version.
const Schema = 1

// Limits of a manifest.
const (
	MaxManifest   = 64 << 10 // bytes
	MaxArtifacts  = 32
	MaxHardware   = 64
	MaxDepends    = 16
	maxName       = 64
	maxFilename   = 128
	maxManifestMs = int64(1) << 53 // what JSON numbers hold exactly
)

// Software is the type of releases that are beside the firmware of a device.
const Software = "software"

// Manifest says what a release is. It is what offline keys sign: in the form of RFC 8785
// (JCS), of which there is one for the same contents.
type Manifest struct {
	Schema   int        `json:"schema"`
	Product  string     `json:"product"`           // whose firmware it is; releases of one product replace each other
	Release  string     `json:"release,omitempty"` // a name for people
	Version  string     `json:"version"`           // semantic
	Security uint64     `json:"security_version"`  // never below what a device has confirmed
	Type     string     `json:"type"`              // app, os, bootloader, model, ...
	Hardware []Hardware `json:"hw_compat,omitempty"`
	MinFrom  string     `json:"min_from_version,omitempty"` // the least version that it replaces
	Depends  []Depend   `json:"depends,omitempty"`
	Files    []File     `json:"artifacts"`
	Created  time.Time  `json:"created"`
	Expires  time.Time  `json:"expires,omitzero"` // after which it is not offered any more
}

// Hardware is what a release runs on: a board, and its revisions; any revision when there
// is none.
type Hardware struct {
	Board     string   `json:"board"`
	Revisions []string `json:"revisions,omitempty"`
}

// Depend is another product that must be there in at least a version.
type Depend struct {
	Product string `json:"product"`
	Version string `json:"version"`
}

// File is an image of a release.
type File struct {
	Filename string       `json:"filename"`
	SHA256   string       `json:"sha256"` // in hex
	Size     int64        `json:"size"`   // bytes
	Format   image.Format `json:"format"`
}

// ParseManifest reads a manifest, with whatever spaces and order its JSON has, and checks it.
// What its canonical form would leave out is Invalid: members that are unknown, empty,
// repeated or spelled in another case. Two readers of one manifest must not see two.
func ParseManifest(text []byte) (*Manifest, error) {
	if len(text) > MaxManifest {
		return nil, muster.Errorf(muster.TooLarge, "the manifest has %d bytes, at most %d are allowed", len(text), MaxManifest)
	}
	given, err := jcs.Transform(text)
	if err != nil {
		return nil, muster.Errorf(muster.Invalid, "the manifest is not JSON, or has a member twice")
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, muster.Errorf(muster.Invalid, "the manifest is not understood: a member is of another type")
	}
	if err := m.Check(); err != nil {
		return nil, err
	}
	if ours, err := m.Bytes(); err != nil || !bytes.Equal(ours, given) {
		return nil, muster.Errorf(muster.Invalid, "the manifest has members that are unknown, empty, or written in another way than the canonical one")
	}
	return &m, nil
}

// Bytes returns the manifest's canonical form, which is what is signed.
func (m *Manifest) Bytes() ([]byte, error) {
	text, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	text, err = jcs.Transform(text)
	if err != nil {
		return nil, fmt.Errorf("bring the manifest into its form: %w", err)
	}
	return text, nil
}

// Check says what is wrong with a manifest: an Invalid error, at the member.
func (m *Manifest) Check() error {
	if m.Schema != Schema {
		return muster.InvalidAt("schema", "schema is not %d", Schema)
	}
	for at, name := range map[string]string{"product": m.Product, "type": m.Type} {
		if err := checkName(at, name); err != nil {
			return err
		}
	}
	if !line(m.Release, maxName) {
		return muster.InvalidAt("release", "the release's name is not one line of at most %d bytes", maxName)
	}
	if _, err := ParseVersion(m.Version); err != nil {
		return err
	}
	if m.MinFrom != "" {
		if _, err := ParseVersion(m.MinFrom); err != nil {
			return muster.InvalidAt("min_from_version", "min_from_version is not a semantic version such as 1.4.0")
		}
	}
	switch {
	case m.Security > uint64(maxManifestMs):
		return muster.InvalidAt("security_version", "security_version is over 2^53")
	case m.Created.IsZero():
		return muster.InvalidAt("created", "created is missing")
	case !m.Expires.IsZero() && !m.Expires.After(m.Created):
		return muster.InvalidAt("expires", "expires is not after created")
	}
	return errors.Join(m.checkHardware(), m.checkDepends(), m.checkFiles())
}

func (m *Manifest) checkHardware() error {
	if len(m.Hardware) > MaxHardware {
		return muster.InvalidAt("hw_compat", "hw_compat has %d boards, at most %d are allowed", len(m.Hardware), MaxHardware)
	}
	for i, h := range m.Hardware {
		at := fmt.Sprintf("hw_compat/%d", i)
		if err := checkName(at+"/board", h.Board); err != nil {
			return err
		}
		if len(h.Revisions) > MaxHardware {
			return muster.InvalidAt(at+"/revisions", "there are %d revisions, at most %d are allowed", len(h.Revisions), MaxHardware)
		}
		for k, r := range h.Revisions {
			if err := checkName(fmt.Sprintf("%s/revisions/%d", at, k), r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Manifest) checkDepends() error {
	if len(m.Depends) > MaxDepends {
		return muster.InvalidAt("depends", "depends has %d products, at most %d are allowed", len(m.Depends), MaxDepends)
	}
	for i, d := range m.Depends {
		at := fmt.Sprintf("depends/%d", i)
		if err := checkName(at+"/product", d.Product); err != nil {
			return err
		}
		if _, err := ParseVersion(d.Version); err != nil {
			return muster.InvalidAt(at+"/version", "the version is not a semantic version such as 1.4.0")
		}
	}
	return nil
}

func (m *Manifest) checkFiles() error {
	if len(m.Files) == 0 || len(m.Files) > MaxArtifacts {
		return muster.InvalidAt("artifacts", "a release has 1 to %d artifacts", MaxArtifacts)
	}
	seen := map[string]bool{}
	for i, f := range m.Files {
		at := fmt.Sprintf("artifacts/%d", i)
		switch {
		case !filename().MatchString(f.Filename):
			return muster.InvalidAt(at+"/filename", "a file name is 1 to %d of letters, digits, '.', '_', '+' and '-', and begins with a letter or a digit", maxFilename)
		case seen[f.Filename]:
			return muster.InvalidAt(at+"/filename", "the file name is there twice")
		case !digest().MatchString(f.SHA256):
			return muster.InvalidAt(at+"/sha256", "sha256 is not 64 small hex digits")
		case f.Size <= 0 || f.Size > maxManifestMs:
			return muster.InvalidAt(at+"/size", "size is not above 0")
		case f.Format != "" && checkName("", string(f.Format)) != nil:
			return muster.InvalidAt(at+"/format", "the format is not a name")
		}
		seen[f.Filename] = true
	}
	return nil
}

func digest() *regexp.Regexp   { return regexp.MustCompile(`^[0-9a-f]{64}$`) }
func filename() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`) }

// checkName checks a name that stands in queries and paths.
func checkName(at, s string) error {
	if s == "" || len(s) > maxName || !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/+-]*$`).MatchString(s) {
		return muster.InvalidAt(at, "a name is 1 to %d of letters, digits and . _ : / + -, and begins with a letter or a digit", maxName)
	}
	return nil
}

// line says whether s is one line of text.
func line(s string, most int) bool {
	if len(s) > most {
		return false
	}
	for _, c := range s {
		if c < ' ' || c == 0x7F || c == '\uFFFD' {
			return false
		}
	}
	return true
}

// Fits says whether a release is for a board of a revision. A release that names no board is
// for all.
func (m *Manifest) Fits(board, revision string) bool {
	if len(m.Hardware) == 0 {
		return true
	}
	for _, h := range m.Hardware {
		if h.Board != board {
			continue
		}
		if len(h.Revisions) == 0 || slices.Contains(h.Revisions, revision) {
			return true
		}
	}
	return false
}

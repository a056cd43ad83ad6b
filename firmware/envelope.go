package firmware

import (
	"bytes"
	"encoding/json"
	"fmt"

	"muster"
)

// maxSigned bounds a signed manifest's text: the manifest, and its signatures.
const maxSigned = MaxManifest + MaxSignatures*1024

// ParseSigned reads a manifest with its signatures. Whether they are good is Verify's to say.
func ParseSigned(text []byte) (*Signed, *Manifest, error) {
	if len(text) > maxSigned {
		return nil, nil, muster.Errorf(muster.TooLarge, "the signed manifest has %d bytes, at most %d are allowed", len(text), maxSigned)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var s Signed
	if err := dec.Decode(&s); err != nil {
		return nil, nil, muster.Errorf(muster.Invalid, "this is not a manifest with signatures")
	}
	if len(s.Signatures) > MaxSignatures {
		return nil, nil, muster.InvalidAt("signatures", "there are %d signatures, at most %d are allowed", len(s.Signatures), MaxSignatures)
	}
	m, err := ParseManifest(s.Manifest)
	if err != nil {
		return nil, nil, muster.At(err, "manifest")
	}
	return &s, m, nil
}

// Text returns a signed manifest as a file for people: the canonical manifest, indented.
func (s *Signed) Text(m *Manifest) ([]byte, error) {
	canonical, err := m.Bytes()
	if err != nil {
		return nil, err
	}
	sigs := s.Signatures
	if sigs == nil {
		sigs = []Signature{}
	}
	text, err := json.MarshalIndent(Signed{canonical, sigs}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode the signed manifest: %w", err)
	}
	return append(text, '\n'), nil
}

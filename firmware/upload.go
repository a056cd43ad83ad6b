package firmware

import (
	"muster"
	"muster/firmware/image"
)

// Upload is what an upload says of its image beforehand.
type Upload struct {
	Size     int64         `json:"size"`               // bytes; 0 for not said
	SHA256   string        `json:"sha256"`             // in hex
	Filename string        `json:"filename,omitempty"` // what the image is called; see CheckFilename
	By       string        `json:"by,omitempty"`       // id of the user or key that began it
	Began    muster.Micros `json:"began,omitempty"`
}

// Progress is how far an upload is.
type Progress struct {
	Upload

	Offset int64 // bytes that are kept
}

// Sum is what is known of an image once it is whole. The digests are in hex.
type Sum struct {
	SHA256 string
	SHA1   string
	MD5    string
	Size   int64
	Image  image.Info
}

// CheckFilename says what is wrong with an image's file name: an Invalid error, at filename.
// It is looked up and shown, and never a part of a path.
func CheckFilename(name string) error {
	if !filename().MatchString(name) {
		return muster.InvalidAt("filename", "a file name is 1 to %d of letters, digits, '.', '_', '+' and '-', and begins with a letter or a digit", maxFilename)
	}
	return nil
}

// CheckDigest says what is wrong with a SHA-256 in hex: an Invalid error, at sha256.
func CheckDigest(s string) error {
	if !digest().MatchString(s) {
		return muster.InvalidAt("sha256", "sha256 is not 64 small hex digits")
	}
	return nil
}

// CheckName says what is wrong with a name that stands in queries and paths, such as a
// product's or a channel's: an Invalid error, at a member.
func CheckName(at, name string) error { return checkName(at, name) }

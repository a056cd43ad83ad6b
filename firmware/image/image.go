package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Format names a kind of image.
type Format string

// The formats that are known.
const (
	Raw     Format = "raw" // none of the others
	MCUboot Format = "mcuboot"
	ESP     Format = "esp-idf"
	UF2     Format = "uf2"
	SWU     Format = "swupdate"
	RAUC    Format = "rauc"
	Mender  Format = "mender"
)

// What Identify looks at.
const (
	HeadBytes = 64 << 10 // of the beginning
	TailBytes = 64 << 10 // of the end
)

// Info is what an image says of itself.
type Info struct {
	Format   Format   `json:"format"`
	Version  string   `json:"version,omitempty"`  // as the image has it; empty when it has none
	Hardware []string `json:"hardware,omitempty"` // revisions (SWUpdate) or the family (UF2); at most maxHardware
	Project  string   `json:"project,omitempty"`  // ESP-IDF's project name
	Security *uint64  `json:"security_version,omitempty"`
	Signed   bool     `json:"signed,omitempty"` // it carries a signature of its own, which is not checked here
	Damage   string   `json:"damage,omitempty"` // what of its own lengths, checksums and digests does not hold; empty when all does
}

const (
	maxHardware = 32
	maxText     = 128 // bytes of any text that is taken over
)

// Of returns what an image of a size says, and what of it does not hold. It reads the image
// once, in the memory of HeadBytes, TailBytes and chunkBytes.
func Of(r io.ReaderAt, size int64) (Info, error) {
	head, tail := make([]byte, min(size, HeadBytes)), make([]byte, min(size, TailBytes))
	if _, err := r.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("read the image's beginning: %w", err)
	}
	if _, err := r.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return Info{}, fmt.Errorf("read the image's end: %w", err)
	}
	info := Identify(head, tail, size)
	why, err := damage(r, size, info.Format)
	info.Damage = why
	return info, err
}

// Identify looks at the first HeadBytes, the last TailBytes and the size of an image; it does not
// find damage.
func Identify(head, tail []byte, size int64) Info {
	for _, look := range []func(head, tail []byte, size int64) (Info, bool){mcuboot, esp, uf2, swu, rauc, mender} {
		if info, ok := look(head, tail, size); ok {
			return info
		}
	}
	return Info{Format: Raw}
}

// MCUboot's image.h.
const (
	mcubootMagic     = 0x96f3b83d
	mcubootHeader    = 32
	mcubootTLV       = 0x6907
	mcubootProtected = 0x6908
	tlvED25519       = 0x24
	tlvRSA           = 0x20
	tlvECDSA         = 0x22
	tlvRSA3072       = 0x23
	tlvSecurity      = 0x50
)

func mcuboot(head, tail []byte, size int64) (Info, bool) {
	if len(head) < mcubootHeader || binary.LittleEndian.Uint32(head) != mcubootMagic {
		return Info{}, false
	}
	v := head[20:]
	info := Info{Format: MCUboot, Version: fmt.Sprintf("%d.%d.%d", v[0], v[1], binary.LittleEndian.Uint16(v[2:]))}
	if build := binary.LittleEndian.Uint32(v[4:]); build != 0 {
		info.Version += "+" + strconv.FormatUint(uint64(build), 10)
	}
	at := int64(binary.LittleEndian.Uint16(head[8:])) + int64(binary.LittleEndian.Uint32(head[12:]))
	for range 2 { // the protected entries, and the others
		at = info.tlvs(tail, size, at)
		if at < 0 {
			break
		}
	}
	return info, true
}

// tlvs reads the entries at an offset of the image, and returns where they end; -1 when they
// are not there.
func (i *Info) tlvs(tail []byte, size, at int64) int64 {
	start := at - (size - int64(len(tail)))
	if start < 0 || start+4 > int64(len(tail)) {
		return -1
	}
	b := tail[start:]
	magic, total := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
	if magic != mcubootTLV && magic != mcubootProtected || total < 4 || total > len(b) {
		return -1
	}
	for b := b[4:total]; len(b) >= 4; {
		kind, n := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		if n > len(b)-4 {
			break
		}
		switch value := b[4 : 4+n]; {
		case kind == tlvSecurity && n == 4:
			counter := uint64(binary.LittleEndian.Uint32(value))
			i.Security = &counter
		case kind == tlvED25519 || kind == tlvRSA || kind == tlvECDSA || kind == tlvRSA3072:
			i.Signed = true
		}
		b = b[4+n:]
	}
	return at + int64(total)
}

// ESP-IDF's esp_app_desc_t, which is first in the first segment.
const (
	espMagic     = 0xE9
	espDescAt    = 24 + 8
	espDescMagic = 0xABCD5432
	espDescSize  = 256
)

func esp(head, _ []byte, _ int64) (Info, bool) {
	if len(head) < espDescAt+espDescSize || head[0] != espMagic {
		return Info{}, false
	}
	d := head[espDescAt:]
	if binary.LittleEndian.Uint32(d) != espDescMagic {
		return Info{}, false
	}
	secure := uint64(binary.LittleEndian.Uint32(d[4:]))
	return Info{Format: ESP, Version: cstring(d[16:48]), Project: cstring(d[48:80]), Security: &secure}, true
}

// Microsoft's UF2.
const (
	uf2Magic  = 0x0A324655
	uf2Second = 0x9E5D5157
	uf2Block  = 512
	uf2Family = 0x2000
)

func uf2(head, _ []byte, size int64) (Info, bool) {
	if len(head) < uf2Block || size%uf2Block != 0 || binary.LittleEndian.Uint32(head) != uf2Magic || binary.LittleEndian.Uint32(head[4:]) != uf2Second {
		return Info{}, false
	}
	info := Info{Format: UF2}
	if binary.LittleEndian.Uint32(head[8:])&uf2Family != 0 {
		info.Hardware = []string{fmt.Sprintf("0x%08x", binary.LittleEndian.Uint32(head[28:]))}
	}
	return info, true
}

// rauc knows a bundle by squashfs and the size of the signature behind it.
func rauc(head, tail []byte, size int64) (Info, bool) {
	if len(head) < 4 || string(head[:4]) != "hsqs" || len(tail) < 8 {
		return Info{}, false
	}
	n := binary.BigEndian.Uint64(tail[len(tail)-8:])
	if n == 0 || n > 64<<10 || int64(n)+8 >= size {
		return Info{}, false
	}
	return Info{Format: RAUC, Signed: true}, true
}

// mender knows an artifact by its first member: a tar file has the name in its first 100
// bytes, the size in octal at 124, and contents from 512 on.
func mender(head, _ []byte, _ int64) (Info, bool) {
	if len(head) < 1024 || cstring(head[:100]) != "version" || !bytes.HasPrefix(head[257:], []byte("ustar")) {
		return Info{}, false
	}
	n, err := strconv.ParseUint(strings.Trim(string(head[124:136]), " \x00"), 8, 31)
	if err != nil || n > 512 || !bytes.Contains(head[512:512+n], []byte(`"mender"`)) {
		return Info{}, false
	}
	return Info{Format: Mender}, true
}

// cstring is a text that a zero byte ends, as far as it is one.
func cstring(b []byte) string {
	if end := bytes.IndexByte(b, 0); end >= 0 {
		b = b[:end]
	}
	return text(string(b))
}

// text is what is taken over of a text of an image: printable ASCII, or nothing.
func text(s string) string {
	if len(s) > maxText {
		return ""
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return ""
		}
	}
	return s
}

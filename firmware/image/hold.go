package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// held is an image that is held to what it says of its own parts. Of what it reads it keeps
// no more than chunkBytes, and entries and members only up to the limits below.
type held struct {
	r    io.ReaderAt
	size int64
}

const (
	chunkBytes  = 64 << 10
	mostMembers = 10_000 // of an archive
	mostName    = 4096   // bytes of a member's name
)

// damageError is what is wrong with an image, which is no failure to read it.
type damageError struct{ why string }

func (e damageError) Error() string { return e.why }

func damaged(format string, args ...any) error { return damageError{fmt.Sprintf(format, args...)} }

// damage says what is wrong with an image of a format; empty when nothing is, as far as it can
// be told without its keys. The error is one of reading it.
func damage(r io.ReaderAt, size int64, format Format) (string, error) {
	h := &held{r: r, size: size}
	var err error
	switch format {
	case MCUboot:
		err = h.mcuboot()
	case ESP:
		err = h.esp()
	case UF2:
		err = h.uf2()
	case SWU:
		err = h.swu()
	case RAUC:
		err = h.squashfs()
	case Mender:
		err = h.mender()
	case Raw:
		err = h.raw()
	}
	if wrong, ok := errors.AsType[damageError](err); ok {
		return wrong.why, nil
	}
	return "", err
}

// at reads n bytes at an offset; it is damage when they are not there.
func (h *held) at(offset, n int64, what string) ([]byte, error) {
	if offset < 0 || n < 0 || offset > h.size-n {
		return nil, damaged("it ends within %s", what)
	}
	b := make([]byte, n)
	if _, err := h.r.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s of an image: %w", what, err)
	}
	return b, nil
}

// each calls use with all bytes of a part, some at a time.
func (h *held) each(offset, n int64, what string, use func([]byte)) error {
	if offset < 0 || n < 0 || offset > h.size-n {
		return damaged("it ends within %s", what)
	}
	buf := make([]byte, min(n, chunkBytes))
	for n > 0 {
		b := buf[:min(n, chunkBytes)]
		if _, err := h.r.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s of an image: %w", what, err)
		}
		use(b)
		offset, n = offset+int64(len(b)), n-int64(len(b))
	}
	return nil
}

// digest holds a part of the image to the digest that the image has of it.
func (h *held) digest(d hash.Hash, n int64, want []byte) error {
	if len(want) != d.Size() {
		return damaged("its digest has %d bytes", len(want))
	}
	if err := h.each(0, n, "what its digest is of", func(b []byte) { d.Write(b) }); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(d.Sum(nil), want) == 0 {
		return damaged("its bytes are not those of its own digest")
	}
	return nil
}

const (
	mcubootEncrypted = 0x04 | 0x08 // flags: by AES, and the digest is of what it was before
	tlvSHA256        = 0x10
	tlvSHA384        = 0x11
	tlvSHA512        = 0x12
)

// mcuboot holds an image to its header, its entries and its digest, as MCUboot's design.rst
// has them. What follows the entries is the padding of its slot.
func (h *held) mcuboot() error {
	head, err := h.at(0, mcubootHeader, "its header")
	if err != nil {
		return err
	}
	header, protected := int64(binary.LittleEndian.Uint16(head[8:])), int64(binary.LittleEndian.Uint16(head[10:]))
	body := header + int64(binary.LittleEndian.Uint32(head[12:]))
	if header < mcubootHeader {
		return damaged("its header says that it has %d bytes", header)
	}
	if body > h.size {
		return damaged("it has %d bytes, and its header says %d and more", h.size, body)
	}
	if protected > 0 {
		if _, err := h.entries(body, mcubootProtected, protected); err != nil {
			return err
		}
	}
	found, err := h.entries(body+protected, mcubootTLV, 0)
	if err != nil || binary.LittleEndian.Uint32(head[16:])&mcubootEncrypted != 0 {
		return err
	}
	for kind, d := range map[uint16]hash.Hash{tlvSHA256: sha256.New(), tlvSHA384: sha512.New384(), tlvSHA512: sha512.New()} {
		if want, ok := found[kind]; ok {
			if err := h.digest(d, body+protected, want); err != nil {
				return err
			}
		}
	}
	return nil
}

// entries reads an area of entries, of total bytes when it is not 0, and returns the last of
// each kind.
func (h *held) entries(offset int64, magic uint16, total int64) (map[uint16][]byte, error) {
	const what = "its entries"
	head, err := h.at(offset, 4, what)
	if err != nil {
		return nil, err
	}
	says := int64(binary.LittleEndian.Uint16(head[2:]))
	if binary.LittleEndian.Uint16(head) != magic || says < 4 || total > 0 && says != total {
		return nil, damaged("its entries are not where its header says")
	}
	b, err := h.at(offset, says, what)
	if err != nil {
		return nil, err
	}
	found := map[uint16][]byte{}
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 || int(binary.LittleEndian.Uint16(b[2:])) > len(b)-4 {
			return nil, damaged("its entries do not end where they say")
		}
		n := int(binary.LittleEndian.Uint16(b[2:]))
		found[binary.LittleEndian.Uint16(b)] = b[4 : 4+n]
		b = b[4+n:]
	}
	return found, nil
}

const (
	espHeader   = 24
	espSegments = 16
	espAlign    = 16
	espSeed     = 0xEF
)

// esp holds an image to its segments, its checksum and the digest behind it, as esp_image_format.h
// of ESP-IDF and esptool have them. What follows is a signature, or padding.
func (h *held) esp() error {
	head, err := h.at(0, espHeader, "its header")
	if err != nil {
		return err
	}
	if head[1] == 0 || head[1] > espSegments {
		return damaged("its header says that it has %d segments", head[1])
	}
	offset, sum := int64(espHeader), byte(espSeed)
	for i := range int(head[1]) {
		what := "segment " + strconv.Itoa(i+1)
		segment, err := h.at(offset, 8, what)
		if err != nil {
			return err
		}
		n := int64(binary.LittleEndian.Uint32(segment[4:]))
		if err := h.each(offset+8, n, what, func(b []byte) {
			for _, c := range b {
				sum ^= c
			}
		}); err != nil {
			return err
		}
		offset += 8 + n
	}
	end := offset/espAlign*espAlign + espAlign // the checksum is the last byte of a line of its own or of the last
	last, err := h.at(end-1, 1, "its checksum")
	if err != nil {
		return err
	}
	if last[0] != sum {
		return damaged("its bytes are not those of its own checksum")
	}
	if head[espHeader-1] == 0 {
		return nil
	}
	want, err := h.at(end, sha256.Size, "its digest")
	if err != nil {
		return err
	}
	return h.digest(sha256.New(), end, want)
}

const (
	uf2Last    = 0x0AB16F30
	uf2Payload = 476
)

// uf2 holds each block to its magic numbers and its place. Files of several families, each
// with numbers of its own, are one behind the other.
func (h *held) uf2() error {
	if h.size%uf2Block != 0 {
		return damaged("it ends within a block")
	}
	blocks := h.size / uf2Block
	var wrong error
	at, word := int64(0), binary.LittleEndian.Uint32
	err := h.each(0, h.size, "its blocks", func(b []byte) { // chunkBytes are whole blocks
		for ; len(b) >= uf2Block && wrong == nil; b, at = b[uf2Block:], at+1 {
			switch number, of := word(b[20:]), word(b[24:]); {
			case word(b) != uf2Magic || word(b[4:]) != uf2Second || word(b[508:]) != uf2Last:
				wrong = damaged("block %d is none", at)
			case word(b[16:]) > uf2Payload || number >= of:
				wrong = damaged("block %d says of itself what cannot be", at)
			case int64(of) > blocks:
				wrong = damaged("it has %d blocks, and says %d", blocks, of)
			}
		}
	})
	return errors.Join(err, wrong)
}

// swu walks the members of a cpio archive up to its last, and sums up those with checksums.
func (h *held) swu() error {
	offset := int64(0)
	for i := range mostMembers {
		what := "member " + strconv.Itoa(i+1)
		head, err := h.at(offset, cpioHeader, what)
		if err != nil {
			return err
		}
		magic := string(head[:6])
		size, err1 := strconv.ParseUint(string(head[54:62]), 16, 32)
		nameSize, err2 := strconv.ParseUint(string(head[94:102]), 16, 32)
		check, err3 := strconv.ParseUint(string(head[102:110]), 16, 32)
		if magic != cpioNewc && magic != cpioCRC || errors.Join(err1, err2, err3) != nil || nameSize == 0 || nameSize > mostName {
			return damaged("%s is none", what)
		}
		raw, err := h.at(offset+cpioHeader, int64(nameSize), what)
		if err != nil {
			return err
		}
		if string(bytes.TrimRight(raw, "\x00")) == "TRAILER!!!" {
			return nil
		}
		from := int64(even(uint64(offset) + cpioHeader + nameSize))
		read, sum := int64(0), uint32(0)
		if magic == cpioCRC {
			read = int64(size)
		}
		if err := h.each(from, read, what, func(b []byte) {
			for _, c := range b {
				sum += uint32(c)
			}
		}); err != nil {
			return err
		}
		if magic == cpioCRC && uint64(sum) != check {
			return damaged("the bytes of %s are not those of its own checksum", what)
		}
		offset = int64(even(uint64(from) + size))
	}
	return damaged("it has more than %d members", mostMembers)
}

const (
	squashfsHeader = 96
	squashfsUsed   = 40
)

// squashfs holds a bundle to the length that its superblock says.
func (h *held) squashfs() error {
	head, err := h.at(0, squashfsHeader, "its superblock")
	if err != nil {
		return err
	}
	used := binary.LittleEndian.Uint64(head[squashfsUsed:])
	if used < squashfsHeader || used > uint64(h.size) {
		return damaged("it has %d bytes, and its superblock says %d", h.size, used)
	}
	return nil
}

// raw finds a file system that was cut off, as a bundle of RAUC is of which the end, by which
// it is known, is missing, and a UF2 file that was.
func (h *held) raw() error {
	head, err := h.at(0, min(h.size, squashfsHeader), "its beginning")
	switch {
	case err != nil:
		return err
	case bytes.HasPrefix(head, []byte("hsqs")):
		return h.squashfs()
	case len(head) >= 8 && binary.LittleEndian.Uint32(head) == uf2Magic && binary.LittleEndian.Uint32(head[4:]) == uf2Second:
		return h.uf2()
	default:
		return nil
	}
}

// mender walks a tar file, whose headers have checksums, and looks for what an artifact has.
func (h *held) mender() error {
	names := []string{}
	for t := tar.NewReader(io.NewSectionReader(h.r, 0, h.size)); len(names) <= mostMembers; {
		head, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			if !slices.Contains(names, "manifest") || !slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, "header.tar") }) {
				return damaged("it has no manifest, or no header")
			}
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, tar.ErrHeader):
			return damaged("it ends within member %d, or that is none", len(names)+1)
		case err != nil:
			return fmt.Errorf("read an image: %w", err)
		}
		names = append(names, head.Name[:min(len(head.Name), mostName)])
	}
	return damaged("it has more than %d members", mostMembers)
}

package image_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"muster/firmware/image"
)

func le(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// boot is an MCUboot image of n bytes of code.
func boot(n int, protected, tlvs []byte) []byte {
	b := le(uint32(0x96f3b83d), uint32(0), uint16(512), uint16(len(protected)), uint32(n), uint32(0), uint8(1), uint8(2), uint16(300), uint32(7), uint32(0))
	b = append(b, make([]byte, 512-len(b)+n)...)
	return append(append(b, protected...), tlvs...)
}

// booted is a whole MCUboot image with its digest, and with more entries behind it.
func booted(n int, protected []byte, more ...[]byte) []byte {
	sum := sha256.Sum256(boot(n, protected, nil))
	return boot(n, protected, tlv(0x6907, append([][]byte{entry(0x10, sum[:])}, more...)...))
}

func tlv(magic uint16, entries ...[]byte) []byte {
	all := bytes.Join(entries, nil)
	return append(le(magic, uint16(4+len(all))), all...)
}

func entry(kind uint16, value []byte) []byte { return append(le(kind, uint16(len(value))), value...) }

// espImage is an image of two segments, with its checksum and its digest.
func espImage(version, project string) []byte {
	desc := make([]byte, 4000)
	copy(desc, le(uint32(0xABCD5432), uint32(4)))
	copy(desc[16:48], version)
	copy(desc[48:80], project)
	b := append([]byte{0xE9, 2}, make([]byte, 22)...)
	b[23] = 1
	sum := byte(0xEF)
	for _, segment := range [][]byte{desc, []byte("code")} {
		b = append(append(b, le(uint32(0x3c000020), uint32(len(segment)))...), segment...)
		for _, c := range segment {
			sum ^= c
		}
	}
	for len(b)%16 != 15 {
		b = append(b, 0)
	}
	b = append(b, sum)
	digest := sha256.Sum256(b)
	return append(b, digest[:]...)
}

func cpio(name, body string) []byte {
	sum := 0
	for i := range len(body) {
		sum += int(body[i])
	}
	b := fmt.Appendf(nil, "070702%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1, 0o100644, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, sum)
	b = append(append(b, name...), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

const description = `software =
{
	version = "2.0.0";
	description = "of version = 9";
	hardware-compatibility: [ "1.0", "1.2" ];
	files: ( { filename = "app.bin"; path = "/a/app.bin"; } );
}`

func menderArtifact(t testing.TB, body string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range [][2]string{{"version", body}, {"manifest", "0 version"}, {"header.tar.gz", "packed"}, {"data/0000.tar.gz", "packed too"}} {
		if err := w.WriteHeader(&tar.Header{Name: m[0], Size: int64(len(m[1])), Mode: 0o600, Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// swuImage is an archive of SWUpdate with its description, more members, and its end.
func swuImage(more ...[]byte) []byte {
	all := append([][]byte{cpio("sw-description", description)}, more...)
	return append(bytes.Join(all, nil), cpio("TRAILER!!!", "")...)
}

// uf2File has some blocks of one family.
func uf2File(blocks int) (b []byte) {
	for i := range blocks {
		b = append(b, le(uint32(0x0A324655), uint32(0x9E5D5157), uint32(0x2000), uint32(i*256), uint32(256), uint32(i), uint32(blocks), uint32(0xE48BFF56))...)
		b = append(append(b, make([]byte, 476)...), le(uint32(0x0AB16F30))...)
	}
	return b
}

// bundle is a squashfs of n bytes with RAUC's signature behind it.
func bundle(n int) []byte {
	b := append([]byte("hsqs"), make([]byte, n-4)...)
	copy(b[40:], le(uint64(n)))
	return append(append(b, make([]byte, 2048)...), 0, 0, 0, 0, 0, 0, 0x08, 0)
}

func identify(b []byte) image.Info {
	info, err := image.Of(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		panic(err)
	}
	return info
}

func TestAnImageIsKnownByItsBytes(t *testing.T) {
	counter := entry(0x50, le(uint32(9)))
	signature := entry(0x24, make([]byte, 64))
	for name, c := range map[string]struct {
		b    []byte
		want image.Info
	}{
		"nothing":                        {nil, image.Info{Format: image.Raw}},
		"a text":                         {[]byte("hello"), image.Info{Format: image.Raw}},
		"MCUboot":                        {booted(1000, nil), image.Info{Format: image.MCUboot, Version: "1.2.300+7"}},
		"MCUboot, signed":                {booted(1000, nil, signature), image.Info{Format: image.MCUboot, Version: "1.2.300+7", Signed: true}},
		"MCUboot, with a counter":        {booted(200_000, tlv(0x6908, counter), signature), image.Info{Format: image.MCUboot, Version: "1.2.300+7", Security: new(uint64(9)), Signed: true}},
		"MCUboot, in a slot":             {append(booted(1000, nil), make([]byte, 9000)...), image.Info{Format: image.MCUboot, Version: "1.2.300+7"}},
		"ESP-IDF":                        {espImage("v1.4.2", "blinky"), image.Info{Format: image.ESP, Version: "v1.4.2", Project: "blinky", Security: new(uint64(4))}},
		"ESP-IDF, with a signature":      {append(espImage("v1.4.2", ""), make([]byte, 4096)...), image.Info{Format: image.ESP, Version: "v1.4.2", Security: new(uint64(4))}},
		"ESP-IDF, with rubbish for text": {espImage("a\x01b", "\xff"), image.Info{Format: image.ESP, Security: new(uint64(4))}},
		"ESP's magic alone":              {append([]byte{0xE9}, make([]byte, 4000)...), image.Info{Format: image.Raw}},
		"UF2":                            {uf2File(300), image.Info{Format: image.UF2, Hardware: []string{"0xe48bff56"}}},
		"UF2, of two families":           {append(uf2File(3), uf2File(5)...), image.Info{Format: image.UF2, Hardware: []string{"0xe48bff56"}}},
		"SWUpdate":                       {swuImage(cpio("app.bin", "x")), image.Info{Format: image.SWU, Version: "2.0.0", Hardware: []string{"1.0", "1.2"}}},
		"SWUpdate, signed":               {swuImage(cpio("sw-description.sig", "x"), cpio("app.bin", strings.Repeat("x", 200_000))), image.Info{Format: image.SWU, Version: "2.0.0", Hardware: []string{"1.0", "1.2"}, Signed: true}},
		"a cpio archive of other things": {cpio("readme", description), image.Info{Format: image.Raw}},
		"RAUC":                           {bundle(5000), image.Info{Format: image.RAUC, Signed: true}},
		"squashfs without a signature":   {bundle(5000)[:5000], image.Info{Format: image.Raw}},
		"Mender":                         {menderArtifact(t, `{"format":"mender","version":3}`), image.Info{Format: image.Mender}},
		"a tar file of other things":     {menderArtifact(t, `{"format":"other","version":3}`), image.Info{Format: image.Raw}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, identify(c.b)); d != "" {
				t.Error(d)
			}
		})
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(boot(100, tlv(0x6908, entry(0x50, le(uint32(3)))), tlv(0x6907)), int64(0))
	f.Add(cpio("sw-description", description), int64(0))
	f.Add(espImage("1", "p"), int64(1<<40))
	f.Add(menderArtifact(f, `{"format":"mender"}`), int64(-5))
	f.Fuzz(func(t *testing.T, b []byte, more int64) {
		for _, info := range []image.Info{identify(b), image.Identify(b, b, more)} {
			if info.Format == "" || len(info.Version) > 128 || len(info.Hardware) > 32 || strings.ContainsAny(info.Version+info.Project, "\x00\n\r") {
				t.Errorf("%+v", info)
			}
		}
	})
}

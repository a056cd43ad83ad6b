package image_test

import (
	"archive/tar"
	"bytes"
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

func tlv(magic uint16, entries ...[]byte) []byte {
	all := bytes.Join(entries, nil)
	return append(le(magic, uint16(4+len(all))), all...)
}

func entry(kind uint16, value []byte) []byte { return append(le(kind, uint16(len(value))), value...) }

func espImage(version, project string) []byte {
	b := make([]byte, 4096)
	b[0] = 0xE9
	copy(b[32:], le(uint32(0xABCD5432), uint32(4)))
	copy(b[48:80], version)
	copy(b[80:112], project)
	return b
}

func cpio(name, body string) []byte {
	b := fmt.Appendf(nil, "070702%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", 1, 0o100644, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(name)+1, 0)
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
	if err := w.WriteHeader(&tar.Header{Name: "version", Size: int64(len(body)), Mode: 0o600, Format: tar.FormatUSTAR}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(body)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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
	digest := entry(0x10, make([]byte, 32))
	uf2 := append(le(uint32(0x0A324655), uint32(0x9E5D5157), uint32(0x2000), uint32(0), uint32(256), uint32(0), uint32(1), uint32(0xE48BFF56)), make([]byte, 480)...)
	squash := append(append([]byte("hsqs"), make([]byte, 5000)...), 0, 0, 0, 0, 0, 0, 0x08, 0)
	for name, c := range map[string]struct {
		b    []byte
		want image.Info
	}{
		"nothing":                         {nil, image.Info{Format: image.Raw}},
		"a text":                          {[]byte("hello"), image.Info{Format: image.Raw}},
		"MCUboot":                         {boot(1000, nil, tlv(0x6907, digest)), image.Info{Format: image.MCUboot, Version: "1.2.300+7"}},
		"MCUboot, signed":                 {boot(1000, nil, tlv(0x6907, digest, signature)), image.Info{Format: image.MCUboot, Version: "1.2.300+7", Signed: true}},
		"MCUboot, with a counter":         {boot(200_000, tlv(0x6908, counter), tlv(0x6907, digest, signature)), image.Info{Format: image.MCUboot, Version: "1.2.300+7", Security: new(uint64(9)), Signed: true}},
		"MCUboot, cut off":                {boot(1000, nil, nil)[:600], image.Info{Format: image.MCUboot, Version: "1.2.300+7"}},
		"MCUboot, entries beyond the end": {boot(1000, nil, le(uint16(0x6907), uint16(60000), uint16(0x50), uint16(50000))), image.Info{Format: image.MCUboot, Version: "1.2.300+7"}},
		"ESP-IDF":                         {espImage("v1.4.2", "blinky"), image.Info{Format: image.ESP, Version: "v1.4.2", Project: "blinky", Security: new(uint64(4))}},
		"ESP-IDF, with rubbish for text":  {espImage("a\x01b", "\xff"), image.Info{Format: image.ESP, Security: new(uint64(4))}},
		"ESP's magic alone":               {append([]byte{0xE9}, make([]byte, 4000)...), image.Info{Format: image.Raw}},
		"UF2":                             {uf2, image.Info{Format: image.UF2, Hardware: []string{"0xe48bff56"}}},
		"UF2, cut off":                    {uf2[:500], image.Info{Format: image.Raw}},
		"SWUpdate":                        {append(cpio("sw-description", description), cpio("app.bin", "x")...), image.Info{Format: image.SWU, Version: "2.0.0", Hardware: []string{"1.0", "1.2"}}},
		"SWUpdate, signed":                {append(cpio("sw-description", description), cpio("sw-description.sig", "x")...), image.Info{Format: image.SWU, Version: "2.0.0", Hardware: []string{"1.0", "1.2"}, Signed: true}},
		"a cpio archive of other things":  {cpio("readme", description), image.Info{Format: image.Raw}},
		"RAUC":                            {squash, image.Info{Format: image.RAUC, Signed: true}},
		"squashfs without a signature":    {append([]byte("hsqs"), make([]byte, 5000)...), image.Info{Format: image.Raw}},
		"Mender":                          {menderArtifact(t, `{"format":"mender","version":3}`), image.Info{Format: image.Mender}},
		"a tar file of other things":      {menderArtifact(t, `{"format":"other","version":3}`), image.Info{Format: image.Raw}},
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

package image_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"muster/firmware/image"
)

// changed is b with one byte more at a place; of the end when that is negative.
func changed(b []byte, at int) []byte {
	b = slices.Clone(b)
	if at < 0 {
		at += len(b)
	}
	b[at]++
	return b
}

func TestADamagedImageSaysWhatOfItDoesNotHold(t *testing.T) {
	const digest, checksum = "not those of its own digest", "not those of its own checksum"
	mcuboot := booted(1000, tlv(0x6908, entry(0x50, le(uint32(9)))), entry(0x24, make([]byte, 64)))
	encrypted := slices.Clone(mcuboot)
	encrypted[16] = 0x04
	noDigest := changed(mcuboot, 12)
	esp, uf2, swu, rauc := espImage("1.0", "p"), uf2File(200), swuImage(cpio("app.bin", "the application")), bundle(5000)
	mender := menderArtifact(t, `{"format":"mender","version":3}`)
	for name, c := range map[string]struct {
		b    []byte
		want string // empty for one that holds
	}{
		"MCUboot, cut in its code":                           {mcuboot[:1200], "its header says 1512 and more"},
		"MCUboot, cut in its header":                         {mcuboot[:40], "its header says 1512 and more"},
		"MCUboot, cut before its entries":                    {mcuboot[:1512], "it ends within its entries"},
		"MCUboot, cut in its entries":                        {mcuboot[:len(mcuboot)-1], "it ends within its entries"},
		"MCUboot, another byte in its code":                  {changed(mcuboot, 700), digest},
		"MCUboot, another version":                           {changed(mcuboot, 20), digest},
		"MCUboot, another counter":                           {changed(mcuboot, 1512+8), digest},
		"MCUboot, another length":                            {noDigest, "its entries are not where its header says"},
		"MCUboot, another digest":                            {changed(mcuboot, 1512+12+8), digest},
		"MCUboot, a short digest":                            {boot(10, nil, tlv(0x6907, entry(0x10, []byte("short")))), "its digest has 5 bytes"},
		"MCUboot, a header of no bytes":                      {append(binary.LittleEndian.AppendUint32(nil, 0x96f3b83d), make([]byte, 100)...), "its header says that it has 0 bytes"},
		"MCUboot, entries beyond the end":                    {boot(1000, nil, le(uint16(0x6907), uint16(60000), uint16(0x50), uint16(50000))), "it ends within its entries"},
		"MCUboot, an entry beyond the others":                {boot(1000, nil, le(uint16(0x6907), uint16(8), uint16(0x50), uint16(5))), "do not end where they say"},
		"MCUboot, encrypted, whose digest is of what it was": {encrypted, ""},
		"ESP-IDF, cut in a segment":                          {esp[:2000], "it ends within segment 1"},
		"ESP-IDF, cut in its digest":                         {esp[:len(esp)-1], "it ends within its digest"},
		"ESP-IDF, another byte in a segment":                 {changed(esp, 1000), checksum},
		"ESP-IDF, another address of a segment":              {changed(esp, 24), digest},
		"ESP-IDF, another digest":                            {changed(esp, -1), digest},
		"ESP-IDF, more segments than there may be":           {append([]byte{0xE9, 200}, esp[2:]...), "says that it has 200 segments"},
		"UF2, cut in a block":                                {uf2[:1000], "it ends within a block"},
		"UF2, cut behind a block":                            {uf2[:100*512], "it has 100 blocks, and says 200"},
		"UF2, a block that is none":                          {changed(uf2, 150*512), "block 150 is none"},
		"UF2, a block without its end":                       {changed(uf2, 151*512-1), "block 150 is none"},
		"UF2, a block behind the last":                       {changed(uf2, 512+21), "block 1 says of itself what cannot be"},
		"SWUpdate, cut in a member":                          {swu[:len(swu)-130], "it ends within member 2"},
		"SWUpdate, without its last":                         {append(cpio("sw-description", description), cpio("app.bin", "x")...), "it ends within member 3"},
		"SWUpdate, another byte in a member":                 {bytes.Replace(swu, []byte("the app"), []byte("the apq"), 1), "the bytes of member 2 are " + checksum},
		"SWUpdate, a size that is none":                      {append(slices.Clone(swu[:200]), bytes.Replace(swu[200:], []byte("0000000F"), []byte("0000000G"), 1)...), "member 2 is none"},
		"RAUC, cut off":                                      {rauc[:4000], "it has 4000 bytes, and its superblock says 5000"},
		"RAUC, of a superblock that is none":                 {append([]byte("hsqs"), make([]byte, 200)...), "its superblock says 0"},
		"Mender, cut in a member":                            {mender[:1100], "it ends within member 2"},
		"Mender, cut behind a member":                        {mender[:1024], "it has no manifest"},
		"Mender, a member that is none":                      {changed(mender, 1024+10), "it ends within member 2, or that is none"},
	} {
		t.Run(name, func(t *testing.T) {
			got := identify(c.b).Damage
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%q, and not %q", got, c.want)
			}
		})
	}
}

// TestNoByteOfADigestedImageChangesUnseen holds for every byte of what MCUboot and ESP-IDF have a
// digest of, and for every cut.
func TestNoByteOfADigestedImageChangesUnseen(t *testing.T) {
	images := map[string][]byte{"mcuboot": booted(70_000, tlv(0x6908, entry(0x50, le(uint32(9))))), "esp-idf": espImage("1.0", "p"), "swupdate": swuImage(cpio("app.bin", strings.Repeat("y", 70_000)))}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"mcuboot", "esp-idf", "swupdate"}).Draw(t, "format")
		b := images[name]
		cut := identify(b[:rapid.IntRange(1, len(b)-120).Draw(t, "cut")])
		if cut.Damage == "" && cut.Format != image.Raw { // of less than its beginning nobody knows what it was
			t.Fatalf("cut off it is %+v", cut)
		}
		if name == "swupdate" {
			return // its headers have no checksum
		}
		at := rapid.IntRange(24, len(b)-1).Draw(t, "at")
		if got := identify(changed(b, at)); got.Damage == "" && got.Format != image.Raw {
			t.Fatalf("with byte %d changed it is %+v", at, got)
		}
	})
}

// FuzzDamage finds nothing that makes an image take more than it has, or that cannot be said.
func FuzzDamage(f *testing.F) {
	for _, b := range [][]byte{booted(100, tlv(0x6908, entry(0x50, le(uint32(3))))), espImage("1", "p"), uf2File(2), swuImage(), bundle(200), menderArtifact(f, `{"format":"mender"}`)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if info := identify(b); len(info.Damage) > 200 || strings.ContainsFunc(info.Damage, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%+v", info)
		}
	})
}

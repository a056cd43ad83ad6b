//go:build pictures

package e2e

import (
	"bytes"
	"cmp"
	"image"
	"image/color"
	"image/png"
	"maps"
	"slices"
	"testing"
)

// inPalette writes a picture with the 256 of its colours, each other one as the nearest:
// a page has few, and its picture takes a third of the room.
func inPalette(t *testing.T, in []byte) []byte {
	t.Helper()
	src, err := png.Decode(bytes.NewReader(in))
	if err != nil {
		t.Fatalf("read a picture: %v", err)
	}
	at := src.Bounds()
	seen := make(map[color.RGBA]int)
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			seen[color.RGBAModel.Convert(src.At(x, y)).(color.RGBA)]++
		}
	}
	often := slices.SortedFunc(maps.Keys(seen), func(a, b color.RGBA) int {
		return cmp.Or(seen[b]-seen[a], cmp.Compare(number(a), number(b)))
	})
	colours := make(color.Palette, 0, 256)
	for _, c := range often[:min(mostOften, len(often))] {
		colours = append(colours, c)
	}
	colours = farthest(colours, often[len(colours):])
	nearest := make(map[color.RGBA]uint8, len(seen))
	for c := range seen {
		nearest[c] = uint8(colours.Index(c))
	}
	out := image.NewPaletted(at, colours)
	for y := at.Min.Y; y < at.Max.Y; y++ {
		for x := at.Min.X; x < at.Max.X; x++ {
			out.SetColorIndex(x, y, nearest[color.RGBAModel.Convert(src.At(x, y)).(color.RGBA)])
		}
	}
	var b bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, out); err != nil {
		t.Fatalf("write a picture: %v", err)
	}
	return b.Bytes()
}

// mostOften is how many colours of a palette are those that a picture has most of.
const mostOften = 160

// farthest fills a palette with the colours of rest that are each the farthest from what it has: a mark of
// a few pixels keeps its colour.
func farthest(colours color.Palette, rest []color.RGBA) color.Palette {
	away := make([]int, len(rest))
	for i, c := range rest {
		away[i] = apart(c, colours[colours.Index(c)].(color.RGBA))
	}
	for len(colours) < cap(colours) && len(rest) > 0 {
		at := slices.Index(away, slices.Max(away))
		if away[at] == 0 {
			break
		}
		colours = append(colours, rest[at])
		for i, c := range rest {
			away[i] = min(away[i], apart(c, rest[at]))
		}
	}
	return colours
}

// apart is the square of the distance of two colours.
func apart(a, b color.RGBA) int {
	r, g, u := int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B)
	return r*r + g*g + u*u
}

func number(c color.RGBA) uint32 { return uint32(c.R)<<16 | uint32(c.G)<<8 | uint32(c.B) }

package identicon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strconv"

	"muster"
)

// The bounds of a picture.
const (
	MinSize       = 16
	MaxSize       = 1024
	DefaultSize   = 256
	MaxOversample = 32
	// DefaultOversample gives edges of 17 shades.
	DefaultOversample = 4
	maxSubject        = 256 // bytes
)

const (
	blocks = 5
	margin = 0.5  // blocks around the pattern
	corner = 0.22 // radius of a block's corners, in blocks
	shades = 64   // between background and colour
)

// version is part of every key: raise it when the same name gives another picture.
const version = "1"

// Spec says what to draw.
type Spec struct {
	// Subject is what the picture stands for, such as devices/d1.
	Subject string `json:"subject"`
	// Size is the width and height in pixels; DefaultSize when zero.
	Size int `json:"size,omitempty"`
	// Oversample is the root of how many points are looked at for a pixel;
	// DefaultOversample when zero. The cost grows with its square.
	Oversample int `json:"oversample,omitempty"`
}

// Parse reads a Spec from JSON and sets what it leaves open. Invalid when it is out of
// bounds or has other fields.
func Parse(input []byte) (Spec, error) {
	var s Spec
	d := json.NewDecoder(bytes.NewReader(input))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return s, muster.Errorf(muster.Invalid, "an identicon has subject, size and oversample")
	}
	if s.Size == 0 {
		s.Size = DefaultSize
	}
	if s.Oversample == 0 {
		s.Oversample = DefaultOversample
	}
	switch {
	case s.Subject == "" || len(s.Subject) > maxSubject:
		return s, muster.InvalidAt("subject", "the subject of an identicon has 1 to %d bytes", maxSubject)
	case s.Size < MinSize || s.Size > MaxSize:
		return s, muster.InvalidAt("size", "the size of an identicon is %d to %d pixels", MinSize, MaxSize)
	case s.Oversample < 1 || s.Oversample > MaxOversample:
		return s, muster.InvalidAt("oversample", "the oversampling of an identicon is 1 to %d", MaxOversample)
	}
	return s, nil
}

// Key is the same for specs that give the same picture, and for no others. It is fit for
// an ETag.
func (s Spec) Key() string {
	h := sha256.Sum256([]byte(version + "\x00" + strconv.Itoa(s.Size) + "\x00" + strconv.Itoa(s.Oversample) + "\x00" + s.Subject))
	return hex.EncodeToString(h[:16])
}

// Draw writes the picture as PNG. progress is told after each row of pixels; ctx ends it
// between two rows.
func Draw(ctx context.Context, s Spec, out io.Writer, progress func(done, total int64)) error {
	p := patternOf(s.Subject)
	m := image.NewPaletted(image.Rect(0, 0, s.Size, s.Size), p.palette())
	for y := range s.Size {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("draw row %d of an identicon: %w", y, err)
		}
		row := m.Pix[y*m.Stride:][:s.Size]
		for x := range (s.Size + 1) / 2 {
			row[x] = p.shade(x, y, s.Size, s.Oversample)
			row[s.Size-1-x] = row[x]
		}
		progress(int64(y+1), int64(s.Size))
	}
	if err := png.Encode(out, m); err != nil {
		return fmt.Errorf("write an identicon: %w", err)
	}
	return nil
}

// pattern is which blocks are there, and their colour.
type pattern struct {
	on  [blocks][blocks]bool // by row and column; the right half mirrors the left
	hue float64              // 0 to 6
}

// patternOf takes the pattern from the first bits of a hash and the hue from later ones.
func patternOf(subject string) pattern {
	h := sha256.Sum256([]byte(subject))
	var p pattern
	for i := range blocks * (blocks + 1) / 2 {
		row, col := i%blocks, i/blocks
		set := h[i/8]>>(i%8)&1 == 1
		p.on[row][col], p.on[row][blocks-1-col] = set, set
	}
	p.hue = float64(uint16(h[4])<<8|uint16(h[5])) / 65536 * 6
	return p
}

// shade returns the share of a pixel that is covered by blocks, as a palette's index.
func (p *pattern) shade(px, py, size, oversample int) uint8 {
	unit := (blocks + 2*margin) / float64(size*oversample)
	inside := 0
	for sy := range oversample {
		y := (float64(py*oversample+sy)+0.5)*unit - margin
		for sx := range oversample {
			x := (float64(px*oversample+sx)+0.5)*unit - margin
			if p.covers(x, y) {
				inside++
			}
		}
	}
	n := oversample * oversample
	return uint8((inside*shades + n/2) / n)
}

// covers says whether a point, in blocks from the pattern's corner, lies in a block. A
// corner is round where no block adjoins it.
func (p *pattern) covers(x, y float64) bool {
	if x < 0 || y < 0 || x >= blocks || y >= blocks {
		return false
	}
	col, row := int(x), int(y)
	if !p.on[row][col] {
		return false
	}
	dx, sideX := x-float64(col), -1
	if dx > 0.5 {
		dx, sideX = 1-dx, 1
	}
	dy, sideY := y-float64(row), -1
	if dy > 0.5 {
		dy, sideY = 1-dy, 1
	}
	if dx >= corner || dy >= corner || p.at(row, col+sideX) || p.at(row+sideY, col) {
		return true
	}
	return (corner-dx)*(corner-dx)+(corner-dy)*(corner-dy) <= corner*corner
}

func (p *pattern) at(row, col int) bool {
	return row >= 0 && col >= 0 && row < blocks && col < blocks && p.on[row][col]
}

// palette goes from the background to the colour.
func (p *pattern) palette() color.Palette {
	const ground = 0xf4
	r, g, b := rgb(p.hue)
	out := make(color.Palette, shades+1)
	for i := range out {
		f := float64(i) / shades
		mix := func(c float64) uint8 { return uint8(ground + (c*255-ground)*f + 0.5) }
		out[i] = color.RGBA{mix(r), mix(g), mix(b), 0xff}
	}
	return out
}

// rgb returns a colour of medium lightness that is readable on the background.
func rgb(hue float64) (r, g, b float64) {
	const low, high = 0.22, 0.72
	f := hue - float64(int(hue))
	up, down := low+(high-low)*f, high-(high-low)*f
	switch int(hue) {
	case 0:
		return high, up, low
	case 1:
		return down, high, low
	case 2:
		return low, high, up
	case 3:
		return low, down, high
	case 4:
		return up, low, high
	default:
		return high, low, down
	}
}

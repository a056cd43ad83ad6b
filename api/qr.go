package api

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strconv"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"
)

const (
	quietZone   = 4 // modules around a QR code (ISO/IEC 18004, 9.1)
	modulePixel = 8 // pixels of a module in the PNG
)

// qrOf returns text as a QR code, level M, in both formats.
func qrOf(text string) (picture []byte, svg string, err error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return nil, "", fmt.Errorf("make a QR code: %w", err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, pictureOf(code)); err != nil {
		return nil, "", fmt.Errorf("write a QR code: %w", err)
	}
	return b.Bytes(), svgOf(code), nil
}

// dark says whether the module at x, y of code is.
func dark(code barcode.Barcode, x, y int) bool {
	r, _, _, _ := code.At(x, y).RGBA()
	return r == 0
}

func pictureOf(code barcode.Barcode) image.Image {
	n := code.Bounds().Dx()
	side := (n + 2*quietZone) * modulePixel
	m := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range n * modulePixel {
		for x := range n * modulePixel {
			if dark(code, x/modulePixel, y/modulePixel) {
				m.SetColorIndex(x+quietZone*modulePixel, y+quietZone*modulePixel, 1)
			}
		}
	}
	return m
}

func svgOf(code barcode.Barcode) string {
	n := code.Bounds().Dx()
	side := strconv.Itoa(n + 2*quietZone)
	b := []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ` + side + ` ` + side + `" shape-rendering="crispEdges">` +
		`<rect width="` + side + `" height="` + side + `" fill="#fff"/><path d="`)
	for y := range n {
		for x := 0; x < n; x++ {
			from := x
			for x < n && dark(code, x, y) {
				x++
			}
			if x > from { // a run of dark modules
				b = fmt.Appendf(b, "M%d %dh%dv1h-%dz", from+quietZone, y+quietZone, x-from, x-from)
			}
		}
	}
	return string(append(b, `"/></svg>`...))
}

package api_test

import (
	"image"
	"regexp"
	"strconv"
	"testing"
)

// samePicture checks that the dark modules of both formats are the same, and that they
// have the three finder patterns of a QR code (ISO/IEC 18004, 6.3.3).
func samePicture(t *testing.T, picture image.Image, svg string) {
	t.Helper()
	const module, quiet = 8, 4
	n := picture.Bounds().Dx() / module
	fromPNG := make([][]bool, n)
	fromSVG := make([][]bool, n)
	for y := range n {
		fromPNG[y], fromSVG[y] = make([]bool, n), make([]bool, n)
		for x := range n {
			r, _, _, _ := picture.At(x*module+module/2, y*module+module/2).RGBA()
			fromPNG[y][x] = r == 0
		}
	}
	number := func(s string) int {
		v, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, m := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-(\d+)z`).FindAllStringSubmatch(svg, -1) {
		x, y, w := number(m[1]), number(m[2]), number(m[3])
		if number(m[4]) != w {
			t.Fatalf("a run of %s goes back %s", m[3], m[4])
		}
		for i := range w {
			fromSVG[y][x+i] = true
		}
	}
	for y := range n {
		for x := range n {
			if fromPNG[y][x] != fromSVG[y][x] {
				t.Fatalf("the pictures differ at %d, %d", x, y)
			}
		}
	}
	for _, at := range [][2]int{{quiet, quiet}, {n - quiet - 7, quiet}, {quiet, n - quiet - 7}} {
		for y := range 7 {
			for x := range 7 {
				ring := max(abs(x-3), abs(y-3))
				if want := ring != 2; fromPNG[at[1]+y][at[0]+x] != want {
					t.Fatalf("there is no finder pattern at %v", at)
				}
			}
		}
	}
}

func abs(n int) int { return max(n, -n) }

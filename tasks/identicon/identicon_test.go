package identicon_test

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
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"muster"
	"muster/tasks/identicon"
)

func draw(t interface{ Fatalf(string, ...any) }, s identicon.Spec) (image.Image, []byte) {
	var b bytes.Buffer
	rows := int64(0)
	err := identicon.Draw(context.Background(), s, &b, func(done, total int64) {
		if rows++; done != rows || total != int64(s.Size) {
			t.Fatalf("progress says %d of %d after row %d", done, total, rows)
		}
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	if rows != int64(s.Size) {
		t.Fatalf("progress was told %d times", rows)
	}
	m, err := png.Decode(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return m, b.Bytes()
}

func TestAPictureIsSquareSymmetricAndTheSameEachTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := identicon.Spec{
			Subject: rapid.String().Draw(rt, "subject"), Size: rapid.IntRange(identicon.MinSize, 80).Draw(rt, "size"),
			Oversample: rapid.IntRange(1, 3).Draw(rt, "oversample"),
		}
		m, text := draw(rt, s)
		if m.Bounds() != image.Rect(0, 0, s.Size, s.Size) {
			rt.Fatalf("it is %v", m.Bounds())
		}
		for y := range s.Size {
			for x := range s.Size / 2 {
				if a, b := m.At(x, y), m.At(s.Size-1-x, y); a != b {
					rt.Fatalf("%d,%d is %v and its mirror %v", x, y, a, b)
				}
			}
		}
		if _, again := draw(rt, s); !bytes.Equal(text, again) {
			rt.Fatalf("it is another the second time")
		}
	})
}

func TestSubjectsHaveDifferentPictures(t *testing.T) {
	seen := map[string]string{}
	for i := range 500 {
		subject := fmt.Sprintf("devices/d%d", i)
		_, text := draw(t, identicon.Spec{Subject: subject, Size: 16, Oversample: 1})
		if twin, ok := seen[string(text)]; ok {
			t.Errorf("%s looks like %s", subject, twin)
		}
		seen[string(text)] = subject
	}
}

func TestAPictureIsFiveByFiveBlocksInOneColour(t *testing.T) {
	m, _ := draw(t, identicon.Spec{Subject: "devices/d1", Size: 60, Oversample: 8})
	ground := m.At(0, 0)
	var rows []string
	colours := map[color.Color]bool{}
	for y := range 5 {
		row := ""
		for x := range 5 {
			c := m.At(10*x+10, 10*y+10) // the middle of each block: half a block is the margin
			if c == ground {
				row += "."
				continue
			}
			row += "#"
			colours[c] = true
		}
		rows = append(rows, row)
	}
	if len(colours) != 1 {
		t.Errorf("the blocks have %d colours", len(colours))
	}
	h := sha256.Sum256([]byte("devices/d1"))
	var expect []string
	for y := range 5 {
		row := [5]byte{}
		for x := range 3 {
			i := x*5 + y
			row[x] = ".#"[h[i/8]>>(i%8)&1]
			row[4-x] = row[x]
		}
		expect = append(expect, string(row[:]))
	}
	if d := cmp.Diff(expect, rows); d != "" {
		t.Error(d)
	}
}

func TestOversamplingSmoothsEdges(t *testing.T) {
	shades := func(oversample int) int {
		m, _ := draw(t, identicon.Spec{Subject: "devices/d1", Size: 64, Oversample: oversample})
		seen := map[color.Color]bool{}
		for y := range 64 {
			for x := range 64 {
				seen[m.At(x, y)] = true
			}
		}
		return len(seen)
	}
	if hard, soft := shades(1), shades(8); hard != 2 || soft < 8 {
		t.Errorf("%d shades without and %d with oversampling", hard, soft)
	}
}

func TestAPictureStaysWhatItWas(t *testing.T) {
	m, _ := draw(t, identicon.Spec{Subject: "devices/d1", Size: 64, Oversample: 4})
	h := sha256.New()
	for y := range 64 {
		for x := range 64 {
			r, g, b, _ := m.At(x, y).RGBA()
			h.Write([]byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)})
		}
	}
	const want = "bc97e884a86945ea" // change identicon's version with it
	if got := hex.EncodeToString(h.Sum(nil)[:8]); got != want {
		t.Errorf("the pixels are %s, want %s", got, want)
	}
}

func TestDrawingEndsBetweenTwoRows(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	rows := int64(0)
	err := identicon.Draw(ctx, identicon.Spec{Subject: "x", Size: 1024, Oversample: 1}, &bytes.Buffer{}, func(done, _ int64) {
		if rows = done; done == 10 {
			cancel()
		}
	})
	if err == nil || rows != 10 {
		t.Errorf("it ends after %d rows with %v", rows, err)
	}
}

func TestASpecIsChecked(t *testing.T) {
	full := identicon.Spec{Subject: "a", Size: identicon.DefaultSize, Oversample: identicon.DefaultOversample}
	for text, want := range map[string]*identicon.Spec{
		`{"subject":"a"}`: &full,
		`{"subject":"a","size":1024,"oversample":32}`: {Subject: "a", Size: 1024, Oversample: 32},
		`{}`:                                             nil,
		`{"subject":""}`:                                 nil,
		`{"subject":"a","size":15}`:                      nil,
		`{"subject":"a","size":1025}`:                    nil,
		`{"subject":"a","size":-1}`:                      nil,
		`{"subject":"a","oversample":33}`:                nil,
		`{"subject":"a","oversample":-1}`:                nil,
		`{"subject":"a","colour":"red"}`:                 nil,
		`{"subject":"` + strings.Repeat("a", 257) + `"}`: nil,
		`{"subject":7}`:                                  nil,
	} {
		got, err := identicon.Parse([]byte(text))
		if want == nil {
			if err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("%s gives %v", text, err)
			}
			continue
		}
		if err != nil || got != *want {
			t.Errorf("%s gives %+v %v", text, got, err)
		}
	}
}

func TestKeysDifferWhenPicturesDo(t *testing.T) {
	specs := []identicon.Spec{{Subject: "a", Size: 16, Oversample: 1}, {Subject: "b", Size: 16, Oversample: 1}, {Subject: "a", Size: 17, Oversample: 1}, {Subject: "a", Size: 16, Oversample: 2}, {Subject: "a", Size: 161, Oversample: 1}}
	seen := map[string]bool{}
	for _, s := range specs {
		seen[s.Key()] = true
	}
	if len(seen) != len(specs) || specs[0].Key() != (identicon.Spec{Subject: "a", Size: 16, Oversample: 1}).Key() {
		t.Errorf("%d keys for %d specs", len(seen), len(specs))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"subject":"devices/d1","size":256,"oversample":4}`))
	f.Add([]byte(`{"subject":"\u0000","size":1e2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := identicon.Parse(text)
		if err != nil {
			if muster.KindOf(err) != muster.Invalid {
				t.Errorf("an error of another kind: %v", err)
			}
			return
		}
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := identicon.Parse(b); err != nil || again.Size != s.Size || again.Oversample != s.Oversample {
			t.Errorf("%s gives %+v and %s %+v: %v", text, s, b, again, err)
		}
	})
}

func BenchmarkDraw(b *testing.B) {
	for _, s := range []identicon.Spec{{Subject: "devices/d1", Size: 256, Oversample: 4}, {Subject: "devices/d1", Size: 1024, Oversample: 8}} {
		b.Run(fmt.Sprintf("size %d oversample %d", s.Size, s.Oversample), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := identicon.Draw(b.Context(), s, &bytes.Buffer{}, func(int64, int64) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

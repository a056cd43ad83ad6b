package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

const (
	landModule = "muster:land" // what src imports
	landFile   = "world-atlas/land-110m.json"
	landUnits  = 5   // to a degree: coordinates are fifths of one
	landSouth  = -60 // degrees: rings that lie wholly below are left out, which is Antarctica
)

// land has esbuild resolve landModule: the outline of the world's land as an SVG path, from the
// vendored TopoJSON of Natural Earth, which is in the public domain.
func land(dir string) api.Plugin {
	return api.Plugin{Name: "land", Setup: func(b api.PluginBuild) {
		b.OnResolve(api.OnResolveOptions{Filter: "^" + landModule + "$"}, func(api.OnResolveArgs) (api.OnResolveResult, error) {
			return api.OnResolveResult{Path: "land", Namespace: "land"}, nil
		})
		b.OnLoad(api.OnLoadOptions{Filter: ".*", Namespace: "land"}, func(api.OnLoadArgs) (api.OnLoadResult, error) {
			text, err := os.ReadFile(filepath.Join(dir, "vendor", filepath.FromSlash(landFile)))
			if err != nil {
				return api.OnLoadResult{}, fmt.Errorf("read the outline of the land: %w", err)
			}
			outline, err := landPath(text)
			if err != nil {
				return api.OnLoadResult{}, fmt.Errorf("%s: %w", landFile, err)
			}
			script := "export const LAND=" + strconv.Quote(outline) + ";export const UNITS=" + strconv.Itoa(landUnits) + ";"
			return api.OnLoadResult{Contents: &script, Loader: api.LoaderJS}, nil
		})
	}}
}

// topology is what is read of a TopoJSON file.
type topology struct {
	Objects struct {
		Land struct {
			Geometries []struct{ Arcs [][][]int } // of MultiPolygons
		}
	}
	Arcs      [][][2]float64 // steps, of which the first begins at 0
	Transform struct{ Scale, Translate [2]float64 }
}

// landPath returns the rings of a topology as one path, to be filled by the even-odd rule: x is to
// the east of the 180th meridian and y to the south of the pole.
func landPath(text []byte) (string, error) {
	var t topology
	if err := json.Unmarshal(text, &t); err != nil {
		return "", fmt.Errorf("parse: %w", err)
	}
	var out strings.Builder
	for _, g := range t.Objects.Land.Geometries {
		for _, polygon := range g.Arcs {
			for _, ring := range polygon {
				points, err := t.ring(ring)
				if err != nil {
					return "", err
				}
				drawRing(&out, points)
			}
		}
	}
	if out.Len() == 0 {
		return "", fmt.Errorf("there is no land")
	}
	return out.String(), nil
}

// ring joins arcs to one ring of degrees east and north, unbroken where it crosses the 180th meridian.
func (t *topology) ring(arcs []int) ([][2]float64, error) {
	var points [][2]float64
	for _, n := range arcs {
		arc, err := t.arc(n)
		if err != nil {
			return nil, err
		}
		for _, p := range arc {
			if last := len(points) - 1; last >= 0 {
				p[0] += 360 * math.Round((points[last][0]-p[0])/360)
			}
			points = append(points, p)
		}
	}
	return points, nil
}

// arc returns an arc in degrees; a negative n is the arc ^n backwards.
func (t *topology) arc(n int) ([][2]float64, error) {
	backwards := n < 0
	if backwards {
		n = ^n
	}
	if n >= len(t.Arcs) {
		return nil, fmt.Errorf("there is no arc %d", n)
	}
	points := make([][2]float64, len(t.Arcs[n]))
	var x, y float64
	for i, step := range t.Arcs[n] {
		x, y = x+step[0], y+step[1]
		at := i
		if backwards {
			at = len(points) - 1 - i
		}
		points[at] = [2]float64{x*t.Transform.Scale[0] + t.Transform.Translate[0], y*t.Transform.Scale[1] + t.Transform.Translate[1]}
	}
	return points, nil
}

// drawRing appends a ring, and again on the other side of the map when it crosses its edge.
func drawRing(out *strings.Builder, points [][2]float64) {
	west, east, north := math.Inf(1), math.Inf(-1), math.Inf(-1)
	for _, p := range points {
		west, east, north = min(west, p[0]), max(east, p[0]), max(north, p[1])
	}
	if north < landSouth {
		return
	}
	trace(out, points, 0)
	if east > 180 {
		trace(out, points, -360)
	}
	if west < -180 {
		trace(out, points, 360)
	}
}

// trace appends a ring, moved to the east by some degrees, in steps of whole units.
func trace(out *strings.Builder, points [][2]float64, moved float64) {
	var path strings.Builder
	x, y, steps := 0, 0, 0
	for i, p := range points {
		nx, ny := int(math.Round((p[0]+moved+180)*landUnits)), int(math.Round((90-p[1])*landUnits))
		switch {
		case i == 0:
			fmt.Fprintf(&path, "M%d %d", nx, ny)
		case nx == x && ny == y:
			continue
		default:
			appendStep(&path, nx-x, ny-y, steps == 0)
			steps++
		}
		x, y = nx, ny
	}
	if steps > 2 { // else it is less than a dot
		out.WriteString(path.String() + "z")
	}
}

// appendStep appends a step with no more signs and spaces than a path needs.
func appendStep(path *strings.Builder, dx, dy int, first bool) {
	if first {
		path.WriteByte('l')
	} else if dx >= 0 {
		path.WriteByte(' ')
	}
	path.WriteString(strconv.Itoa(dx))
	if dy >= 0 {
		path.WriteByte(' ')
	}
	path.WriteString(strconv.Itoa(dy))
}

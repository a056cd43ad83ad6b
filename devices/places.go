package devices

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// MaxPlaces is the most places of an Arrangement by map: with more the cells are larger.
const MaxPlaces = 4096

// Place is the devices within one cell of a map, beside one another in an Arrangement.
type Place struct {
	Lat, Lon     int // the cell's south-west corner, in hundredths of a degree
	First, Count int // places of dots
}

// located is the name of the section of devices with a position.
const located = "located"

// cells are how wide and high a cell may be, in hundredths of a degree. Those of the last are few enough.
func cells() [5]int { return [...]int{1, 5, 25, 100, 500} }

// cellOf returns where the cell begins that deg lies in, so that it is not below the beginning and
// below the end, as a query compares them.
func cellOf(deg float64, cell int) int {
	c := int(math.Floor(deg*100/float64(cell))) * cell
	for degrees(c) > deg {
		c -= cell
	}
	for degrees(c+cell) <= deg {
		c += cell
	}
	return c
}

func degrees(hundredths int) float64 { return float64(hundredths) / 100 }

// put orders the devices with a position by cell, from south to north and from west to east, and
// notes the places.
func (a *Arrangement) put(s *gathered) {
	for _, cell := range cells() {
		if a.Cell = cell; s.fit(cell) {
			break
		}
	}
	for i := range s.dots {
		d := &s.dots[i]
		d.y, d.x = cellOf(d.lat, a.Cell), cellOf(d.lon, a.Cell)
	}
	slices.SortFunc(s.dots, func(d, o dot) int {
		return cmp.Or(cmp.Compare(d.y, o.y), cmp.Compare(d.x, o.x), d.compare(&o))
	})
	for i, d := range s.dots {
		if n := len(a.Places); n == 0 || a.Places[n-1].Lat != d.y || a.Places[n-1].Lon != d.x {
			a.Places = append(a.Places, Place{Lat: d.y, Lon: d.x, First: len(a.IDs) + i})
		}
		a.Places[len(a.Places)-1].Count++
	}
}

// fit says whether the devices lie in no more than MaxPlaces cells.
func (s *gathered) fit(cell int) bool {
	seen := map[[2]int]struct{}{}
	for _, d := range s.dots {
		seen[[2]int{cellOf(d.lat, cell), cellOf(d.lon, cell)}] = struct{}{}
		if len(seen) > MaxPlaces {
			return false
		}
	}
	return true
}

// box chooses what has a position within a cell.
func box(p Place, cell int) string {
	var b strings.Builder
	edges := []struct {
		name     string
		at, most int
	}{{"lat", p.Lat, 90_00}, {"lon", p.Lon, 180_00}}
	for _, e := range edges {
		fmt.Fprintf(&b, "%s>=%s ", e.name, degreeText(e.at))
		if e.at+cell <= e.most {
			fmt.Fprintf(&b, "%s<%s ", e.name, degreeText(e.at+cell))
		}
	}
	return strings.TrimSpace(b.String())
}

func degreeText(hundredths int) string { return strconv.FormatFloat(degrees(hundredths), 'f', -1, 64) }

// placeAt returns the place with the dot at, as a section; false when it has none.
func (a *Arrangement) placeAt(at int) (Section, bool) {
	i, found := slices.BinarySearchFunc(a.Places, at, func(p Place, at int) int { return cmp.Compare(p.First, at) })
	if !found {
		i--
	}
	if i < 0 || at >= a.Places[i].First+a.Places[i].Count {
		return Section{}, false
	}
	p := a.Places[i]
	return Section{First: p.First, Count: p.Count, Query: box(p, a.Cell)}, true
}

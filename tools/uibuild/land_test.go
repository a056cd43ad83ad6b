package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestTheOutlineOfTheLandIsSmallAndInsideTheMap(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(page, "vendor", filepath.FromSlash(landFile)))
	if err != nil {
		t.Fatal(err)
	}
	path, err := landPath(text)
	if err != nil {
		t.Fatal(err)
	}
	if rest := regexp.MustCompile(`^(M-?\d+ \d+l-?\d+[- \d]+z)+$`).ReplaceAllString(path, ""); rest != "" {
		t.Errorf("it is no path: %.80s", rest)
	}
	if n, err := gzipped([]byte(path)); err != nil || n > 12*1024 {
		t.Errorf("it has %d bytes gzipped, %v", n, err)
	}
	if rings := strings.Count(path, "M"); rings < 100 {
		t.Errorf("there are %d rings", rings)
	}
}

func TestARingOverTheEdgeOfTheMapIsDrawnOnBothSides(t *testing.T) {
	const box = `{"objects":{"land":{"geometries":[{"type":"MultiPolygon","arcs":[[[0,-2]]]}]}},
		"transform":{"scale":[1,1],"translate":[0,0]},"arcs":[[[170,10],[10,0],[-350,0],[0,10]],[[170,10],[0,10],[-340,0]]]}`
	path, err := landPath([]byte(box))
	if err != nil {
		t.Fatal(err)
	}
	// From 170 over 180 to 190 degrees east, and the same 360 degrees to the west.
	if want := "M1750 400l50 0 50 0 0-50-100 0 0 50zM-50 400l50 0 50 0 0-50-100 0 0 50z"; path != want {
		t.Errorf("%s, want %s", path, want)
	}
	for _, bad := range []string{`{`, `{}`, `{"objects":{"land":{"geometries":[{"arcs":[[[1]]]}]}},"arcs":[]}`} {
		if _, err := landPath([]byte(bad)); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

package main

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const page = "../../dashboard/ui"

// copied returns a copy of the page's folder that a test may change.
func copied(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"src", "vendor", "dist"} {
		if err := os.CopyFS(filepath.Join(dir, sub), os.DirFS(filepath.Join(page, sub))); err != nil {
			t.Fatalf("copy %s: %v", sub, err)
		}
	}
	return dir
}

// in names a file of dir by its path with slashes.
func in(dir, path string) string { return filepath.Join(dir, filepath.FromSlash(path)) }

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if err := os.WriteFile(path, append(b, text...), 0o644); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func TestTheCommittedPageIsWhatItsSourceGives(t *testing.T) {
	if err := run(page, true, false); err != nil {
		t.Error(err)
	}
}

func TestTheSameSourceGivesTheSameBytesInAnotherFolder(t *testing.T) {
	here, _, err := bundle(page)
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	there, _, err := bundle(copied(t))
	if err != nil {
		t.Fatalf("build the copy: %v", err)
	}
	if !maps.EqualFunc(here, there, bytes.Equal) {
		t.Error("the copy's build differs")
	}
}

func TestCheckFailsWhenSomethingIsNotAsItShouldBe(t *testing.T) {
	for _, c := range []struct {
		what, says string
		change     func(t *testing.T, dir string)
	}{
		{"source changed", "app.css differs", func(t *testing.T, dir string) { appendTo(t, in(dir, "src/css/list.css"), ".x{color:red}") }},
		{"dist changed", "app.js differs", func(t *testing.T, dir string) { appendTo(t, in(dir, "dist/app.js"), " ") }},
		{"a file of dist is missing", "icon.svg is missing", func(t *testing.T, dir string) {
			if err := os.Remove(in(dir, "dist/icon.svg")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a file in dist that nothing makes", "old.js is no longer made", func(t *testing.T, dir string) {
			if err := os.WriteFile(in(dir, "dist/old.js"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"a vendored file changed", "uplot 1.6.32", func(t *testing.T, dir string) { appendTo(t, in(dir, "vendor/uplot/dist/uPlot.esm.js"), " ") }},
		{"a vendored file is missing", "lacks files", func(t *testing.T, dir string) {
			if err := os.Remove(in(dir, "vendor/uplot/LICENSE")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a vendored file of no package", "belongs to no package", func(t *testing.T, dir string) {
			if err := os.WriteFile(in(dir, "vendor/stray.js"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}},
		{"an import of a package that is not vendored", "leftpad", func(t *testing.T, dir string) { appendTo(t, in(dir, "src/app.tsx"), "import \"leftpad\";") }},
		{"stylesheet over its budget", "at most 12288", func(t *testing.T, dir string) {
			var css strings.Builder
			for i := range 6000 {
				css.WriteString(".c" + strings.Repeat(string(rune('a'+i%26)), i%7+1) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + "{order:" + strings.Repeat("7", i%9+1) + "}\n")
			}
			appendTo(t, in(dir, "src/css/list.css"), css.String())
		}},
		{"first scripts over their budget", "over the budget", func(t *testing.T, dir string) { appendTo(t, in(dir, "src/app.tsx"), noise(90*1024)) }},
		{"a page over its budget", "at most 61440", func(t *testing.T, dir string) { appendTo(t, in(dir, "src/pages/claim.tsx"), noise(60*1024)) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := copied(t)
			c.change(t, dir)
			err := run(dir, true, false)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("the check says %v, want something with %q", err, c.says)
			}
		})
	}
}

// noise returns a statement whose n bytes of text cannot be compressed by a quarter.
func noise(n int) string {
	random := rand.New(rand.NewPCG(1, 2)) // the same at each run
	text := make([]byte, n*4/3)
	for i := range text {
		text[i] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"[random.IntN(64)]
	}
	return "\nconsole.debug(\"" + string(text) + "\");\n"
}

func TestABuildLeavesExactlyItsOwnFiles(t *testing.T) {
	dir := copied(t)
	if err := os.WriteFile(in(dir, "dist/old.js"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, false, false); err != nil {
		t.Fatalf("build: %v", err)
	}
	if err := run(dir, true, false); err != nil {
		t.Errorf("check after the build: %v", err)
	}
}

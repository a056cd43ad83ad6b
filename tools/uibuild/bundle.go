package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// bundle returns the files of dist by name: what esbuild makes of src, the files
// of src that are copied as they are, and the licences of what was bundled; and the
// names of the scripts of a first load.
func bundle(root string) (page map[string][]byte, first []string, err error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return nil, nil, fmt.Errorf("resolve %s: %w", root, err)
	}
	page = map[string][]byte{}
	first, err = build(page, dir, true,
		api.EntryPoint{InputPath: "src/main.tsx", OutputPath: "app"}, api.EntryPoint{InputPath: "src/css/app.css", OutputPath: "app"})
	if err != nil {
		return nil, nil, err
	}
	if _, err := build(page, dir, false,
		api.EntryPoint{InputPath: "src/docs/main.tsx", OutputPath: "docs"}, api.EntryPoint{InputPath: "src/css/docs.css", OutputPath: "docs"}); err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"index.html", "docs.html", "icon.svg"} {
		b, err := os.ReadFile(filepath.Join(dir, "src", name))
		if err != nil {
			return nil, nil, fmt.Errorf("copy from src: %w", err)
		}
		page[name] = b
	}
	page["index.html"] = bytes.Replace(page["index.html"], []byte(preloadsMark), preloads(first), 1)
	if page["licenses.txt"], err = licenses(dir); err != nil {
		return nil, nil, err
	}
	return page, first, nil
}

// preloadsMark is where index.html names the chunks that app.js asks for at once.
const preloadsMark = "<!-- preloads -->\n"

// preloads has the links by which a browser fetches what app.js imports without
// reading app.js first.
func preloads(first []string) []byte {
	var out bytes.Buffer
	for _, name := range first {
		if name != "app.js" {
			fmt.Fprintf(&out, "<link rel=\"modulepreload\" href=\"/%s\">\n", name)
		}
	}
	return out.Bytes()
}

// build adds to page what esbuild makes of the entries in dir. With split, what is
// imported by import() becomes a file of its own, with a hash in its name. It
// returns the scripts that app.js needs at once, itself included.
func build(page map[string][]byte, dir string, split bool, entries ...api.EntryPoint) ([]string, error) {
	r := api.Build(api.BuildOptions{
		AbsWorkingDir:       dir,
		EntryPointsAdvanced: entries,
		Outdir:              "dist",
		Bundle:              true,
		Splitting:           split,
		ChunkNames:          "[name]-[hash]",
		Metafile:            true,
		Format:              api.FormatESModule,
		Platform:            api.PlatformBrowser,
		Target:              api.ES2022,
		JSX:                 api.JSXAutomatic,
		JSXImportSource:     "preact",
		Plugins:             []api.Plugin{land(dir)},
		TsconfigRaw:         `{"compilerOptions":{"strict":true}}`,
		NodePaths:           []string{filepath.Join(dir, "vendor")},
		MinifyWhitespace:    true,
		MinifyIdentifiers:   true,
		MinifySyntax:        true,
		Charset:             api.CharsetUTF8,
		LegalComments:       api.LegalCommentsNone, // licenses.txt carries them whole
		Banner:              map[string]string{"js": "/* Bundled packages and their licences: /licenses.txt */"},
	})
	if len(r.Errors) > 0 {
		return nil, errors.New(strings.Join(api.FormatMessages(r.Errors, api.FormatMessagesOptions{}), ""))
	}
	for _, f := range r.OutputFiles {
		page[filepath.Base(f.Path)] = f.Contents
	}
	return atOnce(r.Metafile)
}

// atOnce returns, sorted, app.js and what it imports by import statements, and what
// those import, from esbuild's metafile.
func atOnce(metafile string) ([]string, error) {
	var meta struct {
		Outputs map[string]struct {
			Imports []struct{ Path, Kind string }
		}
	}
	if err := json.Unmarshal([]byte(metafile), &meta); err != nil {
		return nil, fmt.Errorf("parse the metafile: %w", err)
	}
	needed := map[string]bool{}
	next := []string{"dist/app.js"}
	for len(next) > 0 {
		at := next[0]
		next = next[1:]
		if needed[path.Base(at)] {
			continue
		}
		needed[path.Base(at)] = true
		for _, i := range meta.Outputs[at].Imports {
			if i.Kind == "import-statement" {
				next = append(next, i.Path)
			}
		}
	}
	return sortedNames(needed), nil
}

// licenses joins the LICENSE of every vendored package, for MIT asks that it goes
// along with every copy.
func licenses(dir string) ([]byte, error) {
	packages, err := vendored(dir)
	if err != nil {
		return nil, err
	}
	var out strings.Builder
	for _, p := range packages {
		text, err := os.ReadFile(filepath.Join(dir, "vendor", filepath.FromSlash(p.Name), "LICENSE"))
		if err != nil {
			return nil, fmt.Errorf("read the licence of %s: %w", p.Name, err)
		}
		fmt.Fprintf(&out, "%s %s\n\n%s\n\n", p.Name, p.Version, strings.TrimSpace(string(text)))
	}
	return []byte(out.String()), nil
}

// writeDist makes dist hold exactly the files of page.
func writeDist(root string, page map[string][]byte) error {
	dist := filepath.Join(root, "dist")
	if err := os.MkdirAll(dist, 0o755); err != nil { //nolint:gosec // committed files, for everybody to read
		return fmt.Errorf("make dist: %w", err)
	}
	old, err := os.ReadDir(dist)
	if err != nil {
		return fmt.Errorf("list dist: %w", err)
	}
	for _, e := range old {
		if _, keep := page[e.Name()]; keep {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dist, e.Name())); err != nil {
			return fmt.Errorf("remove what src no longer makes: %w", err)
		}
	}
	for _, name := range sortedNames(page) {
		if err := os.WriteFile(filepath.Join(dist, name), page[name], 0o644); err != nil { //nolint:gosec // as above
			return fmt.Errorf("write dist: %w", err)
		}
	}
	return nil
}

// compareDist fails unless dist holds exactly the files of page.
func compareDist(root string, page map[string][]byte) error {
	dist := filepath.Join(root, "dist")
	old, err := os.ReadDir(dist)
	if err != nil {
		return fmt.Errorf("list dist: %w", err)
	}
	var stale []string
	for _, e := range old {
		if _, ok := page[e.Name()]; !ok {
			stale = append(stale, e.Name()+" is no longer made")
		}
	}
	for _, name := range sortedNames(page) {
		have, err := os.ReadFile(filepath.Join(dist, name))
		switch {
		case errors.Is(err, os.ErrNotExist):
			stale = append(stale, name+" is missing")
		case err != nil:
			return fmt.Errorf("read dist: %w", err)
		case !bytes.Equal(have, page[name]):
			stale = append(stale, name+" differs")
		}
	}
	if len(stale) > 0 {
		return fmt.Errorf("dist is not what src and vendor give (%s); run: go run ./uibuild", strings.Join(stale, ", "))
	}
	return nil
}

func sortedNames[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

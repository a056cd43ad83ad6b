package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"slices"
	"strings"
)

// What may be sent, in bytes after gzip: the scripts of a first load together, all of
// it (scripts, style, index.html and icon), and each script that is loaded later.
const (
	firstScripts = 90 * 1024
	firstLoad    = 130 * 1024
	laterScript  = 60 * 1024
)

// budgets has what single files may have, in bytes after gzip.
func budgets() map[string]int {
	return map[string]int{"app.css": 12 * 1024, "docs.js": 20 * 1024, "docs.css": 5 * 1024}
}

// checkBudget returns a line with the page's sizes, or an error when something is
// over its budget. first has the scripts of a first load.
func checkBudget(page map[string][]byte, first []string) (string, error) {
	sizes := make(map[string]int, len(page))
	for name, b := range page {
		n, err := gzipped(b)
		if err != nil {
			return "", err
		}
		sizes[name] = n
	}
	scripts := 0
	for _, name := range first {
		scripts += sizes[name]
	}
	all := scripts + sizes["app.css"] + sizes["index.html"] + sizes["icon.svg"]
	said := []string{fmt.Sprintf("first load: scripts %d B gzipped of %d, all %d of %d", scripts, firstScripts, all, firstLoad)}
	if scripts > firstScripts || all > firstLoad {
		return "", fmt.Errorf("%s: over the budget", said[0])
	}
	for _, name := range sortedNames(page) {
		most, has := budgets()[name]
		if !has && strings.HasSuffix(name, ".js") && !slices.Contains(first, name) {
			most, has = laterScript, true
		}
		if !has {
			continue
		}
		if sizes[name] > most {
			return "", fmt.Errorf("%s has %d bytes gzipped, at most %d are allowed", name, sizes[name], most)
		}
		said = append(said, fmt.Sprintf("%s %d of %d", name, sizes[name], most))
	}
	return strings.Join(said, "; "), nil
}

func gzipped(b []byte) (int, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return 0, fmt.Errorf("start gzip: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return 0, fmt.Errorf("gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return 0, fmt.Errorf("end gzip: %w", err)
	}
	return out.Len(), nil
}

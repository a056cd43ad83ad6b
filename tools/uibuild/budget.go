package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
)

// budgets has what each file of a first load may have, in bytes after gzip.
func budgets() map[string]int {
	return map[string]int{"app.js": 90 * 1024, "app.css": 12 * 1024, "docs.js": 20 * 1024, "docs.css": 5 * 1024}
}

// checkBudget returns a line with the page's sizes, or an error when a file is
// over its budget.
func checkBudget(page map[string][]byte) (string, error) {
	said := make([]string, 0, len(budgets()))
	for _, name := range sortedNames(budgets()) {
		n, err := gzipped(page[name])
		if err != nil {
			return "", err
		}
		most := budgets()[name]
		if n > most {
			return "", fmt.Errorf("%s has %d bytes gzipped, at most %d are allowed", name, n, most)
		}
		said = append(said, fmt.Sprintf("%s %d B, %d B gzipped of %d", name, len(page[name]), n, most))
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

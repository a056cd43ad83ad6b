package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
)

// The budgets of the first load, in bytes after gzip.
const (
	maxJS  = 90 * 1024
	maxCSS = 12 * 1024
)

// checkBudget returns a line with the page's sizes, or an error when a file is
// over its budget.
func checkBudget(page map[string][]byte) (string, error) {
	js, err := gzipped(page["app.js"])
	if err != nil {
		return "", err
	}
	css, err := gzipped(page["app.css"])
	if err != nil {
		return "", err
	}
	if js > maxJS {
		return "", fmt.Errorf("app.js has %d bytes gzipped, at most %d are allowed", js, maxJS)
	}
	if css > maxCSS {
		return "", fmt.Errorf("app.css has %d bytes gzipped, at most %d are allowed", css, maxCSS)
	}
	return fmt.Sprintf("app.js %d B, %d B gzipped of %d; app.css %d B, %d B gzipped of %d",
		len(page["app.js"]), js, maxJS, len(page["app.css"]), css, maxCSS), nil
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

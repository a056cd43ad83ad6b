// Command apigen writes the API's clients from its OpenAPI document, which a test of
// package api keeps in api/openapi.json: client/client.gen.go for Go and
// dashboard/ui/src/lib/schema.gen.ts for the page. The same document gives the same
// bytes. Run it from the tools directory; scripts/generate.sh does all of it:
//
//	go run ./apigen         write both
//	go run ./apigen -check  fail when one is not what the document gives
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", "..", "the repository")
	check := flag.Bool("check", false, "write nothing; fail when a client is stale")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	text, err := os.ReadFile(filepath.Join(root, "api", "openapi.json"))
	if err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	var d document
	if err := json.Unmarshal(text, &d); err != nil {
		return fmt.Errorf("read the document: %w", err)
	}
	golang, err := d.golang()
	if err != nil {
		return err
	}
	for path, want := range map[string][]byte{
		"client/client.gen.go":               golang,
		"dashboard/ui/src/lib/schema.gen.ts": d.typescript(),
	} {
		path = filepath.Join(root, filepath.FromSlash(path))
		if !check {
			if err := os.WriteFile(path, want, 0o644); err != nil { //nolint:gosec // source is for everyone
				return fmt.Errorf("write a client: %w", err)
			}
			continue
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not what api/openapi.json gives: run scripts/generate.sh", path)
		}
	}
	return nil
}

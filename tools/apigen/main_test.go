package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/evanw/esbuild/pkg/api"
)

func TestTheClientsAreWhatTheDocumentGives(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsGeneratedIsTypeScript(t *testing.T) {
	text, err := os.ReadFile(filepath.FromSlash("../../dashboard/ui/src/lib/schema.gen.ts"))
	if err != nil {
		t.Fatal(err)
	}
	r := api.Transform(string(text), api.TransformOptions{Loader: api.LoaderTS})
	for _, e := range r.Errors {
		t.Error(e.Text, e.Location)
	}
	if len(r.Code) < 1000 {
		t.Errorf("it is %d bytes of code", len(r.Code))
	}
}

func TestNamesAreAsGoHasThem(t *testing.T) {
	for name, want := range map[string]string{"list-api-keys": "ListAPIKeys", "ttl_s": "TTLS", "client_id": "ClientID", "ids": "IDs", "If-Match": "IfMatch"} {
		if got := pascal(name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	if got := camel("get-device"); got != "getDevice" {
		t.Error(got)
	}
}

func TestAStaleClientIsFound(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"api", "client", "dashboard/ui/src/lib"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile("../../api/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "api", "openapi.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if run(root, true) == nil {
		t.Error("clients that are not there are fresh")
	}
	if err := run(root, false); err != nil {
		t.Fatal(err)
	}
	if err := run(root, true); err != nil {
		t.Error(err)
	}
}

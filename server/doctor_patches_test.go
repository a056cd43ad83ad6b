package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"muster/server"
)

// TestTheDoctorReadsPatchesToo has a patch that is as it was made, one that makes another image than the index says, one that
// was changed on disk, one that is gone, and an index that cannot be read.
func TestTheDoctorReadsPatchesToo(t *testing.T) {
	dir := ""
	u, tokens, _ := startPatching(t, func(c *server.Config) { dir = c.DataDir }, "d1")
	c := u.client5("d1", tokens["d1"])
	c.say("devices/me/reported", `{"firmware":{"version":"1.0.0"}}`)
	u.begin()
	o := c.offer(u.OfferKeyForTest())
	p := o.Files[0].Patch
	if p == nil {
		t.Fatalf("no patch is offered: %+v", o.Files)
	}
	if found, all := wrong(t, dir); slices.Contains(found, "patches") || all["patches"] != "1, each as it was made" {
		t.Fatalf("of a patch that is as it was made it finds %v, and says %q", found, all["patches"])
	}
	index := filepath.Join(dir, "patches", "index.json")
	was := string(fileText(t, index))
	putText(t, index, strings.NewReplacer(p.From, u.sha256, u.sha256, p.From).Replace(was)) // from and to the other way about
	if found, all := wrong(t, dir); !slices.Contains(found, "patches") || !strings.Contains(all["patches"], "it does not make its image") {
		t.Errorf("of a patch of another image it finds %v, and says %q", found, all["patches"])
	}
	putText(t, index, strings.ReplaceAll(was, u.sha256, u.sha256+"00")) // an index that somebody else wrote
	if found, all := wrong(t, dir); slices.Contains(found, "patches") || all["patches"] != "1, each as it was made" {
		t.Errorf("of a patch of an image that there cannot be it finds %v, and says %q", found, all["patches"])
	}
	putText(t, index, was)
	path := filepath.Join(dir, "patches", "sha256", p.SHA256[:2], p.SHA256)
	text := fileText(t, path)
	text[len(text)/2] ^= 1
	putText(t, path, string(text))
	if found, all := wrong(t, dir); !slices.Contains(found, "patches") || !strings.Contains(all["patches"], p.SHA256+" (of "+p.From+", makes "+u.sha256+"): its bytes on disk were changed") {
		t.Errorf("of a patch that was changed it finds %v, and says %q", found, all["patches"])
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if found, all := wrong(t, dir); slices.Contains(found, "patches") {
		t.Errorf("of a patch that is gone it finds %v: %q", found, all["patches"])
	}
	putText(t, index, "{")
	if found, _ := wrong(t, dir); !slices.Contains(found, "patches") {
		t.Errorf("of an index that cannot be read it finds %v", found)
	}
}

func fileText(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func putText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryExpressionOfDeployIsPromQL(t *testing.T) {
	n, err := run("../..")
	if err != nil {
		t.Error(err)
	}
	if n < 60 {
		t.Errorf("only %d expressions were found", n)
	}
}

func TestWhatIsNoPromQLIsFound(t *testing.T) {
	for name, expr := range map[string]string{"a function": "summ(x)", "no range": "rate(x)", "a parenthesis": "sum(x", "a comparison of texts": "x == 'a'", "types": "rate(sum(x)[5m])"} {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "deploy", "grafana"), 0o750); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"rules.yml": "  expr: \"up\"\n", "grafana/muster.json": `{"panels":[{"targets":[{"expr":"` + expr + `"}]}]}`} {
			if err := os.WriteFile(filepath.Join(dir, "deploy", filepath.FromSlash(file)), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := run(dir); n != 2 || err == nil || !strings.Contains(err.Error(), expr) {
			t.Errorf("%s: of %d expressions: %v", name, n, err)
		}
	}
}

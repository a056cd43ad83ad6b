package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

func TestEachFlagIsGivenByTheVariableOfItsName(t *testing.T) {
	var flags cli
	parser, err := kong.New(&flags, environment("MUSTER"))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var each func(n *kong.Node)
	each = func(n *kong.Node) {
		for _, f := range n.Flags {
			if f.Name == "help" || f.Name == "key" && len(f.Envs) == 0 { // files of keys are no keys of the API
				continue
			}
			want := "MUSTER_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
			if len(f.Envs) != 1 || f.Envs[0] != want || f.Tag.Envs[0] != want {
				t.Errorf("%s --%s is given by %v, want %s", n.Path(), f.Name, f.Envs, want)
			}
			seen[want] = true
		}
		for _, c := range n.Children {
			each(c)
		}
	}
	each(parser.Model.Node)
	for _, name := range []string{"MUSTER_FIRMWARE_S3", "MUSTER_ROLLOUT_APPROVALS", "MUSTER_DDI_ASK_PEOPLE"} {
		if !seen[name] {
			t.Errorf("nothing is given by %s", name)
		}
	}
	t.Setenv("MUSTER_FIRMWARE_S3", "https://images.example/firmware")
	t.Setenv("MUSTER_ROLLOUT_APPROVALS", "2")
	if _, err := parser.Parse([]string{"serve"}); err != nil {
		t.Fatal(err)
	}
	if flags.Serve.FWS3 != "https://images.example/firmware" || flags.Serve.Approvals != 2 {
		t.Errorf("serve has %q and %d", flags.Serve.FWS3, flags.Serve.Approvals)
	}
}

func TestTheHelpOfServeNamesTheVariables(t *testing.T) {
	var out bytes.Buffer
	if code := run(t.Context(), []string{"serve", "--help"}, &console{out: &out, err: &out}); code != 0 {
		t.Fatalf("%d: %s", code, out.String())
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	if !strings.Contains(text, "$MUSTER_FIRMWARE_S3)") || strings.Contains(text, "S_3") {
		t.Errorf("serve --help says %s", text)
	}
}

package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The first example of docs/notifications.md runs as it is written there, on a server that nobody has used yet.
func TestNotificationsFirstExampleRunsAsItIsWritten(t *testing.T) {
	for _, tool := range []string{"sh", "curl"} {
		needs(t, tool)
	}
	page, err := os.ReadFile("../docs/notifications.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```sh\n")
	script, _, ok := strings.Cut(rest, "\n```")
	if !ok || strings.Count(script, "curl ") != 6 {
		t.Fatalf("the example is %q", script)
	}
	const email, password = "ana@example.com", "correct horse battery staple"
	m := newMuster(t)
	m.env = []string{"MUSTER_ADMIN_EMAIL=" + email, "MUSTER_ADMIN_PASSWORD=" + password}
	m.start()
	m.ready()

	script = strings.ReplaceAll(script, "localhost:8080", m.http)
	cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", strings.ReplaceAll(script, "curl ", "curl --fail-with-body "))
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), append(m.env, "MUSTER_ADMIN_KEY="+m.key, "no_proxy=127.0.0.1")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var last struct {
		Notification  struct{ Title, State string }
		Recipients    int
		NotSubscribed []string `json:"not_subscribed"`
	}
	answers := json.NewDecoder(strings.NewReader(string(out)))
	for answers.More() {
		if err := answers.Decode(&last); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if last.Recipients != 1 || last.Notification.State != "open" || len(last.NotSubscribed) != 1 || last.NotSubscribed[0] != "device:panel-3" {
		t.Errorf("the last of it answers %+v", last)
	}
	var about struct{ Items []struct{ Name string } }
	m.ask(http.MethodGet, "/api/v1/topics", nil, http.StatusOK, &about)
	if len(about.Items) != 2 || about.Items[0].Name != "cold-chain" { // and Muster's own
		t.Errorf("the topics are %+v", about.Items)
	}
}

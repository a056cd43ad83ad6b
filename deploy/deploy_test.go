package deploy_test

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// at walks maps by key; it fails t when a step is missing.
func at(t *testing.T, v any, keys ...string) any {
	t.Helper()
	for i, k := range keys {
		m, ok := v.(map[string]any)
		if !ok || m[k] == nil {
			t.Fatalf("%s is missing", strings.Join(keys[:i+1], "."))
		}
		v = m[k]
	}
	return v
}

func compose(t *testing.T) map[string]any {
	t.Helper()
	v, err := parseYAML(read(t, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return v.(map[string]any)
}

func TestEveryComposeServiceIsPinnedHealthCheckedAndRestarted(t *testing.T) {
	file := compose(t)
	known := []string{
		"build", "cap_drop", "depends_on", "environment", "healthcheck", "image", "ports", "read_only",
		"restart", "security_opt", "shm_size", "stop_grace_period", "tmpfs", "ulimits", "volumes",
	}
	services := at(t, file, "services").(map[string]any)
	if len(services) != 4 {
		t.Errorf("%d services; want timescale, muster, prometheus and grafana", len(services))
	}
	for name, s := range services {
		for key := range s.(map[string]any) {
			if !slices.Contains(known, key) {
				t.Errorf("%s.%s is not a key this file uses; a typing error?", name, key)
			}
		}
		image := at(t, s, "image").(string)
		if _, tag, ok := strings.Cut(image, ":"); !ok || strings.Contains(tag, "latest") {
			t.Errorf("%s: image %s is not pinned", name, image)
		}
		if at(t, s, "restart") != "unless-stopped" {
			t.Errorf("%s is not restarted", name)
		}
		check := at(t, s, "healthcheck", "test").([]any)
		if check[0] != "CMD" || len(check) < 2 {
			t.Errorf("%s: health check %v", name, check)
		}
		for _, key := range []string{"interval", "timeout", "start_period", "retries"} {
			at(t, s, "healthcheck", key)
		}
	}
	for _, on := range []string{"timescale"} {
		if at(t, services, "muster", "depends_on", on, "condition") != "service_healthy" {
			t.Errorf("muster does not wait for %s", on)
		}
	}
}

func TestEveryComposeVolumeIsDeclaredAndUsed(t *testing.T) {
	file := compose(t)
	declared := at(t, file, "volumes").(map[string]any)
	used := map[string]bool{}
	for name, s := range at(t, file, "services").(map[string]any) {
		for _, v := range at(t, s, "volumes").([]any) {
			source, _, _ := strings.Cut(v.(string), ":")
			if strings.HasPrefix(source, "./") {
				if _, err := os.Stat(source); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			used[source] = true
			if _, ok := declared[source]; !ok {
				t.Errorf("%s uses the volume %s, which is not declared", name, source)
			}
		}
	}
	for v := range declared {
		if !used[v] {
			t.Errorf("the volume %s is not used", v)
		}
	}
}

func TestComposeHoldsNoSecretAndDemandsThoseItNeeds(t *testing.T) {
	text := read(t, "compose.yaml")
	secret := regexp.MustCompile(`(?i)^\s*[A-Z_]*(PASSWORD|SECRET|KEY|TOKEN)[A-Z_]*: (.*)$`)
	variable := regexp.MustCompile(`^\$\{[A-Z_]+(:\?[^}]+|:-)\}$`)
	found := 0
	for line := range strings.Lines(text) {
		if m := secret.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			found++
			if !variable.MatchString(m[2]) {
				t.Errorf("%q is a value, not a variable without a default", strings.TrimSpace(line))
			}
		}
	}
	if found < 2 {
		t.Errorf("%d secrets were found; the check looks for the wrong thing", found)
	}
	if n := strings.Count(text, "${MUSTER_DB_PASSWORD:?"); n != 2 {
		t.Errorf("MUSTER_DB_PASSWORD is demanded %d times, want 2 (the database and its client)", n)
	}
}

func TestPrometheusScrapesMustersMetrics(t *testing.T) {
	v, err := parseYAML(read(t, "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	job := at(t, v, "scrape_configs").([]any)[0]
	target := at(t, job, "static_configs").([]any)[0]
	if at(t, job, "metrics_path") != "/metrics" || at(t, target, "targets").([]any)[0] != "muster:8080" {
		t.Errorf("%v", job)
	}
}

// instruction returns the arguments of every Dockerfile instruction of a name.
func instruction(text, name string) []string {
	var found []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), name+" "); ok {
			found = append(found, rest)
		}
	}
	return found
}

func TestTheImageRunsAsNobodyOnTheToolchainOfGoMod(t *testing.T) {
	text := read(t, "Dockerfile")
	toolchain := regexp.MustCompile(`(?m)^toolchain go(\S+)$`).FindStringSubmatch(read(t, "../go.mod"))
	if toolchain == nil {
		t.Fatal("go.mod names no toolchain")
	}
	from := instruction(text, "FROM")
	if len(from) != 2 || !strings.HasPrefix(from[0], "golang:"+toolchain[1]+"-") || from[1] != "scratch" {
		t.Errorf("stages %q, want golang:%s and scratch", from, toolchain[1])
	}
	if user := instruction(text, "USER"); len(user) != 1 || user[0] != "65532:65532" {
		t.Errorf("user %q", user)
	}
	if !slices.Equal(instruction(text, "ENTRYPOINT"), []string{`["/muster"]`}) {
		t.Errorf("entry point %q", instruction(text, "ENTRYPOINT"))
	}
	if !strings.Contains(read(t, "compose.yaml"), "test: "+strings.Replace(healthCommand(t, text), `["`, `["CMD", "`, 1)) {
		t.Error("the Compose file's health check differs from the image's")
	}
}

// healthCommand returns the image's health check as its JSON list.
func healthCommand(t *testing.T, text string) string {
	t.Helper()
	all := instruction(text, "HEALTHCHECK")
	if len(all) != 1 {
		t.Fatalf("%d health checks", len(all))
	}
	_, cmd, ok := strings.Cut(all[0], " CMD ")
	if !ok {
		t.Fatalf("health check %q has no CMD", all[0])
	}
	return cmd
}

// build runs the Dockerfile's own build command outside Docker.
func build(t *testing.T) string {
	t.Helper()
	var line string
	for _, run := range instruction(read(t, "Dockerfile"), "RUN") {
		if strings.Contains(run, "go build") {
			line = run
		}
	}
	const out = "/out/muster"
	if !strings.Contains(line, "-o "+out) {
		t.Fatalf("build step %q does not write %s", line, out)
	}
	noteSources(t)
	binary := filepath.Join(t.TempDir(), "muster")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", strings.Replace(line, out, binary, 1))
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "VERSION=v0.0.0-deploytest")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, b)
	}
	return binary
}

// noteSources looks at every source file, so that go test, which cannot see what
// the build reads, does not answer a change with a cached result.
func noteSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin"):
			return filepath.SkipDir
		case filepath.Ext(path) == ".go":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheImagesBinary(t *testing.T) {
	binary := build(t)
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		b, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
		return string(b), err
	}

	t.Run("is linked statically", func(t *testing.T) {
		f, err := elf.Open(binary)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		libs, err := f.ImportedLibraries()
		interp := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if err != nil || len(libs) > 0 || interp {
			t.Errorf("libraries %v (%v), interpreter %v", libs, err, interp)
		}
	})
	t.Run("says its version", func(t *testing.T) {
		if out, err := run("version"); err != nil || !strings.Contains(out, "v0.0.0-deploytest") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("answers the health check", func(t *testing.T) {
		var args []string
		if err := json.Unmarshal([]byte(healthCommand(t, read(t, "Dockerfile"))), &args); err != nil {
			t.Fatal(err)
		}
		var status atomic.Int64
		status.Store(http.StatusOK)
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(int(status.Load())) }))
		defer srv.Close()
		args[len(args)-1] = srv.Listener.Addr().String()
		if out, err := run(args[1:]...); err != nil {
			t.Errorf("a healthy server: %v: %s", err, out)
		}
		status.Store(http.StatusServiceUnavailable)
		if out, err := run(args[1:]...); err == nil {
			t.Errorf("an unhealthy server passed: %s", out)
		}
	})
	t.Run("is what the unit starts", func(t *testing.T) {
		if _, err := exec.LookPath("systemd-analyze"); err != nil {
			t.Log("systemd-analyze is not here; only the unit's text is checked")
			return
		}
		unit := filepath.Join(t.TempDir(), "muster.service")
		text := strings.ReplaceAll(read(t, "muster.service"), "/usr/local/bin/muster", binary)
		if err := os.WriteFile(unit, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		analyze(t, "verify", "--man=no", unit)
		// Below 20 of 100 systemd calls a unit OK.
		analyze(t, "security", "--offline=yes", "--threshold=20", "--no-pager", unit)
	})
}

func analyze(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "systemd-analyze", args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

func TestTheUnitIsHardened(t *testing.T) {
	unit := map[string][]string{}
	section := ""
	for line := range strings.Lines(read(t, "muster.service")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "[") {
			section = strings.Trim(line, "[]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%q is not a directive", line)
		}
		unit[section+"."+key] = append(unit[section+"."+key], value)
	}
	want := map[string]string{
		"Service.DynamicUser": "yes", "Service.StateDirectory": "muster", "Service.NoNewPrivileges": "yes",
		"Service.CapabilityBoundingSet": "", "Service.ProtectSystem": "strict", "Service.ProtectHome": "yes",
		"Service.PrivateTmp": "yes", "Service.PrivateDevices": "yes", "Service.MemoryDenyWriteExecute": "yes",
		"Service.RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "Service.RestrictNamespaces": "yes",
		"Service.SystemCallArchitectures": "native", "Service.UMask": "0077", "Service.Restart": "on-failure",
		"Service.Environment": "MUSTER_DATA=/var/lib/muster", "Install.WantedBy": "multi-user.target",
	}
	for key, value := range want {
		if got, ok := unit[key]; !ok || got[0] != value {
			t.Errorf("%s is %q, want %q", key, got, value)
		}
	}
}

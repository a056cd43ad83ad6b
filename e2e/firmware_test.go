package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	storyDevices = 12
	storyByDDI   = 5
	storyCap     = 3 // devices in flight
	storyStop    = 3 // failures that are too many
	storyLimit   = 4 * time.Minute
)

// story is firmware from the key on a medium to the devices, by the verbs alone.
type story struct {
	*muster
	dir string
	sim *exec.Cmd
}

// trusting starts a server that has an offline key to trust, on an engine.
func trusting(t *testing.T, e engine) *story {
	t.Helper()
	args, _ := e.prepare(t)
	s := &story{muster: serve(t, append(args, "--ddi-idle", "1s", "--ddi-busy", "1s")...), dir: t.TempDir()}
	t.Cleanup(s.endFleet)
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	return s
}

// TestFirmwareFromTheOfflineKeyToAFleetThatUpdates takes a release through a fleet that speaks MQTT
// and DDI while the server is killed twice, and then a bad one, which stops itself.
func TestFirmwareFromTheOfflineKeyToAFleetThatUpdates(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			s := trusting(t, e)
			good := s.release("2.0.0")
			s.fleet(0)
			id := s.roll("Pumps 2", good, 2*time.Second)
			s.updates(id)

			bad := s.release("3.0.0")
			s.endFleet()
			s.fleet(1)
			s.stopsItself(s.roll("Pumps 3", bad, time.Second))
			s.endFleet()
			s.stop()
			s.vouches()
		})
	}
}

// TestAReleaseThatWasRevokedReachesNobodyAfterTheServerWasKilled revokes a release on its way, kills the server at
// once, and has it come back to the same fleet.
func TestAReleaseThatWasRevokedReachesNobodyAfterTheServerWasKilled(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			s := trusting(t, e)
			release := s.release("2.0.0")
			s.fleet(0)
			id := s.roll("Pumps 2", release, 2*time.Second)
			s.await("devices to update", storyLimit, func() bool { f := s.far(id); return f.in("confirmed") > 0 && f.InFlight > 0 })
			s.ask(http.MethodPost, "/api/v1/firmware/releases/"+release+"/revoke", map[string]any{"reason": "it bricks"}, http.StatusOK, nil)
			s.kill()
			killed := time.Now()
			s.start()
			s.ready()

			s.await("the rollout to be paused", storyLimit, func() bool { f := s.far(id); return f.Status == "paused" && f.Reason == "release_revoked" })
			s.await("what was offered to be taken back, and what installs to end", storyLimit, func() bool { return s.far(id).InFlight == 0 })
			var online struct{ Items []struct{ ID string } }
			s.await("all devices to be back", storyLimit, func() bool {
				s.ask(http.MethodGet, "/api/v1/devices?q=status:online", nil, http.StatusOK, &online)
				return len(online.Items) == storyDevices
			})
			s.ask(http.MethodPost, "/api/v1/rollouts/"+id+"/resume", map[string]any{}, http.StatusConflict, nil)
			if f := s.far(id); f.in("queued") == 0 {
				t.Errorf("nobody is left without it: %+v", f)
			}
			var log struct {
				Items []struct {
					Device, To string
					At         time.Time
				}
			}
			s.ask(http.MethodGet, "/api/v1/rollouts/"+id+"/log?limit=1000", nil, http.StatusOK, &log)
			for _, row := range log.Items {
				if row.At.After(killed) && row.To == "offered" {
					t.Errorf("%s was offered it after the server came back", row.Device)
				}
			}
			for _, d := range online.Items {
				var x struct {
					Current *struct{ Release string }
					Files   []any
				}
				s.ask(http.MethodGet, "/api/v1/devices/"+d.ID+"/firmware", nil, http.StatusOK, &x)
				if x.Current != nil || len(x.Files) > 0 {
					t.Errorf("%s is to install %+v, %v", d.ID, x.Current, x.Files)
				}
			}
			s.endFleet()
			s.stop()
			s.vouches()
		})
	}
}

func (s *story) path(name string) string { return filepath.Join(s.dir, name) }

// run runs a verb, and returns what it prints.
func (s *story) run(args ...string) string {
	s.t.Helper()
	if verb := strings.Join(args[:min(2, len(args))], " "); !slices.Contains([]string{"firmware keygen", "firmware manifest", "firmware sign"}, verb) {
		args = append(args, "--server", "http://"+s.http) // the others know no server
	}
	r := execute(s.t, time.Minute, func(ctx context.Context) *exec.Cmd {
		c := exec.CommandContext(ctx, program, args...)
		c.Env = append(os.Environ(), "MUSTER_KEY="+s.key)
		return c
	})
	if r.code != 0 {
		s.t.Fatalf("muster %s: %s", strings.Join(args, " "), r)
	}
	return strings.TrimSpace(r.stdout)
}

// release makes, signs, uploads and publishes a version, and returns its id.
func (s *story) release(version string) string {
	s.t.Helper()
	image := make([]byte, 300_000)
	_, _ = rand.Read(image) // it never fails
	file, manifest := s.path("fw-"+version+".bin"), s.path(version+".json")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run("firmware", "manifest", "--product", "pump", "--release-version", version, "--out", manifest, file)
	s.run("firmware", "sign", "--key", s.path("release.key"), manifest)
	s.run("firmware", "upload", file)
	id := s.run("firmware", "release", manifest)
	s.run("firmware", "publish", id)
	return id
}

// ship has a signed release and a rollout of it to the devices of a query, and returns their ids.
func (s *story) ship(query string) (release, rollout string) {
	s.t.Helper()
	s.run("firmware", "keygen", s.path("release.key"))
	s.run("firmware", "trust", s.path("release.key.pub"), "--name", "build server")
	release = s.release("2.0.0")
	return release, s.begins("Pumps to 2.0.0", release, query, []any{map[string]any{"name": "all", "percent": 100}})
}

// fleet starts virtual devices, a part of whose updates fails. They come back by themselves when the
// server was away.
func (s *story) fleet(failures float64) {
	s.t.Helper()
	s.sim = exec.Command(program, "sim", "--mqtt", s.mqtt, "--http", s.http, "--admin-key", s.key, "--prefix", "pump", "--rate", "0.2", "--seed", "3",
		"--devices", fmt.Sprint(storyDevices), "--firmware", "--firmware-ddi", fmt.Sprint(storyByDDI), "--firmware-failures", fmt.Sprint(failures))
	if err := s.sim.Start(); err != nil {
		s.t.Fatal(err)
	}
	var list struct{ Items []struct{ ID string } }
	s.await("the fleet to be there", storyLimit, func() bool {
		s.ask(http.MethodGet, "/api/v1/devices?q="+"status:online", nil, http.StatusOK, &list)
		return len(list.Items) == storyDevices
	})
}

func (s *story) endFleet() {
	if s.sim == nil {
		return
	}
	_ = s.sim.Process.Kill() // it may have ended by itself
	_ = s.sim.Wait()         // killed, it fails
	s.sim = nil
}

// roll starts a rollout of a release to the fleet, and returns its id.
func (s *story) roll(name, release string, soak time.Duration) string {
	s.t.Helper()
	stop := map[string]any{"absolute": storyStop}
	plan, err := json.Marshal(map[string]any{
		"phases":     []any{map[string]any{"name": "canary", "count": 3, "failure": stop}, map[string]any{"name": "all", "percent": 100, "failure": stop}},
		"concurrent": storyCap, "soak_s": soak / time.Second, "attempts": 1,
		"deadlines": map[string]any{"downloading_s": 120, "installing_s": 60, "rebooting_s": 60},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path("plan.json"), plan, 0o600); err != nil {
		s.t.Fatal(err)
	}
	out := s.run("rollout", "create", name, "--release", release, "--query", "id:pump-*", "--plan", s.path("plan.json"), "--start")
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(line, "ID"); ok {
			return strings.TrimSpace(id)
		}
	}
	s.t.Fatalf("a rollout is created: %s", out)
	return ""
}

// far is how far a rollout is.
type far struct {
	Status, Reason string
	InFlight       int `json:"in_flight"`
	Phases         []struct{ States map[string]int }
}

func (f *far) in(state string) (n int) {
	for _, ph := range f.Phases {
		n += ph.States[state]
	}
	return n
}

// far asks how far a rollout is, and that its cap holds.
func (s *story) far(id string) far {
	s.t.Helper()
	var x struct{ Progress far }
	s.ask(http.MethodGet, "/api/v1/rollouts/"+id, nil, http.StatusOK, &x)
	if x.Progress.InFlight > storyCap {
		s.t.Fatalf("%d devices are in flight, %d may be", x.Progress.InFlight, storyCap)
	}
	return x.Progress
}

// updates sees a rollout to its end, and kills the server twice on the way.
func (s *story) updates(id string) {
	s.t.Helper()
	for _, confirmed := range []int{1, 5} {
		s.await("devices to update", storyLimit, func() bool {
			f := s.far(id)
			return f.in("confirmed") >= confirmed && f.InFlight > 0 || f.Status != "running"
		})
		if f := s.far(id); f.Status != "running" {
			s.t.Fatalf("it is %s (%s) before %d devices are confirmed: %+v", f.Status, f.Reason, confirmed, f)
		}
		s.kill()
		s.start()
		s.ready()
	}
	s.await("the rollout to end", storyLimit, func() bool { return s.far(id).Status != "running" })
	f := s.far(id)
	if f.Status != "completed" || f.in("confirmed") != storyDevices {
		s.t.Fatalf("it is %s (%s), %+v:\n%s", f.Status, f.Reason, f, s.run("rollout", "log", id))
	}
	ends := map[string]int{}
	for line := range strings.Lines(s.run("rollout", "log", id)) {
		if cells := strings.Fields(line); len(cells) > 3 && cells[3] == "confirmed" {
			ends[cells[1]]++
		}
	}
	if len(ends) != storyDevices {
		s.t.Errorf("the log has ends of %v", ends)
	}
	for device, n := range ends {
		if n != 1 {
			s.t.Errorf("%s was confirmed %d times", device, n)
		}
	}
	if why := s.run("rollout", "why", id, "pump-0001"); !strings.Contains(why, "The device has the release") {
		s.t.Errorf("why: %s", why)
	}
}

// stopsItself waits until a bad release has stopped: no more devices got it than the threshold and
// those in flight.
func (s *story) stopsItself(id string) {
	s.t.Helper()
	s.await("the rollout to stop itself", storyLimit, func() bool { return s.far(id).Status != "running" })
	f := s.far(id)
	if f.Status != "paused" || f.Reason != "failure_threshold" {
		s.t.Fatalf("it is %s (%s)", f.Status, f.Reason)
	}
	offered := map[string]bool{}
	for line := range strings.Lines(s.run("rollout", "log", id)) {
		if cells := strings.Fields(line); len(cells) > 3 && cells[3] == "offered" {
			offered[cells[1]] = true
		}
	}
	if len(offered) < storyStop || len(offered) > storyStop+storyCap {
		s.t.Errorf("%d devices got a release that stops at %d failures, with %d in flight", len(offered), storyStop, storyCap)
	}
	if out := s.run("rollout", "show", id); !strings.Contains(out, "paused: failure_threshold") {
		s.t.Errorf("it is shown as\n%s", out)
	}
}

// vouches has the stopped server's data looked at.
func (s *story) vouches() {
	s.t.Helper()
	args := []string{"doctor", "--data", s.data}
	if i := slices.Index(s.args, "--database"); i >= 0 {
		args = append(args, "--database", s.args[i+1])
	}
	r := command(s.t, program, args...)
	if r.code != 0 || strings.Contains(r.stdout, "WRONG") || !strings.Contains(r.stdout, "rollout") {
		s.t.Errorf("the doctor says: %s", r)
	}
}

// begins makes a rollout and starts it.
func (s *story) begins(name, release, query string, phases []any) string {
	s.t.Helper()
	plan, err := json.Marshal(map[string]any{
		"phases": phases, "concurrent": 8, "soak_s": 25, "attempts": 1, "deadlines": map[string]any{"downloading_s": 120, "installing_s": 60, "rebooting_s": 60},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path("plan.json"), plan, 0o600); err != nil {
		s.t.Fatal(err)
	}
	out := s.run("rollout", "create", name, "--release", release, "--query", query, "--plan", s.path("plan.json"), "--start")
	for line := range strings.Lines(out) {
		if id, ok := strings.CutPrefix(line, "ID"); ok {
			return strings.TrimSpace(id)
		}
	}
	s.t.Fatalf("a rollout is created: %s", out)
	return ""
}

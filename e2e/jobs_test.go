package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	flock     = 10_000 // devices
	shepherds = 20
	workLimit = 90 * time.Second // of a part of a job, on a busy machine
)

// imported makes devices from CSV and returns the tokens of those that got one.
func (m *muster) imported(csv string) map[string]string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), workLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.http+"/api/v1/devices:import", strings.NewReader(csv))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+m.key)
	req.Header.Set("Content-Type", "text/csv")
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		m.t.Fatalf("import: %v", err)
	}
	defer resp.Body.Close()
	tokens, created := map[string]string{}, -1
	dec := json.NewDecoder(resp.Body)
	for dec.More() {
		var line struct {
			Made *struct {
				ID         string
				Credential credential
			}
			Report *struct{ Created, Refused int }
			Error  any
		}
		if err := dec.Decode(&line); err != nil || line.Error != nil || resp.StatusCode != http.StatusOK {
			m.t.Fatalf("the import answers %d: %v %v", resp.StatusCode, line.Error, err)
		}
		switch {
		case line.Made != nil && line.Made.Credential.Token != "":
			tokens[line.Made.ID] = line.Made.Credential.Token
		case line.Report != nil:
			created = line.Report.Created
		}
	}
	if want := strings.Count(csv, "\n") - 1; created != want {
		m.t.Fatalf("%d devices were made of %d", created, want)
	}
	return tokens
}

// job is one as the API shows it.
type job struct {
	ID, State string
	Wave      int
	Waves     []int
	Total     int
	Counts    jobCounts
}

type jobCounts struct{ Pending, Running, Succeeded, Failed, Expired, Cancelled int }

func (m *muster) newJob(method string) job {
	m.t.Helper()
	var made struct{ Job job }
	m.ask(http.MethodPost, "/api/v1/jobs", map[string]any{
		"q": "id:kid*", "kind": "command", "method": method, "waves": []map[string]int{{"percent": 1}, {"count": 2000}},
		"rate_per_minute": 300_000, "max_in_flight": 200,
	}, http.StatusCreated, &made)
	if fmt.Sprint(made.Job.Waves) != "[100 2000 7900]" || made.Job.Total != flock {
		m.t.Fatalf("the job is %+v", made.Job)
	}
	return made.Job
}

func (m *muster) job(id string) (j job) {
	m.t.Helper()
	m.ask(http.MethodGet, "/api/v1/jobs/"+id, nil, http.StatusOK, &j)
	if c := j.Counts; c.Pending+c.Running+c.Succeeded+c.Failed+c.Expired+c.Cancelled != j.Total || c.Running > 200 {
		m.t.Fatalf("the counts of the job do not add up, or more are in flight than may: %+v", j)
	}
	return j
}

// becomes waits until the job stands so.
func (m *muster) becomes(id, state string, wave int, want jobCounts) {
	m.t.Helper()
	var last job
	end := time.Now().Add(workLimit)
	for last = m.job(id); last.State != state || last.Counts != want || last.Wave != wave; last = m.job(id) {
		if time.Now().After(end) {
			m.t.Fatalf("the job is %+v, want %s in wave %d with %+v", last, state, wave, want)
		}
		pause(m.t.Context(), lookEvery)
	}
}

func (m *muster) control(id, action string, want int) {
	m.t.Helper()
	m.ask(http.MethodPost, "/api/v1/jobs/"+id+"/"+action, nil, want, nil)
}

// target is one of a job's.
type target struct {
	Number                 int
	Device, State, Command string
}

func (m *muster) targets(id, state string) (all []target) {
	m.t.Helper()
	for after := ""; ; {
		var page struct {
			Items []target
			Next  *string
		}
		m.ask(http.MethodGet, "/api/v1/jobs/"+id+"/targets?limit=1000&state="+state+after, nil, http.StatusOK, &page)
		all = append(all, page.Items...)
		if page.Next == nil {
			return all
		}
		after = "&after=" + *page.Next
	}
}

// TestAJobOver10000DevicesInWavesIsPausedKilledResumedAndAnotherAborted has the devices
// behind 20 gateways, which answer for as many as the test allows.
func TestAJobOver10000DevicesInWavesIsPausedKilledResumedAndAnotherAborted(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			h, stop := m.herd(t)
			defer stop()
			pausedAndKilled(t, m, h)
			aborted(t, m, h)
			stop()
			for _, w := range h.wrong {
				t.Error(w)
			}
			m.stop()
		})
	}
}

// herd makes the devices, and connects their gateways until stop, which waits for them.
func (m *muster) herd(t *testing.T) (h *herd, stop func()) {
	csv := bytes.NewBufferString("id,parent,credential\n")
	for i := range shepherds {
		fmt.Fprintf(csv, "gate%d,,token\n", i)
	}
	for i := range flock {
		fmt.Fprintf(csv, "kid%d,gate%d,none\n", i, i%shepherds)
	}
	begun := time.Now()
	tokens := m.imported(csv.String())
	t.Logf("the import took %s", time.Since(begun))
	h = &herd{addr: m.mqtt, tasks: map[string]*ask{}}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range shepherds {
		id := fmt.Sprintf("gate%d", i)
		s := &shepherd{herd: h, id: id, token: tokens[id]}
		wg.Go(func() { s.run(ctx) })
	}
	return h, func() {
		cancel()
		wg.Wait()
	}
}

func pausedAndKilled(t *testing.T, m *muster, h *herd) {
	t.Helper()
	h.allow("first", 99)
	begun := time.Now()
	j := m.newJob("first")
	m.becomes(j.ID, "running", 1, jobCounts{Pending: 9900, Running: 1, Succeeded: 99})
	h.allow("first", 800)
	m.becomes(j.ID, "running", 2, jobCounts{Pending: 9000, Running: 200, Succeeded: 800})
	m.control(j.ID, "pause", http.StatusOK)
	h.allow("first", flock) // the answers for 200 are on their way
	m.kill()
	m.start()
	m.ready()
	m.becomes(j.ID, "paused", 2, jobCounts{Pending: 9000, Succeeded: 1000})
	if n := len(m.targets(j.ID, "pending")); n != 9000 {
		t.Errorf("%d targets are listed as pending", n)
	}
	m.control(j.ID, "resume", http.StatusOK)
	m.becomes(j.ID, "done", 3, jobCounts{Succeeded: flock})
	t.Logf("the job took %s, with a pause and a restart", time.Since(begun))
	m.control(j.ID, "resume", http.StatusConflict)
	all := m.targets(j.ID, "succeeded")
	h.mu.Lock()
	defer h.mu.Unlock()
	checkWaves(t, h.tasks["first"], j, all)
}

// checkWaves wants each target to have been sent the command that is listed, and none
// of a wave before the last of the wave before was answered for.
func checkWaves(t *testing.T, a *ask, j job, targets []target) {
	t.Helper()
	if len(targets) != j.Total || len(a.heard) != j.Total {
		t.Fatalf("%d targets have succeeded and %d devices were sent a command", len(targets), len(a.heard))
	}
	at, before := 0, 0
	for wave, n := range j.Waves {
		ended := 0
		for _, x := range targets[at : at+n] {
			got := a.heard[x.Device]
			if fmt.Sprint(got.id) != x.Command {
				t.Errorf("%s was sent command %d, listed is %s", x.Device, got.id, x.Command)
			}
			if got.at < before {
				t.Fatalf("%s of wave %d was sent its command before wave %d was done", x.Device, wave+1, wave)
			}
			ended = max(ended, a.answered[x.Device])
		}
		at, before = at+n, ended
	}
}

func aborted(t *testing.T, m *muster, h *herd) {
	t.Helper()
	h.allow("second", 300)
	j := m.newJob("second")
	m.becomes(j.ID, "running", 2, jobCounts{Pending: 9500, Running: 200, Succeeded: 300})
	m.await("the gateways to have 500 commands", workLimit, func() bool { return h.has("second") == 500 })
	m.control(j.ID, "abort", http.StatusOK)
	h.allow("second", flock)
	m.becomes(j.ID, "aborted", 2, jobCounts{Succeeded: 500, Cancelled: 9500})
	states := map[string]int{}
	for _, state := range []string{"pending", "running", "succeeded", "failed", "expired", "cancelled"} {
		for _, x := range m.targets(j.ID, state) {
			if states[x.State]++; x.State != state {
				t.Fatalf("target %+v is listed as %s", x, state)
			}
		}
	}
	if states["succeeded"] != 500 || states["cancelled"] != 9500 || len(states) != 2 {
		t.Errorf("the targets are %v", states)
	}
	if n := h.has("second"); n != 500 {
		t.Errorf("%d devices were sent a command of the aborted job", n)
	}
}

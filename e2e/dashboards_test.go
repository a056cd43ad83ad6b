package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

const (
	dashboards     = 500
	dashboardsAKey = 20 // as many as the server takes of one key
	keepAway       = 7 * time.Second
	leastSpread    = 5 * time.Second
	frameLimit     = 30 * time.Second // without a frame a client gives up
)

// pageWaits is how a page waits before it comes back, by the numbers that the page's own code is held to.
type pageWaits struct {
	Ceilings []int64 `json:"ceilings_ms"`
	Settled  int64   `json:"settled_ms"`
}

func readPageWaits(t *testing.T) pageWaits {
	t.Helper()
	var w pageWaits
	text, err := os.ReadFile("../dashboard/ui/testdata/backoff.json")
	noError(t, err)
	noError(t, json.Unmarshal(text, &w))
	if len(w.Ceilings) == 0 || w.Settled == 0 {
		t.Fatalf("the page's waits are %s", text)
	}
	return w
}

// before is how long a page waits before an attempt, the first being 0; asked is what the server asked for.
func (w pageWaits) before(attempt int, asked time.Duration) time.Duration {
	ceiling := w.Ceilings[min(attempt, len(w.Ceilings)-1)]
	return max(asked, time.Duration(mathrand.Int64N(ceiling*int64(time.Millisecond))))
}

// dashboardClients stand for pages: each has one socket with the channels of a list, and comes back as a page does.
type dashboardClients struct {
	addr  string
	waits pageWaits

	mu    sync.Mutex
	here  int
	back  []time.Time     // when each was welcomed since the last forget
	hints []time.Duration // what the server asked for when it stopped
	wrong []string
}

// run keeps one client connected until ctx ends.
func (d *dashboardClients) run(ctx context.Context, key string) {
	attempt := 0
	for ctx.Err() == nil {
		began := time.Now()
		hint, welcomed := d.connection(ctx, key)
		if welcomed && time.Since(began) > time.Duration(d.waits.Settled)*time.Millisecond {
			attempt = 0
		}
		pause(ctx, d.waits.before(attempt, hint))
		attempt++
	}
}

// liveFrame is what a client reads of a frame.
type liveFrame struct {
	T       string `json:"t"`
	Ch      string `json:"ch"`
	Seq     int64  `json:"seq"`
	RetryMS int64  `json:"retry_ms"`
}

// connection is one, from the dial until it is lost. It says what the server asked for at its end.
func (d *dashboardClients) connection(ctx context.Context, key string) (hint time.Duration, welcomed bool) {
	conn, res, err := (&websocket.Dialer{Subprotocols: []string{"muster.v1"}, HandshakeTimeout: frameLimit}).DialContext(ctx, "ws://"+d.addr+"/api/v1/live", nil)
	if err != nil {
		return 0, false
	}
	_ = res.Body.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() { stop(); _ = conn.Close() }()
	for _, say := range []string{`{"t":"hello","id":1,"token":"` + key + `"}`, `{"t":"sub","id":2,"ch":"fleet"}`, `{"t":"sub","id":3,"ch":"devices","limit":50}`} {
		if conn.WriteMessage(websocket.TextMessage, []byte(say)) != nil {
			return 0, false
		}
	}
	seen := map[string]int64{} // the last sequence of a channel
	for {
		frames, err := readFrames(conn)
		if err != nil {
			d.left(len(seen) == 2)
			return hint, welcomed
		}
		for _, f := range frames {
			switch f.T {
			case "welcome":
				welcomed = true
			case "snapshot", "delta":
				d.takes(f, seen)
			case "bye":
				hint = time.Duration(f.RetryMS) * time.Millisecond
				d.asked(hint)
			}
		}
	}
}

func readFrames(conn *websocket.Conn) ([]liveFrame, error) {
	if err := conn.SetReadDeadline(time.Now().Add(frameLimit)); err != nil {
		return nil, err
	}
	_, text, err := conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	if len(text) > 0 && text[0] != '[' {
		text = append(append([]byte{'['}, text...), ']')
	}
	var all []liveFrame
	err = json.Unmarshal(text, &all)
	return all, err
}

// takes notes a frame of a channel: one snapshot, and then changes without a gap. Who has both snapshots is there.
func (d *dashboardClients) takes(f liveFrame, seen map[string]int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	last, known := seen[f.Ch]
	seen[f.Ch] = f.Seq
	switch {
	case f.T == "snapshot" && known:
		d.wrong = append(d.wrong, "a second snapshot of "+f.Ch)
	case f.T == "delta" && (!known || f.Seq != last+1):
		d.wrong = append(d.wrong, fmt.Sprintf("the change %d of %s after %d", f.Seq, f.Ch, last))
	case f.T == "snapshot" && len(seen) == 2:
		d.here++
		d.back = append(d.back, time.Now())
	}
}

func (d *dashboardClients) left(was bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was {
		d.here--
	}
}

func (d *dashboardClients) asked(hint time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hints = append(d.hints, hint)
}

// there says how many are connected and have their snapshots.
func (d *dashboardClients) there() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.here
}

// forget has only those count who come from now on.
func (d *dashboardClients) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.back, d.hints = nil, nil
}

func (d *dashboardClients) returns() (back []time.Time, hints []time.Duration, wrong []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.back), slices.Clone(d.hints), slices.Clone(d.wrong)
}

// opensDashboards connects them all, with as many keys as they need, until the test ends.
func (m *muster) opensDashboards(n int) *dashboardClients {
	m.t.Helper()
	d := &dashboardClients{addr: m.http, waits: readPageWaits(m.t)}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	m.t.Cleanup(func() { cancel(); work.Wait() })
	var key string
	for i := range n {
		if i%dashboardsAKey == 0 {
			var made struct{ Secret string }
			m.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{"name": fmt.Sprint("dashboards ", i), "scopes": []string{"devices:read", "telemetry:read"}}, http.StatusCreated, &made)
			key = made.Secret
		}
		mine := key
		work.Go(func() { d.run(ctx, mine) })
	}
	m.await("all dashboards to be there", pageLimit, func() bool { return d.there() == n })
	return d
}

// answers asks the API again and again until ok, and returns how long each answer took.
func (m *muster) answers(what string, ok func() bool) []time.Duration {
	m.t.Helper()
	var took []time.Duration
	m.await(what, pageLimit, func() bool {
		began := time.Now()
		m.ask(http.MethodGet, "/api/v1/devices?limit=50&total=true", nil, http.StatusOK, nil)
		took = append(took, time.Since(began))
		return ok()
	})
	slices.Sort(took)
	return took
}

// TestFiveHundredDashboardsComeBackSpreadToAServerThatWasKilled has 500 clients lose one server for some seconds: they come back
// over five and more, each with one snapshot of each of its channels and no gap after it, and the API goes on to answer. Then
// the server stops as it is asked to, and asks of each another wait.
func TestFiveHundredDashboardsComeBackSpreadToAServerThatWasKilled(t *testing.T) {
	t.Parallel()
	m := serve(t)
	m.fleet(60)
	d := m.opensDashboards(dashboards)
	m.feeds(60)
	calmEnd := time.Now().Add(2 * time.Second)
	calm := m.answers("a calm while", func() bool { return time.Now().After(calmEnd) })

	m.kill()
	m.await("all to have lost it", pageLimit, func() bool { return d.there() == 0 })
	d.forget()
	pause(t.Context(), keepAway) // in which each tries again, and waits longer each time
	m.start()
	m.ready()
	during := m.answers("all dashboards to be back", func() bool { return d.there() == dashboards })
	back, _, wrong := d.returns()
	slices.SortFunc(back, time.Time.Compare)
	spread := back[dashboards*95/100].Sub(back[dashboards*5/100])
	t.Logf("nine tenths of %d came back within %s; of %d answers half came within %s and all within %s, before it %s and %s",
		dashboards, spread, len(during), during[len(during)/2], during[len(during)-1], calm[len(calm)/2], calm[len(calm)-1])
	if spread < leastSpread {
		t.Errorf("nine tenths came back within %s, want it spread over %s", spread, leastSpread)
	}
	if most := densest(back, time.Second); most > dashboards/3 {
		t.Errorf("%d of %d came within one second", most, dashboards)
	}
	if half := during[len(during)/2]; half > 10*max(calm[len(calm)/2], 20*time.Millisecond) {
		t.Errorf("half of the answers took longer than %s while they came back, and %s before", half, calm[len(calm)/2])
	}
	if len(wrong) > 0 {
		t.Errorf("%d frames are not what a page wants, the first: %s", len(wrong), wrong[0])
	}

	d.forget()
	m.stop()
	_, hints, _ := d.returns()
	slices.Sort(hints)
	if len(hints) != dashboards || hints[0] < time.Second || hints[dashboards*95/100]-hints[dashboards*5/100] < leastSpread {
		t.Errorf("a server that stops asks %d dashboards to wait %v", len(hints), hints)
	}
}

// densest is the most of some times, in order, that lie within d.
func densest(at []time.Time, d time.Duration) (most int) {
	from := 0
	for i := range at {
		for at[i].Sub(at[from]) > d {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

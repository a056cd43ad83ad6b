package e2e

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"muster/store/control/controltest"
)

// leaseLeft is less than a lease lasts: what comes within it was not waited for.
const leaseLeft = 25 * time.Second

// TestWhatWasUnderWayAtAKillGoesOutAtTheNextStart kills a server while a webhook's receiver has its
// request and has not answered: at the next start the delivery goes out at once, and does not wait for the end of
// the lease. Another server of the same database, which starts meanwhile, leaves it alone.
func TestWhatWasUnderWayAtAKillGoesOutAtTheNextStart(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			asked, answer := make(chan string, 100), make(chan struct{})
			receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				asked <- r.Header.Get("webhook-id")
				select {
				case <-answer:
				case <-r.Context().Done(): // the server was killed
				}
			}))
			t.Cleanup(receiver.Close)
			m := newWatched(t, "--webhook-allow", "127.0.0.0/8")
			if engine == "postgres" {
				m.args = append(m.args, "--database", controltest.Database(t, timescale(t)))
			}
			m.start()
			m.ready()
			m.ask(http.MethodPost, "/api/v1/webhooks", map[string]any{"url": receiver.URL, "types": []string{"device.created"}}, http.StatusCreated, nil)
			m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "lamp"}, http.StatusCreated, nil)
			first := <-asked
			m.kill()

			if engine == "postgres" {
				other := newWatched(t, m.args...)
				other.key = m.key
				key, err := os.ReadFile(filepath.Join(m.data, "secret.key"))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.MkdirAll(other.data, 0o750); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(other.data, "secret.key"), key, 0o600); err != nil {
					t.Fatal(err)
				}
				other.start()
				other.ready()
				other.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": "fan"}, http.StatusCreated, nil)
				if id := <-asked; id == first { // it sends, and has left the other's alone
					t.Error("another server took what the first had on lease")
				}
				close(answer)
				other.stop()
			} else {
				close(answer)
			}
			m.start()
			m.ready()
			began := time.Now()
			for id := ""; id != first; {
				select {
				case id = <-asked:
				case <-time.After(leaseLeft):
					t.Fatalf("%s does not come within %v", first, leaseLeft)
				}
			}
			t.Logf("it came again %v after the start", time.Since(began).Round(time.Millisecond))
		})
	}
}

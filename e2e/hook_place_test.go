package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// hookFault is what an endpoint does instead of taking what comes.
type hookFault int

const (
	hookTakes hookFault = iota
	hookFails
	hookWaits     // 429 with Retry-After
	hookRedirects // to this machine
	hookStalls
	hookResets
	hookForgets // takes it, and the connection is reset before its yes
	hookFaults
)

// hookPlace is an endpoint for webhooks that fails as it is told.
type hookPlace struct {
	*httptest.Server
	inner  *httptest.Server // where nothing may come
	secret string

	mu         sync.Mutex
	fault      hookFault
	dice       *rand.Rand
	took       map[string]int             // by webhook-id
	ids        map[string]map[string]bool // webhook-ids by notification
	violations []error
}

func newHookPlace(t *testing.T, dice *rand.Rand) *hookPlace {
	t.Helper()
	p := &hookPlace{dice: dice, took: map[string]int{}, ids: map[string]map[string]bool{}}
	p.inner = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.violations = append(p.violations, errors.New("a redirect was followed"))
	}))
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		p.CloseClientConnections() // those that stall
		p.Close()
		p.inner.Close()
	})
	return p
}

// behave is what it does from now on.
func (p *hookPlace) behave(f hookFault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

func (p *hookPlace) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed
	}
	switch f := p.look(r.Header, body); f {
	case hookTakes:
		w.WriteHeader(http.StatusNoContent)
	case hookFails:
		w.WriteHeader(http.StatusInternalServerError)
	case hookWaits:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	case hookRedirects:
		http.Redirect(w, r, p.inner.URL, http.StatusTemporaryRedirect)
	case hookStalls:
		<-r.Context().Done()
	default:
		panic(http.ErrAbortHandler)
	}
}

// look verifies a request and notes it when it is taken.
func (p *hookPlace) look(h http.Header, body []byte) hookFault {
	p.mu.Lock()
	defer p.mu.Unlock()
	v, err := standardwebhooks.NewWebhook(p.secret)
	if err == nil {
		err = v.Verify(body, h)
	}
	var e struct{ Data struct{ Notification string } }
	if err = errors.Join(err, json.Unmarshal(body, &e)); err != nil {
		p.violations = append(p.violations, fmt.Errorf("what came is %s: %w", body, err))
	}
	id := h.Get("webhook-id")
	if p.ids[e.Data.Notification] == nil {
		p.ids[e.Data.Notification] = map[string]bool{}
	}
	p.ids[e.Data.Notification][id] = true
	if p.fault == hookTakes || p.fault == hookForgets {
		p.took[id]++
	}
	return p.fault
}

package broker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"muster/broker/listen"
)

func TestWebSocketsCountAgainstTheLimitsOfTheirAddress(t *testing.T) {
	r := start(t, func(c *Config) { c.Limit = listen.LimitsConfig{AddressConns: 1} })
	web := httptest.NewServer(http.HandlerFunc(r.ServeWebSocket))
	defer web.Close()
	url := "ws" + strings.TrimPrefix(web.URL, "http")
	dialer := websocket.Dialer{Subprotocols: []string{"mqtt"}}
	first, answer, err := dialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	_, answer, err = dialer.Dial(url, nil)
	if err == nil || answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Fatalf("the second is answered %v, %v", answer, err)
	}
	_ = answer.Body.Close()
	if n := r.metric("turned_away_total", "address_connections"); n != 1 {
		t.Errorf("%v counted, want 1", n)
	}
	_ = first.Close()
	eventually(t, "room for another", func() bool {
		again, answer, err := dialer.Dial(url, nil)
		if err != nil {
			return false
		}
		_, _ = answer.Body.Close(), again.Close()
		return true
	})
}

package ws

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"muster"
)

func TestUpgradeAnswers(t *testing.T) {
	for _, c := range []struct {
		name, in string
		status   int // 0: closed without an answer
	}{
		{"subprotocol mqtt", request(), 101},
		{"subprotocol mqtt among others", request("Sec-WebSocket-Protocol: mqttv3.1, mqtt"), 101},
		{"subprotocol mqtt in a second line", request("Sec-WebSocket-Protocol: x", "Sec-WebSocket-Protocol: mqtt"), 101},
		{"a foreign Origin", request("Origin: https://elsewhere.example"), 101},
		{"compression offered", request("Sec-WebSocket-Extensions: permessage-deflate"), 101},
		{"no subprotocol", request("Sec-WebSocket-Protocol: -"), 400},
		{"another subprotocol", request("Sec-WebSocket-Protocol: mqttv3.1"), 400},
		{"the subprotocol in capitals", request("Sec-WebSocket-Protocol: MQTT"), 400},
		{"no upgrade", request("Upgrade: -"), 400},
		{"no Connection: Upgrade", request("Connection: close"), 400},
		{"another version", request("Sec-WebSocket-Version: 8"), 400},
		{"no key", request("Sec-WebSocket-Key: -"), 400},
		{"a short key", request("Sec-WebSocket-Key: AAAA"), 400},
		{"a body", request("Content-Length: 3") + "abc", 400},
		{"a body that never comes", request("Content-Length: 3"), 400},
		{"a chunked body", request("Transfer-Encoding: chunked") + "0\r\n\r\n", 400},
		{"HTTP/1.0", strings.Replace(request(), "HTTP/1.1", "HTTP/1.0", 1), 400},
		{"POST", strings.Replace(request("Content-Length: 0"), "GET", "POST", 1), 405},
		{"frames before the answer", request() + frame(fin|opBinary, "x"), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t)
			nc := h.dial(t)
			if _, err := io.WriteString(nc, c.in); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if c.status == 0 {
				if err == nil {
					t.Fatalf("status %d, want the end", res.StatusCode)
				}
				if err := <-h.errs; err == nil {
					t.Error("Upgrade gave no error")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != c.status {
				t.Fatalf("status %d, want %d", res.StatusCode, c.status)
			}
			if c.status != 101 {
				if err := <-h.errs; muster.KindOf(err) != muster.Invalid {
					t.Errorf("error %v, want an Invalid one", err)
				}
				return
			}
			h.next(t, nc)
			if got := res.Header.Values("Sec-WebSocket-Protocol"); len(got) != 1 || got[0] != "mqtt" {
				t.Errorf("subprotocols %q, want mqtt", got)
			}
			if got := res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("extensions %q, want none: compression costs memory and MQTT payloads gain little", got)
			}
		})
	}
}

func TestUpgradeWithoutAServerThatGivesTheConnection(t *testing.T) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request())))
	if err != nil {
		t.Fatal(err)
	}
	r.ProtoMajor, r.ProtoMinor = 2, 0
	w := httptest.NewRecorder()
	if _, err := NewUpgrader().Upgrade(w, r); err == nil || w.Code != http.StatusBadRequest {
		t.Errorf("HTTP/2: status %d, error %v", w.Code, err)
	}
	r.ProtoMajor, r.ProtoMinor = 1, 1
	w = httptest.NewRecorder()
	if _, err := NewUpgrader().Upgrade(w, r); err == nil || w.Code != http.StatusInternalServerError {
		t.Errorf("no hijacker: status %d, error %v", w.Code, err)
	}
	if got := r.Header.Values("Sec-WebSocket-Protocol"); len(got) != 1 {
		t.Errorf("the request's header was changed: %q", got)
	}
}

// FuzzUpgrade sends arbitrary headers, or arbitrary bytes, and then arbitrary bytes
// on what may have become a WebSocket.
func FuzzUpgrade(f *testing.F) {
	f.Add(false, "Connection: Upgrade\r\nUpgrade: websocket\r\n", frame(fin|opBinary, "\x10\x00"))
	f.Add(false, "Sec-WebSocket-Protocol: mqtt\r\nX: y\r\n", frame(opBinary, "a")+frame(fin|opPing, "p")+frame(fin|opMore, "b"))
	f.Add(false, "Content-Length: 1\r\n", "x")
	f.Add(false, "Origin: null\r\n", frame(fin|opText, "text")+frame(fin|opClose, "\x03\xe8"))
	f.Add(true, request(), frame(fin|opBinary, strings.Repeat("x", 70000)))
	f.Add(true, request()+request(), "")
	f.Add(true, "GET / HTTP/1.0\r\n\r\n", "")
	f.Add(true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "")
	f.Add(true, strings.Repeat(request("Upgrade: -"), 3), "")
	type outcome struct {
		upgraded bool
		panicked any
	}
	up := NewUpgrader()
	outcomes := make(chan outcome, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o outcome
		defer func() {
			o.panicked = recover()
			outcomes <- o
		}()
		nc, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		o.upgraded = true
		defer nc.Close()
		if nc.SetDeadline(time.Now().Add(patience)) == nil {
			_, _ = io.Copy(io.Discard, nc) // how it ends is the client's doing
		}
	}))
	f.Cleanup(s.Close)
	h := &house{Server: s}
	f.Fuzz(func(t *testing.T, raw bool, head, tail string) {
		if len(head)+len(tail) > 1<<20 || strings.Count(head+tail, "\n\r\n") > 100 {
			return // more requests than outcomes are kept
		}
		nc := h.dial(t)
		defer nc.Close()
		in := head
		if !raw {
			in = strings.TrimSuffix(request(), "\r\n") + strings.TrimRight(head, "\r\n") + "\r\n\r\n"
			if strings.HasPrefix(in, request()) {
				in = request() // no header was added
			}
		}
		go func() { // beside reading, or both sides could wait for each other
			_, _ = io.WriteString(nc, in)
			if raw {
				_, _ = io.WriteString(nc, tail)
				_ = nc.CloseWrite()
			}
		}()
		br := bufio.NewReader(nc)
		res, err := http.ReadResponse(br, nil)
		switch {
		case err != nil: // closed without an answer
		case res.StatusCode == http.StatusSwitchingProtocols:
			if got := res.Header.Values("Sec-WebSocket-Protocol"); len(got) != 1 || got[0] != "mqtt" {
				t.Errorf("upgraded with the subprotocols %q", got)
			}
			if !raw {
				_, _ = io.WriteString(nc, tail)
				_ = nc.CloseWrite()
			}
		case res.StatusCode/100 != 4 && res.StatusCode != http.StatusNotImplemented && res.StatusCode != http.StatusHTTPVersionNotSupported:
			t.Errorf("status %d", res.StatusCode) // the two are net/http's own
		}
		if !raw && (err != nil || res.StatusCode != http.StatusSwitchingProtocols) {
			_ = nc.CloseWrite()
		}
		if _, err := io.Copy(io.Discard, br); isTimeout(err) {
			t.Error("the server hangs")
		}
		for {
			select {
			case o := <-outcomes:
				if o.panicked != nil {
					t.Fatalf("panic: %v", o.panicked)
				}
				continue
			default:
			}
			break
		}
	})
}

func isTimeout(err error) bool {
	var e interface{ Timeout() bool }
	return errors.As(err, &e) && e.Timeout()
}

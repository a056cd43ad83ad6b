package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"muster/server"
	"muster/server/servertest"
)

// raw is a connection to the server's HTTP port on which anything can be said.
type raw struct {
	*testing.T
	net.Conn
	answers *bufio.Reader
}

func rawDial(t *testing.T, s *server.Server) *raw {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(context.WithoutCancel(t.Context()), "tcp", s.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return &raw{t, c, bufio.NewReader(c)}
}

// say writes text; the server may have hung up.
func (r *raw) say(text string) { _, _ = io.WriteString(r.Conn, text) }

// hear reads one answer and its body.
func (r *raw) hear() (*http.Response, string, error) {
	res, err := http.ReadResponse(r.answers, nil)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

func (r *raw) wantStatus(status int) string {
	r.Helper()
	res, body, err := r.hear()
	if err != nil {
		r.Fatalf("no answer: %v", err)
	}
	if res.StatusCode != status {
		r.Fatalf("the answer is %d %s, want %d", res.StatusCode, body, status)
	}
	return body
}

const asAdmin = "Authorization: Bearer " + servertest.AdminKey + "\r\n"

// alive checks that the server does its work for others.
func mustAnswer(t *testing.T, s *server.Server) {
	t.Helper()
	r := rawDial(t, s)
	r.say("GET /api/v1/me HTTP/1.1\r\nHost: m\r\n" + asAdmin + "\r\n")
	r.wantStatus(200)
}

// chunksCount is taken as RFC 9112, section 6.3, has it: the chunks count, and what follows them is another request.
const chunksCount = "a length and chunks that disagree"

func TestRequestsThatAreNoneOrTwoAreRefused(t *testing.T) {
	s := servertest.Start(t)
	const device = "POST /api/v1/devices HTTP/1.1\r\nHost: m\r\n" + asAdmin + "Content-Type: application/json\r\n"
	for _, tt := range []struct {
		name, text string
		status     int
	}{
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400},
		{"no host", "GET /healthz HTTP/1.1\r\n\r\n", 400},
		{"two hosts", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{chunksCount, device + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		{"two lengths", device + "Content-Length: 2\r\nContent-Length: 12\r\n\r\n{}", 400},
		{"a length with a sign", device + "Content-Length: +2\r\n\r\n{}", 400},
		{"an unknown transfer coding", device + "Transfer-Encoding: xchunked\r\n\r\n{}", 501},
		{"a space before the colon", "GET /healthz HTTP/1.1\r\nHost : m\r\n\r\n", 400},
		{"a folded header", "GET /healthz HTTP/1.1\r\nHost: m\r\nX-A: b\r\n\tc\r\nX-Request-Id: r\r\n\r\n", 200},
		{"a NUL in a header", "GET /healthz HTTP/1.1\r\nHost: m\r\nX-A: \x00\r\n\r\n", 400},
		{"a chunk that is none", device + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 400},
		{"a flood of headers", "GET /healthz HTTP/1.1\r\nHost: m\r\n" + strings.Repeat("X-Flood: "+strings.Repeat("x", 900)+"\r\n", 200) + "\r\n", 431},
		{"a line without end", "GET /" + strings.Repeat("a", 200<<10) + " HTTP/1.1\r\nHost: m\r\n\r\n", 431},
		{"an old client", "GET /healthz HTTP/1.0\r\n\r\n", 200},
		{"an absolute target", "GET http://m/healthz HTTP/1.1\r\nHost: m\r\n\r\n", 200},
		{"an absolute target elsewhere", "GET http://elsewhere/api/v1/me HTTP/1.1\r\nHost: m\r\n\r\n", 401},
		{"a tunnel", "CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n", 405},
		{"a trace", "TRACE /api/v1/me HTTP/1.1\r\nHost: m\r\n\r\n", 405},
		{"a star", "OPTIONS * HTTP/1.1\r\nHost: m\r\n\r\n", 200},
		{"a method that is none", "B\x00D / HTTP/1.1\r\nHost: m\r\n\r\n", 400},
		{"an expectation that is none", "GET /healthz HTTP/1.1\r\nHost: m\r\nExpect: what\r\n\r\n", 417},
		{"a body on GET", "GET /api/v1/me HTTP/1.1\r\nHost: m\r\n" + asAdmin + "Content-Length: 4\r\n\r\nbody", 200},
		{"a header that would split the answer", "GET /healthz HTTP/1.1\r\nHost: m\r\nX-Request-Id: a%0d%0aSet-Cookie: x\r\n\r\n", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rawDial(t, s)
			go r.say(tt.text)
			res, body, err := r.hear()
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if res.StatusCode != tt.status || res.Header.Get("Set-Cookie") != "" {
				t.Errorf("the answer is %d %v %s, want %d", res.StatusCode, res.Header, body, tt.status)
			}
			if tt.status == 400 && tt.name != chunksCount {
				if again, _, err := r.hear(); err == nil {
					t.Errorf("a second request was found in it: %d", again.StatusCode)
				}
			}
		})
	}
	mustAnswer(t, s)
}

func TestPathsLeadNowhereElse(t *testing.T) {
	s := servertest.Start(t)
	for _, path := range []string{
		"/api/v1/../v1/me", "/api/v1/%2e%2e/v1/me", "/api//v1/me", "/api/v1/devices/..%2f..%2fetc%2fpasswd", "/api/v1/devices/%00", "/api/v1/devices/a%5c..%5cb",
		"/api/v1/devices/%ff", "/api/v1/devices/" + strings.Repeat("a", 5000), "/api/v1/devices/a%0d%0ab", "/api/v1/devices/d1/../../../healthz", "/api/v1/devices/.", "/api/v1/me/",
	} {
		r := rawDial(t, s)
		r.say("GET " + path + " HTTP/1.1\r\nHost: m\r\n" + asAdmin + "\r\n")
		res, body, err := r.hear()
		if err != nil || res.StatusCode < 400 || res.StatusCode >= 500 || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%.60s gives %v %v %s", path, res, err, body)
		}
	}
	for _, path := range []string{"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cwin.ini", "//elsewhere/x", "/\\elsewhere", "/main.js/../../ui.go", "/%00"} {
		r := rawDial(t, s)
		r.say("GET " + path + " HTTP/1.1\r\nHost: m\r\n\r\n")
		res, body, err := r.hear()
		if err != nil || res.StatusCode == http.StatusOK || strings.HasPrefix(res.Header.Get("Location"), "//") || strings.Contains(body, "root:") {
			t.Errorf("%s gives %v %v", path, res, err)
		}
	}
}

func TestAHundredMegabytesAreRefusedBeforeTheyAreRead(t *testing.T) {
	s := servertest.Start(t)
	const size = 100 << 20
	for _, head := range []string{fmt.Sprintf("Content-Length: %d\r\n\r\n", size), "Transfer-Encoding: chunked\r\n\r\n"} {
		for _, who := range []struct {
			header string
			status int
		}{{asAdmin, 413}, {"", 401}} {
			r := rawDial(t, s)
			r.say("POST /api/v1/devices HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\n" + who.header + head)
			sent := make(chan int, 1)
			go func() {
				n := 0
				chunk := []byte(strings.Repeat("x", 1<<20))
				for n < size {
					if strings.HasPrefix(head, "Transfer") {
						r.say("100000\r\n")
					}
					k, err := r.Write(chunk)
					n += k
					if err != nil {
						break
					}
					r.say("\r\n")
				}
				sent <- n
			}()
			r.wantStatus(who.status)
			_ = r.Close()
			if n := <-sent; n >= size {
				t.Errorf("all %d bytes were taken", n)
			}
		}
	}
	mustAnswer(t, s)
}

func TestWhoSendsSlowlyHoldsNobodyAndIsCut(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t)
	held := map[string]*raw{}
	began := time.Now()
	for name, text := range map[string]string{
		"a head that does not end": "GET /api/v1/me HTTP/1.1\r\nHost: m\r\nX-A: ",
		"a body that does not come": "POST /api/v1/devices HTTP/1.1\r\nHost: m\r\n" + asAdmin +
			"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n{",
		"a body that does not come, of a stranger": "POST /api/v1/devices HTTP/1.1\r\nHost: m\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{",
		"a list that does not come":                "POST /api/v1/devices:import HTTP/1.1\r\nHost: m\r\n" + asAdmin + "Content-Type: text/csv\r\nContent-Length: 20\r\n\r\nid",
	} {
		held[name] = rawDial(t, s)
		held[name].say(text)
	}
	for name, r := range held {
		_, err := io.Copy(io.Discard, r.answers) // until the server hangs up
		if took := time.Since(began); errors.Is(err, context.DeadlineExceeded) || took > 50*time.Second {
			t.Errorf("%s: it was held for %s: %v", name, took, err)
		}
	}
	mustAnswer(t, s)
}

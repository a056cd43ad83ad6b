package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func here() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

func receiver(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestAnEventIsSentAsStandardWebhooksHasIt(t *testing.T) {
	type request struct {
		method, path string
		header       http.Header
		body         []byte
	}
	got := make(chan request, 1)
	u := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{r.Method, r.URL.String(), r.Header, b}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks\x00\xff")
	})
	old, recent := "whsec_"+strings.Repeat("A", 32), vectorSecret
	s := sender(t, webhook.Config{Allow: here(), Version: "1.2.3"})
	m := hooks.Message{ID: "evt_42", Body: []byte(`{"type":"device.created","timestamp":"2026-01-02T03:04:05.000000Z","data":{"device":"d1"}}`)}
	a := s.Deliver(t.Context(), hooks.Target{URL: u + "/hook?x=1", Keys: [][]byte{key(t, recent), key(t, old)}}, m)
	if a.Verdict != outbox.Delivered || a.Status != 202 || a.Error != "" || a.Response != "thanks ?" || a.Duration <= 0 || a.At == 0 {
		t.Errorf("%+v", a)
	}
	r := <-got
	if r.method != "POST" || r.path != "/hook?x=1" || !bytes.Equal(r.body, m.Body) {
		t.Errorf("%s %s %s", r.method, r.path, r.body)
	}
	if r.header.Get("webhook-id") != "evt_42" || r.header.Get("Content-Type") != "application/json" || r.header.Get("User-Agent") != "Muster/1.2.3" {
		t.Errorf("%v", r.header)
	}
	for _, secret := range []string{old, recent} {
		if err := webhook.Verify(secret, r.header, r.body, time.Now()); err != nil {
			t.Error(err)
		}
	}
	if n := len(strings.Fields(r.header.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures", n)
	}
}

func TestAnswersAreJudged(t *testing.T) {
	date := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	tests := []struct {
		status  int
		after   string
		verdict outbox.Verdict
		wait    [2]time.Duration
	}{
		{200, "", outbox.Delivered, [2]time.Duration{}},
		{204, "", outbox.Delivered, [2]time.Duration{}},
		{299, "", outbox.Delivered, [2]time.Duration{}},
		{301, "", outbox.Again, [2]time.Duration{}},
		{307, "", outbox.Again, [2]time.Duration{}},
		{308, "", outbox.Again, [2]time.Duration{}},
		{400, "", outbox.Again, [2]time.Duration{}},
		{404, "nonsense", outbox.Again, [2]time.Duration{}},
		{410, "", outbox.Gone, [2]time.Duration{}},
		{429, "120", outbox.Again, [2]time.Duration{2 * time.Minute, 2 * time.Minute}},
		{429, "-5", outbox.Again, [2]time.Duration{}},
		{500, "", outbox.Again, [2]time.Duration{}},
		{503, "999999999999", outbox.Again, [2]time.Duration{24 * time.Hour, 24 * time.Hour}},
		{503, date, outbox.Again, [2]time.Duration{80 * time.Second, 90 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.status, " ", tt.after), func(t *testing.T) {
			var hits atomic.Int64
			u := receiver(t, func(w http.ResponseWriter, r *http.Request) {
				hits.Add(1)
				w.Header().Set("Location", "/elsewhere")
				if tt.after != "" {
					w.Header().Set("Retry-After", tt.after)
				}
				w.WriteHeader(tt.status)
			})
			a := sender(t, webhook.Config{Allow: here()}).Deliver(t.Context(), target(t, u), message())
			if a.Verdict != tt.verdict || a.Status != tt.status || (a.Error == "") != (tt.verdict == outbox.Delivered) {
				t.Errorf("%+v", a)
			}
			if a.RetryAfter < tt.wait[0] || a.RetryAfter > tt.wait[1] {
				t.Errorf("it waits %v", a.RetryAfter)
			}
			if hits.Load() != 1 {
				t.Errorf("%d requests: a redirect was followed", hits.Load())
			}
		})
	}
}

func TestARedirectToAnInnerAddressIsNotFollowed(t *testing.T) {
	_, hits := counted(t)
	u := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
	})
	a := sender(t, webhook.Config{Allow: here()}).Deliver(t.Context(), target(t, u), message())
	if a.Verdict != outbox.Again || a.Status != 302 || !strings.Contains(a.Error, "not followed") || hits.Load() != 0 {
		t.Errorf("%+v", a)
	}
}

func TestALongAnswerIsCut(t *testing.T) {
	u := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 1000 {
			_, _ = io.WriteString(w, strings.Repeat("ä", 500)+"\x01\x7f")
		}
	})
	a := sender(t, webhook.Config{Allow: here()}).Deliver(t.Context(), target(t, u), message())
	if a.Verdict != outbox.Delivered || len(a.Response) > webhook.MaxExcerpt || len(a.Response) < webhook.MaxExcerpt-8 || !utf8.ValidString(a.Response) {
		t.Errorf("%d bytes: %v", len(a.Response), a.Verdict)
	}
	if strings.ContainsAny(a.Response, "\x01\x7f") {
		t.Error("control characters are kept")
	}
}

func TestASlowReceiverEndsWithTheAttempt(t *testing.T) {
	for name, wait := range map[string]bool{"that does not answer": false, "that does not end its answer": true} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			u := receiver(t, func(w http.ResponseWriter, _ *http.Request) {
				if wait {
					_, _ = io.WriteString(w, "so")
					_ = http.NewResponseController(w).Flush()
				}
				<-release
			})
			defer close(release)
			s := sender(t, webhook.Config{Allow: here(), Timeout: 150 * time.Millisecond})
			done := make(chan outbox.Attempt, 1)
			go func() { done <- s.Deliver(t.Context(), target(t, u), message()) }()
			var a outbox.Attempt
			select {
			case a = <-done:
			case <-time.After(20 * time.Second):
				t.Fatal("the attempt has no end of its own")
			}
			if a.Status == 0 && (a.Verdict != outbox.Again || !strings.Contains(a.Error, "in time")) || a.Status != 0 && a.Response != "so" || wait != (a.Status != 0) {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestWhatCannotBeSentIsDead(t *testing.T) {
	s := sender(t, webhook.Config{Allow: here()})
	var hits atomic.Int64
	u := receiver(t, func(http.ResponseWriter, *http.Request) { hits.Add(1) })
	good := message()
	tests := []struct {
		name string
		t    hooks.Target
		m    hooks.Message
	}{
		{"a body of more than 20 kB", target(t, u), hooks.Message{ID: "evt_1", Body: make([]byte, hooks.MaxEvent+1)}},
		{"an id with a full stop", target(t, u), hooks.Message{ID: "evt.1", Body: good.Body}},
		{"an id with a line break", target(t, u), hooks.Message{ID: "evt\r\nX: y", Body: good.Body}},
		{"no id", target(t, u), hooks.Message{Body: good.Body}},
		{"a long id", target(t, u), hooks.Message{ID: strings.Repeat("a", 65), Body: good.Body}},
		{"no secret", hooks.Target{URL: u}, good},
		{"a user in the URL", target(t, strings.Replace(u, "://", "://a:b@", 1)), good},
		{"another scheme", target(t, strings.Replace(u, "http:", "file:", 1)), good},
		{"no host", target(t, "http:///x"), good},
		{"no URL", target(t, "://"), good},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if a := s.Deliver(t.Context(), tt.t, tt.m); a.Verdict != outbox.Dead || a.Error == "" {
				t.Errorf("%+v", a)
			}
		})
	}
	if hits.Load() != 0 {
		t.Errorf("%d were sent", hits.Load())
	}
	if a := s.Deliver(t.Context(), target(t, u), hooks.Message{ID: "evt_1", Body: make([]byte, hooks.MaxEvent)}); a.Verdict != outbox.Delivered {
		t.Errorf("20 kB: %+v", a)
	}
}

func TestFailuresAreForNowAndTellNoPath(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	dns := &names{answers: map[string][][]string{"empty.example": {{}}}}
	s := sender(t, webhook.Config{Allow: here(), Resolver: dns})
	for name, u := range map[string]string{
		"a host that is not known":      "http://nowhere.example/hush",
		"a name without an address":     "http://empty.example/hush",
		"a port where nobody listens":   "http://127.0.0.1:1/hush",
		"a connection that is cut":      "http://" + l.Addr().String() + "/hush",
		"plain HTTP where TLS is meant": strings.Replace(receiver(t, func(http.ResponseWriter, *http.Request) {}), "http:", "https:", 1) + "/hush",
	} {
		t.Run(name, func(t *testing.T) {
			a := s.Deliver(t.Context(), target(t, u), message())
			if a.Verdict != outbox.Again || a.Status != 0 || a.Error == "" || strings.Contains(a.Error, "hush") || strings.Contains(a.Error, "10.1.1.1") {
				t.Errorf("%+v", a)
			}
		})
	}
	_ = l.Close()
	<-served
}

func TestTLSIsCheckedAndNotOld(t *testing.T) {
	start := func(t *testing.T, most uint16) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: most}
		s.EnableHTTP2 = most == 0
		s.Config.ErrorLog = nil
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	roots := func(s *httptest.Server) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(s.Certificate())
		return p
	}
	t.Run("a good certificate", func(t *testing.T) {
		r := start(t, 0)
		a := sender(t, webhook.Config{Allow: here(), Roots: roots(r)}).Deliver(t.Context(), target(t, r.URL), message())
		if a.Verdict != outbox.Delivered || a.Response != "HTTP/2.0" {
			t.Errorf("%+v", a)
		}
	})
	t.Run("nobody's certificate", func(t *testing.T) {
		r := start(t, 0)
		a := sender(t, webhook.Config{Allow: here()}).Deliver(t.Context(), target(t, r.URL), message())
		if a.Verdict != outbox.Again || !strings.Contains(a.Error, "certificate") {
			t.Errorf("%+v", a)
		}
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		r := start(t, tls.VersionTLS11)
		a := sender(t, webhook.Config{Allow: here(), Roots: roots(r)}).Deliver(t.Context(), target(t, r.URL), message())
		if a.Verdict != outbox.Again || !strings.Contains(a.Error, "version") {
			t.Errorf("%+v", a)
		}
	})
}

func TestACallerThatGoesEndsTheAttempt(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	u := receiver(t, func(http.ResponseWriter, *http.Request) { close(entered); <-release })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	a := sender(t, webhook.Config{Allow: here()}).Deliver(ctx, target(t, u), message())
	close(release)
	if a.Verdict != outbox.Again || a.Error == "" {
		t.Errorf("%+v", a)
	}
}

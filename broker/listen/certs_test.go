package listen

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"muster"
)

// meet makes a handshake and proves that both sides speak. The client's error or
// the server's, told by an alert, is returned.
func (r *room) meet(t *testing.T, cfg *tls.Config) (*tls.Conn, got, error) {
	t.Helper()
	c, err := r.dialTLS(t, cfg)
	if err != nil {
		return nil, got{}, err
	}
	failed := make(chan error, 1)
	go func() {
		buf := make([]byte, 1)
		_, err := c.Read(buf)
		failed <- err
	}()
	select {
	case g := <-r.conns:
		t.Cleanup(func() { _ = g.Close() })
		say(t, g, "!") // the client reads it, and the session tickets before it
		if err := <-failed; err != nil {
			return nil, got{}, err
		}
		say(t, c, "ping")
		hear(t, g, "ping")
		return c, g, nil
	case err := <-failed:
		return nil, got{}, err
	case <-time.After(patience):
		t.Fatal("neither a connection nor an error")
		return nil, got{}, nil
	}
}

func TestTheServerNamePicksTheCertificate(t *testing.T) {
	ca, dir := newCA(t, "ca"), t.TempDir()
	certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, dir, "first.example"), ca.put(t, dir, "second.example")}})
	r := open(t, Config{Kind: TLS, Certs: certs})
	for name, want := range map[string]string{
		"first.example": "first.example", "second.example": "second.example", "other.example": "first.example", "": "first.example",
	} {
		c, g, err := r.meet(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}) // which one it is, is the question
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if got := c.ConnectionState().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%q gets the certificate of %s, want %s", name, got, want)
		}
		if g.info.ServerName != name || g.info.Listener != TLS || g.info.Peer.String() != c.LocalAddr().String() {
			t.Errorf("%q: info %+v", name, g.info)
		}
	}
}

func TestVersionsAndProtocols(t *testing.T) {
	ca := newCA(t, "ca")
	r := open(t, Config{Kind: TLS, Certs: load(t, CertsConfig{Pairs: []Pair{ca.put(t, t.TempDir(), "localhost")}})})
	for _, c := range []struct {
		name     string
		cfg      *tls.Config
		protocol string
		refused  string
	}{
		{"TLS 1.3, no ALPN", &tls.Config{}, "", ""},
		{"TLS 1.2, no ALPN", &tls.Config{MaxVersion: tls.VersionTLS12}, "", ""},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "", "protocol version"},
		{"ALPN mqtt among others", &tls.Config{NextProtos: []string{"x", "mqtt"}}, "mqtt", ""},
		{"ALPN of others only", &tls.Config{NextProtos: []string{"x"}}, "", "no application protocol"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.RootCAs, c.cfg.ServerName = ca.pool(), "localhost"
			conn, _, err := r.meet(t, c.cfg)
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("error %v, want %q", err, c.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().NegotiatedProtocol; got != c.protocol {
				t.Errorf("protocol %q, want %q", got, c.protocol)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	ca, other, dir := newCA(t, "ca"), newCA(t, "other"), t.TempDir()
	write(t, filepath.Join(dir, "ca"), ca.pem)
	pair := ca.put(t, dir, "localhost")
	ours, foreign := ca.client(t, "ours"), other.client(t, "foreign")
	for _, c := range []struct {
		mode    string
		given   *tls.Certificate
		want    string // the leaf's name as the broker sees it
		refused string
	}{
		{ClientNone, nil, "", ""},
		{ClientNone, &ours, "", ""}, // not asked, not given
		{ClientRequest, nil, "", ""},
		{ClientRequest, &ours, "ours", ""},
		{ClientRequest, &foreign, "foreign", ""},
		{ClientVerify, nil, "", ""},
		{ClientVerify, &ours, "ours", ""},
		{ClientVerify, &foreign, "", "unknown certificate authority"},
		{ClientRequire, nil, "", "certificate required"},
		{ClientRequire, &ours, "ours", ""},
		{ClientRequire, &foreign, "", "unknown certificate authority"},
	} {
		name := c.mode + " and none"
		if c.given != nil {
			name = c.mode + " and " + c.given.Leaf.Subject.CommonName
		}
		t.Run(name, func(t *testing.T) {
			cfg := CertsConfig{Pairs: []Pair{pair}, ClientAuth: c.mode}
			if c.mode == ClientVerify || c.mode == ClientRequire {
				cfg.ClientCA = filepath.Join(dir, "ca")
			}
			r := open(t, Config{Kind: TLS, Certs: load(t, cfg)})
			_, g, err := r.meet(t, clientWith(ca, c.given))
			if c.refused != "" {
				if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Fatalf("error %v, want %q", err, c.refused)
				}
				r.counts.wait(t, HandshakeTLS, 1)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(g.info.Certificates) > 0 {
				got = g.info.Certificates[0].Subject.CommonName
			}
			if got != c.want {
				t.Errorf("the broker sees %q, want %q", got, c.want)
			}
		})
	}
}

// clientWith is a client that gives its certificate whatever CA is named.
func clientWith(ca *authority, given *tls.Certificate) *tls.Config {
	cfg := &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"}
	if given != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return given, nil }
	}
	return cfg
}

func TestLoadCertsRefuses(t *testing.T) {
	ca, dir := newCA(t, "ca"), t.TempDir()
	pair, second := ca.put(t, dir, "localhost"), ca.put(t, dir, "second")
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		write(t, path, []byte(text))
		return path
	}
	broken := string(ca.pem) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	for _, c := range []struct {
		name string
		cfg  CertsConfig
	}{
		{"no pair", CertsConfig{}},
		{"an unknown mode", CertsConfig{Pairs: []Pair{pair}, ClientAuth: "maybe"}},
		{"verify without a CA", CertsConfig{Pairs: []Pair{pair}, ClientAuth: ClientVerify}},
		{"a CA that nobody would use", CertsConfig{Pairs: []Pair{pair}, ClientAuth: ClientRequest, ClientCA: file("ca", string(ca.pem))}},
		{"another one's key", CertsConfig{Pairs: []Pair{{pair.Cert, second.Key}}}},
		{"a file without a certificate", CertsConfig{Pairs: []Pair{{file("empty", ""), pair.Key}}}},
		{"a directory", CertsConfig{Pairs: []Pair{{dir, pair.Key}}}},
		{"an empty CA file", CertsConfig{Pairs: []Pair{pair}, ClientAuth: ClientVerify, ClientCA: file("none", "text")}},
		{"a CA file that is broken in part", CertsConfig{Pairs: []Pair{pair}, ClientAuth: ClientVerify, ClientCA: file("part", broken)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := LoadCerts(c.cfg); err == nil || muster.KindOf(err) != muster.Invalid {
				t.Errorf("error %v, want an Invalid one", err)
			}
		})
	}
	if _, err := LoadCerts(CertsConfig{Pairs: []Pair{{filepath.Join(dir, "gone"), pair.Key}}}); !os.IsNotExist(unwrapAll(err)) {
		t.Errorf("a file that is not there: error %v", err)
	}
}

func unwrapAll(err error) error {
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok || u.Unwrap() == nil {
			return err
		}
		if os.IsNotExist(err) {
			return err
		}
		err = u.Unwrap()
	}
}

func TestSessionTicketsResume(t *testing.T) {
	ca, dir := newCA(t, "ca"), t.TempDir()
	write(t, filepath.Join(dir, "ca"), ca.pem)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			ours := ca.client(t, "ours")
			certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, dir, "localhost")}, ClientAuth: ClientVerify, ClientCA: filepath.Join(dir, "ca")})
			r := open(t, Config{Kind: TLS, Certs: certs})
			client := clientWith(ca, &ours)
			client.ClientSessionCache, client.MinVersion, client.MaxVersion = tls.NewLRUClientSessionCache(1), version, version
			for i, step := range []string{"first", "again", "after a reload of the same files", "after a reload of a new certificate"} {
				if i == 3 {
					ca.put(t, dir, "localhost")
				}
				if i >= 2 {
					if err := certs.Reload(); err != nil {
						t.Fatal(err)
					}
				}
				c, g, err := r.meet(t, client)
				if err != nil {
					t.Fatal(step, err)
				}
				if want := i > 0; g.info.Resumed != want || c.ConnectionState().DidResume != want {
					t.Errorf("%s: resumed %v, want %v", step, g.info.Resumed, want)
				}
				if n := len(g.info.Certificates); n != 1 || g.info.Certificates[0].Subject.CommonName != "ours" {
					t.Errorf("%s: %d certificates of the client, want its own", step, n)
				}
			}
		})
	}
}

// TestATicketDoesNotOutliveItsCA: a session of a client whose CA has been taken away
// by a reload is not resumed.
func TestATicketDoesNotOutliveItsCA(t *testing.T) {
	ca, next, dir := newCA(t, "ca"), newCA(t, "next"), t.TempDir()
	file := filepath.Join(dir, "ca")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			write(t, file, ca.pem)
			ours := ca.client(t, "ours")
			certs := load(t, CertsConfig{Pairs: []Pair{ca.put(t, dir, "localhost")}, ClientAuth: ClientVerify, ClientCA: file})
			r := open(t, Config{Kind: TLS, Certs: certs})
			client := clientWith(ca, &ours)
			client.ClientSessionCache, client.MinVersion, client.MaxVersion = tls.NewLRUClientSessionCache(1), version, version
			if _, _, err := r.meet(t, client); err != nil {
				t.Fatal(err)
			}
			write(t, file, next.pem)
			if err := certs.Reload(); err != nil {
				t.Fatal(err)
			}
			if _, g, err := r.meet(t, client); err == nil {
				t.Fatalf("the client was let in, resumed %v", g.info.Resumed)
			}
		})
	}
}

func TestReload(t *testing.T) {
	ca, dir := newCA(t, "ca"), t.TempDir()
	pair := ca.put(t, dir, "localhost")
	now := time.Now()
	certs := load(t, CertsConfig{Pairs: []Pair{pair}, Now: func() time.Time { return now }})
	r := open(t, Config{Kind: TLS, Certs: certs})
	served := func() *x509.Certificate {
		t.Helper()
		c, _, err := r.meet(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		return c.ConnectionState().PeerCertificates[0]
	}
	old, oldServer, err := r.meet(t, &tls.Config{RootCAs: ca.pool(), ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	first := served()

	for i, c := range []struct {
		name      string
		cert, key []byte
	}{
		{name: "no certificate", cert: []byte("nothing")},
		{name: "a key of another"},
		{name: "one that has run out"},
		{name: "one that is not valid yet"},
	} {
		switch i {
		case 1:
			c.cert, _ = ca.issue(t, leaf{name: "localhost"})
			_, c.key = ca.issue(t, leaf{name: "localhost"})
		case 2:
			c.cert, c.key = ca.issue(t, leaf{name: "localhost", until: now.Add(-time.Minute)})
		case 3:
			c.cert, c.key = ca.issue(t, leaf{name: "localhost", from: now.Add(time.Minute)})
		}
		write(t, pair.Cert, c.cert)
		if c.key != nil {
			write(t, pair.Key, c.key)
		}
		if err := certs.Reload(); err == nil || muster.KindOf(err) != muster.Invalid {
			t.Errorf("%s: error %v, want an Invalid one", c.name, err)
		}
		if !served().Equal(first) || !certs.Expires().Equal(first.NotAfter) {
			t.Errorf("%s: the old certificate is not served", c.name)
		}
		if n := certs.Failures(); n != uint64(i+1) {
			t.Errorf("%s: %d failures, want %d", c.name, n, i+1)
		}
	}

	until := now.Add(3 * time.Hour).Truncate(time.Second)
	cert, key := ca.issue(t, leaf{name: "localhost", until: until})
	write(t, pair.Cert, cert)
	write(t, pair.Key, key)
	if err := certs.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := served(); got.Equal(first) || !certs.Expires().Equal(until) {
		t.Errorf("the new certificate is not served; expires %v, want %v", certs.Expires(), until)
	}
	say(t, old, "still here")
	hear(t, oldServer, "still here")
}

func TestExpiresIsTheEarliestOfAll(t *testing.T) {
	ca, dir := newCA(t, "ca"), t.TempDir()
	long, short := ca.put(t, dir, "long"), ca.put(t, dir, "short")
	until := time.Now().Add(time.Hour).Truncate(time.Second)
	cert, key := ca.issue(t, leaf{name: "short", until: until})
	write(t, short.Cert, cert)
	write(t, short.Key, key)
	if got := load(t, CertsConfig{Pairs: []Pair{long, short}}).Expires(); !got.Equal(until) {
		t.Errorf("expires %v, want %v", got, until)
	}
}

func TestACertificateOutOfDateIsLoadedWithAWarning(t *testing.T) {
	ca := newCA(t, "ca")
	pair := ca.put(t, t.TempDir(), "localhost")
	var log bytes.Buffer
	load(t, CertsConfig{
		Pairs: []Pair{pair}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { return time.Now().Add(72 * time.Hour) },
	})
	if !strings.Contains(log.String(), "out of date") {
		t.Errorf("log %q", &log)
	}
}

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, dir := newCA(t, "ca"), t.TempDir()
		pair := ca.put(t, dir, "localhost")
		ticks := make(chan time.Time)
		var log bytes.Buffer
		var every time.Duration
		stopped := false
		certs := load(t, CertsConfig{
			Pairs: []Pair{pair}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Tick: func(d time.Duration) (<-chan time.Time, func()) { every = d; return ticks, func() { stopped = true } },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- certs.Watch(ctx) }()
		step := func(what string, want *x509.Certificate, failures uint64, logged string) {
			t.Helper()
			log.Reset()
			for range 3 {
				ticks <- time.Time{}
				synctest.Wait()
			}
			if got := certs.now.Load().config.Certificates[0].Leaf; !got.Equal(want) {
				t.Errorf("%s: another certificate is served", what)
			}
			if n := certs.Failures(); n != failures {
				t.Errorf("%s: %d failures, want %d", what, n, failures)
			}
			if lines := strings.Count(log.String(), "\n"); lines != min(len(logged), 1) || !strings.Contains(log.String(), logged) {
				t.Errorf("%s: logged %q, want one line with %q", what, &log, logged)
			}
		}
		first := certs.now.Load().config.Certificates[0].Leaf
		step("no change", first, 0, "")
		write(t, pair.Cert, []byte("half written"))
		step("a bad file is tried at each tick and logged once", first, 3, "cannot be used")
		step("still bad", first, 6, "")
		ca.put(t, dir, "localhost")
		second := load(t, CertsConfig{Pairs: []Pair{pair}}).now.Load().config.Certificates[0].Leaf
		step("a new one", second, 6, "reloaded")
		if err := os.Rename(pair.Key, pair.Key+".away"); err != nil {
			t.Fatal(err)
		}
		step("a file that is away", second, 9, "cannot be used")
		if err := os.Rename(pair.Key+".away", pair.Key); err != nil {
			t.Fatal(err)
		}
		step("and is back as it was", second, 9, "")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if every != 10*time.Second || !stopped {
			t.Errorf("a tick every %v, want 10 s; stopped %v", every, stopped)
		}
	})
}

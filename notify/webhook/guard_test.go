package webhook_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"muster/notify/hooks"
	"muster/notify/outbox"
	"muster/notify/webhook"
)

// names is a resolver of its own: each look-up of a name takes the next of its answers,
// the last again and again.
type names struct {
	answers map[string][][]string
	asked   atomic.Int64
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	i := n.asked.Add(1) - 1
	list, ok := n.answers[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.1.1.1:53", IsNotFound: true}
	}
	var out []netip.Addr
	for _, a := range list[min(int(i), len(list)-1)] {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

// counted is a receiver that counts who comes.
func counted(t *testing.T) (port string, hits *atomic.Int64) {
	t.Helper()
	hits = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Port(), hits
}

func sender(t *testing.T, c webhook.Config) *webhook.Sender {
	t.Helper()
	c.Now = time.Now
	s := webhook.New(c)
	t.Cleanup(s.Close)
	return s
}

func target(t testing.TB, u string) hooks.Target {
	return hooks.Target{URL: u, Keys: [][]byte{key(t, vectorSecret)}}
}

func message() hooks.Message {
	return hooks.Message{ID: "evt_1", Body: []byte(`{"type":"webhook.test"}`)}
}

func TestNoSpellingReachesAnInnerAddress(t *testing.T) {
	port, hits := counted(t)
	loopback := []string{"127.0.0.1"}
	dns := &names{answers: map[string][][]string{
		"inner.example": {loopback}, "both.example": {{"::1", "127.0.0.1", "::ffff:127.0.0.1"}}, "meta.example": {{"169.254.169.254"}},
		// What a system's resolver makes of other spellings of 127.0.0.1 and 0.0.0.0.
		"2130706433": {loopback}, "0x7f000001": {loopback}, "0177.0.0.1": {loopback}, "127.1": {loopback}, "0": {{"0.0.0.0"}},
		"localhost": {loopback}, "localhost.": {loopback}, "mapped.example": {{"::ffff:127.0.0.1"}}, "unspecified.example": {{"::"}},
	}}
	s := sender(t, webhook.Config{Resolver: dns})
	for _, host := range []string{
		"inner.example", "both.example", "meta.example", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "localhost", "localhost.",
		"mapped.example", "unspecified.example", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
		"0.0.0.0", "[::]", "INNER.example", "127.255.255.254",
	} {
		t.Run(host, func(t *testing.T) {
			if host == "INNER.example" {
				dns.answers[host] = [][]string{loopback}
			}
			a := s.Deliver(t.Context(), target(t, "http://"+host+":"+port+"/secret-path?token=hush"), message())
			if a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") || a.Status != 0 {
				t.Errorf("%+v", a)
			}
			if strings.Contains(a.Error, "hush") || strings.Contains(a.Error, "secret-path") {
				t.Errorf("the error tells the URL: %s", a.Error)
			}
		})
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d requests came in", n)
	}
}

func TestEveryInnerNetworkIsRefused(t *testing.T) {
	for _, addr := range []string{
		"0.0.0.1", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "100.100.100.200", "127.0.0.2", "169.254.169.254", "168.63.129.16",
		"172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7",
		"203.0.113.9", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::7f00:1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1",
		"2001::1", "2001:db8::1", "2002:7f00:1::1", "3fff::1", "fc00::1", "fd00:ec2::254", "fe80::1", "febf::1", "fec0::1", "ff02::1", "5f00::1",
	} {
		t.Run(addr, func(t *testing.T) {
			s := sender(t, webhook.Config{Resolver: &names{answers: map[string][][]string{"x.example": {{addr}}}}, Timeout: 2 * time.Second})
			if a := s.Deliver(t.Context(), target(t, "https://x.example/"), message()); a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") {
				t.Errorf("by name: %+v", a)
			}
			host := netip.AddrPortFrom(netip.MustParseAddr(addr), 443).String()
			if a := s.Deliver(t.Context(), target(t, "https://"+host+"/"), message()); a.Verdict != outbox.Dead || !strings.Contains(a.Error, "inner network") {
				t.Errorf("as %s: %+v", host, a)
			}
		})
	}
}

func TestAnOuterAddressIsNotTakenForAnInnerOne(t *testing.T) {
	// The context has ended: the guard judges, and no packet leaves.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, addr := range []string{"1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.1", "128.0.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.255", "2606:4700::1111", "2a00::1", "2001:4860::1"} {
		s := sender(t, webhook.Config{Resolver: &names{answers: map[string][][]string{"x.example": {{addr}}}}})
		if a := s.Deliver(ctx, target(t, "http://x.example/"), message()); strings.Contains(a.Error, "inner") || a.Verdict != outbox.Again {
			t.Errorf("%s: %+v", addr, a)
		}
	}
}

func TestANameThatLeadsElsewhereTheSecondTimeIsJudgedAnew(t *testing.T) {
	port, hits := counted(t)
	dns := &names{answers: map[string][][]string{"rebind.example": {{"::1"}, {"127.0.0.1"}}}}
	s := sender(t, webhook.Config{Resolver: dns, Allow: []netip.Prefix{netip.MustParsePrefix("::1/128")}, Timeout: 2 * time.Second})
	first := s.Deliver(t.Context(), target(t, "http://rebind.example:"+port+"/"), message())
	if first.Verdict != outbox.Again { // allowed, but nobody listens there
		t.Errorf("first: %+v", first)
	}
	second := s.Deliver(t.Context(), target(t, "http://rebind.example:"+port+"/"), message())
	if second.Verdict != outbox.Dead || hits.Load() != 0 {
		t.Errorf("second: %+v, %d requests", second, hits.Load())
	}
}

func TestListedNetworksAreReached(t *testing.T) {
	port, hits := counted(t)
	dns := &names{answers: map[string][][]string{"in.example": {{"10.9.9.9", "::ffff:127.0.0.1"}}}}
	s := sender(t, webhook.Config{Resolver: dns, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for _, host := range []string{"in.example", "127.0.0.1", "[::ffff:127.0.0.1]"} {
		if a := s.Deliver(t.Context(), target(t, "http://"+host+":"+port+"/"), message()); a.Verdict != outbox.Delivered {
			t.Errorf("%s: %+v", host, a)
		}
	}
	if hits.Load() != 3 {
		t.Errorf("%d requests", hits.Load())
	}
	if a := s.Deliver(t.Context(), target(t, "http://10.0.0.1:1/"), message()); a.Verdict != outbox.Dead {
		t.Errorf("10.0.0.1: %+v", a)
	}
}

func TestTheProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	port, hits := counted(t)
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, "http://127.0.0.1:"+port)
	}
	t.Setenv("NO_PROXY", "")
	s := sender(t, webhook.Config{Resolver: &names{answers: map[string][][]string{"x.example": {{"10.0.0.1"}}}}})
	if a := s.Deliver(t.Context(), target(t, "http://x.example/"), message()); a.Verdict != outbox.Dead {
		t.Errorf("%+v", a)
	}
	if hits.Load() != 0 {
		t.Error("the proxy was asked")
	}
}

package listen

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is moved by hand.
type clock struct{ now time.Time }

func newClock() *clock                   { return &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)} }
func (c *clock) Now() time.Time          { return c.now }
func (c *clock) forward(d time.Duration) { c.now = c.now.Add(d) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// admit asks n times and returns how many got in and why the last did not.
func admit(l *Limits, a netip.Addr, n int) (in int, why Refusal) {
	for range n {
		if r := l.Admit(a); r != Admitted {
			why = r
		} else {
			in++
		}
	}
	return in, why
}

func TestLimits(t *testing.T) {
	a, b := addr("192.0.2.1"), addr("192.0.2.2")
	for _, c := range []struct {
		name string
		cfg  LimitsConfig
		run  func(t *testing.T, l *Limits, c *clock)
	}{
		{"the defaults: a burst of 20,000 from one address, then 2,000 a second", LimitsConfig{AddressConns: -1, Burst: -1, Rate: -1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 30_000, 20_000, RefusedAddressRate)
			c.forward(time.Second)
			expect(t, l, a, 3000, 2000, RefusedAddressRate)
			c.forward(time.Hour)
			expect(t, l, a, 30_000, 20_000, RefusedAddressRate)
		}},
		{"all addresses together: the burst, then the rate", LimitsConfig{Rate: 5, Burst: 10, AddressRate: -1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 6, 6, Admitted)
			expect(t, l, b, 6, 4, RefusedRate)
			c.forward(400 * time.Millisecond)
			expect(t, l, b, 6, 2, RefusedRate)
		}},
		{"what one address is refused takes nothing from others", LimitsConfig{Rate: 1, Burst: 10, AddressRate: 1, AddressBurst: 4}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 1000, 4, RefusedAddressRate)
			expect(t, l, b, 4, 4, Admitted)
		}},
		{"what is refused in all takes nothing from the address", LimitsConfig{Rate: 1, Burst: 1, AddressRate: 1, AddressBurst: 2}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, b, 1, 1, Admitted)
			expect(t, l, a, 100, 0, RefusedRate)
			c.forward(time.Second)
			expect(t, l, a, 1, 1, Admitted)
		}},
		{"connections of an address count until they are released", LimitsConfig{AddressConns: 3}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 5, 3, RefusedAddress)
			expect(t, l, b, 1, 1, Admitted)
			l.Release(a)
			expect(t, l, a, 5, 1, RefusedAddress)
		}},
		{"an IPv6 client is a /64", LimitsConfig{AddressConns: 1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, addr("2001:db8::1"), 1, 1, Admitted)
			expect(t, l, addr("2001:db8::ffff:0:0:2"), 1, 0, RefusedAddress)
			expect(t, l, addr("2001:db8:0:1::1"), 1, 1, Admitted)
			l.Release(addr("2001:db8::abcd"))
			expect(t, l, addr("2001:db8::2"), 1, 1, Admitted)
		}},
		{"an IPv4 address is the same inside IPv6", LimitsConfig{AddressConns: 1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 1, 1, Admitted)
			expect(t, l, addr("::ffff:192.0.2.1"), 1, 0, RefusedAddress)
		}},
		{"loopback is limited too", LimitsConfig{AddressConns: 1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, addr("127.0.0.1"), 2, 1, RefusedAddress)
		}},
		{"negative values limit nothing", LimitsConfig{-1, -1, -1, -1, -1, -1, nil}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 50000, 50000, Admitted)
		}},
		{"a clock that goes back neither refills nor blocks", LimitsConfig{AddressRate: 1, AddressBurst: 2}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 1, 1, Admitted)
			c.forward(-time.Hour)
			expect(t, l, a, 2, 1, RefusedAddressRate)
			c.forward(time.Hour + time.Second)
			expect(t, l, a, 2, 1, RefusedAddressRate)
		}},
		{"over the bound the least recently seen idle address goes", LimitsConfig{Addresses: 2, AddressRate: 1, AddressBurst: 1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 1, 1, Admitted)
			l.Release(a)
			expect(t, l, b, 1, 1, Admitted)
			l.Release(b)
			expect(t, l, a, 1, 0, RefusedAddressRate) // a was seen after b
			expect(t, l, addr("192.0.2.3"), 1, 1, Admitted)
			expect(t, l, a, 1, 0, RefusedAddressRate) // still known
			expect(t, l, b, 1, 1, Admitted)           // forgotten, and known anew
			if n := l.Addresses(); n != 2 {
				t.Errorf("%d addresses are known, want 2", n)
			}
		}},
		{"an address with connections is never forgotten, a new one is then not tracked", LimitsConfig{Addresses: 1, AddressConns: 1}, func(t *testing.T, l *Limits, c *clock) {
			expect(t, l, a, 1, 1, Admitted)
			expect(t, l, b, 10, 10, Admitted)
			l.Release(b)
			expect(t, l, a, 1, 0, RefusedAddress)
			l.Release(a)
			expect(t, l, b, 2, 1, RefusedAddress)
		}},
		{"a release too many does nothing", LimitsConfig{AddressConns: 1}, func(t *testing.T, l *Limits, c *clock) {
			l.Release(a)
			l.Release(netip.Addr{})
			expect(t, l, a, 2, 1, RefusedAddress)
			l.Release(a)
			l.Release(a)
			expect(t, l, a, 2, 1, RefusedAddress)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			clk := newClock()
			c.cfg.Now = clk.Now
			c.run(t, NewLimits(c.cfg), clk)
		})
	}
}

func expect(t *testing.T, l *Limits, a netip.Addr, n, want int, why Refusal) {
	t.Helper()
	if in, r := admit(l, a, n); in != want || r != why {
		t.Errorf("%v: %d of %d got in, the last refusal %q; want %d, %q", a, in, n, r, want, why)
	}
}

// TestLimitsAgainstAModel compares with exact counts, and checks the bounds.
func TestLimitsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clk := newClock()
		const bound, conns, burst = 4, 3, 5
		l := NewLimits(LimitsConfig{Rate: 50, Burst: 50, AddressRate: 2, AddressBurst: burst, AddressConns: conns, Addresses: bound, Now: clk.Now})
		open := map[netip.Addr]int{}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rapid.IntRange(0, bound-1).Draw(t, "address"))})
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				why := l.Admit(a)
				if full := open[a] == conns; full != (why == RefusedAddress) {
					t.Fatalf("%d connections are open, the answer is %q", open[a], why)
				}
				if why == Admitted {
					open[a]++
				}
			case 1:
				if open[a] > 0 {
					open[a]--
					l.Release(a)
				}
			case 2:
				clk.forward(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			}
			if n := l.Addresses(); n > bound {
				t.Fatalf("%d addresses are known", n)
			}
			for key, k := range l.known {
				if k.conns != open[key] || (k.at == nil) != (k.conns > 0) || k.bucket.tokens > burst {
					t.Fatalf("%v: %+v, want %d connections", key, k, open[key])
				}
			}
		}
	})
}

func TestLimitsFromManyGoroutines(t *testing.T) {
	l := NewLimits(LimitsConfig{Rate: -1, AddressRate: -1, AddressConns: 100, Addresses: 3})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				a := netip.AddrFrom4([4]byte{10, 0, byte(g), byte(i % 5)})
				if l.Admit(a) == Admitted {
					l.Release(a)
				}
			}
		})
	}
	wg.Wait()
	if n := l.Addresses(); n > 3 {
		t.Errorf("%d addresses are known, want at most 3", n)
	}
	if n := l.idle.Len(); n != len(l.known) {
		t.Errorf("%d of %d addresses are idle, want all", n, len(l.known))
	}
}

func TestLimitsOnSockets(t *testing.T) {
	limits := NewLimits(LimitsConfig{AddressConns: 2})
	r := open(t, Config{Kind: TCP, Limits: limits})
	var kept []got
	for range 2 {
		r.dial(t)
		kept = append(kept, r.next(t))
	}
	if refused, err := net.Dial("tcp", r.Addr().String()); err == nil { // it may be reset before or after Dial returns
		if n, err := refused.Read(make([]byte, 1)); err == nil {
			t.Fatalf("read %d bytes of a refused connection", n)
		}
		_ = refused.Close()
	}
	r.counts.wait(t, string(RefusedAddress), 1)
	_ = kept[0].Close()
	limits.Release(kept[0].info.Peer.Addr())
	r.dial(t)
	r.next(t)
	if n := r.counts.get("accepted"); n != 3 {
		t.Errorf("%d connections were accepted, want 3", n)
	}
}

func BenchmarkAdmitAndRelease(b *testing.B) {
	l := NewLimits(LimitsConfig{Rate: -1, AddressRate: -1})
	a := addr("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		if l.Admit(a) == Admitted {
			l.Release(a)
		}
	}
}

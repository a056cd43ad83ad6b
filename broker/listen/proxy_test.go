package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// v2 makes a header of version 2.
func v2(command, family byte, body string) string {
	return proxySignature + string([]byte{command, family}) +
		string(binary.BigEndian.AppendUint16(nil, uint16(len(body)))) + body
}

const (
	tcp4Body = "\xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x34\x07\x5b" // 192.0.2.1:4660 to 198.51.100.2:1883
	tlv      = "\x04\x00\x03abc"
)

var tcp6Body = "\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01" + strings.Repeat("\x00", 15) + "\x01" + "\x12\x34\x07\x5b"

func TestReadProxyTakesTheSourceAndNotAByteMore(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 4660 1883\r\n", "192.0.2.1:4660"},
		{"v1 TCP4, the shortest", "PROXY TCP4 1.1.1.1 2.2.2.2 0 0\r\n", "1.1.1.1:0"},
		{"v1 TCP6", "PROXY TCP6 2001:db8::1 ::1 4660 1883\r\n", "[2001:db8::1]:4660"},
		{"v1 TCP6 with an IPv4 address inside", "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1"},
		{
			"v1 TCP6, the longest",
			"PROXY TCP6 ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n",
			"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
		},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", ""},
		{"v1 UNKNOWN with more, the longest line", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", ""},
		{"v2 TCP4", v2(0x21, 0x11, tcp4Body), "192.0.2.1:4660"},
		{"v2 TCP4 with TLVs", v2(0x21, 0x11, tcp4Body+tlv+tlv), "192.0.2.1:4660"},
		{"v2 TCP4 with the most TLVs", v2(0x21, 0x11, tcp4Body+strings.Repeat("x", 524)), "192.0.2.1:4660"},
		{"v2 TCP6", v2(0x21, 0x21, tcp6Body), "[2001:db8::1]:4660"},
		{"v2 unix", v2(0x21, 0x31, strings.Repeat("u", 216)), ""},
		{"v2 UNSPEC with anything", v2(0x21, 0x00, "anything"), ""},
		{"v2 LOCAL", v2(0x20, 0x00, ""), ""},
		{"v2 LOCAL with an address, which does not count", v2(0x20, 0x11, tcp4Body), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := strings.ReplaceAll(c.in, "f...f", "ffff:ffff:ffff:ffff:ffff:ffff")
			rest := strings.NewReader(in + "MQTT")
			src, err := readProxy(rest)
			if err != nil {
				t.Fatal(err)
			}
			want := netip.AddrPort{}
			if c.want != "" {
				want = netip.MustParseAddrPort(c.want)
			}
			if src != want {
				t.Errorf("source %v, want %v", src, want)
			}
			if left, _ := io.ReadAll(rest); string(left) != "MQTT" {
				t.Errorf("left %q, want MQTT", left)
			}
		})
	}
}

func TestReadProxyRefuses(t *testing.T) {
	for _, c := range []struct{ name, in string }{
		{"no header", "\x10\x25\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a............."},
		{"lower case", "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n"},
		{"another family", "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n"},
		{"no family", "PROXY \r\nxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"},
		{"UNKNOWN without a space after it", "PROXY UNKNOWNX\r\n"},
		{"IPv6 as TCP4", "PROXY TCP4 ::1 ::1 1 2\r\n"},
		{"IPv4 as TCP6", "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n"},
		{"a zone", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n"},
		{"a leading zero in an address", "PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n"},
		{"a leading zero in a port", "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n"},
		{"a port over 65535", "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n"},
		{"a signed port", "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n"},
		{"a bad destination", "PROXY TCP4 1.1.1.1 2.2.2 1 2\r\n"},
		{"two spaces", "PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n"},
		{"a field too many", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n"},
		{"LF alone", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n"},
		{"CR inside", "PROXY TCP4 1.1.1.1 2.2.2.2\r 1 2\r\n"},
		{"a line of 108 bytes", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n"},
		{"v2 of version 1", v2(0x11, 0x11, tcp4Body)},
		{"v2 with an unknown command", v2(0x22, 0x11, tcp4Body)},
		{"v2 with a datagram's family", v2(0x21, 0x12, tcp4Body)},
		{"v2 with an unknown family", v2(0x21, 0x41, tcp4Body)},
		{"v2 TCP4 too short", v2(0x21, 0x11, tcp4Body[:11])},
		{"v2 TCP6 too short", v2(0x21, 0x21, tcp6Body[:35])},
		{"v2 unix too short", v2(0x21, 0x31, strings.Repeat("u", 215))},
		{"v2 with 537 bytes", v2(0x21, 0x11, tcp4Body+strings.Repeat("x", 525))},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, err := readProxy(strings.NewReader(c.in))
			if _, ok := errors.AsType[*proxyError](err); !ok {
				t.Fatalf("source %v, error %v; want a proxyError", src, err)
			}
		})
	}
	for _, in := range []string{"", "PROXY", "PROXY TCP4 1.1.1.1 2.2.2.2 1", v2(0x21, 0x11, tcp4Body)[:20]} {
		if _, err := readProxy(strings.NewReader(in)); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut off after %d bytes: error %v, want an EOF", len(in), err)
		}
	}
}

func TestProxyOnSockets(t *testing.T) {
	listed := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	t.Run("a listed peer's header gives the address, and the socket is bare", func(t *testing.T) {
		r := open(t, Config{Kind: TCP, Proxy: listed})
		for _, header := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 4660 1883\r\n", v2(0x21, 0x11, tcp4Body+tlv)} {
			c := r.dial(t)
			say(t, c, header+"hello")
			g := r.next(t)
			if want := netip.MustParseAddrPort("192.0.2.1:4660"); g.info.Peer != want {
				t.Errorf("peer %v, want %v", g.info.Peer, want)
			}
			if _, ok := g.Conn.(*net.TCPConn); !ok {
				t.Errorf("handle got a %T", g.Conn)
			}
			hear(t, g, "hello")
		}
	})
	t.Run("LOCAL gives the proxy's own address", func(t *testing.T) {
		r := open(t, Config{Kind: TCP, Proxy: listed})
		c := r.dial(t)
		say(t, c, v2(0x20, 0, ""))
		if got, want := r.next(t).info.Peer.String(), c.LocalAddr().String(); got != want {
			t.Errorf("peer %v, want %v", got, want)
		}
	})
	t.Run("an unlisted peer's header is not interpreted", func(t *testing.T) {
		r := open(t, Config{Kind: TCP, Proxy: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
		c := r.dial(t)
		say(t, c, "PROXY TCP4 192.0.2.1 198.51.100.2 4660 1883\r\n")
		g := r.next(t)
		if got, want := g.info.Peer.String(), c.LocalAddr().String(); got != want {
			t.Errorf("peer %v, want %v", got, want)
		}
		hear(t, g, "PROXY TCP4 192.0.2.1")
	})
	t.Run("a listed peer without a header is refused", func(t *testing.T) {
		r := open(t, Config{Kind: TCP, Proxy: listed})
		c := r.dial(t)
		say(t, c, "\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
		say(t, c, "\xc0\x00")
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatalf("read %d bytes, want the end", n)
		}
		r.counts.wait(t, HandshakeProxy, 1)
	})
	t.Run("a slow header times out", func(t *testing.T) {
		r := open(t, Config{Kind: TCP, Proxy: listed, Handshake: 50 * time.Millisecond})
		c := r.dial(t)
		say(t, c, "PROXY TCP4 192.0.2.1 ")
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatalf("read %d bytes, want the end", n)
		}
		r.counts.wait(t, HandshakeTimeout, 1)
	})
	t.Run("the address behind the proxy is limited, not the proxy", func(t *testing.T) {
		limits := NewLimits(LimitsConfig{AddressConns: 1})
		r := open(t, Config{Kind: TCP, Proxy: listed, Limits: limits})
		for i := range 3 {
			c := r.dial(t)
			say(t, c, "PROXY TCP4 192.0.2."+strconv.Itoa(i)+" 198.51.100.2 1 1883\r\n")
			r.next(t)
		}
		c := r.dial(t)
		say(t, c, "PROXY TCP4 192.0.2.1 198.51.100.2 2 1883\r\n")
		r.counts.wait(t, string(RefusedAddress), 1)
		if n := r.counts.get(HandshakeProxy); n != 0 {
			t.Errorf("%d refusals were counted as PROXY errors", n)
		}
	})
}

func FuzzProxy(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.2 4660 1883\r\n", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "PROXY UNKNOWN\r\nx",
		v2(0x21, 0x11, tcp4Body+tlv), v2(0x21, 0x21, tcp6Body), v2(0x20, 0, ""), v2(0x21, 0x31, strings.Repeat("u", 216)),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		src, err := readProxy(r)
		used := len(in) - r.Len()
		if used > proxyV2Fixed+proxyV2 {
			t.Fatalf("%d bytes were read", used)
		}
		slow, slowErr := readProxy(iotest.OneByteReader(bytes.NewReader(in)))
		if slow != src || (err == nil) != (slowErr == nil) {
			t.Fatalf("byte by byte: %v, %v; at once: %v, %v", slow, slowErr, src, err)
		}
		if err != nil {
			return
		}
		again, err := readProxy(bytes.NewReader(slices.Concat(in[:used], []byte("tail"))))
		if err != nil || again != src {
			t.Fatalf("without what follows: %v, %v; with it: %v", again, err, src)
		}
		if src.Addr().Is4In6() || src.Addr().Zone() != "" {
			t.Fatalf("source %v is not plain", src)
		}
		if !src.IsValid() || bytes.HasPrefix(in, []byte(proxySignature)) {
			return
		}
		family := map[bool]string{true: "TCP4", false: "TCP6"}[src.Addr().Is4()]
		line := strings.Join([]string{"PROXY", family, src.Addr().String(), src.Addr().String(), strconv.Itoa(int(src.Port())), "1"}, " ") + "\r\n"
		if round, err := readProxy(strings.NewReader(line)); err != nil || round != src {
			t.Fatalf("written and read again: %v, %v; want %v", round, err, src)
		}
	})
}

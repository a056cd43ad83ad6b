package listen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// Sizes of PROXY headers, in bytes (proxy-protocol.txt, sections 2.1 and 2.2).
const (
	proxyShortest = 15  // "PROXY UNKNOWN\r\n"; version 2 has at least 16
	proxyV1       = 107 // the longest line, with its CR LF
	proxyV2Fixed  = 16
	proxyV2       = 536 // the most that may follow the fixed part, addresses and TLVs
)

const (
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n" // of version 2
	proxyWord      = "PROXY "                 // begins version 1
)

// Lengths of the addresses in version 2.
const (
	proxyTCP4 = 12
	proxyTCP6 = 36
	proxyUnix = 216
)

// proxyError says which rule a PROXY header breaks. It quotes no byte of it.
type proxyError struct{ text string }

func (e *proxyError) Error() string { return "PROXY header: " + e.text }

func malformed(text string) error { return &proxyError{text} }

// readProxy reads a PROXY header from r and not a byte beyond it. It returns the
// source address; zero for UNKNOWN, LOCAL, UNSPEC and unix sockets, where the
// connection's own address counts. TLVs are skipped.
func readProxy(r io.Reader) (netip.AddrPort, error) {
	buf := make([]byte, proxyV2Fixed+proxyV2)
	if err := fill(r, buf[:proxyShortest]); err != nil {
		return netip.AddrPort{}, err
	}
	switch {
	case bytes.HasPrefix(buf, []byte(proxySignature)):
		return readProxyV2(r, buf)
	case bytes.HasPrefix(buf, []byte(proxyWord)):
		return readProxyV1(r, buf[:proxyV1])
	}
	return netip.AddrPort{}, malformed("it is missing")
}

func fill(r io.Reader, p []byte) error {
	if _, err := io.ReadFull(r, p); err != nil {
		return fmt.Errorf("read the PROXY header: %w", err)
	}
	return nil
}

// readProxyV1 reads on after the first bytes, one by one: only the line's end says
// how long it is.
func readProxyV1(r io.Reader, buf []byte) (netip.AddrPort, error) {
	n := proxyShortest
	for buf[n-1] != '\n' {
		if n == len(buf) {
			return netip.AddrPort{}, malformed("the line has more than 107 bytes")
		}
		if err := fill(r, buf[n:n+1]); err != nil {
			return netip.AddrPort{}, err
		}
		n++
	}
	line, ok := strings.CutSuffix(string(buf[:n]), "\r\n")
	if !ok || strings.ContainsAny(line, "\r\n") {
		return netip.AddrPort{}, malformed("the line does not end with CR LF")
	}
	return parseProxyV1(line)
}

func parseProxyV1(line string) (netip.AddrPort, error) {
	f := strings.Split(line, " ") // the specification allows one space, no more
	if f[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil
	}
	if len(f) != 6 || f[1] != "TCP4" && f[1] != "TCP6" {
		return netip.AddrPort{}, malformed("the line is not PROXY TCP4|TCP6 source destination port port")
	}
	src, ok1 := proxyAddr(f[1], f[2], f[4])
	_, ok2 := proxyAddr(f[1], f[3], f[5])
	if !ok1 || !ok2 {
		return netip.AddrPort{}, malformed("an address or a port is not one of its family")
	}
	return src, nil
}

func proxyAddr(family, addr, port string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" || a.Is4() != (family == "TCP4") {
		return netip.AddrPort{}, false
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || port != strconv.FormatUint(p, 10) {
		return netip.AddrPort{}, false
	}
	return plain(netip.AddrPortFrom(a, uint16(p))), true
}

// readProxyV2 reads on after the first bytes; buf is long enough for all.
func readProxyV2(r io.Reader, buf []byte) (netip.AddrPort, error) {
	if err := fill(r, buf[proxyShortest:proxyV2Fixed]); err != nil {
		return netip.AddrPort{}, err
	}
	command, family := buf[12], buf[13]
	n := int(binary.BigEndian.Uint16(buf[14:]))
	if command != 0x20 && command != 0x21 {
		return netip.AddrPort{}, malformed("the version is not 2, or the command unknown")
	}
	if n > proxyV2 {
		return netip.AddrPort{}, malformed("more than 536 bytes of addresses and TLVs")
	}
	body := buf[proxyV2Fixed : proxyV2Fixed+n]
	if err := fill(r, body); err != nil {
		return netip.AddrPort{}, err
	}
	if command == 0x20 { // LOCAL: the proxy speaks for itself
		return netip.AddrPort{}, nil
	}
	return parseProxyV2(family, body)
}

func parseProxyV2(family byte, body []byte) (netip.AddrPort, error) {
	need := 0
	switch family {
	case 0x00: // UNSPEC
	case 0x11:
		need = proxyTCP4
	case 0x21:
		need = proxyTCP6
	case 0x31:
		need = proxyUnix
	default:
		return netip.AddrPort{}, malformed("the family is not that of a stream")
	}
	if len(body) < need {
		return netip.AddrPort{}, malformed("it is shorter than its addresses")
	}
	switch need {
	case proxyTCP4:
		a := netip.AddrFrom4([4]byte(body[:4]))
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(body[8:])), nil
	case proxyTCP6:
		a := netip.AddrFrom16([16]byte(body[:16]))
		return plain(netip.AddrPortFrom(a, binary.BigEndian.Uint16(body[32:]))), nil
	}
	return netip.AddrPort{}, nil
}

package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// client returns the address that r comes from. X-Forwarded-For counts only as far as trusted proxies wrote it: it is
// read from its end, and the first address that is no trusted proxy's is the client's.
func (a *API) client(r *http.Request) netip.Addr {
	addr := peer(r)
	if !a.trusted(addr) {
		return addr
	}
	hops := r.Header.Values("X-Forwarded-For")
	for _, line := range slices.Backward(hops) {
		for rest := line; rest != ""; {
			var last string
			if cut := strings.LastIndexByte(rest, ','); cut >= 0 {
				rest, last = rest[:cut], rest[cut+1:]
			} else {
				rest, last = "", rest
			}
			hop, err := parseHop(strings.TrimSpace(last))
			if err != nil {
				return addr // what is beyond is nobody's word
			}
			if addr = hop; !a.trusted(addr) {
				return addr
			}
		}
	}
	return addr
}

// parseHop reads an address; some proxies write its port too.
func parseHop(s string) (netip.Addr, error) {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return p.Addr().Unmap().WithZone(""), nil
	}
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return addr.Unmap().WithZone(""), err //nolint:wrapcheck // only looked at
}

// peer is the other end of r's connection; the zero address when it has none.
func peer(r *http.Request) netip.Addr {
	p, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return p.Addr().Unmap().WithZone("")
}

func (a *API) trusted(addr netip.Addr) bool {
	for _, p := range a.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// forwardedHTTPS says whether a trusted proxy took r over https.
func (a *API) forwardedHTTPS(r *http.Request) bool {
	if len(a.TrustedProxies) == 0 || !a.trusted(peer(r)) {
		return false
	}
	proto := r.Header.Get("X-Forwarded-Proto")
	if cut := strings.LastIndexByte(proto, ','); cut >= 0 {
		proto = proto[cut+1:] // what the proxy next to us wrote
	}
	return strings.EqualFold(strings.TrimSpace(proto), "https")
}

// address is where r comes from, for the audit log: empty when that is not known.
func (r *request) address() string {
	if !r.addr.IsValid() {
		return ""
	}
	return r.addr.String()
}

// from is where r comes from, for rooms that bound tries: the other end of the connection with its port, or the
// address that a trusted proxy tells.
func (r *request) from() string {
	if r.addr == peer(r.Request) {
		return r.RemoteAddr
	}
	return r.addr.String()
}

// Secure says whether r came over https, by its own connection or by a trusted proxy's.
func (a *API) Secure(r *http.Request) bool { return r.TLS != nil || a.forwardedHTTPS(r) }

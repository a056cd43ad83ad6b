package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"muster"
)

// Resolver finds the addresses of a name; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	maxAddresses = 8               // of one name that are tried
	dialTime     = 4 * time.Second // for one address
)

// guard dials outer addresses only. It judges the address that is really dialled, at
// the moment of dialling: a name that leads elsewhere than it did a moment ago, and an
// unusual spelling of an address, end here.
type guard struct {
	resolver Resolver
	allow    []netip.Prefix
	inner    []netip.Prefix
}

// innerError is a refused address.
type innerError struct{ addr netip.Addr }

func (e *innerError) Error() string {
	return fmt.Sprintf("%v is an address of an inner network, which webhooks may not reach; --webhook-allow opens networks", e.addr)
}

// dial is the DialContext of the transport.
func (g *guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("read the address: %w", err)
	}
	addrs, err := g.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: dialTime, ControlContext: g.control}
	var first error
	for _, a := range addrs {
		c, err := d.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = fmt.Errorf("dial: %w", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func (g *guard) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	addrs, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, fmt.Errorf("look the host up: %w", err)
	}
	if len(addrs) == 0 {
		return nil, errors.New("the host has no address")
	}
	return addrs[:min(len(addrs), maxAddresses)], nil
}

// control is called by the dialer with each address before it connects.
func (g *guard) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return muster.Errorf(muster.Forbidden, "webhooks go over TCP only")
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the dialled address: %w", err)
	}
	if !g.allowed(to.Addr()) {
		return &innerError{to.Addr()}
	}
	return nil
}

// allowed says whether webhooks may reach a. An IPv4 address in IPv6's clothes is judged
// as the IPv4 address it is.
func (g *guard) allowed(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	holds := func(p netip.Prefix) bool { return p.Contains(a) }
	return slices.ContainsFunc(g.allow, holds) || !slices.ContainsFunc(g.inner, holds)
}

// innerNetworks are those that are not meant for all, after the IANA registries of
// special-purpose addresses (RFC 6890). Of IPv6 everything outside of 2000::/3 is among
// them, which alone is handed out (RFC 4291, section 2.4): loopback, ULA, link local,
// multicast, NAT64's 64:ff9b::/96 and 64:ff9b:1::/48.
func innerNetworks() []netip.Prefix {
	list := []string{
		"0.0.0.0/8",        // this network
		"10.0.0.0/8",       // private
		"100.64.0.0/10",    // carriers' NAT
		"127.0.0.0/8",      // loopback
		"168.63.129.16/32", // Azure's platform, from inside its machines
		"169.254.0.0/16",   // link local, and the clouds' metadata
		"172.16.0.0/12",    // private
		"192.0.0.0/24",     // protocol assignments
		"192.0.2.0/24",     // documentation
		"192.88.99.0/24",   // 6to4 relays
		"192.168.0.0/16",   // private
		"198.18.0.0/15",    // benchmarks
		"198.51.100.0/24",  // documentation
		"203.0.113.0/24",   // documentation
		"224.0.0.0/4",      // multicast
		"240.0.0.0/4",      // reserved, and broadcast
		"::/3", "4000::/2", "8000::/1",
		"2001::/23",     // protocol assignments, Teredo
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4, which holds any IPv4 address
		"3fff::/20",     // documentation
	}
	out := make([]netip.Prefix, len(list))
	for i, s := range list {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

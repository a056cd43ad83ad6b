package server

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"muster"
	"muster/broker"
	"muster/broker/listen"
)

// MQTTConfig is what of the broker is configured. Zero values stand for the
// broker's defaults.
type MQTTConfig struct {
	TLSAddr        string        // host:port; empty for no TLS listener
	UnixPath       string        // of a unix socket; empty for none
	Certs          []listen.Pair // certificate and key files; the SNI chooses
	ClientCA       string        // file of the CAs of client certificates
	ClientAuth     string        // none, request, verify or require
	Proxy          []string      // CIDRs whose connections begin with a PROXY protocol header
	Drain          time.Duration // that a stop takes to tell clients to go
	MaxConnections int
	MaxQueued      int // QoS 1 and 2 messages that wait for one session
	MaxKeepAlive   time.Duration
	Rate           broker.Rate // of one client
	ConnectRate    int         // new connections a second, all addresses; negative: no limit
	AddressRate    int         // new connections a second from one address; negative: no limit
}

// brokerConfig makes the broker's configuration. It reads the certificates.
func (s *Server) brokerConfig(ctx context.Context) (broker.Config, error) {
	m := &s.cfg.MQTT
	cfg := broker.Config{
		Addr: s.cfg.MQTTAddr, TLS: m.TLSAddr, Unix: m.UnixPath, MaxPacket: s.cfg.MaxPacket, Drain: m.Drain,
		MaxConnections: m.MaxConnections, MaxQueued: m.MaxQueued, MaxKeepAlive: m.MaxKeepAlive, Rate: m.Rate,
		Limit: listen.LimitsConfig{Rate: m.ConnectRate, AddressRate: m.AddressRate, Now: s.cfg.Now},
		Now:   s.cfg.Now, Logger: s.cfg.Logger, Metrics: s.metrics, Traffic: s.traffic, States: allStates{presenceStates{s.registry}, desiredStates{s.twins}},
		Ready: s.listening, Updates: s.updates.ready, Children: children{s.registry, s.join, s.cfg.Now},
	}
	for _, p := range m.Proxy {
		prefix, err := netip.ParsePrefix(p)
		if err != nil {
			return cfg, muster.Errorf(muster.Invalid, "proxy-protocol %q is not a CIDR such as 10.0.0.0/8", p)
		}
		cfg.Proxy = append(cfg.Proxy, prefix)
	}
	if m.TLSAddr == "" && len(m.Certs) > 0 {
		return cfg, muster.Errorf(muster.Invalid, "a certificate is given, and no address for MQTT over TLS")
	}
	if m.TLSAddr != "" {
		var err error
		s.certs, err = listen.LoadCerts(listen.CertsConfig{
			Pairs: m.Certs, ClientCA: m.ClientCA, ClientAuth: m.ClientAuth, Now: s.cfg.Now, Logger: s.cfg.Logger,
		})
		if err != nil {
			return cfg, fmt.Errorf("load certificates: %w", err)
		}
		cfg.Certs = s.certs
	}
	log, err := s.bus.OpenLog(ctx, sessionLog, s.bus.SessionBytes())
	if err != nil {
		return cfg, err
	}
	cfg.Log = log
	return cfg, nil
}

// sessionLog is the log of the broker's sessions.
const sessionLog = "MQTT_00"

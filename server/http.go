package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/dashboard/live"
	"muster/dashboard/ui"
	"muster/devices/views"
	"muster/firmware/deliver"
	"muster/tasks"
)

// buildLive makes the live gateway.
func (s *Server) buildLive(cfg live.Config, who viewers) error {
	pubKey, err := derive(s.linkKey, pubUse)
	if err != nil {
		return err
	}
	s.live = live.New(cfg, live.Deps{
		Auth: who, System: s.counters, Tasks: liveTasks{s.tasks}, Rollouts: liveRollouts{s.rollouts.operator}, Things: things{s}, Events: liveEvents{s.feed, s.registry, s.notify.Notify}, Traffic: s.traffic,
		Fleet: s.fleet, Devices: s.fleet, Dots: dots{s.registry}, Log: s.cfg.Logger, Now: s.cfg.Now,
		Inbox: liveInbox{s.notify.Notify}, Notes: liveNotes{s.notify.Notify, s.once, string(pubKey), s.cfg.Logger},
		Stranger: func(r *http.Request) func() bool { return s.web.Stranger(r) },
		Item:     (&itemWriter{topic: s.notify.TopicName}).add,
	})
	if err := s.metrics.Register(s.live.Metrics()); err != nil {
		return fmt.Errorf("register the metrics of the live gateway: %w", err)
	}
	return nil
}

// buildHTTP makes the live gateway, the API and the page, on one port.
func (s *Server) buildHTTP() error {
	var web *api.API
	gateway := live.Config{Version: s.cfg.Version, MQTTPort: s.mqttPort()}
	public, err := s.cfg.publicURL()
	if err != nil {
		return err
	}
	if public != nil {
		gateway.Origins = []string{public.Scheme + "://" + public.Host}
	}
	who := viewers{s.accounts, s.registry, func(r *http.Request) (accounts.Principal, error) { return web.Authenticate(r) }}
	if err := s.buildCounters(); err != nil {
		return err
	}
	if err := s.buildLive(gateway, who); err != nil {
		return err
	}
	deps := api.Deps{
		Registry:      s.registry,
		Accounts:      s.accounts,
		Telemetry:     s.stores.telemetry,
		Live:          s.ingest,
		Fleet:         s.fleet,
		Clients:       clients{s.broker},
		Trail:         s.said.api(),
		Logins:        s.logins,
		Joining:       s.join,
		Twins:         s.twins,
		Views:         views.New(s.stores.control, s.cfg.Now),
		Presence:      s.registry,
		Commands:      s.commands,
		Messages:      publisher{s.broker},
		Simulator:     s.simulation,
		Tasks:         s.tasks,
		Audit:         s.stores.control,
		Feed:          s.feed,
		Channels:      channels{s.live, who},
		Traffic:       s.traffic,
		Webhooks:      s.webhooks,
		Notify:        s.notify.Notify,
		Rollouts:      s.rollouts.operator,
		Deliveries:    s.stores.control,
		ChannelTester: testers{s},
		Writer:        s.ingest,
		OfferKey:      s.updates.talk.Key(),
		Offers:        s.updates.talk,
		Once:          s.once,
		Firmware:      s.firmware,

		Limits:         s.cfg.Web.Limits,
		CORSOrigins:    s.cfg.Web.CORSOrigins,
		TrustedProxies: s.cfg.Web.TrustedProxies,

		Ready:      func(context.Context) []api.Reason { return s.ready() },
		System:     s.sections(),
		Version:    s.cfg.Version,
		PublicURL:  public,
		LiveSocket: s.live,
		MQTTSocket: http.HandlerFunc(s.broker.ServeWebSocket),
		Images:     s.delivery,
		DDI:        s.ddiDoor(),
		Page:       ui.Handler(s.cfg.Version),
		Gatherer:   s.metrics,
		Registerer: s.metrics,
		Now:        s.cfg.Now,
		Log:        s.cfg.Logger,
	}
	if deps.OIDC, err = s.buildOIDC(); err != nil {
		return err
	}
	if web, err = api.New(deps); err != nil {
		return fmt.Errorf("build the API: %w", err)
	}
	s.web = web
	s.http = serverOf(web)
	return nil
}

// serverOf has no WriteTimeout: the API sets its own, rolling.
func serverOf(web http.Handler) *http.Server {
	return &http.Server{
		Handler: web, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ConnContext: deliver.WithConn,
	}
}

// serveHTTP serves until the listener is closed.
func (s *Server) serveHTTP(context.Context) error {
	err := s.http.Serve(deliver.Listen(s.listener))
	if err != nil && !errors.Is(err, http.ErrServerClosed) && !s.stopping.Load() {
		select {
		case s.failed <- fmt.Errorf("serve HTTP: %w", err):
		default:
		}
	}
	return nil
}

// ready says what keeps the server from doing its work.
func (s *Server) ready() []api.Reason {
	var why []api.Reason
	if s.ingest.Status().StoreDown {
		why = append(why, api.Reason{Part: "store", Detail: "the database does not take data; the log holds it"})
	}
	if err := s.bus.Ready(); err != nil {
		why = append(why, api.Reason{Part: "log", Detail: muster.Public(err)})
	}
	if s.depot != nil {
		if err := s.depot.Ready(); err != nil {
			why = append(why, api.Reason{Part: "firmware", Detail: muster.Public(err)})
		}
	}
	if s.stopping.Load() {
		why = append(why, api.Reason{Part: "server", Detail: "stopping"})
	}
	return why
}

// sections is what the rooms add to the System page.
func (s *Server) sections() []api.Section {
	return []api.Section{
		func() (string, any) {
			return "server", map[string]any{"version": s.cfg.Version, "started_at": s.began.UTC(), "ready": len(s.ready()) == 0}
		},
		func() (string, any) { return "nodes", []nodeSection{s.node()} },
		func() (string, any) { return "database", s.database() },
		func() (string, any) { return "timings", s.timings() },
		func() (string, any) { return "ingest", s.ingest.Status() },
		func() (string, any) { return "intake", s.said.intake.Status() },
		func() (string, any) {
			return "events", map[string]any{"notes_dropped": s.said.events.NotesDropped(), "rejections_untold": s.rejected.dropped.Load()}
		},
		func() (string, any) { return "audit", s.sealer.Status() },
		func() (string, any) { return "erasures", s.erasures() },
		func() (string, any) { return "broker", s.broker.Stats() },
		func() (string, any) { return "twins", s.twins.Stats() },
		func() (string, any) { return "commands", s.commands.Stats() },
		func() (string, any) { return "tasks", s.tasks.Stats() },
		func() (string, any) { return "live", s.live.Stats() },
		func() (string, any) { return "counters", s.Counters() },
		func() (string, any) { return "shared_workers", []tasks.SharedStatus{s.counters.sampler.Status()} },
		func() (string, any) { return "caches", s.caches.Section() },
		func() (string, any) { return "idempotency", s.once.Stats() },
		func() (string, any) { return "notifications", s.notify.figures.section() },
		func() (string, any) {
			return "services", slices.Concat(s.loops.Status(), s.ingest.Loops(), s.said.intake.Loops(), s.broker.Loops(), s.live.Loops())
		},
	}
}

package server

import (
	"context"

	"muster"
	"muster/devices"
	"muster/devices/command"
	"muster/devices/join"
	"muster/devices/twin"
)

// buildDevices makes the registry and the rooms beside it.
func (s *Server) buildDevices() {
	cfg, store := &s.cfg, s.stores.control
	s.registry = devices.NewRegistry(store, cfg.Now, cfg.Logger, devices.Options{
		OnRights:   s.recheckDevices,
		OnChildren: func(ids []muster.DeviceID) { s.broker.ChildrenCame(ids) },
		OnDeleted:  s.deviceDeleted,
		Values:     latestValues{s},
		EachKey:    func(id muster.DeviceID, visit func(string)) { s.ingest.EachKey(id, visit) },
		Twins:      twinAnswers{s},
		Grace:      cfg.PresenceGrace,
		OnPresence: func(ts []devices.Transition) { s.tellPresence(ts); s.rollouts.presence(ts) },

		OnGroupDeleted:   func(name string) { s.twins.GroupDeleted(name) },
		OnProfileDeleted: func(name string) { s.twins.ProfileDeleted(name) },
	})
	s.join = join.New(s.registry, store, cfg.Now, cfg.Logger, join.Options{OnGuests: s.recheckGuests})
	s.logins = devices.NewLogins(cfg.Now, s.knows)
	s.twins = twin.New(store, s.registry, cfg.Now, cfg.Logger, twin.Options{OnDesired: s.tellDesired})
	s.simulation = &simulation{s: s}
	s.commands = command.New(store, cfg.Now, cfg.Logger, command.Options{
		Sender: commandSender{s}, Registry: s.registry, Selector: s.registry, Desirer: desirer{s.twins},
	})
}

func (s *Server) knows(id muster.DeviceID) bool {
	_, err := s.registry.Get(id)
	return err == nil
}

// loadDevices reads all that is kept of devices, and where the feed stands, first.
func (s *Server) loadDevices(ctx context.Context) error {
	for _, load := range []func(context.Context) error{s.feed.Load, s.registry.Load, s.rollouts.updating.load, s.join.Load, s.twins.Load, s.commands.Load, s.webhooks.Load, s.notify.Load, s.nameTopics, s.notify.Begin, s.notify.fanOut.Begin} {
		if err := load(ctx); err != nil {
			return err
		}
	}
	s.unwatchTwins = s.registry.Watch(s.twins.DevicesChanged)
	return nil
}

// startDevices starts their loops.
func (s *Server) startDevices() {
	s.loops.Go("devices-presence", s.registry.Run)
	s.loops.Go("devices-events", s.registry.RunEvents)
	s.loops.Go("devices-expiry", s.registry.RunExpiry)
	s.loops.Go("devices-uses", s.registry.RunUses)
	s.loops.Go("devices-join", s.join.Run)
	s.loops.Go("devices-twins", s.twins.Run)
	s.loops.Go("commands", s.commands.Run)
	s.loops.Go("commands-prune", s.commands.RunPrune)
	s.loops.Go("jobs-desired", s.commands.RunDesired)
}

// deviceDeleted has everybody forget what was a device's.
func (s *Server) deviceDeleted(id muster.DeviceID) {
	s.ingest.Deleted(id)
	s.said.trace.Forget(id)
	s.broker.Forget(id, "") // wills take their own time
	s.join.DeviceDeleted(id)
	s.logins.Forget(id)
	s.commands.Forget(id)
	s.rollouts.deleted(id)
}

// latestValues answers the registry's queries, once there is ingest.
type latestValues struct{ server *Server }

// Value implements devices.Values. Of a key that came in several kinds the newest
// counts.
func (l latestValues) Value(id muster.DeviceID, key string) (muster.Value, bool) {
	return l.server.ingest.Value(id, key)
}

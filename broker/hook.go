package broker

import (
	"slices"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"muster/internal/lifecycle"
)

// hook is all that mochi knows of Muster. Packets that the broker deals with by
// itself (CONNECT, PUBLISH, PUBREL, refused SUBSCRIBEs) are taken in OnPacketRead,
// before mochi looks at them; to mochi they become an acknowledgement of packet 0,
// which means nothing. So mochi never acknowledges, authorises or authenticates.
type hook struct {
	mqtt.HookBase
	b        *Broker
	provides [64]bool
}

func newHook(b *Broker) *hook {
	h := &hook{b: b}
	for _, p := range []byte{
		mqtt.OnPacketRead, mqtt.OnPacketEncode, mqtt.OnConnectAuthenticate, mqtt.OnACLCheck,
		mqtt.OnSessionEstablished, mqtt.OnDisconnect, mqtt.OnSubscribed, mqtt.OnUnsubscribed,
		mqtt.OnClientExpired, mqtt.OnPublishDropped, mqtt.OnQosPublish,
	} {
		h.provides[p] = true
	}
	return h
}

// ID implements mqtt.Hook.
func (h *hook) ID() string { return "muster" }

// Provides implements mqtt.Hook; it is called for every packet.
func (h *hook) Provides(p byte) bool { return int(p) < len(h.provides) && h.provides[p] }

// OnPacketRead sees every packet of a client before mochi does. Its only error is
// ErrRejectPacket, which ends the connection.
func (h *hook) OnPacketRead(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	c := connOf(cl)
	if c == nil {
		return pk, nil
	}
	switch pk.FixedHeader.Type {
	case packets.Connect:
		return c.connect(cl, pk)
	case packets.Publish:
		return handled(), c.publish(&pk)
	case packets.Pubrel:
		c.released(pk.PacketID)
		return handled(), nil
	case packets.Subscribe:
		pass, err := c.subscribe(&pk)
		if err != nil || !pass {
			return handled(), err
		}
	case packets.Unsubscribe:
		if v := pk.UnsubscribeValidate(); v == packets.CodeSuccess {
			c.unsubscribe(&pk)
		}
	case packets.Auth:
		c.bye(codeProtocolError, "extended authentication is not supported", causeProtocol)
		return pk, packets.ErrRejectPacket
	}
	return pk, nil
}

// handled is a packet that mochi does nothing with.
func handled() packets.Packet {
	return packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}}
}

// OnPacketEncode sees every packet that mochi sends. It may run on a goroutine of
// mochi's that nothing guards.
func (h *hook) OnPacketEncode(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	c := connOf(cl)
	if c == nil {
		return pk
	}
	if err := lifecycle.Guard(func() error { c.encode(&pk); return nil }); err != nil {
		h.b.panicked(err)
		c.cut(causePanic)
	}
	return pk
}

func (c *conn) encode(pk *packets.Packet) {
	switch pk.FixedHeader.Type {
	case packets.Publish:
		pk.TopicName = c.spell(pk.TopicName)
		c.b.sent.Add(1)
	case packets.Connack:
		pk.Properties.AssignedClientID = c.assigned
		pk.Properties.MaximumPacketSize = uint32(c.b.cfg.MaxPacket)
		pk.Properties.TopicAliasMaximum = maxAliases
		if c.shortened {
			pk.Properties.SessionExpiryIntervalFlag = true
		}
	case packets.Suback:
		c.complete(pk)
	case packets.Unsuback:
		pk.PacketID = c.granted.id
	case packets.Disconnect:
		if c.dialect.version < 5 {
			pk.FixedHeader.Type = packets.Reserved // 3.1.1 servers send none: mochi cannot encode this
		}
	}
}

// OnConnectAuthenticate implements mqtt.Hook: whoever comes here has been
// authenticated in connect.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, _ packets.Packet) bool {
	c := connOf(cl)
	return c != nil && c.known.Load()
}

// OnACLCheck implements mqtt.Hook for subscriptions and deliveries; publishing
// never gets to mochi's check. It also drops what a client is too slow for.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	c := connOf(cl)
	if c == nil || write {
		return false
	}
	if names := c.granting.Load(); names != nil && slices.Contains(*names, topic) {
		return true
	}
	if !c.rights.receive(topic) {
		return false
	}
	if c.out.full() {
		h.b.metrics.dropped.WithLabelValues("slow").Inc()
		return false
	}
	return true
}

// OnSessionEstablished runs when mochi has put the CONNACK in the outbox, where it
// still waits.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, _ packets.Packet) {
	c := connOf(cl)
	if c == nil {
		return
	}
	cl.State.Inflight.ResetReceiveQuota(1 << 30) // flow control from the client is the outbox's window
	c.refreshMe()
	c.yield()
	c.online = true
	h.b.metrics.connects.Inc()
	if c.rights.who.Device != "" {
		h.b.presence.Connected(c.info)
	}
	c.out.release()
}

// OnDisconnect runs before mochi removes the session's state.
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, _ bool) {
	if c := connOf(cl); c != nil {
		c.await()
	}
}

// OnSubscribed implements mqtt.Hook.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, codes []byte) {
	c := connOf(cl)
	if c == nil {
		return
	}
	for i, s := range pk.Filters {
		if c.rights.who.Admin && codes[i] < codeUnspecified {
			h.b.taps.set(c.key, s.Filter, true)
		}
	}
	c.refreshMe()
}

// OnUnsubscribed implements mqtt.Hook; it also runs when a session ends.
func (h *hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	c := connOf(cl)
	if c == nil {
		return
	}
	for _, s := range pk.Filters {
		h.b.taps.set(c.key, s.Filter, false)
	}
	c.refreshMe()
}

// OnClientExpired removes the subscriptions of a session that is over, which mochi
// would leave in its index.
func (h *hook) OnClientExpired(cl *mqtt.Client) { h.b.srv.UnsubscribeClient(cl) }

// OnQosPublish runs before a message goes to a session. mochi sends those of an
// offline one in the order of 16 bits of Created, which it counts in seconds; here
// it becomes a count. Order is lost only where that wraps, every 65,536 messages.
func (h *hook) OnQosPublish(cl *mqtt.Client, pk packets.Packet, _ int64, _ int) {
	c := connOf(cl)
	if c == nil || pk.FixedHeader.Type != packets.Publish || pk.FixedHeader.Dup {
		return
	}
	pk.Created = c.order.Add(1)
	cl.State.Inflight.Set(pk)
}

// OnPublishDropped implements mqtt.Hook: a subscriber's queue was full.
func (h *hook) OnPublishDropped(*mqtt.Client, packets.Packet) {
	h.b.metrics.dropped.WithLabelValues("queue").Inc()
}

package broker

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

func TestAReleasedSharedMessageGoesToNobodyElse(t *testing.T) {
	r := start(t, nil)
	sub := subscribePacket(1, "$share/g/job")
	sub.Filters[0].Qos = 2
	a := r.client(5, "a", "admin")
	a.send(sub)
	a.next(packets.Suback)
	p := r.client(5, "p", "admin")
	p.send(publishPacket("job", "once", 2, 1))
	p.next(packets.Pubrec)
	m := a.next(packets.Publish)
	a.send(ackPacket(packets.Pubrec, m.PacketID))
	a.next(packets.Pubrel)
	b := r.client(5, "b", "admin")
	b.send(sub)
	b.next(packets.Suback)
	_ = a.nc.Close() // between PUBREL and PUBCOMP
	if pk, err := b.readShort(); err == nil && pk.FixedHeader.Type == packets.Publish {
		t.Errorf("QoS 2 message %q was received by a (PUBREC, PUBREL) and is sent to b too", pk.Payload)
	}
}

// pings by reconnect: short SUBSCRIBE through topic alias is not possible, so UNSUBSCRIBE of a short filter.

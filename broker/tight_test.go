package broker

import (
	"context"
	"fmt"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// smallLog is a log with a bound.
type smallLog struct {
	*memLog
	limit int64
}

func (l smallLog) Bounds(ctx context.Context) (first, last uint64, size, limit int64, err error) {
	first, last, size, _, err = l.memLog.Bounds(ctx)
	return first, last, size, l.limit, err
}

// Many absent clients whose queues fill the log give up their oldest messages, so
// that nobody has to wait for room that never comes.
func TestQueuesOfAbsentClientsGiveWayBeforeTheLogIsFull(t *testing.T) {
	const limit = 4 << 20
	r := start(t, func(c *Config) {
		c.Log = smallLog{newMemLog(), limit}
		c.MaxQueued, c.MaxQueuedBytes = 1600, 1<<30
	})
	for i := range 8 {
		s := r.client(4, fmt.Sprint(i), "admin", keepSession)
		s.subscribed(fmt.Sprintf("load/%d", i))
		_ = s.nc.Close()
	}
	eventually(t, "the subscribers to be away", func() bool { return r.Stats().Connections == 0 })
	pub := r.client(4, "pub", "admin")
	body := string(make([]byte, 2000))
	for n := range 4000 { // 8 MB in all
		pub.send(publishPacket(fmt.Sprintf("load/%d", n%8), body, 1, uint16(n+1)))
		if ack := pub.next(packets.Puback); ack.PacketID != uint16(n+1) {
			t.Fatalf("PUBACK %d, want %d", ack.PacketID, n+1)
		}
	}
	if j := r.journal.Stats(); j.LiveBytes > limit*3/4 {
		t.Errorf("%d bytes of %d are still wanted", j.LiveBytes, limit)
	}
	if r.metric("dropped_total", "queue") == 0 {
		t.Error("nothing was counted as dropped")
	}
}

package broker

import (
	"context"
	"strconv"
	"time"
)

// runSys shows the broker's state at $SYS/broker/... every SysInterval, as retained
// messages that are not written down. Who may read them is a matter of rights.
func (b *Broker) runSys(ctx context.Context) error {
	b.showSys()
	t := time.NewTicker(b.cfg.SysInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			b.showSys()
		}
	}
}

func (b *Broker) showSys() {
	s, j := b.Stats(), b.journal.Stats()
	for _, v := range []struct {
		name  string
		value uint64
	}{
		{"clients/connected", uint64(s.Connections)},
		{"sessions", uint64(s.Sessions)},
		{"messages/received", s.Received},
		{"messages/sent", s.Sent},
		{"messages/retained/count", uint64(s.Retained)},
		{"subscriptions/count", uint64(b.index.Len())},
		{"journal/bytes", uint64(j.LogBytes)},
		{"uptime", uint64(b.cfg.Now().Sub(b.began) / time.Second)},
	} {
		m := &message{topic: sysTopics + "broker/" + v.name, payload: strconv.AppendUint(nil, v.value, 10), owned: true}
		b.retained.show(m)
		b.deliverSafely(m)
	}
}

package server

import (
	"context"

	"muster"
	"muster/api"
	"muster/broker"
)

// clients shows the broker's clients to the API.
type clients struct{ broker *broker.Broker }

// brokerPage is the most clients that the broker returns at once.
const brokerPage = 1000

// Clients implements api.ClientKeeper. The broker knows no DevicesOnly, so for that
// its list is read from the front: an offset counts what its reader may see, and
// tells nothing of what it may not.
func (c clients) Clients(ctx context.Context, q api.ClientsQuery) (page []api.Client, more bool, err error) {
	ask := broker.ClientsQuery{Device: q.Device, Search: q.Search, Sort: q.Sort, Limit: brokerPage}
	skip := q.Offset
	if !q.DevicesOnly {
		ask.Offset, ask.Limit, skip = q.Offset, q.Limit, 0
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		found, total, err := c.broker.Clients(ask)
		if err != nil {
			return nil, false, err
		}
		for i := range found {
			switch {
			case q.DevicesOnly && found[i].Device == "":
			case skip > 0:
				skip--
			case len(page) == q.Limit:
				return page, true, nil
			default:
				page = append(page, clientOf(&found[i]))
			}
		}
		ask.Offset += len(found)
		switch {
		case len(found) == 0 || ask.Offset >= total:
			return page, false, nil
		case !q.DevicesOnly:
			return page, true, nil
		}
	}
}

func clientOf(c *broker.Client) api.Client {
	return api.Client{
		ClientID: c.ClientID, Device: c.Device, Account: c.Account, Connected: c.Connected, Peer: c.Peer, Listener: c.Listener,
		Protocol: int(c.Protocol), KeepAlive: c.KeepAlive, Since: c.Since, Subscriptions: c.Subscriptions,
		Queued: c.Queued, Inflight: c.Inflight, Backlog: c.Backlog, Dropped: c.Dropped, Unacked: c.Unacked,
		Received: c.Received, Sent: c.Sent, ReceivedBytes: c.ReceivedBytes, SentBytes: c.SentBytes,
		ReceivedRate: c.ReceivedRate, SentRate: c.SentRate,
	}
}

// KickClient implements api.ClientKeeper.
func (c clients) KickClient(device muster.DeviceID, account, clientID, reason string) error {
	return c.broker.KickClient(device, account, clientID, reason)
}

// DeviceSessions implements api.ClientKeeper.
func (c clients) DeviceSessions(id muster.DeviceID) (sum api.DeviceSessions) {
	for {
		found, total, err := c.broker.Clients(broker.ClientsQuery{Device: id, Offset: sum.Sessions, Limit: brokerPage})
		if err != nil { // cannot be: the only one is that of an unknown order
			return sum
		}
		for i := range found {
			sum.Sessions++
			sum.Queued += found[i].Queued
			sum.Inflight += found[i].Inflight
			sum.Backlog += found[i].Backlog
			sum.Dropped += found[i].Dropped
		}
		if len(found) == 0 || sum.Sessions >= total {
			return sum
		}
	}
}

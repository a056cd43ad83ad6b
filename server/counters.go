package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster/dashboard/live"
	"muster/tasks"
	"muster/traffic"
)

const (
	busiest       = 20              // accounts that are listed; the others are summed up
	sampleEvery   = time.Second     // while somebody watches
	sampleLinger  = 5 * time.Second // that it goes on when nobody does any more
	leastForRates = 500 * time.Millisecond
)

// Connections are how many are open now. Those over MQTT have said CONNECT and been let
// in, the sockets of the live gateway have said hello.
type Connections struct {
	MQTT      int64 `json:"mqtt"`
	WebSocket int64 `json:"websocket"`
	SSE       int64 `json:"sse"`
	Total     int64 `json:"total"`
}

// Messages are counted since the start: PUBLISH packets over MQTT, messages of the live
// gateway's sockets, events of streams.
type Messages struct {
	Received uint64 `json:"received"` // by the server
	Sent     uint64 `json:"sent"`
}

// Rates are in messages per second, over the last second while somebody watches.
type Rates struct {
	Received float64 `json:"received"`
	Sent     float64 `json:"sent"`
}

// AccountCounters are those of a user, an API key or a service account.
type AccountCounters struct {
	ID          string      `json:"id,omitempty"`
	Name        string      `json:"name,omitempty"`
	Connections Connections `json:"connections"`
	Messages    Messages    `json:"messages"`
	Rates       Rates       `json:"rates"`
}

// StoredCounters are messages of telemetry that are in the store, as the ledger has them.
type StoredCounters struct {
	Total uint64  `json:"total"`
	Rate  float64 `json:"rate"` // per second
}

// TaskCounters are of all kinds.
type TaskCounters struct {
	Running int `json:"running"`
	Queued  int `json:"queued"`
}

// QueueSizes are what waits.
type QueueSizes struct {
	Store    uint64 `json:"store"`     // messages in the log and not in the store
	LogBytes int64  `json:"log_bytes"` // of those
	Intake   uint64 `json:"intake"`    // events, logs, reports and results
	Mail     int    `json:"mail"`
}

// Counters are those of the whole server. Total is the sum of Devices, Accounts and
// Others, exactly.
type Counters struct {
	Total    AccountCounters   `json:"total"`
	Stored   StoredCounters    `json:"stored"`
	Tasks    TaskCounters      `json:"tasks"`
	Queues   QueueSizes        `json:"queues"`
	Devices  AccountCounters   `json:"devices"`  // and clients that are to become some
	Accounts []AccountCounters `json:"accounts"` // the busiest 20 by messages since the start
	Others   AccountCounters   `json:"others"`   // all other accounts

	all map[string]AccountCounters
}

// counters reads what is counted.
type counters struct {
	server  *Server
	sampler *tasks.Shared
	version atomic.Uint64

	mu     sync.Mutex
	at     time.Time           // of rates and was
	was    map[string]Messages // of each account when rates were measured; at most traffic.MaxAccounts and three
	rates  map[string]Rates    // likewise
	stored uint64
	speed  float64 // of stored, per second
	newest Counters
	taken  time.Time
	parts  map[string][]byte // of newest, as JSON by member
}

// The names of sums among those of accounts, which are no ids.
const (
	totalRow   = "\x00total"
	devicesRow = "\x00devices"
	othersRow  = "\x00others"
)

func (s *Server) buildCounters() error {
	c := &counters{server: s}
	c.sampler = tasks.NewShared("system-counters", sampleLinger, s.cfg.Logger, c.run)
	s.counters = c
	for _, t := range traffic.Transports() {
		labels := prometheus.Labels{"transport": t.String()}
		read := func(of func(*traffic.Counts) float64) func() float64 {
			return func() float64 { total, _, _, _ := c.traffic(); return of(&total) }
		}
		for _, m := range []prometheus.Collector{
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_connections", Help: "Connections that are open.", ConstLabels: labels},
				read(func(n *traffic.Counts) float64 { return float64(n.Connections[t]) })),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_messages_received_total", Help: "Messages from clients.", ConstLabels: labels},
				read(func(n *traffic.Counts) float64 { return float64(n.Received[t]) })),
			prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_messages_sent_total", Help: "Messages to clients.", ConstLabels: labels},
				read(func(n *traffic.Counts) float64 { return float64(n.Sent[t]) })),
		} {
			if err := s.metrics.Register(m); err != nil {
				return fmt.Errorf("register the counters: %w", err)
			}
		}
	}
	return nil
}

// traffic returns the sum of all, what is of devices, each account, busiest first, and
// those that are not counted by themselves. Accounts are read before the sums of the
// broker, which are never less: devices are what remains.
func (c *counters) traffic() (total, devices traffic.Counts, accounts []traffic.Account, others traffic.Counts) {
	accounts, others = c.server.traffic.Read()
	sum := others
	for i := range accounts {
		sum.Add(&accounts[i].Counts)
	}
	b := c.server.broker.Stats()
	total = sum
	total.Connections[traffic.MQTT], total.Received[traffic.MQTT], total.Sent[traffic.MQTT] = int64(b.Connections), b.Received, b.Sent
	devices.Connections[traffic.MQTT] = total.Connections[traffic.MQTT] - sum.Connections[traffic.MQTT]
	devices.Received[traffic.MQTT] = total.Received[traffic.MQTT] - sum.Received[traffic.MQTT]
	devices.Sent[traffic.MQTT] = total.Sent[traffic.MQTT] - sum.Sent[traffic.MQTT]
	return total, devices, accounts, others
}

// Counters returns the counters as they are now. When nothing goes on they are exact: what
// was done is what is counted.
func (s *Server) Counters() Counters {
	s.counters.mu.Lock()
	defer s.counters.mu.Unlock()
	return s.counters.read()
}

// read is called with the lock held, which it needs for the rates.
func (c *counters) read() Counters {
	s := c.server
	total, devices, accounts, others := c.traffic()
	in, work := s.ingest.Status(), s.tasks.Stats()
	out := Counters{
		Stored: StoredCounters{Total: in.Ledger.Stored},
		Queues: QueueSizes{Store: in.Ledger.Queued, LogBytes: in.UnstoredBytes, Mail: s.accounts.Stats().MailQueued},
		all:    make(map[string]AccountCounters, len(accounts)),
	}
	for _, k := range work.Kinds {
		out.Tasks.Running += k.Running
		out.Tasks.Queued += k.Queued
	}
	for _, q := range s.said.intake.Status() {
		out.Queues.Intake += q.Queued
	}
	c.measure(total, devices, accounts, others, in.Ledger.Stored)
	out.Stored.Rate = c.speed
	out.Total, out.Devices = c.row(totalRow, &total), c.row(devicesRow, &devices)
	for i := range accounts {
		a := &accounts[i]
		row := c.row(a.ID, &a.Counts)
		row.ID, row.Name = a.ID, a.Name
		out.all[a.ID] = row
		if i < busiest {
			out.Accounts = append(out.Accounts, row)
		} else {
			others.Add(&a.Counts)
		}
	}
	out.Others = c.row(othersRow, &others)
	return out
}

func (c *counters) row(name string, n *traffic.Counts) AccountCounters {
	received, sent := n.Messages()
	return AccountCounters{
		Connections: Connections{
			MQTT: n.Connections[traffic.MQTT], WebSocket: n.Connections[traffic.WebSocket], SSE: n.Connections[traffic.SSE], Total: n.Open(),
		},
		Messages: Messages{received, sent}, Rates: c.rates[name],
	}
}

// measure takes the rates since it last did, at most twice a second.
func (c *counters) measure(total, devices traffic.Counts, accounts []traffic.Account, others traffic.Counts, stored uint64) {
	now := c.server.cfg.Now()
	took := now.Sub(c.at)
	if took < leastForRates {
		return
	}
	was, rates := make(map[string]Messages, len(accounts)+3), make(map[string]Rates, len(accounts)+3)
	take := func(name string, n *traffic.Counts) {
		received, sent := n.Messages()
		was[name] = Messages{received, sent}
		before := c.was[name]
		if c.at.IsZero() { // since when is not known
			return
		}
		rates[name] = Rates{perSecond(before.Received, received, took), perSecond(before.Sent, sent, took)}
	}
	take(totalRow, &total)
	take(devicesRow, &devices)
	for i := range accounts {
		if i >= busiest {
			others.Add(&accounts[i].Counts)
		}
		take(accounts[i].ID, &accounts[i].Counts)
	}
	take(othersRow, &others)
	if !c.at.IsZero() {
		c.speed = perSecond(c.stored, stored, took)
	}
	c.at, c.was, c.rates, c.stored = now, was, rates, stored
}

// perSecond is how fast a counter grew. One that shrank, since an account went over to the
// others or came back from them, did not.
func perSecond(before, now uint64, took time.Duration) float64 {
	if now < before {
		return 0
	}
	return float64(now-before) / took.Seconds()
}

// run reads the counters while somebody watches.
func (c *counters) run(ctx context.Context) error {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		c.sample()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sample reads them, and counts the version up when they are not as they were.
func (c *counters) sample() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest, c.taken = c.read(), time.Now()
	parts := c.newest.parts()
	for name, part := range parts {
		if !bytes.Equal(c.parts[name], part) {
			c.parts = parts
			c.version.Add(1)
			return
		}
	}
}

// parts returns the members as JSON. That of every account, which who asks for is one of,
// is among them so that its changes are seen.
func (n *Counters) parts() map[string][]byte {
	out := map[string][]byte{}
	for name, v := range map[string]any{
		"total": n.Total, "stored": n.Stored, "tasks": n.Tasks, "queues": n.Queues,
		"devices": n.Devices, "accounts": n.Accounts, "others": n.Others,
	} {
		out[name] = encode(v)
	}
	return out
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil { // plain data
		panic(fmt.Errorf("write counters: %w", err))
	}
	return b
}

// Watch implements live.System.
func (c *counters) Watch() (leave func()) { return c.sampler.Join() }

// Version implements live.System.
func (c *counters) Version() uint64 { return c.version.Load() }

// Item implements live.System: everybody sees the sums and its own, admins all.
func (c *counters) Item(who live.Principal) []live.Member {
	c.mu.Lock()
	old := time.Since(c.taken) > 2*sampleEvery
	c.mu.Unlock()
	if old { // nobody watched: the sampler is just starting
		c.sample()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	names := []string{"total", "stored", "tasks", "queues"}
	if who.Admin {
		names = append(names, "devices", "accounts", "others")
	}
	out := make([]live.Member, 0, len(names)+1)
	for _, name := range names {
		out = append(out, live.Member{Name: name, JSON: c.parts[name]})
	}
	own := c.newest.all[who.Owner]
	own.ID, own.Name = who.Owner, who.Name
	return append(out, live.Member{Name: "own", JSON: encode(own)})
}

package server

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"muster"
	"muster/accounts"
	"muster/api"
	"muster/dashboard/live"
	"muster/devices"
	"muster/devices/query"
	"muster/ingest"
	"muster/traffic"
)

// fleet answers the live gateway's questions about all devices.
type fleet struct {
	registry *devices.Registry
	in       *ingest.Ingest
	now      func() time.Time

	mu    sync.Mutex
	at    time.Time
	last  ingest.Ledger
	rates live.FleetRates

	minutes traffic.Minutes
	vitals  *vitals

	changes changes
}

// List implements live.Fleet.
func (f *fleet) List(_ context.Context, q live.ListQuery) (live.ListPage, error) {
	e, err := f.registry.Compile(q.Q)
	if err != nil {
		return live.ListPage{}, muster.At(err, "q")
	}
	if q.Only != "" {
		only, err := f.registry.Selector(q.Only) //nolint:contextcheck // it compiles, and waits for nothing
		if err != nil {
			return live.ListPage{}, err
		}
		e = query.Both(only, e)
	}
	found, err := f.registry.Select(devices.Selection{Query: e, Sort: q.Sort, After: q.After, Limit: q.Limit, Total: true})
	if err != nil {
		return live.ListPage{}, err
	}
	page := live.ListPage{
		IDs: make([]muster.DeviceID, len(found.Devices)), Total: found.Total, Next: found.Next,
		Drifts: query.UsesOf(e)&(query.UsesTelemetry|query.UsesTwin|query.UsesTime) != 0,
	}
	for i, d := range found.Devices {
		page.IDs[i] = d.ID
	}
	return page, nil
}

// Stats implements live.Fleet.
func (f *fleet) Stats() live.FleetItem {
	st := f.in.Status()
	item := live.FleetItem{
		Total: f.registry.Count(), Rates: f.rate(st.Ledger), Queued: st.Ledger.Queued, LogBytes: st.UnstoredBytes, Store: live.StoreOK,
		Counts: fleetCounts(f.registry.Counts()),
	}
	if st.StoreDown {
		item.Store = live.StoreDown
	}
	item.Storing, item.Commands = f.vitals.get()
	item.Change = f.changeOfHour()
	return item
}

// A comparison with an hour ago looks at each device: it is made again when presence changed, after so
// long that it takes a twentieth of a processor, and for what else may have changed.
const (
	changeTime  = time.Second / 2
	changeShare = 20
	changeMost  = 10 * time.Second
)

// changes keeps the newest comparison of the fleet with an hour ago.
type changes struct {
	mu    sync.Mutex
	at    time.Time
	took  time.Duration
	moves uint64 // of presence, before it was made
	is    live.FleetChange
}

// changeOfHour compares the fleet with an hour ago, to the minute.
func (f *fleet) changeOfHour() live.FleetChange {
	c := &f.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	now := f.now()
	since, moves, age := muster.MicrosOf(now.Truncate(time.Minute).Add(-time.Hour)), f.registry.PresenceMoves(), now.Sub(c.at)
	same := moves == c.moves && since == c.is.Since && age < changeMost
	if !c.at.IsZero() && age >= 0 && (same || age < min(max(changeTime, changeShare*c.took), changeMost)) {
		return c.is
	}
	found := f.registry.ChangeSince(since)
	c.at, c.took, c.moves = now, f.now().Sub(now), moves
	c.is = live.FleetChange{Since: found.Since, Counts: presenceCounts(found.Counts), Silent: found.Silent, Cause: found.Cause}
	return c.is
}

func fleetCounts(of map[muster.Status]int) live.FleetCounts {
	p := presenceCounts(of)
	return live.FleetCounts{Online: p.Online, Offline: p.Offline, Never: p.Never, Unknown: p.Unknown, Quiet: p.Quiet, Updating: of[muster.StatusUpdating]}
}

func presenceCounts[S ~string](of map[S]int) live.PresenceCounts {
	return live.PresenceCounts{
		Online: of[S(muster.PresenceOnline)], Offline: of[S(muster.PresenceOffline)], Never: of[S(muster.PresenceNever)],
		Unknown: of[S(muster.PresenceUnknown)], Quiet: of[S(muster.PresenceQuiet)],
	}
}

// countMinutes counts messages by the minute until ctx ends.
func (f *fleet) countMinutes(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		l := f.in.Status().Ledger
		f.minutes.Note(f.now(), traffic.Totals{Received: l.Received, Stored: l.Stored + l.Duplicate + l.Replaced})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Figures implements api.Fleet.
func (f *fleet) Figures() api.FleetFigures {
	item := f.Stats()
	return api.FleetFigures{
		Total: item.Total, Counts: api.FleetCounts(item.Counts), Rates: api.FleetRates(item.Rates), Queued: item.Queued, LogBytes: item.LogBytes,
		StoreDown: item.Store == live.StoreDown,
		Storing:   api.FleetStoring(item.Storing), Commands: api.FleetCommands(item.Commands),
		Since: item.Change.Since, Change: api.PresenceCounts(item.Change.Counts), Silent: item.Change.Silent, Cause: item.Change.Cause,
	}
}

// Minutes implements api.Fleet.
func (f *fleet) Minutes(from time.Time) (since time.Time, minutes []traffic.Minute) {
	return f.minutes.From(from)
}

// rate returns messages per second since the last look, looking at most twice a
// second.
func (f *fleet) rate(l ingest.Ledger) live.FleetRates {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	took := now.Sub(f.at).Seconds()
	if took < 0.5 {
		return f.rates
	}
	if took < 10 {
		written := l.Stored + l.Duplicate + l.Replaced
		before := f.last.Stored + f.last.Duplicate + f.last.Replaced
		f.rates = live.FleetRates{
			Received: float64(l.Received-f.last.Received) / took,
			Stored:   float64(written-before) / took,
		}
	}
	f.at, f.last = now, l
	return f.rates
}

// State implements live.Devices.
func (f *fleet) State(id muster.DeviceID) (live.DeviceState, bool) {
	l, ok := f.registry.Look(id)
	return live.DeviceState(l), ok
}

// Values implements live.Devices.
func (f *fleet) Values(id muster.DeviceID, dst []ingest.LatestValue) ([]ingest.LatestValue, ingest.Ledger) {
	return f.in.Values(id, dst)
}

// viewers decides who may open the live gateway.
type viewers struct {
	accounts *accounts.Accounts
	registry *devices.Registry
	request  func(r *http.Request) (accounts.Principal, error)
}

// Authenticate implements live.Auth.
func (v viewers) Authenticate(r *http.Request) (live.Principal, error) {
	return v.viewer(v.request(r))
}

// AuthenticateToken implements live.Auth.
func (v viewers) AuthenticateToken(token string) (live.Principal, error) {
	return v.viewer(v.accounts.Authenticate(token))
}

func (v viewers) viewer(p accounts.Principal, err error) (live.Principal, error) {
	switch {
	case err != nil:
		return live.Principal{}, err
	case !p.Allows(accounts.DevicesRead) || !p.Allows(accounts.TelemetryRead):
		return live.Principal{}, muster.Errorf(muster.Forbidden, "the scopes devices:read and telemetry:read are needed")
	}
	role := p.Role
	if role == "" {
		role = accounts.Viewer
		if p.Allows("admin") {
			role = accounts.Admin
		}
	}
	out := live.Principal{ID: p.ID, Name: p.Name, Role: role, Owner: cmp.Or(p.User, p.ID), Admin: p.Allows(accounts.Admin)}
	out.Who, out.Sends, out.Firmware = v.asking(p), p.Allows(accounts.NotifySend), p.Allows(accounts.FirmwareRead)
	if p.Expires != 0 {
		out.Expires = p.Expires.Time()
	}
	if p.Selector != "" {
		out.Only, out.Sees = p.Selector, func(id muster.DeviceID) bool { return v.registry.Covers(p.Selector, id) }
	}
	return out, nil
}

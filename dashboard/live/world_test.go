package live_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"muster"
	"muster/dashboard/live"
	"muster/devices"
	"muster/ingest"
	"muster/notify"
)

// world is the rest of the server: a registry, latest values and ledgers in maps.
type world struct {
	rollouts *rollouts // nil for none
	things   live.Things

	mu      sync.Mutex
	clock   time.Time
	devices map[muster.DeviceID]live.DeviceState
	latest  map[muster.DeviceID]map[string]ingest.LatestValue
	ledger  map[muster.DeviceID]ingest.Ledger
	lists   int // calls of List
	stats   int // calls of Stats
	panicOn muster.DeviceID
	extra   uint64 // queued, to make the fleet change
	looked  func() // called at the end of each look at a device
	said    *said
	post    *post // nil for no inboxes
	shape   uint64
	places  []devices.Place // of the dots by map
}

func newWorld(n int) *world {
	w := &world{
		clock:   time.UnixMilli(1_790_000_000_000),
		devices: map[muster.DeviceID]live.DeviceState{},
		latest:  map[muster.DeviceID]map[string]ingest.LatestValue{},
		ledger:  map[muster.DeviceID]ingest.Ledger{},
		said:    newSaid(),
	}
	for i := range n {
		w.add(deviceName(i))
	}
	return w
}

func deviceName(i int) muster.DeviceID { return muster.DeviceID(fmt.Sprintf("dev-%03d", i)) }

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) muster.Micros {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = w.clock.Add(d)
	return muster.MicrosOf(w.clock)
}

func (w *world) add(id muster.DeviceID) {
	at := w.advance(time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices[id] = live.DeviceState{
		Device:   devices.Device{ID: id, Name: "Unit " + string(id), Created: at, Profile: "default"},
		Presence: muster.Presence{State: muster.PresenceNever, Since: at}, Status: muster.Status(muster.PresenceNever),
	}
	delete(w.latest, id)
	delete(w.ledger, id)
	w.shape++
}

func (w *world) remove(id muster.DeviceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.devices, id)
	w.shape++
	delete(w.latest, id)
	delete(w.ledger, id)
}

// setState gives a device a presence, or has it update.
func (w *world) setState(id muster.DeviceID, s muster.PresenceState) {
	at := w.advance(time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.devices[id]
	if !ok {
		return
	}
	d.Status = muster.Status(s)
	if d.Status == muster.StatusUpdating {
		s = muster.PresenceOnline
	}
	d.State, d.Since, d.LastSeen, d.Reason, d.Connection = s, at, at, "", nil
	if s == muster.PresenceQuiet { // somebody looks after it
		d.Parent, d.Firmware = "gw-1", fmt.Sprint("1.", int64(at)%3)
		w.shape++ // the registry says something else of it
		d.Groups, _ = devices.GroupsOf([]string{"cold", "old"})
		d.Tags, _ = devices.TagsOf(map[string]string{"site": "Ulm " + fmt.Sprint(int64(at)%2), "row": ""})
	}
	if s == muster.PresenceOnline {
		d.Connection = &devices.Connection{
			Device: id, Peer: "192.0.2.7:4711", ClientID: "c-" + string(id),
			Protocol: 5, Transport: "tcp", KeepAlive: time.Minute, At: at.Time(),
		}
	} else {
		d.Reason = "keepalive"
	}
	w.devices[id] = d
}

// say stores one value of a device and returns the reading for Observe.
func (w *world) say(id muster.DeviceID, v muster.Value) []muster.Reading {
	at := w.advance(time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.devices[id]
	if !ok {
		return nil
	}
	d.LastSeen = at
	w.devices[id] = d
	if w.latest[id] == nil {
		w.latest[id] = map[string]ingest.LatestValue{}
	}
	w.latest[id][v.Key.Name] = ingest.LatestValue{Value: v, Time: at - 1500, Arrival: at}
	l := w.ledger[id]
	l.Received++
	l.Stored++
	w.ledger[id] = l
	r := muster.Reading{Device: id, Time: at - 1500, Arrival: at, Layout: muster.NewLayout([]muster.Key{v.Key})}
	if v.Key.Kind == muster.JSON {
		r.Texts = []string{v.Text}
	} else {
		r.Numbers = []float64{v.Num}
	}
	return []muster.Reading{r}
}

func (w *world) reject(id muster.DeviceID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.devices[id]; ok {
		l := w.ledger[id]
		l.Received++
		l.Rejected++
		w.ledger[id] = l
	}
}

func (w *world) ids() []muster.DeviceID {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]muster.DeviceID, 0, len(w.devices))
	for id := range w.devices {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// live.Auth

func (w *world) Authenticate(r *http.Request) (live.Principal, error) {
	c, err := r.Cookie("session")
	if err != nil {
		return live.Principal{}, muster.Errorf(muster.Unauthorized, "no session")
	}
	return live.Principal{
		ID: "u-" + c.Value, Name: c.Value, Role: "operator", Owner: c.Value, Admin: c.Value == "root", Firmware: true, Who: whoOf(c.Value), Sends: c.Value != "guest",
	}, nil
}

func (w *world) AuthenticateToken(token string) (live.Principal, error) {
	switch token {
	case "mst_good":
		return live.Principal{ID: "k-1", Name: "script", Role: "viewer", Who: notify.Who{Kind: "key", ID: "k-1", User: "usr_root"}, Sends: true}, nil
	case "mst_short":
		return live.Principal{ID: "k-2", Name: "short", Role: "viewer", Expires: w.now().Add(time.Minute)}, nil
	case "mst_within":
		return live.Principal{ID: "k-3", Name: "within", Role: "viewer", Only: "notes:none", Sees: w.within, Sends: true}, nil
	case "mst_other":
		return live.Principal{}, muster.Errorf(muster.Forbidden, "no scope")
	case "mst_later":
		return live.Principal{}, muster.Errorf(muster.Unavailable, "starting")
	}
	return live.Principal{}, muster.Errorf(muster.Unauthorized, "unknown token")
}

// within says whether a principal bound to some devices may see one: those whose notes
// are empty.
func (w *world) within(id muster.DeviceID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.isWithin(id)
}

func (w *world) isWithin(id muster.DeviceID) bool {
	d, ok := w.devices[id]
	return ok && d.Notes == ""
}

func (w *world) note(id muster.DeviceID, notes string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.devices[id]
	d.Notes = notes
	w.devices[id] = d
	w.shape++
}

// live.Fleet

func (w *world) List(_ context.Context, q live.ListQuery) (live.ListPage, error) {
	var state muster.Status
	switch q.Q {
	case "":
	case "state:online":
		state = muster.Status(muster.PresenceOnline)
	case "state:offline":
		state = muster.Status(muster.PresenceOffline)
	default:
		return live.ListPage{}, muster.Errorf(muster.Invalid, "unknown term at 1")
	}
	from := 0
	if q.After != "" {
		var err error
		if from, err = strconv.Atoi(q.After); err != nil {
			return live.ListPage{}, muster.Errorf(muster.Invalid, "after is not a cursor")
		}
	}
	if q.Sort == "colour" {
		return live.ListPage{}, muster.Errorf(muster.Invalid, "sort is none of those there are")
	}
	ids := w.ids()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lists++
	ids = slices.DeleteFunc(ids, func(id muster.DeviceID) bool {
		return state != "" && w.devices[id].Status != state || q.Only != "" && !w.isWithin(id)
	})
	if q.Sort == live.SortSeen {
		slices.SortStableFunc(ids, func(a, b muster.DeviceID) int {
			return cmp.Compare(w.devices[b].LastSeen, w.devices[a].LastSeen)
		})
	}
	page := live.ListPage{Total: len(ids)}
	from = min(from, len(ids))
	to := min(from+q.Limit, len(ids))
	page.IDs = ids[from:to]
	if to < len(ids) {
		page.Next = strconv.Itoa(to)
	}
	return page, nil
}

func (w *world) Stats() live.FleetItem {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stats++
	it := live.FleetItem{
		Total: len(w.devices), Store: live.StoreOK, Rates: live.FleetRates{Received: 120.5},
		Queued: w.extra, LogBytes: 123, Storing: live.Storing{Batches: 40, P99: 12.5}, Commands: live.Commands{Ended: 9, Acked: 8},
		Change: live.FleetChange{Since: 1_789_996_400_000_000, Silent: len(w.devices) / 2},
	}
	if it.Change.Silent > 1 {
		it.Change.Counts = live.PresenceCounts{Online: -2, Quiet: 1, Offline: 1}
		it.Change.Cause = devices.Cause{Kind: devices.CauseGateway, Name: `gw "7"`, State: "offline", Devices: 2, Together: 1, At: 1_789_999_000_000_000}
	}
	for _, d := range w.devices {
		switch d.Status {
		case muster.StatusUpdating:
			it.Counts.Updating++
		case muster.Status(muster.PresenceOnline):
			it.Counts.Online++
		case muster.Status(muster.PresenceOffline):
			it.Counts.Offline++
		default:
			it.Counts.Never++
		}
	}
	return it
}

// live.Devices

func (w *world) State(id muster.DeviceID) (live.DeviceState, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if id == w.panicOn {
		panic("the source is broken")
	}
	d, ok := w.devices[id]
	return d, ok
}

func (w *world) Values(id muster.DeviceID, dst []ingest.LatestValue) ([]ingest.LatestValue, ingest.Ledger) {
	w.mu.Lock()
	dst = slices.AppendSeq(dst, maps.Values(w.latest[id]))
	l, looked := w.ledger[id], w.looked
	w.mu.Unlock()
	slices.SortFunc(dst, func(a, b ingest.LatestValue) int { return muster.CompareKeys(a.Key, b.Key) })
	if looked != nil {
		looked()
	}
	return dst, l
}

// onLook has f called at the end of the next look at a device, and of no other.
func (w *world) onLook(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looked = func() {
		w.mu.Lock()
		w.looked = nil
		w.mu.Unlock()
		f()
	}
}

// What the wire must say, written down a second time and in another way.

func plain(v any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		panic(err)
	}
	return m
}

func millis(m muster.Micros) int64 { return int64(m) / 1000 }

func wireValue(v muster.Value) any {
	switch {
	case v.Key.Kind == muster.JSON:
		return json.RawMessage(v.Text)
	case math.IsNaN(v.Num):
		return nil
	case v.Key.Kind == muster.Bool:
		return v.Num == 1
	}
	return v.Num
}

func (w *world) wantRow(id muster.DeviceID) map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.devices[id]
	values := map[string]any{}
	for k, v := range w.latest[id] {
		values[k] = []any{wireValue(v.Value), millis(v.Time)}
	}
	return plain(map[string]any{
		"id": id, "name": d.Name, "state": d.State, "status": d.Status, "since": millis(d.Since),
		"last_seen": millis(d.LastSeen), "reason": d.Reason, "values": values,
		"parent": d.Parent, "profile": d.Profile, "firmware": d.Firmware, "groups": d.Groups.Names(), "tags": d.Tags.Map(),
	})
}

func (w *world) wantPage(id muster.DeviceID) map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.devices[id]
	if !ok {
		return nil
	}
	values := map[string]any{}
	for k, v := range w.latest[id] {
		values[k] = map[string]any{"v": wireValue(v.Value), "time": millis(v.Time), "arrival": millis(v.Arrival)}
	}
	var conn any
	if c := d.Connection; c != nil {
		conn = map[string]any{
			"peer": c.Peer, "client_id": c.ClientID, "protocol": c.Protocol, "transport": c.Transport,
			"keep_alive_s": c.KeepAlive / time.Second, "since": c.At.UnixMilli(),
		}
	}
	return plain(map[string]any{
		"id": id, "name": d.Name, "created_at": millis(d.Created), "state": d.State, "status": d.Status,
		"since": millis(d.Since), "last_seen": millis(d.LastSeen), "reason": d.Reason, "connection": conn,
		"ledger": w.ledger[id], "values": values,
		"parent": d.Parent, "profile": d.Profile, "firmware": d.Firmware, "groups": d.Groups.Names(), "tags": d.Tags.Map(),
	})
}

func (w *world) wantFleet() map[string]any {
	it := w.Stats()
	change := map[string]any{"since": millis(it.Change.Since), "silent": it.Change.Silent}
	if c := it.Change.Cause; c.Kind != "" {
		change["cause"] = map[string]any{"kind": c.Kind, "name": c.Name, "state": c.State, "devices": c.Devices, "together": c.Together, "at": millis(c.At)}
	}
	counts := it.Change.Counts
	change["counts"] = map[string]any{
		"online": counts.Online, "offline": counts.Offline, "never": counts.Never, "unknown": counts.Unknown, "quiet": counts.Quiet,
	}
	return plain(map[string]any{
		"change": change,
		"total":  it.Total, "queued": it.Queued, "log_bytes": it.LogBytes, "store": it.Store,
		"counts": map[string]any{
			"online": it.Counts.Online, "offline": it.Counts.Offline, "never": it.Counts.Never,
			"unknown": it.Counts.Unknown, "quiet": it.Counts.Quiet, "updating": it.Counts.Updating,
		},
		"storing":  map[string]any{"batches": it.Storing.Batches, "p99_ms": it.Storing.P99},
		"commands": map[string]any{"ended": it.Commands.Ended, "acked": it.Commands.Acked},
		"rates":    map[string]any{"received": it.Rates.Received, "stored": it.Rates.Stored},
	})
}

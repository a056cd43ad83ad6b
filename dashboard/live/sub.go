package live

import (
	"cmp"
	"context"
	"math"
	"strings"
	"sync/atomic"

	"muster"
	"muster/feed"
)

// kind is what a channel shows.
type kind uint8

const (
	kindFleet kind = iota
	kindDevices
	kindDevice
	kindSystem
	kindTasks
	kindTask
	kindRollout
	kindHere
	kindEvents
	kindInbox
	kindDots
)

const (
	chFleet        = "fleet"
	chDevices      = "devices"
	chDevicePrefix = "device:"
	chSystem       = "system"
	chTasks        = "tasks"
	chTaskPrefix   = "task:"
	chRollout      = "rollout:"
	chEvents       = "events"
	chInbox        = "inbox"
	chDots         = "dots"
)

// sub is one subscription of one client. A second one to the same channel, and
// one shown again after the tab was hidden, is a new sub in the place of the old.
type sub struct {
	c     *client
	ch    string
	kind  kind
	*view                            // nil of an inbox channel: there may be one for each user, and it needs none of it
	only  func(muster.DeviceID) bool // which devices it may show; nil for all
	seq   *uint64                    // frames sent on the channel; the flush goroutine's own
	who   *Principal
	inbox *inboxSub // of an inbox channel

	closed bool // the command goroutine's own

	// Guarded by c.mu.
	shown bool // open, and not in a hidden tab
	want  bool // a snapshot is due
	hasRe bool
	re    int64
}

// view is what all channels have but the inbox.
type view struct {
	query ListQuery // of a devices channel
	cols  []string  // the keys wanted, sorted; nil for the first of each device
	id    muster.DeviceID
	task  string // id of what a task or rollout channel shows
	types string // of an events channel; of a here channel what is edited

	// Of a dots channel. What it was told last is in since, a version, and in seen, a pass.
	dots gridKey
	grid *grid // set by openSub

	// Of the channels in polled.
	leave  func()            // of a system channel, until it is closed
	seen   atomic.Uint64     // the version of the source that was looked at last
	told   map[string][]byte // members, or tasks by id, as they were sent last; the flush goroutine's own
	follow *feed.Follower    // the flush goroutine's own, but Ready
	placed int64             // the place in the feed that the client knows; the flush goroutine's own

	// Set by openSub, then not changed.
	rows  []*row
	total int
	next  string

	// Marks, set by the loop and taken by the flush goroutine.
	dirty     []atomic.Uint64 // a bit per row
	matches   atomic.Int64    // how many devices match now
	drifted   atomic.Bool
	fleetSent atomic.Uint64 // version of the fleet item sent last

	// The flush goroutine's own.
	since  uint64   // the pass up to which everything was sent
	epochs []uint32 // of the rows when they were sent whole; dead when a del was sent
	anew   bool     // a row cannot be patched: send the list again
}

const dead = math.MaxUint32

func (s *sub) markRow(at int) {
	s.dirty[at/64].Or(1 << (at % 64))
}

// renewed returns a sub to the same thing, not opened yet.
func (s *sub) renewed() *sub {
	return &sub{
		c: s.c, ch: s.ch, kind: s.kind, only: s.only, seq: s.seq, who: s.who, re: s.re, hasRe: s.hasRe && s.want,
		view: &view{query: s.query, cols: s.cols, id: s.id, task: s.task, types: s.types, follow: s.follow, dots: s.dots},
	}
}

// openSub registers s with what it shows and reads the first state: registered
// first, so that a change in between marks it. After an error s is closed.
func (g *Gateway) openSub(s *sub) (err error) {
	ok := false
	defer func() { // on a panic of a source too
		if !ok {
			g.closeSub(s)
		}
	}()
	switch s.kind {
	case kindFleet:
		if g.fleet.add(s) {
			g.fleet.set(g.deps.Fleet.Stats())
		}
	case kindDevice:
		if !s.sees(s.id) {
			return errAbsent(s.id)
		}
		g.show(s, []muster.DeviceID{s.id})
		if r := s.rows[0]; r.isGone() {
			return g.absent(r)
		}
	case kindDevices:
		if err := g.openList(s); err != nil {
			return err
		}
	case kindInbox:
		if err := g.openInbox(s); err != nil {
			return err
		}
	case kindDots:
		if err := g.openDots(s); err != nil {
			return err
		}
	default:
		if err := g.openPolled(s); err != nil {
			return err
		}
	}
	ok = true
	return nil
}

// absent says why r cannot be shown: there is no such device, or it was made so
// shortly ago that no pass has seen it.
func (g *Gateway) absent(r *row) error {
	if _, found := g.deps.Devices.State(r.id); found {
		g.index.touch(r)
		return muster.Errorf(muster.Busy, "the device %s is being made", r.id)
	}
	return errAbsent(r.id)
}

func errAbsent(id muster.DeviceID) error {
	return muster.Errorf(muster.NotFound, "there is no device %s", id)
}

// sees says whether who asked may see the device id now. It is asked each time something
// of a device is sent, since who is within changes.
func (s *sub) sees(id muster.DeviceID) bool { return s.only == nil || s.only(id) }

func (g *Gateway) openList(s *sub) error {
	ctx, cancel := context.WithTimeout(g.baseCtx, sourceTimeout)
	defer cancel()
	page, err := g.deps.Fleet.List(ctx, s.query)
	if err != nil {
		return err
	}
	page.IDs = page.IDs[:min(len(page.IDs), s.query.Limit)]
	s.total, s.next = page.Total, page.Next
	s.matches.Store(int64(page.Total))
	g.show(s, page.IDs)
	g.counts.join(s)
	return nil
}

func (g *Gateway) show(s *sub, ids []muster.DeviceID) {
	s.dirty = make([]atomic.Uint64, (len(ids)+63)/64)
	s.epochs = make([]uint32, len(ids))
	s.rows = g.index.watch(s, ids)
	for _, r := range s.rows {
		if !r.isLoaded() {
			r.load(g.fetch(r.id, nil))
		}
	}
}

// closeSub undoes openSub, also when it came half way.
func (g *Gateway) closeSub(s *sub) {
	if s.closed {
		return
	}
	s.closed = true
	switch s.kind {
	case kindFleet:
		g.fleet.remove(s)
		return
	case kindSystem, kindTasks, kindTask, kindRollout, kindHere, kindEvents:
		g.closePolled(s)
		return
	case kindInbox:
		g.closeInbox(s)
		return
	case kindDots:
		g.grids.leave(s)
		return
	case kindDevice, kindDevices:
	}
	g.counts.leave(s)
	if s.rows != nil {
		g.index.unwatch(s, s.rows)
	}
}

// subFor checks the fields of a sub command.
func subFor(c *client, cmd *command) (*sub, error) {
	who := c.principal()
	s := &sub{c: c, ch: cmd.Ch, who: who, only: who.Sees}
	if cmd.ID != nil {
		s.re, s.hasRe = *cmd.ID, true
	}
	if cmd.Ch == chInbox {
		err := s.inboxFor(cmd)
		return s, err
	}
	s.view = &view{query: ListQuery{Only: who.Only}}
	switch {
	case cmd.Ch == chFleet && who.Only != "": // its figures are those of all devices
		return nil, muster.Errorf(muster.Forbidden, "the fleet is not for a key with a device selector")
	case cmd.Ch == chFleet:
		s.kind = kindFleet
		return s, nil
	case cmd.Ch == chDevices:
		s.kind = kindDevices
		err := s.setQuery(cmd)
		return s, err
	case cmd.Ch == chDots:
		err := c.g.dotsFor(s, cmd)
		return s, err
	case strings.HasPrefix(cmd.Ch, chDevicePrefix):
		s.kind = kindDevice
		var err error
		s.id, err = muster.ParseDeviceID(cmd.Ch[len(chDevicePrefix):])
		return s, err
	}
	err := c.g.polledFor(s, cmd)
	return s, err
}

const (
	defaultLimit = 50
	maxLimit     = 200
	maxQuery     = 4096 // bytes
	maxCursor    = 4096 // bytes
	maxSort      = 256  // bytes
	maxCols      = 32
)

// limitOf returns how many rows or items a sub command wants.
func limitOf(cmd *command) (int, error) {
	if cmd.Limit == nil {
		return defaultLimit, nil
	}
	if *cmd.Limit < 1 || *cmd.Limit > maxLimit {
		return 0, muster.InvalidAt("limit", "limit must be from 1 to %d", maxLimit)
	}
	return *cmd.Limit, nil
}

func (s *sub) setQuery(cmd *command) error {
	limit, err := limitOf(cmd)
	if err != nil {
		return err
	}
	s.query = ListQuery{Q: cmd.Q, Sort: cmp.Or(cmd.Sort, SortID), After: cmd.After, Limit: limit, Only: s.query.Only}
	switch {
	case len(s.query.Sort) > maxSort:
		return muster.InvalidAt("sort", "sort has %d bytes, at most %d are allowed", len(s.query.Sort), maxSort)
	case len(cmd.Q) > maxQuery:
		return muster.InvalidAt("q", "q has %d bytes, at most %d are allowed", len(cmd.Q), maxQuery)
	case len(cmd.After) > maxCursor:
		return muster.InvalidAt("after", "after is not a cursor")
	case len(cmd.Cols) > maxCols:
		return muster.InvalidAt("cols", "cols has %d keys, at most %d are allowed", len(cmd.Cols), maxCols)
	}
	s.cols = sortedCols(cmd.Cols)
	return nil
}

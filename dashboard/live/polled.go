package live

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"

	"muster"
)

const (
	eventsAtOnce = 256  // events of the feed that are looked at for one message
	placeAfter   = 1000 // of them that may pass by the filter before the client is told its place
)

// polled are the channels whose sources are asked at each tick whether they have news:
// one number each. What is sent is read when its turn comes, so that nothing is queued,
// and a client that is slow, or has been away, costs no more than one that is not.
type polled struct {
	mu   sync.Mutex
	subs map[*sub]struct{}
}

// behind has each channel that has news sent.
func (p *polled) behind(g *Gateway) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.subs) == 0 {
		return
	}
	system, tasks, rollouts := g.deps.System.Version(), g.deps.Tasks.Changes(), uint64(0)
	if g.deps.Rollouts != nil {
		rollouts = g.deps.Rollouts.Changes()
	}
	for s := range p.subs {
		news := false
		switch s.kind {
		case kindSystem:
			news = s.seen.Load() != system
		case kindTasks, kindTask:
			news = s.seen.Load() != tasks
		case kindRollout:
			news = s.seen.Load() != rollouts
		case kindHere:
			news = s.seen.Load() != g.here.changes.Load()
		case kindEvents:
			news = s.follow.Ready()
		case kindInbox: // what its wake had written, but for the store
			if s.inbox.follow.Ready() {
				g.woken.add(s)
			}
		case kindFleet, kindDevice, kindDevices, kindDots:
		}
		if news {
			g.markReady(s)
		}
	}
}

func (p *polled) add(s *sub) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subs[s] = struct{}{}
}

func (p *polled) remove(s *sub) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.subs, s)
}

// polledFor reads the fields of a sub command for a polled channel.
func (g *Gateway) polledFor(s *sub, cmd *command) error {
	task, isTask := strings.CutPrefix(cmd.Ch, chTaskPrefix)
	rollout, isRollout := strings.CutPrefix(cmd.Ch, chRollout)
	switch {
	case strings.HasPrefix(cmd.Ch, chHere):
		return s.hereFor(cmd)
	case cmd.Ch == chEvents:
		s.kind, s.types = kindEvents, cmd.Types
		return s.setPlace(cmd)
	case cmd.Ch == chSystem:
		s.kind = kindSystem
	case cmd.Ch == chTasks:
		s.kind = kindTasks
		if err := s.setQuery(&command{Limit: cmd.Limit}); err != nil {
			return err
		}
	case isTask && len(task) > 0 && len(task) <= maxTaskID:
		s.kind, s.task = kindTask, task
	case isRollout && len(rollout) > 0 && len(rollout) <= maxTaskID && g.deps.Rollouts != nil:
		if !s.who.Firmware {
			return muster.Errorf(muster.Forbidden, "the channel %s needs the scope firmware:read", s.ch)
		}
		s.kind, s.task = kindRollout, rollout
	default:
		return errChannel
	}
	if s.who.Only != "" { // as the API has it
		return muster.Errorf(muster.Forbidden, "the channel %s is not for a key with a device selector", s.ch)
	}
	return nil
}

const (
	maxTaskID = 64   // bytes
	maxTypes  = 1024 // bytes
)

// setPlace checks the fields that choose events. What is too long is not looked at.
func (s *sub) setPlace(cmd *command) error {
	switch {
	case len(cmd.Types) > maxTypes:
		return muster.InvalidAt("types", "types has %d bytes, at most %d are allowed", len(cmd.Types), maxTypes)
	case len(cmd.Q) > maxQuery:
		return muster.InvalidAt("q", "q has %d bytes, at most %d are allowed", len(cmd.Q), maxQuery)
	}
	s.query.Q, s.query.After = cmd.Q, cmd.After
	return nil
}

func (g *Gateway) openPolled(s *sub) (err error) {
	switch {
	case s.kind == kindSystem:
		s.leave = g.deps.System.Watch()
	case s.kind == kindHere:
		if err := g.mayMeet(s); err != nil {
			return err
		}
		g.here.join(s)
	case s.kind == kindTask || s.kind == kindRollout:
		_, err = g.readOne(s)
	case s.kind == kindEvents && s.follow == nil: // else it was hidden, and goes on where it was
		s.follow, err = g.deps.Events.Follow(*s.who, s.types, s.query.Q, s.query.After)
	}
	if err == nil {
		g.polled.add(s)
	}
	return err
}

func (g *Gateway) closePolled(s *sub) {
	g.polled.remove(s)
	if s.kind == kindHere {
		g.here.leave(s)
	}
	if s.leave != nil {
		s.leave()
	}
}

func (g *Gateway) systemSnapshot(m *message, s *sub) {
	s.told = map[string][]byte{}
	m.put(`,"item":{`)
	g.systemMembers(m, s)
	m.put("}")
}

func (g *Gateway) systemDelta(m *message, s *sub) bool {
	m.open("delta", s)
	m.put(`,"set":{`)
	some := g.systemMembers(m, s)
	m.put("}}")
	return some
}

// systemMembers appends the members that are not as they were told last.
func (g *Gateway) systemMembers(m *message, s *sub) bool {
	s.seen.Store(g.deps.System.Version()) // before the look
	first := true
	for _, member := range g.deps.System.Item(*s.who) {
		if bytes.Equal(s.told[member.Name], member.JSON) {
			continue
		}
		s.told[member.Name] = member.JSON
		m.b = appendComma(m.b, &first)
		m.putMember(member)
	}
	return !first
}

func (m *message) putMember(member Member) {
	m.putString(member.Name)
	m.put(":")
	m.b = append(m.b, member.JSON...)
}

func (g *Gateway) newestTasks(s *sub) []Member {
	s.seen.Store(g.deps.Tasks.Changes()) // before the look
	return g.deps.Tasks.Newest(*s.who, s.query.Limit)
}

func (g *Gateway) tasksSnapshot(m *message, s *sub) {
	s.told = map[string][]byte{}
	m.put(`,"items":[`)
	first := true
	for _, task := range g.newestTasks(s) {
		s.told[task.Name] = task.JSON
		m.b = appendComma(m.b, &first)
		m.b = append(m.b, task.JSON...)
	}
	m.put("]")
}

// tasksDelta tells the tasks that are new or changed, whole, and the ids of those that
// are not among the newest any more.
func (g *Gateway) tasksDelta(m *message, s *sub) bool {
	m.open("delta", s)
	bare := len(m.b)
	m.put(`,"set":{`)
	first := true
	now := make(map[string][]byte, len(s.told))
	for _, task := range g.newestTasks(s) {
		now[task.Name] = task.JSON
		if !bytes.Equal(s.told[task.Name], task.JSON) {
			m.b = appendComma(m.b, &first)
			m.putMember(task)
		}
	}
	some := !first
	if first {
		m.b = m.b[:bare]
	} else {
		m.put("}")
	}
	first = true
	for id := range s.told {
		if now[id] != nil {
			continue
		}
		m.put(map[bool]string{true: `,"del":[`, false: ","}[first])
		first = false
		m.putString(id)
	}
	if !first {
		some = true
		m.put("]")
	}
	s.told = now
	m.put("}")
	return some
}

// readOne reads the one thing that s shows, a task, a rollout or who is here, and notes as of when.
func (g *Gateway) readOne(s *sub) ([]byte, error) {
	if s.kind == kindHere {
		return g.lookAround(s)
	}
	if s.kind == kindTask {
		s.seen.Store(g.deps.Tasks.Changes()) // before the look
		return g.deps.Tasks.Task(*s.who, s.task)
	}
	s.seen.Store(g.deps.Rollouts.Changes()) // likewise
	return g.deps.Rollouts.Rollout(s.task)
}

// lookAtOne reads the task or rollout of s; false when it is gone. What cannot be read now
// stays as it was told last.
func (g *Gateway) lookAtOne(s *sub) bool {
	body, err := g.readOne(s)
	if err != nil && muster.KindOf(err) != muster.NotFound && s.told[s.task] != nil {
		s.seen.Store(0) // the next tick tries again
		return true
	}
	if err != nil {
		s.told = nil
		return false
	}
	s.told = map[string][]byte{s.task: body}
	return true
}

func (g *Gateway) oneDelta(m *message, s *sub) bool {
	was := s.told[s.task]
	there := g.lookAtOne(s)
	if !there && was == nil || there && bytes.Equal(was, s.told[s.task]) {
		return false
	}
	m.open("delta", s)
	if there {
		m.put(`,"set":`)
		m.b = append(m.b, s.told[s.task]...)
	} else {
		m.put(`,"del":[`)
		m.putString(s.task)
		m.put("]")
	}
	m.put("}")
	return true
}

// eventsSnapshot ends a snapshot that says where in the feed the channel is.
func (m *message) eventsSnapshot(s *sub) {
	m.putPlace(s, s.follow.At())
	m.put("}")
	m.putReset(s)
	s.placed = s.follow.At()
	s.c.more = s.c.more || s.follow.Ready()
}

func (m *message) putPlace(s *sub, seq int64) {
	place := s.follow.PlaceOf(seq)
	m.put(`,"epoch":`)
	m.putString(place[:strings.LastIndexByte(place, '-')])
	m.put(`,"seq":`)
	m.b = strconv.AppendInt(m.b, seq, 10)
}

// putReset says, when it is so, that events are missing before what comes next.
func (m *message) putReset(s *sub) {
	why := s.follow.Reset()
	if why == "" {
		return
	}
	m.open("reset", s)
	m.putPlace(s, s.follow.At())
	m.put(`,"reason":`)
	m.putString(why)
	m.put("}")
}

// eventFrames appends the next events of the feed that pass the filter, or where the
// channel is when none did. It runs for a connection, which outlives those that wake it.
//
//nolint:contextcheck,nolintlint // contextcheck looks here, and reports at those who call
func (g *Gateway) eventFrames(m *message, s *sub) {
	if !s.follow.Ready() {
		return
	}
	ctx, cancel := context.WithTimeout(g.baseCtx, sourceTimeout)
	defer cancel()
	events, err := s.follow.Next(ctx, eventsAtOnce)
	if err != nil { // the next tick tries again
		g.deps.Log.Warn("live: read the feed", "err", err)
		return
	}
	m.putReset(s)
	for i := range events {
		m.open("event", s)
		m.put(`,"seq":`)
		m.b = strconv.AppendInt(m.b, events[i].Seq, 10)
		m.put(`,"ev":`)
		m.b = append(m.b, events[i].Envelope()...)
		m.put("}")
	}
	if n := len(events); n > 0 {
		s.placed = events[n-1].Seq
	}
	if s.follow.At()-s.placed >= placeAfter {
		m.open("place", s)
		m.putPlace(s, s.follow.At())
		m.put("}")
		s.placed = s.follow.At()
	}
	s.c.more = s.c.more || s.follow.Ready()
}

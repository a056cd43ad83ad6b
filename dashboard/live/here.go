package live

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"muster"
)

const (
	chHere     = "here:"
	mostHere   = 20 // people told of, on one object; the rest is a number
	maxEdits   = 16 // letters of what is edited
	maxShownAs = 80 // bytes of a name
	maxRoom    = 512
)

// gathering knows who has the channel here:{id} of a device open, or here:{kind}/{id} of another
// thing: who looks at it. It is of this process alone, and bounded by the connections and their
// channels. A room is named by what follows here: in the channel's name; no device has a slash in
// its id.
type gathering struct {
	changes atomic.Uint64

	mu    sync.Mutex
	rooms map[string]map[*sub]struct{}
}

func (x *gathering) join(s *sub) {
	x.mu.Lock()
	defer x.mu.Unlock()
	room := x.rooms[s.task]
	if room == nil {
		room = map[*sub]struct{}{}
		x.rooms[s.task] = room
	}
	room[s] = struct{}{}
	x.changes.Add(1)
}

func (x *gathering) leave(s *sub) {
	x.mu.Lock()
	defer x.mu.Unlock()
	room := x.rooms[s.task]
	if _, ok := room[s]; !ok {
		return
	}
	delete(room, s)
	if len(room) == 0 {
		delete(x.rooms, s.task)
	}
	x.changes.Add(1)
}

// someone is one who is there, with all his tabs.
type someone struct {
	owner, name, edits string
}

// in returns who is there, by name, the owner of s first.
func (x *gathering) in(s *sub) []someone {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[string]someone{}
	for o := range x.rooms[s.task] {
		who := all[o.who.Owner]
		who.owner, who.name = o.who.Owner, shownAs(o.who)
		who.edits = cmp.Or(who.edits, o.types)
		all[o.who.Owner] = who
	}
	out := make([]someone, 0, len(all))
	for _, who := range all {
		out = append(out, who)
	}
	slices.SortFunc(out, func(a, b someone) int {
		if mine := a.owner == s.who.Owner; mine != (b.owner == s.who.Owner) {
			return map[bool]int{true: -1, false: 1}[mine]
		}
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.owner, b.owner))
	})
	return out
}

// shownAs is a name that is no address: of one the part before the @.
func shownAs(who *Principal) string {
	name, _, _ := strings.Cut(who.Name, "@")
	if name == "" {
		name = who.Role
	}
	if len(name) > maxShownAs {
		name = strings.ToValidUTF8(name[:maxShownAs], "")
	}
	return name
}

// hereFor reads the fields of a sub command for the channel here:{id} or here:{kind}/{id}. Names are for
// people who are signed in: a key neither sees them nor is seen.
func (s *sub) hereFor(cmd *command) error {
	if s.who.Who.Subject() == "" || s.who.Only != "" {
		return muster.Errorf(muster.Forbidden, "the channel %s is for signed-in users", s.ch)
	}
	if len(cmd.Edits) > maxEdits || strings.Trim(cmd.Edits, "abcdefghijklmnopqrstuvwxyz") != "" {
		return muster.InvalidAt("edits", "edits has at most %d small letters", maxEdits)
	}
	room := cmd.Ch[len(chHere):]
	s.kind, s.task, s.types = kindHere, room, cmd.Edits
	if _, id, isThing := strings.Cut(room, "/"); isThing {
		if id == "" || len(room) > maxRoom || !utf8.ValidString(room) || strings.ContainsFunc(room, unicode.IsControl) {
			return muster.Errorf(muster.Invalid, "the channel names no thing")
		}
		return nil
	}
	var err error
	s.id, err = muster.ParseDeviceID(room)
	return err
}

// mayMeet says why s may not see who is at what it names: it is not there, or not for who asks.
//
//nolint:contextcheck,nolintlint // it looks for a connection, which outlives those that wake it
func (g *Gateway) mayMeet(s *sub) error {
	kind, id, isThing := strings.Cut(s.task, "/")
	switch {
	case !isThing:
		if _, there := g.deps.Devices.State(s.id); !there {
			return errAbsent(s.id)
		}
		return nil
	case g.deps.Things == nil:
		return errChannel
	}
	ctx, cancel := context.WithTimeout(g.baseCtx, sourceTimeout)
	defer cancel()
	return g.deps.Things.Shows(ctx, *s.who, kind, id)
}

// hereItem is who is at what s names, as JSON.
func (g *Gateway) hereItem(s *sub) []byte {
	s.seen.Store(g.here.changes.Load()) // before the look
	all := g.here.in(s)
	var m message
	m.put(`{"viewers":[`)
	first := true
	for _, who := range all[:min(len(all), mostHere)] {
		m.b = appendComma(m.b, &first)
		m.put(`{"name":`)
		m.putString(who.name)
		m.put(`,"edits":`)
		m.putString(who.edits)
		m.put(map[bool]string{true: `,"you":true}`, false: `,"you":false}`}[who.owner == s.who.Owner])
	}
	m.put(`],"more":`)
	m.b = strconv.AppendInt(m.b, int64(max(0, len(all)-mostHere)), 10)
	m.put("}")
	return m.b
}

// lookAround is hereItem for who may see it still: that is asked again when others came or went.
func (g *Gateway) lookAround(s *sub) ([]byte, error) {
	item := g.hereItem(s)
	if was := s.told[s.task]; was != nil && !bytes.Equal(was, item) {
		err := g.mayMeet(s)
		if muster.KindOf(err) == muster.Forbidden && err != nil { // not for who asks any more: as if it were gone
			err = errChannel
		}
		if err != nil {
			return nil, err
		}
	}
	return item, nil
}

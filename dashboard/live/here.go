package live

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"muster"
)

const (
	chHere     = "here:"
	mostHere   = 20 // people told of, on one object; the rest is a number
	maxEdits   = 16 // letters of what is edited
	maxShownAs = 80 // bytes of a name
)

// gathering knows who has the channel here:{device} open: who looks at a device. It is of
// this process alone, and bounded by the connections and their channels.
type gathering struct {
	changes atomic.Uint64

	mu    sync.Mutex
	rooms map[muster.DeviceID]map[*sub]struct{}
}

func (x *gathering) join(s *sub) {
	x.mu.Lock()
	defer x.mu.Unlock()
	room := x.rooms[s.id]
	if room == nil {
		room = map[*sub]struct{}{}
		x.rooms[s.id] = room
	}
	room[s] = struct{}{}
	x.changes.Add(1)
}

func (x *gathering) leave(s *sub) {
	x.mu.Lock()
	defer x.mu.Unlock()
	room := x.rooms[s.id]
	if _, ok := room[s]; !ok {
		return
	}
	delete(room, s)
	if len(room) == 0 {
		delete(x.rooms, s.id)
	}
	x.changes.Add(1)
}

// someone is one who is there, with all his tabs.
type someone struct {
	owner, name, edits string
}

// in returns who is at a device, by name, the owner of s first.
func (x *gathering) in(s *sub) []someone {
	x.mu.Lock()
	defer x.mu.Unlock()
	all := map[string]someone{}
	for o := range x.rooms[s.id] {
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

// hereFor reads the fields of a sub command for the channel here:{device}. Names are for
// people who are signed in: a key neither sees them nor is seen.
func (s *sub) hereFor(cmd *command) error {
	if s.who.Who.Subject() == "" || s.who.Only != "" {
		return muster.Errorf(muster.Forbidden, "the channel %s is for signed-in users", s.ch)
	}
	if len(cmd.Edits) > maxEdits || strings.Trim(cmd.Edits, "abcdefghijklmnopqrstuvwxyz") != "" {
		return muster.InvalidAt("edits", "edits has at most %d small letters", maxEdits)
	}
	id, err := muster.ParseDeviceID(cmd.Ch[len(chHere):])
	s.kind, s.id, s.task, s.types = kindHere, id, string(id), cmd.Edits
	return err
}

// hereItem is who is at the device of s, as JSON.
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

package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"muster"
	"muster/dashboard/live"
	"muster/feed"
	"muster/traffic"
)

// said is what the world tells beside devices: counters, tasks and events.
type said struct {
	meter *traffic.Meter
	feed  *feed.Feed

	mu       sync.Mutex
	version  uint64
	system   map[string]int // members of the system item
	watchers int
	changes  uint64
	tasks    map[string]task
	events   []feed.Event
	first    int64 // event that is kept
}

type task struct {
	ID    string `json:"id"`
	Owner string `json:"owner"`
	Done  int    `json:"done"`
}

func newSaid() *said {
	s := &said{meter: traffic.New(), system: map[string]int{"a": 0, "b": 0, "secret": 0}, tasks: map[string]task{}, first: 1}
	s.feed = feed.New(s, slog.New(slog.DiscardHandler))
	if err := s.feed.Load(context.Background()); err != nil {
		panic(err)
	}
	return s
}

func (s *said) count(member string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.system[member]++
	s.version++
}

func (s *said) work(id, owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tasks[id]
	s.tasks[id] = task{id, owner, t.Done + 1}
	s.changes++
}

func (s *said) drop(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.tasks, id)
	s.changes++
}

func (s *said) happen(kind string, device muster.DeviceID) {
	s.mu.Lock()
	e := feed.NewEvent(kind, device, 1, map[string]any{"device": device})
	e.Seq = int64(len(s.events) + 1)
	s.events = append(s.events, e)
	s.mu.Unlock()
	s.feed.Publish([]feed.Event{e})
}

func raw(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// live.System

func (s *said) Watch() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.watchers--
	})
}

func (s *said) watched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watchers
}

func (s *said) Version() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

func (s *said) Item(who live.Principal) (out []live.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{"a", "b", "secret"} {
		if name != "secret" || who.Admin {
			out = append(out, live.Member{Name: name, JSON: raw(map[string]int{"n": s.system[name]})})
		}
	}
	return append(out, live.Member{Name: "own", JSON: raw(who.Owner)})
}

// live.Tasks

func (s *said) Changes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changes
}

func (s *said) Newest(who live.Principal, limit int) (out []live.Member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, t := range s.tasks {
		if who.Admin || t.Owner == who.Owner {
			out = append(out, live.Member{Name: id, JSON: raw(t)})
		}
	}
	slices.SortFunc(out, func(a, b live.Member) int { return -cmpText(a.Name, b.Name) })
	return out[:min(limit, len(out))]
}

func cmpText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *said) Task(who live.Principal, id string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tasks[id]
	if !ok || !who.Admin && t.Owner != who.Owner {
		return nil, muster.Errorf(muster.NotFound, "there is no such task")
	}
	return raw(t), nil
}

// live.Events

func (s *said) Follow(who live.Principal, types, q, place string) (*feed.Follower, error) {
	var match func(muster.DeviceID) bool
	switch {
	case q == "((":
		return nil, muster.Errorf(muster.Invalid, "unknown term at 1")
	case q != "":
		match = func(id muster.DeviceID) bool { return string(id) == q && (who.Sees == nil || who.Sees(id)) }
	case who.Only != "":
		match = who.Sees
	}
	return s.feed.Open(feed.Ask{Types: types, Place: place, Match: match})
}

// feed.Store

func (s *said) FeedState(context.Context) (epoch string, first, last int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "E", s.first, int64(len(s.events)), nil
}

func (s *said) FeedAfter(_ context.Context, seq int64, limit int) ([]feed.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq+1 < s.first {
		return nil, nil
	}
	from := min(int(seq), len(s.events))
	return slices.Clone(s.events[from:min(from+limit, len(s.events))]), nil
}

func (s *said) TrimFeed(context.Context, int64, int) (int, error) { return 0, nil }

// What a client must have.

func (s *said) wantSystem(user string) map[string]any {
	out := map[string]any{}
	for _, m := range s.Item(live.Principal{Owner: user, Admin: user == "root"}) {
		var v any
		if err := json.Unmarshal(m.JSON, &v); err != nil {
			panic(err)
		}
		out[m.Name] = v
	}
	return out
}

func (s *said) wantTasks(user string, limit int) map[string]any {
	out := map[string]any{}
	for _, m := range s.Newest(live.Principal{Owner: user, Admin: user == "root"}, limit) {
		out[m.Name] = plain(json.RawMessage(m.JSON))
	}
	return out
}

func (s *said) wantEvents(after int64) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events[after:] {
		out = append(out, fmt.Sprint(e.Seq, " ", e.Type, " ", e.Device))
	}
	return out
}

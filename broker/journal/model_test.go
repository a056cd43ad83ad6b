package journal

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"muster"
)

// The records of the model: "P key version pad" puts, "D key" ends, "R old key
// version pad" puts key and ends old.

// thing is an item of the model. current is its newest written version.
type thing struct {
	Item
	key     string
	current int
	pad     int
	gone    bool // said before the end is written, as a session does
}

func newThing(key string) *thing {
	th := &thing{key: key}
	th.Owner = th
	return th
}

func (th *thing) put(b []byte) []byte {
	return fmt.Appendf(b, "P %s %d %s", th.key, th.current, strings.Repeat("x", th.pad))
}

func (th *thing) AppendRecord(b []byte) []byte {
	if th.gone {
		return nil
	}
	return th.put(b)
}

// state maps a key to its version.
type state map[string]int

// model is the reference: every state after each write, and what was answered.
type model struct {
	states  []state // states[n]: after n writes
	things  map[string]*thing
	done    int // writes answered
	version int
}

func (m *model) now() state { return m.states[len(m.states)-1] }

func (m *model) write(change func(s state)) {
	s := maps.Clone(m.now())
	change(s)
	m.states = append(m.states, s)
}

// machine drives a journal, step by step, on a log that may fail and crash.
type machine struct {
	log *memLog
	j   *Journal
	m   model
	ctx context.Context //nolint:containedctx // one life of the process
	die context.CancelFunc
	now time.Time
}

const crashed = "the process ends here"

func (c *machine) open(t *rapid.T) {
	c.ctx, c.die = context.WithCancel(context.Background())
	j, err := New(Config{Log: c.log, Logger: quiet(), MinClean: 200, Now: func() time.Time { return c.now }})
	if err != nil {
		t.Fatal(err)
	}
	c.j, j.wait0 = j, time.Nanosecond
	j.largest, j.least, j.slack = headerSize+150, headerSize+150, 100 // so that frames close and cleaning has many
	j.answers = make(chan *frame, 1000)
	got, things := state{}, map[string]*thing{}
	if err := j.Replay(c.ctx, func(seq uint64, r []byte) error { return apply(j, got, things, seq, string(r)) }); err != nil {
		t.Fatalf("replay: %v", err)
	}
	c.compare(t, got)
	if err := j.begin(c.ctx); err != nil {
		t.Fatalf("begin: %v", err)
	}
	version := c.m.version
	c.m = model{states: []state{got}, things: things, version: version}
}

func apply(j *Journal, got state, things map[string]*thing, seq uint64, r string) error {
	w := strings.Split(r, " ")
	end := func(key string) {
		if th := things[key]; th != nil {
			j.Unplace(&th.Item)
			delete(things, key)
			delete(got, key)
		}
	}
	switch w[0] {
	case "D":
		end(w[1])
		return nil
	case "R":
		end(w[1])
		w = w[1:]
	}
	v, err := strconv.Atoi(w[2])
	if err != nil {
		return err
	}
	th := things[w[1]]
	if th == nil {
		th = newThing(w[1])
		things[w[1]] = th
	}
	th.current, th.pad = v, len(w[3])
	got[w[1]] = v
	j.Place(&th.Item, seq)
	return nil
}

// compare checks what was found against the model: the durable writes are a prefix
// of those written that holds all that were answered; a version may be newer than
// the prefix says, where the cleaner wrote it, but no thing is there that was not,
// and none is missing.
func (c *machine) compare(t *rapid.T, got state) {
	if c.m.states == nil {
		return
	}
	for n := c.m.done; n < len(c.m.states); n++ {
		if c.matches(got, n) {
			return
		}
	}
	t.Fatalf("found %v; answered %d of %d writes: from %v to %v", got, c.m.done, len(c.m.states)-1, c.m.states[c.m.done], c.m.now())
}

func (c *machine) matches(got state, n int) bool {
	want := c.m.states[n]
	if len(got) != len(want) {
		return false
	}
	for key, v := range want {
		g, ok := got[key]
		if !ok || g < v || g > v && !c.later(key, n, g) {
			return false
		}
	}
	return true
}

// later says whether the thing that key is after n writes had version v afterwards.
func (c *machine) later(key string, n, v int) bool {
	for _, s := range c.m.states[n:] {
		g, ok := s[key]
		if !ok {
			return false
		}
		if g == v {
			return true
		}
	}
	return false
}

func (c *machine) answered(t *rapid.T) func(error) {
	n := len(c.m.states) - 1
	return func(err error) {
		if err != nil {
			t.Fatalf("write %d failed: %v", n, err)
		}
		if c.m.done != n-1 {
			t.Fatalf("write %d answered after %d", n, c.m.done)
		}
		c.m.done = n
	}
}

func (c *machine) put(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "key")
	th := c.m.things[key]
	if th == nil {
		th = newThing(key)
		c.m.things[key] = th
	}
	c.m.version++
	th.pad = rapid.IntRange(0, 60).Draw(t, "pad")
	v := c.m.version
	c.m.write(func(s state) { s[key] = v })
	c.j.WriteFunc(func(b []byte) []byte { th.current = v; return th.put(b) }, &th.Item, nil, c.answered(t))
}

func (c *machine) drop(t *rapid.T) {
	th := c.any(t)
	th.gone = rapid.Bool().Draw(t, "gone first")
	delete(c.m.things, th.key)
	c.m.write(func(s state) { delete(s, th.key) })
	c.j.Write([]byte("D "+th.key), nil, []*Item{&th.Item}, c.answered(t))
}

// replace ends one thing and begins another in one record, of the same key or not.
func (c *machine) replace(t *rapid.T) {
	old := c.any(t)
	old.gone = rapid.Bool().Draw(t, "gone first")
	key := rapid.SampledFrom([]string{old.key, "g", "h"}).Draw(t, "new key")
	if c.m.things[key] != nil && key != old.key {
		t.Skip("the new key is there")
	}
	delete(c.m.things, old.key)
	th := newThing(key)
	c.m.version++
	th.current, th.pad = c.m.version, rapid.IntRange(0, 60).Draw(t, "pad")
	c.m.things[key] = th
	c.m.write(func(s state) { delete(s, old.key); s[key] = th.current })
	record := fmt.Appendf(nil, "R %s %s %d %s", old.key, key, th.current, strings.Repeat("x", th.pad))
	c.j.Write(record, &th.Item, []*Item{&old.Item}, c.answered(t))
}

func (c *machine) any(t *rapid.T) *thing {
	var keys []string
	for _, k := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if c.m.things[k] != nil {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		t.Skip("there is nothing")
	}
	return c.m.things[rapid.SampledFrom(keys).Draw(t, "thing")]
}

// step lets the journal work, with a log that fails as drawn; it says whether the
// process lives on.
func (c *machine) step(t *rapid.T) {
	faults := rapid.SliceOfN(rapid.SampledFrom([]string{"ok", "ok", "ok", "lost", "unanswered", "full", "crash", "crash after"}), 0, 6).Draw(t, "faults")
	c.log.before = func() (error, bool) {
		if len(faults) == 0 {
			return nil, true
		}
		f := faults[0]
		faults = faults[1:]
		switch f {
		case "lost":
			return muster.Errorf(muster.Unavailable, "lost"), false
		case "unanswered":
			c.log.forget = rapid.Bool().Draw(t, "forgotten id")
			return muster.Errorf(muster.Unavailable, "unanswered"), true
		case "full":
			return muster.Errorf(muster.Busy, "full"), false
		case "crash", "crash after":
			c.die()
			return muster.Errorf(muster.Unavailable, crashed), f == "crash after"
		}
		return nil, true
	}
	c.now = c.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
	c.j.step(c.ctx)
	c.log.before = nil
	c.answer()
	if c.ctx.Err() != nil {
		c.open(t)
	}
}

func (c *machine) answer() {
	for len(c.j.answers) > 0 {
		c.j.answer(<-c.j.answers)
	}
}

// crash ends the process between steps; answers on their way may not arrive.
func (c *machine) crash(t *rapid.T) {
	c.die()
	c.open(t)
}

func (c *machine) check(t *rapid.T) {
	n, live := 0, int64(0)
	var last uint64
	for i := c.j.items.root.next; i != &c.j.items.root; i = i.next {
		if i.seq < last || i.next.prev != i || i.prev.next != i {
			t.Fatalf("the list is out of order at frame %d after %d", i.seq, last)
		}
		last, n, live = i.seq, n+1, live+int64(i.size)
	}
	if n != c.j.items.count || live != c.j.items.live {
		t.Fatalf("list of %d items, %d bytes; counted %d, %d", n, live, c.j.items.count, c.j.items.live)
	}
	if i := c.j.items.oldest(); i != nil && i.seq < c.log.first {
		t.Fatalf("frame %d holds a live record and was purged: the log begins at %d", i.seq, c.log.first)
	}
}

// TestWhatWasAnsweredIsFoundAfterAnyCrash is the journal's promise, against a model.
func TestWhatWasAnsweredIsFoundAfterAnyCrash(t *testing.T) {
	var cleaned, purged, crashes int
	rapid.Check(t, func(t *rapid.T) {
		c := &machine{log: newMemLog(rapid.SampledFrom([]int64{0, 3000, 6000}).Draw(t, "bound")), now: time.Unix(1e9, 0)}
		c.open(t)
		defer func() { c.die() }()
		t.Repeat(map[string]func(*rapid.T){
			"put": c.put, "put more": c.put, "drop": c.drop, "replace": c.replace,
			"step": c.step, "step more": c.step,
			"crash": func(t *rapid.T) { cleaned += int(c.j.Stats().Cleaned); crashes++; c.crash(t) },
			"":      c.check,
		})
		cleaned += int(c.j.Stats().Cleaned)
		purged += c.log.purges
	})
	if cleaned == 0 || purged == 0 || crashes == 0 {
		t.Errorf("%d items cleaned, %d purges, %d crashes: the test proves too little", cleaned, purged, crashes)
	}
	t.Logf("%d items cleaned, %d purges, %d crashes", cleaned, purged, crashes)
}

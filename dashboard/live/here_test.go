package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"muster"
	"muster/dashboard/live"
)

func viewersOf(f map[string]any, member string) string {
	item, _ := f[member].(map[string]any)
	return fmt.Sprint(item["viewers"])
}

func TestWhoIsAtADeviceSeesWhoElseIsThereAndWhatTheyEdit(t *testing.T) {
	w := newWorld(2)
	s := open(t, w, live.Config{})
	id := string(deviceName(0))
	anna := s.browser("anna")
	anna.send(`{"t":"sub","id":2,"ch":"here:` + id + `"}`)
	if got := viewersOf(anna.expect("snapshot"), "item"); got != "[map[edits: name:anna you:true]]" {
		t.Fatalf("alone one sees %s", got)
	}
	ben, tab := s.browser("ben"), s.browser("ben")
	ben.send(`{"t":"sub","id":2,"ch":"here:` + id + `"}`)
	ben.expect("snapshot")
	tab.send(`{"t":"sub","id":2,"ch":"here:` + id + `","edits":"twin"}`)
	if got := viewersOf(tab.expect("snapshot"), "item"); got != "[map[edits:twin name:ben you:true] map[edits: name:anna you:false]]" {
		t.Errorf("two tabs are one person: %s", got)
	}
	s.tick(2)
	if got := anna.news(); len(got) != 1 || viewersOf(got[0], "set") != "[map[edits: name:anna you:true] map[edits:twin name:ben you:false]]" {
		t.Errorf("of the other one is told %v", got)
	}
	ben.news()
	tab.send(`{"t":"unsub","id":3,"ch":"here:` + id + `"}`)
	tab.expect("ok")
	ben.send(`{"t":"vis","id":4,"on":false}`)
	ben.expect("ok")
	s.tick(2)
	if got := anna.news(); len(got) != 1 || viewersOf(got[0], "set") != "[map[edits: name:anna you:true]]" {
		t.Errorf("of his leaving one is told %v", got)
	}
	s.tick(2)
	if got := anna.sync(); len(got) != 0 {
		t.Errorf("without a change one is told %v", got)
	}
}

func TestAManyOfThemAreToldAsANumber(t *testing.T) {
	w := newWorld(1)
	s := open(t, w, live.Config{})
	all := make([]*peer, 24) // kept, or their sockets would be closed when they are forgotten
	for i := range all {
		p := s.browser(fmt.Sprintf("user-%02d@muster.example", i))
		all[i] = p
		p.send(`{"t":"sub","id":2,"ch":"here:` + string(deviceName(0)) + `"}`)
		f := p.expect("snapshot")
		if i < 23 {
			continue
		}
		item := f["item"].(map[string]any)
		first := item["viewers"].([]any)[0].(map[string]any)
		if len(item["viewers"].([]any)) != 20 || item["more"] != 4.0 || first["name"] != "user-23" || first["you"] != true {
			t.Errorf("it is %v", item)
		}
	}
	runtime.KeepAlive(all)
}

// Names of users are for users, and a key has no face.
func TestWhoIsHereIsForSignedInUsers(t *testing.T) {
	w := newWorld(1)
	s := open(t, w, live.Config{})
	write := func([]byte, int) error { return nil }
	id := string(deviceName(0))
	user := whoOf("anna")
	for name, c := range map[string]struct {
		who  live.Principal
		ch   string
		want muster.Kind
	}{
		"a key":               {live.Principal{ID: "k"}, "here:" + id, muster.Forbidden},
		"a key with selector": {live.Principal{ID: "k", Who: user, Only: "x:*"}, "here:" + id, muster.Forbidden},
		"no such device":      {live.Principal{ID: "u", Owner: "u", Who: user}, "here:nobody", muster.NotFound},
		"no id":               {live.Principal{ID: "u", Owner: "u", Who: user}, "here:a b", muster.Invalid},
		"no such kind":        {live.Principal{ID: "u", Owner: "u", Who: user}, "here:a/b", muster.NotFound},
	} {
		if _, err := s.g.Attach(c.who, live.Ask{Channel: c.ch}, write); muster.KindOf(err) != c.want || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := s.browser("anna")
	for i, edits := range []string{"Twin", "a b", "abcdefghijklmnopq"} {
		p.send(fmt.Sprintf(`{"t":"sub","id":%d,"ch":"here:%s","edits":%q}`, 5+i, id, edits))
		if f := p.expect("error"); f["code"] != "invalid" {
			t.Errorf("%s: %v", edits, f)
		}
	}
}

// onlyPumps knows one thing, which is for anna and ben until it is closed to ben.
type onlyPumps struct {
	mu     sync.Mutex
	closed bool
}

func (o *onlyPumps) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

func (o *onlyPumps) Shows(_ context.Context, who live.Principal, kind, id string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case kind != "groups" || id != "pumps/two":
		return muster.Errorf(muster.NotFound, "there is no such thing")
	case who.Name != "anna" && (who.Name != "ben" || o.closed):
		return muster.Errorf(muster.Forbidden, "not for you")
	}
	return nil
}

func TestWhoIsAtAnotherThingIsToldToThoseWhoMaySeeIt(t *testing.T) {
	w := newWorld(1)
	pumps := &onlyPumps{}
	w.things = pumps
	s := open(t, w, live.Config{})
	anna, ben, cleo := s.browser("anna"), s.browser("ben"), s.browser("cleo")
	sub := `{"t":"sub","id":2,"ch":"here:groups/pumps/two"}`
	anna.send(sub)
	anna.expect("snapshot")
	ben.send(`{"t":"sub","id":2,"ch":"here:groups/pumps/two","edits":"group"}`)
	if got := viewersOf(ben.expect("snapshot"), "item"); got != "[map[edits:group name:ben you:true] map[edits: name:anna you:false]]" {
		t.Errorf("ben sees %s", got)
	}
	cleo.send(sub)
	if f := cleo.expect("error"); f["code"] != "forbidden" {
		t.Errorf("cleo gets %v", f)
	}
	for i, ch := range []string{"here:groups/", "here:groups/a\x01", "here:groups/" + strings.Repeat("x", 600)} {
		text, err := json.Marshal(map[string]any{"t": "sub", "id": 3 + i, "ch": ch})
		if err != nil {
			t.Fatal(err)
		}
		anna.send(string(text))
		if f := anna.expect("error"); f["code"] != "invalid" {
			t.Errorf("%.40q gets %v", ch, f)
		}
	}
	anna.send(`{"t":"sub","id":9,"ch":"here:topics/pumps"}`)
	if f := anna.expect("error"); f["code"] != "not_found" {
		t.Errorf("what is not there gets %v", f)
	}
	s.tick(2)
	if got := anna.news(); len(got) != 1 || viewersOf(got[0], "set") != "[map[edits: name:anna you:true] map[edits:group name:ben you:false]]" {
		t.Errorf("anna is told %v", got)
	}
	pumps.close()
	third := s.browser("anna@muster.example")
	third.send(sub)
	third.expect("error")
	anna.send(`{"t":"sub","id":10,"ch":"here:groups/pumps/two","edits":"group"}`)
	anna.expect("snapshot")
	if got := ben.news(); len(got) != 1 || fmt.Sprint(got[0]["del"]) != "[groups/pumps/two]" {
		t.Errorf("who may see it no more is told %v", got)
	}
}

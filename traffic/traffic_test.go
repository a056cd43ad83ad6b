package traffic

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func sum(m *Meter) (out Counts) {
	accounts, others := m.Read()
	for i := range accounts {
		out.Add(&accounts[i].Counts)
	}
	out.Add(&others)
	return out
}

func TestWhatManyCountAtOnceIsExactPerAccountAndInTotal(t *testing.T) {
	m := New()
	const users, each, messages = 7, 40, 25
	var wg sync.WaitGroup
	for u := range users {
		for c := range each {
			wg.Go(func() {
				over := Transports()[c%3]
				conn := m.Open(Who{ID: "u" + strconv.Itoa(u), Name: "n" + strconv.Itoa(u)}, over)
				for range messages {
					conn.Received(1)
					conn.Sent(u + 1)
				}
				if c%2 == 0 {
					conn.Close()
					conn.Close()
				}
				_, _ = m.Read()
			})
		}
	}
	wg.Wait()
	accounts, others := m.Read()
	if len(accounts) != users || others != (Counts{}) {
		t.Fatalf("%d accounts, others %+v", len(accounts), others)
	}
	var total Counts
	for i := range accounts {
		a := &accounts[i]
		u := users - 1 - i // those that are sent most come first
		received, sent := a.Messages()
		if a.ID != "u"+strconv.Itoa(u) || a.Name != "n"+strconv.Itoa(u) || received != each*messages || sent != uint64(each*messages*(u+1)) || a.Open() != each/2 {
			t.Errorf("account %d is %+v", i, a)
		}
		total.Add(&a.Counts)
	}
	received, sent := total.Messages()
	if received != users*each*messages || sent != each*messages*users*(users+1)/2 || total.Open() != users*each/2 {
		t.Errorf("the total is %+v", total)
	}
}

func TestANewAccountTakesThePlaceOfOneWithoutAConnectionAndTheSumStays(t *testing.T) {
	m := New()
	m.limit = 2
	a, b := m.Open(Who{ID: "a"}, MQTT), m.Open(Who{ID: "b"}, SSE)
	a.Received(3)
	b.Sent(4)
	c := m.Open(Who{ID: "c"}, MQTT) // both are connected
	c.Sent(5)
	accounts, others := m.Read()
	if len(accounts) != 2 || others.Sent[MQTT] != 5 || others.Connections[MQTT] != 1 {
		t.Errorf("%+v, others %+v", accounts, others)
	}
	a.Close()
	d := m.Open(Who{ID: "d"}, WebSocket)
	d.Received(6)
	accounts, others = m.Read()
	want := []string{"d", "b"}
	if got := []string{accounts[0].ID, accounts[1].ID}; !cmp.Equal(got, want) || others.Received[MQTT] != 3 {
		t.Errorf("%v, others %+v", got, others)
	}
	total := sum(m)
	if received, sent := total.Messages(); received != 9 || sent != 9 || total.Open() != 3 {
		t.Errorf("the sum is %+v", total)
	}
}

func TestNothingIsCountedWithoutAMeter(t *testing.T) {
	var m *Meter
	c := m.Open(Who{ID: "a"}, MQTT)
	c.Received(1)
	c.Sent(1)
	c.Close()
	if c != nil {
		t.Error("a connection is counted by nobody")
	}
}

func TestSumsEqualWhatWasCountedAfterAnySequence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := New()
		m.limit = rapid.IntRange(1, 4).Draw(t, "limit")
		var want Counts
		var open []*Conn
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch step := rapid.IntRange(0, 3).Draw(t, "step"); {
			case step == 0 || len(open) == 0:
				over := rapid.SampledFrom(Transports()).Draw(t, "over")
				open = append(open, m.Open(Who{ID: fmt.Sprint(rapid.IntRange(0, 6).Draw(t, "who"))}, over))
				want.Connections[over]++
			case step == 1:
				i := rapid.IntRange(0, len(open)-1).Draw(t, "conn")
				open[i].Close()
				want.Connections[open[i].over]--
				open = append(open[:i], open[i+1:]...)
			default:
				c, n := open[rapid.IntRange(0, len(open)-1).Draw(t, "conn")], rapid.IntRange(1, 9).Draw(t, "n")
				c.Received(n)
				c.Sent(2 * n)
				want.Received[c.over] += uint64(n)
				want.Sent[c.over] += uint64(2 * n)
			}
			if accounts, _ := m.Read(); len(accounts) > m.limit {
				t.Fatalf("%d accounts", len(accounts))
			}
			if got := sum(m); got != want {
				t.Fatalf("the sum is %+v, want %+v", got, want)
			}
		}
	})
}

package broker

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"muster"
	"muster/broker/topic"
)

func drawText(t *rapid.T, what string) string { return rapid.StringN(0, 20, 200).Draw(t, what) }

func drawBody(t *rapid.T) *message {
	return &message{
		topic: drawText(t, "topic"), payload: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "payload"),
		props: rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "props"), qos: rapid.ByteRange(0, 2).Draw(t, "qos"),
		retain: rapid.Bool().Draw(t, "retain"), expires: rapid.Int64Min(0).Draw(t, "expires"), owned: true,
	}
}

func sameBody(a, b *message) bool {
	return a.topic == b.topic && bytes.Equal(a.payload, b.payload) && bytes.Equal(a.props, b.props) &&
		a.qos == b.qos && a.retain == b.retain && a.expires == b.expires && a.owned == b.owned
}

func TestASessionsRecordSaysAllOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &session{
			num: rapid.Uint64().Draw(t, "num"), clientID: drawText(t, "client"),
			device: muster.DeviceID(drawText(t, "device")), account: drawText(t, "account"),
		}
		st := &sessionState{
			expiry: time.Duration(rapid.Uint32().Draw(t, "expiry")) * time.Second, gone: rapid.Int64Min(0).Draw(t, "gone"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "subscriptions") {
			st.subs = append(st.subs, subscription{
				group: drawText(t, "group"), filter: drawText(t, "filter"), own: rapid.Bool().Draw(t, "own"), me: rapid.Bool().Draw(t, "me"),
				Options: topic.Options{
					QoS: rapid.ByteRange(0, 2).Draw(t, "qos"), RetainHandling: rapid.ByteRange(0, 2).Draw(t, "handling"),
					NoLocal: rapid.Bool().Draw(t, "no local"), RetainAsPublished: rapid.Bool().Draw(t, "as published"),
					Identifier: rapid.Uint32().Draw(t, "identifier"),
				},
			})
		}
		s.state.Store(st)
		in := recordReader{b: s.AppendRecord([]byte("x"))[1:]}
		if kind := in.byte(); kind != recordSession {
			t.Fatalf("kind %d", kind)
		}
		want := savedSession{num: s.num, clientID: s.clientID, account: s.account, device: s.device, state: st}
		got := in.session()
		if d := cmp.Diff(want, got, cmp.AllowUnexported(savedSession{}, sessionState{}, subscription{})); d != "" || in.bad || len(in.b) > 0 {
			t.Fatalf("bad %v, %d bytes left (-want +got):\n%s", in.bad, len(in.b), d)
		}
	})
}

func TestARecordThatIsCutShortIsAnError(t *testing.T) {
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		b := &retained{by: drawText(t, "by"), m: drawBody(t)}
		record := b.AppendRecord(nil)
		in := recordReader{b: record[1:]}
		if by, m := string(in.text()), in.body(); by != b.by || !sameBody(b.m, m) || in.bad || len(in.b) > 0 {
			t.Fatalf("got %q %+v, want %q %+v", by, m, b.by, b.m)
		}
		r := freshRestorer(tb)
		if err := r.apply(1, record[:rapid.IntRange(1, len(record)-1).Draw(t, "cut")]); err == nil {
			t.Fatal("no error")
		}
		if n := r.b.retained.tree.Len(); n != 0 {
			t.Fatalf("%d messages of a record that is cut short are retained", n)
		}
	})
}

func TestRecordsOfALaterVersionAreNotIgnored(t *testing.T) {
	r := freshRestorer(t)
	err := r.apply(1, []byte{recordPair + 1, 1, 2, 3})
	if err == nil || !strings.Contains(err.Error(), "later version") {
		t.Errorf("got %v", err)
	}
}

// freshRestorer reads records into a broker that does not run.
func freshRestorer(t testing.TB) *restorer {
	t.Helper()
	b, err := New(Config{
		Log: newMemLog(), Now: time.Now, Logger: slog.New(slog.DiscardHandler), Metrics: prometheus.NewRegistry(),
	}, door{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.lot != nil {
		if err := b.lot.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return &restorer{b: b, sessions: map[uint64]*session{}, stored: map[uint64]*stored{}, queued: map[uint64]map[uint64]*entry{}}
}

// TestAMessagesRecordNamesThoseThatHaveNotHadIt writes a message for some sessions
// and reads it back, before and after some of them have had it.
func TestAMessagesRecordNamesThoseThatHaveNotHadIt(t *testing.T) {
	tb := t
	rapid.Check(t, func(t *rapid.T) {
		k := &stored{num: rapid.Uint64Range(1, math.MaxInt64).Draw(t, "num"), m: drawBody(t)}
		r := freshRestorer(tb)
		var want []string
		for i := range rapid.IntRange(1, 5).Draw(t, "targets") {
			x := &target{
				of: k, s: &session{num: uint64(i + 1)}, n: rapid.Uint64Range(0, math.MaxInt64).Draw(t, "n"),
				qos: rapid.ByteRange(1, 2).Draw(t, "qos"), flags: rapid.SampledFrom([]byte{0, flagRetain, flagMe, flagRetain | flagMe}).Draw(t, "flags"),
				ids: rapid.SliceOfN(rapid.Uint32(), 0, 3).Draw(t, "identifiers"),
			}
			x.state.Store(rapid.Uint32Range(targetLive, targetDone).Draw(t, "state"))
			k.targets = append(k.targets, x)
			if s := x.state.Load(); s != targetDone {
				want = append(want, fmt.Sprint(x.s.num, x.n, x.qos, x.flags, x.ids, s == targetReleased))
			}
		}
		pair := rapid.Bool().Draw(t, "with the id it came with")
		record := k.AppendRecord(nil)
		if pair {
			record = appendPair(nil, &receipt{num: 99, id: 7}, k)
		}
		for range 2 { // read twice, as after a cleaning that a crash left half done
			if err := r.apply(1, record); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for num := range uint64(6) {
			for n, e := range r.queued[num] {
				var flags byte
				if e.retain {
					flags |= flagRetain
				}
				if e.me {
					flags |= flagMe
				}
				got = append(got, fmt.Sprint(num, n, e.qos, flags, e.ids, e.state == entryReleased))
				if !sameBody(e.m, k.m) || !e.dup || e.n != n {
					t.Fatalf("entry %+v of message %+v", e, e.m)
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
		if _, known := r.sessions[99]; known != pair || pair && r.sessions[99].received.ids[7].stage != stageKept {
			t.Fatal("the id the message came with")
		}
	})
}

func records(t testing.TB) [][]byte {
	t.Helper()
	s := &session{num: 3, clientID: "c", account: "root"}
	s.state.Store(&sessionState{expiry: time.Hour, subs: []subscription{
		{filter: "a/+", Options: topic.Options{QoS: 2, Identifier: 9}}, {filter: "desired", own: true, me: true, group: "g"},
	}})
	m := &message{topic: "a/b", payload: []byte("x"), props: []byte{1, 0}, qos: 2, expires: 5, owned: true}
	k := &stored{num: 4, m: m}
	k.targets = []*target{{of: k, s: s, n: 5, qos: 2, ids: []uint32{9}}}
	return [][]byte{
		nothing(), s.AppendRecord(nil), k.AppendRecord(nil), appendReleased(nil, 3, 5), appendDone(nil, 3, 5),
		appendPair(nil, &receipt{num: 3, id: 1}, k), (&receipt{num: 3, id: 2}).AppendRecord(nil), appendFreed(nil, 3, 1),
		(&retained{by: "x", m: m}).AppendRecord(nil), appendCleared(nil, "a/b"), appendEnded(nil, 3),
	}
}

// FuzzRecord reads anything as records: no panic, and no more memory than a constant
// times what was read.
func FuzzRecord(f *testing.F) {
	var all []byte
	for _, r := range records(f) {
		f.Add(append([]byte{byte(len(r))}, r...))
		all = append(append(all, byte(len(r))), r...)
	}
	f.Add(all)
	f.Add([]byte{12, recordSession, 1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Add([]byte{14, recordMessage, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, in []byte) {
		r := freshRestorer(t)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		size := len(in)
		for seq := uint64(1); len(in) > 0; seq++ {
			n := min(int(in[0]), len(in)-1)
			_ = r.apply(seq, in[1:1+n]) // an error is one answer, a panic none
			in = in[1+n:]
		}
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(1000*size+16<<10); got > most {
			t.Fatalf("%d bytes of records take %d bytes", size, got)
		}
		r.finish()
		for s := range r.b.sessions.each {
			if s.q != nil && s.q.len() == 0 || !s.kept {
				t.Fatalf("session %+v is restored", s)
			}
		}
	})
}

package command_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster"
	"muster/devices"
	"muster/devices/command"
)

// settle waits until nothing moves any more at this moment, and lets the short wait of
// notes for company pass.
func settle() {
	synctest.Wait()
	time.Sleep(20 * time.Millisecond) //nolint:forbidigo // synctest's clock
	synctest.Wait()
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // synctest's clock
	synctest.Wait()
}

// inBubble runs a test with a clock of its own on each engine.
func inBubble(t *testing.T, auto bool, run func(t *testing.T, r *rig)) {
	onEach(t, func(t *testing.T, e engine) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, e, auto)
			run(t, r)
			r.close()
		})
	})
}

func TestACommandIsStoredSentDeliveredAndDone(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "other")
		begun := muster.MicrosOf(time.Now())
		m, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "led/set", Params: json.RawMessage(` { "on" : true } `), TTL: time.Hour, By: "key_1"}, 0)
		must(t, err)
		want := command.Command{
			ID: m.ID, Device: "d", Method: "led/set", Params: json.RawMessage(`{"on":true}`), CreatedBy: "key_1", State: command.Queued,
			Created: begun, Expires: begun + 3600_000_000,
		}
		if d := cmp.Diff(want, m); d != "" || m.ID <= 0 {
			t.Error(d)
		}
		pass(time.Minute)
		r.ready("d")
		settle()
		sent := r.wire.sent()
		if len(sent) != 1 {
			t.Fatalf("%d messages were sent", len(sent))
		}
		topic := "devices/d/commands/" + text(m.ID)
		wantSent := command.Delivery{
			Device: "d", Topic: topic, Payload: []byte(`{"method":"led/set","params":{"on":true},"expires_at":"` + m.Expires.Time().Format(time.RFC3339Nano) + `"}`),
			Expires: m.Expires.Time(), Response: topic + "/result", Correlation: []byte(text(m.ID)),
		}
		got := sent[0].d
		got.Done = nil
		if d := cmp.Diff(wantSent, got); d != "" {
			t.Error(d)
		}
		want.State, want.Attempts, want.Sent = command.Sent, 1, begun+60_000_000
		if d := cmp.Diff(want, r.get("d", m.ID)); d != "" {
			t.Error(d)
		}
		pass(time.Second)
		at := muster.MicrosOf(time.Now())
		r.wire.ack("d", command.Acked)
		settle()
		want.State, want.Delivered = command.Delivered, at
		if d := cmp.Diff(want, r.get("d", m.ID)); d != "" {
			t.Error(d)
		}
		for i, p := range []string{`{"status":"accepted"}`, `{"status":"progress","progress":41.9}`, `{"status":"ok","result":{"was": false}}`} {
			at = muster.MicrosOf(time.Now())
			must(t, r.report("d", text(m.ID), p))
			switch i {
			case 0:
				want.State, want.Accepted = command.Accepted, at
			case 1:
				want.State, want.Reported, want.Progress = command.Progress, at, 41
			case 2:
				want.State, want.Finished, want.Progress, want.Result = command.Succeeded, at, 100, json.RawMessage(`{"was":false}`)
			}
			if d := cmp.Diff(want, r.get("d", m.ID)); d != "" {
				t.Error(d)
			}
			pass(time.Second)
		}
		_, err = r.c.Command(t.Context(), "other", m.ID)
		wantKind(t, err, muster.NotFound)
		r.wantEvents("queued sent delivered accepted progress succeeded")
	})
}

func (r *rig) wantEvents(want string) {
	r.Helper()
	r.eventsMu.Lock()
	defer r.eventsMu.Unlock()
	var got []string
	for _, e := range r.events {
		got = append(got, e.State.String())
	}
	if strings.Join(got, " ") != want {
		r.Errorf("told of %v, want %s", got, want)
	}
}

func TestCommandsOfADeviceGoOutInOrderEachWhenTheOneBeforeIsDelivered(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		var want []string
		for i := range 5 {
			want = append(want, text(r.send("d", fmt.Sprint("m", i)).ID))
		}
		r.ready("e")
		r.ready("d")
		settle()
		e := r.send("e", "x")
		settle()
		if d := cmp.Diff([]string{text(e.ID)}, r.wire.ids("e")); d != "" {
			t.Errorf("another device waits: %s", d)
		}
		for i := range want {
			if d := cmp.Diff(want[:i+1], r.wire.ids("d")); d != "" {
				t.Errorf("after %d acknowledgements: %s", i, d)
			}
			if i == 2 { // an answer says that it came, too
				must(t, r.report("d", want[i], `{"status":"accepted"}`))
			} else {
				r.wire.ack("d", []command.Outcome{command.Acked, command.Handed}[i%2])
			}
			settle()
		}
	})
}

func TestWhatAConnectionLosesIsSentAgainInOrderWithTheSameID(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		a, b := r.send("d", "a"), r.send("d", "b")
		r.ready("d")
		settle()
		r.wire.disconnect("d")
		settle()
		if m := r.wantState("d", a.ID, command.Queued); m.Attempts != 1 {
			t.Errorf("%d attempts", m.Attempts)
		}
		pass(time.Hour)
		r.ready("d")
		settle()
		if m := r.wantState("d", a.ID, command.Sent); m.Attempts != 2 {
			t.Errorf("%d attempts", m.Attempts)
		}
		// The new connection is there before the end of the old one is told.
		r.wire.mu.Lock()
		old := r.wire.flying["d"]
		delete(r.wire.flying, "d")
		r.wire.mu.Unlock()
		r.ready("d")
		settle()
		for _, d := range old {
			d.Done(command.Lost)
		}
		settle()
		if d := cmp.Diff([]string{text(a.ID), text(a.ID), text(a.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
		for _, d := range old { // told twice, and late
			d.Done(command.Lost)
			d.Done(command.Acked)
		}
		settle()
		r.wantState("d", a.ID, command.Sent)
		r.wire.ack("d", command.Acked)
		settle()
		if d := cmp.Diff([]string{text(a.ID), text(a.ID), text(a.ID), text(b.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
	})
}

func TestARestartKeepsWhatWaits(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		a, b, c := r.send("d", "a"), r.send("d", "b"), r.send("d", "c")
		r.ready("d")
		settle()
		r.wire.ack("d", command.Acked)
		settle()
		r.restart()
		settle()
		r.wantState("d", a.ID, command.Delivered)
		r.wantState("d", b.ID, command.Queued)
		next := r.send("d", "d")
		if next.ID <= c.ID {
			t.Errorf("the id %d comes after %d", next.ID, c.ID)
		}
		must(t, r.report("d", text(a.ID), `{"status":"ok"}`))
		r.ready("d")
		for range 3 {
			settle()
			r.wire.ack("d", command.Acked)
		}
		settle()
		if d := cmp.Diff([]string{text(a.ID), text(b.ID), text(b.ID), text(c.ID), text(next.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
	})
}

func TestACommandExpiresAtItsTimeAndIsNeverSentAfter(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		short, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "a", TTL: 10 * time.Second}, 0)
		must(t, err)
		long := r.send("d", "b")
		sent, err := r.c.Send(t.Context(), command.Spec{Device: "e", Method: "a", TTL: 10 * time.Second}, 0)
		must(t, err)
		r.ready("e")
		settle()
		pass(time.Until(short.Expires.Time()) - time.Microsecond)
		r.wantState("d", short.ID, command.Queued)
		r.wantState("e", sent.ID, command.Sent)
		pass(time.Microsecond)
		for _, m := range []command.Command{short, sent} {
			if got := r.wantState(m.Device, m.ID, command.Expired); got.Finished != m.Expires {
				t.Errorf("it expired at %d, want %d", got.Finished, m.Expires)
			}
		}
		r.ready("d")
		settle()
		if d := cmp.Diff([]string{text(long.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
		wantKind(t, r.report("e", text(sent.ID), `{"status":"ok","result":[1, 2]}`), muster.Invalid)
		got := r.wantState("e", sent.ID, command.Expired)
		want := &command.Late{ID: sent.ID, At: muster.MicrosOf(time.Now()), Status: "ok", Result: json.RawMessage("[1,2]")}
		if d := cmp.Diff(want, got.Late); d != "" {
			t.Errorf("late: %s", d)
		}
	})
}

func TestACommandThatExpiredWhileTheServerWasDownIsNeverSent(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		m, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "a", TTL: 10 * time.Second}, 0)
		must(t, err)
		r.stop()
		pass(time.Hour)
		r.wire.connect("d")
		r.start()
		r.c.Ready("d", false)
		settle()
		if got := r.wantState("d", m.ID, command.Expired); got.Finished != m.Expires || len(r.wire.sent()) > 0 {
			t.Errorf("it expired at %d, want %d; %d messages were sent", got.Finished, m.Expires, len(r.wire.sent()))
		}
	})
}

func TestManyExpireAtOnce(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		var wg sync.WaitGroup
		for i := range 1800 {
			wg.Go(func() {
				_, err := r.c.Send(t.Context(), command.Spec{Device: []muster.DeviceID{"d", "e"}[i%2], Method: "a", TTL: time.Minute}, 0)
				must(t, err)
			})
		}
		wg.Wait()
		pass(2 * time.Minute)
		for _, id := range []muster.DeviceID{"d", "e"} {
			list, _, err := r.c.Commands(t.Context(), command.Query{Device: id, State: "expired", Limit: 1000})
			must(t, err)
			if len(list) != 900 {
				t.Errorf("%d have expired", len(list))
			}
		}
		if s := r.c.Stats(); s.Open != 0 {
			t.Errorf("%d are open", s.Open)
		}
	})
}

func TestACancelledCommandIsNotSent(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		a, b := r.send("d", "a"), r.send("d", "b")
		_, err := r.c.Cancel(t.Context(), "e", a.ID)
		wantKind(t, err, muster.NotFound)
		got, err := r.c.Cancel(t.Context(), "d", a.ID)
		must(t, err)
		if got.State != command.Cancelled || got.Finished == 0 {
			t.Errorf("cancelled: %+v", got)
		}
		if _, err := r.c.Cancel(t.Context(), "d", a.ID); err != nil {
			t.Errorf("a second time: %v", err)
		}
		r.ready("d")
		settle()
		if d := cmp.Diff([]string{text(b.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
		c := r.send("d", "c")
		_, err = r.c.Cancel(t.Context(), "d", b.ID) // it is on its way: the next may go
		must(t, err)
		settle()
		if d := cmp.Diff([]string{text(b.ID), text(c.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
		wantKind(t, r.report("d", text(b.ID), `{"status":"error","error":"too hot"}`), muster.Invalid)
		if l := r.wantState("d", b.ID, command.Cancelled).Late; l == nil || l.Status != "error" || string(l.Error) != `"too hot"` {
			t.Errorf("late: %+v", l)
		}
		must(t, r.report("d", text(c.ID), `{"status":"ok"}`))
		_, err = r.c.Cancel(t.Context(), "d", c.ID)
		wantKind(t, err, muster.Conflict)
	})
}

func TestReportsAreAnsweredOneByOne(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		r.ready("d")
		a, b := r.send("d", "a"), r.send("d", "b")
		settle()
		ok := []byte(`{"status":"ok"}`)
		list := []command.Report{
			{Device: "d", Command: text(a.ID), Payload: []byte(`{"status":"accepted"}`)},
			{Device: "d", Command: text(a.ID), Payload: ok},
			{Device: "d", Command: text(a.ID), Payload: ok},                              // again
			{Device: "d", Command: text(a.ID), Payload: []byte(`{"status":"accepted"}`)}, // overtaken
			{Device: "d", Command: text(a.ID), Payload: []byte(`{"status":"error"}`)},
			{Device: "e", Command: text(b.ID), Payload: ok}, // another's
			{Device: "d", Command: "999999999", Payload: ok},
			{Device: "d", Command: "abc", Payload: ok},
			{Device: "d", Command: "0" + text(b.ID), Payload: ok},
			{Device: "d", Command: text(b.ID), Payload: []byte(`{"status":"done"}`)},
			{Device: "d", Command: text(b.ID), Payload: []byte(`{"status":"ok","result":"` + strings.Repeat("x", command.MaxParams) + `"}`)},
			{Device: "d", Command: text(b.ID), Payload: []byte("{\"status\":\"ok\",\"result\":\"\xff\"}")},
			{Device: "d", Command: text(b.ID), Payload: []byte(`{"status":"error","error":{"code":7}}`)},
		}
		var bad []int
		for i, err := range r.c.Results(t.Context(), list) {
			if err != nil {
				wantKind(t, err, muster.Invalid)
				bad = append(bad, i)
			}
		}
		if d := cmp.Diff([]int{4, 5, 6, 7, 8, 9, 10, 11}, bad); d != "" {
			t.Error(d)
		}
		r.wantState("d", a.ID, command.Succeeded)
		if m := r.wantState("d", b.ID, command.Failed); string(m.Error) != `{"code":7}` {
			t.Errorf("the error is %s", m.Error)
		}
		settle()
		// All of it again, when none is open.
		bad = nil
		for i, err := range r.c.Results(t.Context(), list) {
			if err != nil {
				bad = append(bad, i)
			}
		}
		if d := cmp.Diff([]int{4, 5, 6, 7, 8, 9, 10, 11}, bad); d != "" {
			t.Error(d)
		}
	})
}

func TestWhatASenderMayNotAskFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, onSQLite(t, true), false)
		r.device("d")
		for _, tt := range []struct {
			name string
			spec command.Spec
			kind muster.Kind
		}{
			{"no device of that id", command.Spec{Device: "x", Method: "m"}, muster.NotFound},
			{"no method", command.Spec{Device: "d"}, muster.Invalid},
			{"a method of 65 letters", command.Spec{Device: "d", Method: strings.Repeat("m", 65)}, muster.Invalid},
			{"a method with a space", command.Spec{Device: "d", Method: "a b"}, muster.Invalid},
			{"a method with a quote", command.Spec{Device: "d", Method: `a"b`}, muster.Invalid},
			{"params that are no JSON", command.Spec{Device: "d", Method: "m", Params: json.RawMessage(`{`)}, muster.Invalid},
			{"params that are no UTF-8", command.Spec{Device: "d", Method: "m", Params: json.RawMessage("\"\xff\"")}, muster.Invalid},
			{"params over the limit", command.Spec{Device: "d", Method: "m", Params: json.RawMessage(`"` + strings.Repeat("x", command.MaxParams) + `"`)}, muster.TooLarge},
			{"less than a second", command.Spec{Device: "d", Method: "m", TTL: time.Millisecond}, muster.Invalid},
			{"more than 30 days", command.Spec{Device: "d", Method: "m", TTL: command.MaxTTL + time.Second}, muster.Invalid},
			{"a key over the limit", command.Spec{Device: "d", Method: "m", Key: strings.Repeat("k", command.MaxKey+1)}, muster.Invalid},
		} {
			if _, err := r.c.Send(t.Context(), tt.spec, 0); err == nil || muster.KindOf(err) != tt.kind {
				t.Errorf("%s: the answer is %v, want kind %v", tt.name, err, tt.kind)
			}
		}
		m, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: strings.Repeat("m", 64), Params: json.RawMessage(`"` + strings.Repeat("x", command.MaxParams-2) + `"`)}, 0)
		must(t, err)
		r.ready("d")
		settle()
		if sent := r.wire.sent(); len(sent) != 1 || len(sent[0].d.Payload) < command.MaxParams || m.Expires-m.Created != 24*3600_000_000 {
			t.Errorf("the largest command: %d messages", len(sent))
		}
		r.close()
	})
}

func TestADeviceHasSoManyUnfinishedCommandsAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, onSQLite(t, true), true)
		r.device("d", "e")
		var wg sync.WaitGroup
		var mu sync.Mutex
		kinds := map[string]int{}
		for range command.MaxOpenPerDevice + 50 {
			wg.Go(func() {
				_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "m"}, 0)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					kinds[muster.KindOf(err).String()]++
					return
				}
				kinds["sent"]++
			})
		}
		wg.Wait()
		if d := cmp.Diff(map[string]int{"sent": command.MaxOpenPerDevice, "busy": 50}, kinds); d != "" {
			t.Error(d)
		}
		r.ready("d") // delivered is not finished
		settle()
		_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "m"}, 0)
		wantKind(t, err, muster.Busy)
		r.send("e", "m")
		must(t, r.report("d", r.wire.ids("d")[0], `{"status":"ok"}`))
		r.send("d", "m")
		if ids := r.wire.ids("d"); !slices.IsSortedFunc(ids, func(a, b string) int { return len(a) - len(b) }) || len(ids) < command.MaxOpenPerDevice {
			t.Errorf("%d were sent, or not in order", len(ids))
		}
		r.close()
	})
}

func TestAKeyMakesOneCommand(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		spec := command.Spec{Device: "d", Method: "m", Params: json.RawMessage(`{"a":1}`), By: "me", Key: "k"}
		var wg sync.WaitGroup
		ids := make([]int64, 20)
		for i := range ids {
			wg.Go(func() {
				m, err := r.c.Send(t.Context(), spec, 0)
				must(t, err)
				ids[i] = m.ID
			})
		}
		wg.Wait()
		if slices.Min(ids) != slices.Max(ids) {
			t.Fatalf("one key made %v", ids)
		}
		r.restart()
		again := func(change func(*command.Spec)) (int64, error) {
			s := spec
			change(&s)
			m, err := r.c.Send(t.Context(), s, 0)
			return m.ID, err
		}
		same, err := again(func(s *command.Spec) { s.Params = json.RawMessage(`{ "a": 1 }`) })
		must(t, err)
		if same != ids[0] {
			t.Error("after a restart the key makes another")
		}
		for _, f := range []func(*command.Spec){
			func(s *command.Spec) { s.Method = "n" }, func(s *command.Spec) { s.Params = json.RawMessage(`{"a":2}`) }, func(s *command.Spec) { s.TTL = time.Hour },
		} {
			_, err := again(f)
			wantKind(t, err, muster.Conflict)
		}
		seen := map[int64]bool{ids[0]: true}
		for _, f := range []func(*command.Spec){
			func(s *command.Spec) { s.Device = "e" }, func(s *command.Spec) { s.By = "you" }, func(s *command.Spec) { s.Key = "l" },
			func(*command.Spec) { pass(24 * time.Hour) }, // the key is over
		} {
			id, err := again(f)
			must(t, err)
			if seen[id] {
				t.Error("another key gives the same command")
			}
			seen[id] = true
		}
	})
}

func TestACallerWaitsForTheEndAndNoLonger(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		r.ready("d")
		begun := time.Now()
		wait := func(device muster.DeviceID, ctx context.Context, d time.Duration) <-chan command.Command {
			out := make(chan command.Command, 1)
			go func() {
				m, err := r.c.Send(ctx, command.Spec{Device: device, Method: "m"}, d)
				if err != nil {
					t.Error(err)
				}
				out <- m
			}()
			return out
		}
		done := wait("d", t.Context(), 10*time.Second)
		over := wait("e", t.Context(), 10*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		gone := wait("e", ctx, 10*time.Second)
		settle()
		cancel()
		if m := <-gone; m.State != command.Queued || time.Since(begun) > time.Second {
			t.Errorf("a caller that is gone is answered %s after %s", m.State, time.Since(begun))
		}
		pass(3 * time.Second)
		must(t, r.report("d", r.wire.ids("d")[0], `{"status":"progress","progress":5}`))
		settle()
		must(t, r.report("d", r.wire.ids("d")[0], `{"status":"ok","result":5}`))
		if m := <-done; m.State != command.Succeeded || string(m.Result) != "5" || time.Since(begun) > 4*time.Second {
			t.Errorf("the end is %+v after %s", m, time.Since(begun))
		}
		if m := <-over; m.State != command.Queued || time.Since(begun) < 10*time.Second {
			t.Errorf("after the wait it is %s", m.State)
		}
		stopped := wait("e", t.Context(), time.Minute)
		settle()
		r.restart()
		if m := <-stopped; m.State != command.Queued {
			t.Errorf("when it stops it is %s", m.State)
		}
	})
}

func TestSoManyWaitAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, onSQLite(t, true), false)
		r.device("d", "e")
		var wg sync.WaitGroup
		for i := range command.MaxWaits {
			wg.Go(func() {
				_, err := r.c.Send(t.Context(), command.Spec{Device: []muster.DeviceID{"d", "e"}[i%2], Method: "m"}, time.Minute)
				must(t, err)
			})
		}
		synctest.Wait()
		_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "m"}, time.Second)
		wantKind(t, err, muster.Busy)
		r.send("d", "m")
		wg.Wait()
		if _, err := r.c.Send(t.Context(), command.Spec{Device: "e", Method: "m"}, time.Second); err != nil {
			t.Errorf("when they are gone: %v", err)
		}
		r.close()
	})
}

func TestAGatewayThatListensIsSentWhatWaitsForItsChildren(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		r.device("g")
		for _, id := range []muster.DeviceID{"c1", "c2"} {
			_, _, err := r.registry.Create(t.Context(), devices.Spec{ID: id, Parent: "g"})
			must(t, err)
		}
		a, b := r.send("c1", "m"), r.send("c2", "m")
		own := r.send("g", "m")
		settle() // each was tried, and waits for its device
		for _, id := range []muster.DeviceID{"c1", "c2", "g"} {
			r.wire.connect(id)
		}
		r.c.Ready("g", true)
		settle()
		r.wantState("c1", a.ID, command.Delivered)
		r.wantState("c2", b.ID, command.Delivered)
		r.wantState("g", own.ID, command.Queued)
		r.c.Ready("nobody", true)
		r.c.Ready("g", false)
		settle()
		r.wantState("g", own.ID, command.Delivered)
	})
}

func TestADeletedDeviceTakesItsCommandsAlong(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		r.ready("d")
		a, b := r.send("d", "a"), r.send("d", "b")
		e := r.send("e", "a")
		settle()
		must(t, r.registry.Delete(t.Context(), "d", devices.KeepData))
		r.device("d") // the same id is another device
		c := r.send("d", "c")
		settle()
		r.wire.ack("d", command.Acked)
		settle()
		for _, id := range []int64{a.ID, b.ID} {
			_, err := r.c.Command(t.Context(), "d", id)
			wantKind(t, err, muster.NotFound)
		}
		wantKind(t, r.report("d", text(a.ID), `{"status":"ok"}`), muster.Invalid)
		r.ready("d")
		settle()
		if d := cmp.Diff([]string{text(a.ID), text(c.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
		r.wantState("e", e.ID, command.Queued)
		if s := r.c.Stats(); s.Open != 2 {
			t.Errorf("%d are open", s.Open)
		}
	})
}

func TestACommandForADeviceThatIsDeletedMeanwhileIsNotFound(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		must(t, r.store.DeleteDevices(t.Context(), []muster.DeviceID{"d"})) // the registry does not know yet
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "m"}, 0)
			wantKind(t, err, muster.NotFound)
		})
		wg.Go(func() { r.send("e", "m") })
		wg.Wait()
	})
}

func TestWhenTheStoreFailsCallersAreToldAndNothingIsLost(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		r.ready("d")
		a := r.send("d", "a")
		settle()
		r.store.setDown(true)
		r.wire.ack("d", command.Acked)
		settle()
		begun := time.Now()
		_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "b"}, 0)
		wantKind(t, err, muster.Unavailable)
		_, err = r.c.Cancel(t.Context(), "d", a.ID)
		wantKind(t, err, muster.Unavailable)
		wantKind(t, r.report("d", text(a.ID), `{"status":"ok"}`), muster.Unavailable)
		if time.Since(begun) > time.Second || !r.c.Stats().Away {
			t.Errorf("callers were told after %s", time.Since(begun))
		}
		pass(time.Hour)
		r.wantState("d", a.ID, command.Sent)
		r.store.setDown(false)
		pass(10 * time.Second)
		r.wantState("d", a.ID, command.Delivered)
		must(t, r.report("d", text(a.ID), `{"status":"ok"}`))
		r.send("d", "b")
		list, _, err := r.c.Commands(t.Context(), command.Query{Device: "d", Limit: 10})
		must(t, err)
		if len(list) != 2 {
			t.Errorf("there are %d commands", len(list))
		}
	})
}

func TestACommitWhoseAnswerIsLostCountsAsWhatItWas(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		r.ready("d")
		spec := command.Spec{Device: "d", Method: "a", Key: "k"}
		r.store.fail("after")
		_, err := r.c.Send(t.Context(), spec, 0)
		wantKind(t, err, muster.Unavailable)
		pass(time.Second)
		m, err := r.c.Send(t.Context(), spec, 0)
		must(t, err)
		r.store.fail("before", "after", "before")
		r.wire.ack("d", command.Acked)
		pass(10 * time.Second)
		if got := r.wantState("d", m.ID, command.Delivered); got.Attempts != 1 {
			t.Errorf("%d attempts", got.Attempts)
		}
		if d := cmp.Diff([]string{text(m.ID)}, r.wire.ids("d")); d != "" {
			t.Error(d)
		}
	})
}

func TestCommandsAreListedNewestFirstAPageAtATime(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d", "e")
		var want []int64
		for i := range 7 {
			m := r.send("d", fmt.Sprint("m", i))
			want = append(want, m.ID)
			r.send("e", "x")
			if i%2 == 0 {
				_, err := r.c.Cancel(t.Context(), "d", m.ID)
				must(t, err)
			}
		}
		slices.Reverse(want)
		for state, want := range map[string][]int64{
			"": want, "cancelled": {want[0], want[2], want[4], want[6]}, "finished": {want[0], want[2], want[4], want[6]},
			"queued": {want[1], want[3], want[5]}, "open": {want[1], want[3], want[5]}, "sent": nil,
		} {
			var got []int64
			for before := int64(0); ; {
				list, next, err := r.c.Commands(t.Context(), command.Query{Device: "d", State: state, Before: before, Limit: 2})
				must(t, err)
				for _, m := range list {
					got = append(got, m.ID)
				}
				if next == 0 {
					break
				}
				if len(list) != 2 || next != list[1].ID {
					t.Fatalf("a page of %d, next %d", len(list), next)
				}
				before = next
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s: %s", state, d)
			}
		}
		_, _, err := r.c.Commands(t.Context(), command.Query{Device: "d", State: "gone", Limit: 1})
		wantKind(t, err, muster.Invalid)
	})
}

func TestOldCommandsGo(t *testing.T) {
	inBubble(t, true, func(t *testing.T, r *rig) {
		r.device("d", "e")
		finish := func(device muster.DeviceID, n int, key string) {
			reports := make([]command.Report, n)
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					s := command.Spec{Device: device, Method: "m"}
					if key != "" {
						s.Key = fmt.Sprint(key, i)
					}
					m, err := r.c.Send(t.Context(), s, 0)
					must(t, err)
					reports[i] = command.Report{Device: device, Command: text(m.ID), Payload: []byte(`{"status":"ok"}`)}
				})
			}
			wg.Wait()
			for _, err := range r.c.Results(t.Context(), reports) {
				must(t, err)
			}
		}
		count := func(device muster.DeviceID) int {
			list, _, err := r.c.Commands(t.Context(), command.Query{Device: device, Limit: 3000})
			must(t, err)
			return len(list)
		}
		finish("d", 10, "k")
		finish("d", command.KeepPerDevice-50, "")
		finish("d", 150, "")
		finish("e", 3, "")
		open := r.send("d", "open")
		must(t, r.c.Prune(t.Context()))
		if n := count("d"); n != command.KeepPerDevice+11 { // those with a key count a day
			t.Errorf("%d are kept", n)
		}
		pass(25 * time.Hour)
		finish("d", 1, "")
		must(t, r.c.Prune(t.Context()))
		if n := count("d"); n != command.KeepPerDevice { // open has expired
			t.Errorf("%d are kept", n)
		}
		r.wantState("d", open.ID, command.Expired)
		pass(29 * 24 * time.Hour)
		finish("e", 1, "")
		must(t, r.c.Prune(t.Context()))
		if n, m := count("d"), count("e"); n != 2 || m != 1 {
			t.Errorf("after 30 days %d and %d are kept", n, m)
		}
	})
}

func TestAfterItStopsCallersAreToldSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, onSQLite(t, true), false)
		r.device("d")
		m := r.send("d", "m")
		r.stop()
		_, err := r.c.Send(t.Context(), command.Spec{Device: "d", Method: "m"}, 0)
		wantKind(t, err, muster.Unavailable)
		_, err = r.c.Cancel(t.Context(), "d", m.ID)
		wantKind(t, err, muster.Unavailable)
		if errs := r.c.Results(t.Context(), []command.Report{{Device: "d", Command: text(m.ID), Payload: []byte(`{"status":"ok"}`)}}); errs[0] == nil || muster.KindOf(errs[0]) != muster.Unavailable {
			t.Errorf("a report is answered %v", errs)
		}
		must(t, r.store.Close())
	})
}

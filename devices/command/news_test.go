package command_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"muster/devices/command"
	"muster/feed"
)

// told returns what the feed says of commands and jobs after seq, as "type id".
func (r *rig) told(seq int64) (out []string) {
	r.Helper()
	for _, e := range r.feed(seq) {
		var id struct{ Command, Job string }
		must(r, json.Unmarshal(e.Data, &id))
		if strings.HasPrefix(e.Type, "job.") {
			id.Command = id.Job
		}
		out = append(out, e.Type+" "+id.Command)
	}
	return out
}

func (r *rig) feed(seq int64) (out []feed.Event) {
	r.Helper()
	for {
		es, err := r.store.FeedAfter(r.Context(), seq, 1000)
		must(r, err)
		if len(es) == 0 {
			return out
		}
		for _, e := range es {
			if strings.HasPrefix(e.Type, "command.") || strings.HasPrefix(e.Type, "job.") {
				out = append(out, e)
			}
		}
		seq = es[len(es)-1].Seq
	}
}

func TestTheFeedIsToldOfACommandsStatesOnceEachThoughTheStoreFails(t *testing.T) {
	inBubble(t, false, func(t *testing.T, r *rig) {
		r.device("d")
		m := r.send("d", "reboot")
		id := " " + text(m.ID)
		settle()
		r.ready("d")
		settle()
		r.store.fail("before", "after", "before")
		r.wire.disconnect("d")
		pass(10 * time.Second)
		r.ready("d")
		settle()
		r.wire.ack("d", command.Acked)
		pass(time.Second)
		for _, say := range []string{`{"status":"accepted"}`, `{"status":"progress","progress":50}`, `{"status":"ok"}`, `{"status":"ok"}`} {
			must(t, r.report("d", text(m.ID), say))
		}
		want := []string{"command.queued" + id, "command.sent" + id, "command.queued" + id, "command.sent" + id, "command.delivered" + id, "command.accepted" + id, "command.succeeded" + id}
		if d := cmp.Diff(want, r.told(0)); d != "" {
			t.Error(d)
		}
		last := r.feed(0)[len(want)-1]
		if got := string(last.Data); got != `{"device":"d","command":"`+text(m.ID)+`","method":"reboot","state":"succeeded"}` || last.Device != "d" {
			t.Errorf("the last event is %+v, %s", last, got)
		}
	})
}

func TestTheFeedIsToldOfAJobsPhasesAndItsCommands(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		r.devices(2)
		j := r.job(command.JobSpec{Query: "id:d*"})
		settle()
		for _, a := range []command.Action{command.Pause, command.Pause, command.Resume, command.Stop} {
			_, err := r.c.ControlJob(t.Context(), j.ID, a)
			must(t, err)
		}
		pass(time.Second)
		counts := map[string]int{}
		for _, s := range r.told(0) {
			kind, id, _ := strings.Cut(s, " ")
			if strings.HasPrefix(kind, "job.") && id != text(j.ID) {
				t.Errorf("an event of job %s", id)
			}
			counts[kind]++
		}
		want := map[string]int{"job.started": 1, "command.queued": 2, "job.paused": 1, "job.aborted": 1, "command.cancelled": 2}
		if d := cmp.Diff(want, counts); d != "" {
			t.Error(d)
		}
	})
}

func TestTheFeedIsToldOfAJobThatIsThrough(t *testing.T) {
	jobsInBubble(t, true, func(t *testing.T, r *rig, _ *twins) {
		j := r.job(command.JobSpec{Query: "id:nobody"})
		settle()
		es := r.feed(0)
		if len(es) != 2 || es[0].Type != feed.JobStarted || es[1].Type != feed.JobFinished {
			t.Fatalf("the feed has %v", es)
		}
		want := `{"job":"` + text(j.ID) + `","kind":"command","method":"m","query":"id:nobody","state":"done","total":0,"succeeded":0,"failed":0,"expired":0,"cancelled":0}`
		if d := cmp.Diff(want, string(es[1].Data)); d != "" {
			t.Error(d)
		}
	})
}

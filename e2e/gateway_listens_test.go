package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

const listenedKids = 300 // more than a session has subscriptions

// TestAGatewayListensToThreeHundredChildren has a gateway hear what is for all its
// children by three subscriptions, with a session of each kind.
func TestAGatewayListensToThreeHundredChildren(t *testing.T) {
	t.Parallel()
	for _, e := range engines() {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			args, _ := e.prepare(t)
			m := serve(t, args...)
			for _, keep := range []bool{false, true} {
				t.Run(map[bool]string{false: "clean session", true: "kept session"}[keep], func(t *testing.T) {
					m.t = t
					threeHundred(t, m, fmt.Sprintf("wide-%v", keep), keep)
				})
			}
			m.t = t
			m.stop()
		})
	}
}

func threeHundred(t *testing.T, m *muster, id string, keep bool) {
	token, other := m.device(id, "token").Token, id+"-other"
	otherToken := m.device(other, "token").Token
	kids, csv := family(id)
	m.ask(http.MethodPut, "/api/v1/groups/"+id, map[string]any{}, http.StatusOK, nil)
	m.imported(csv)
	m.desireAll(id, 1)
	m.orders(kids[1], "early", 600, "")

	lone := talk(t, m, other, otherToken, "", false)
	lone.refused("devices/+/desired") // it has no children
	g := talk(t, m, id, token, "", keep)
	for _, filter := range []string{"devices/+/telemetry", "devices/+/#", "devices/#", "#"} {
		g.refused(filter)
	}
	g.subscribe("devices/+/errors", 0)
	g.subscribe("devices/+/commands/+", 1)
	early := g.ordered("devices/"+kids[1]+"/commands/", "early", `{}`)
	g.say("devices/"+kids[1]+"/commands/"+early+"/result", `{"status":"ok"}`)
	g.subscribe("devices/+/desired", 1)
	g.hearsAll(kids, `"n":1`)
	m.desireAll(id, 2)
	g.hearsAll(kids, `"n":2`)

	g.obeysAll(m, id, kids)
	g.say("devices/"+kids[2]+"/reported", `[]`)
	if got := g.next(); got.topic != "devices/"+kids[2]+"/errors" || !strings.Contains(got.payload, `"status":422`) {
		t.Errorf("of a report that is none it is told %s", got)
	}

	g.cut()
	m.desireAll(id, 3)
	m.desireAll(id, 4)
	g = talk(t, m, id, token, "", keep)
	if !keep {
		g.subscribe("devices/+/errors", 0)
		g.subscribe("devices/+/commands/+", 1)
		g.subscribe("devices/+/desired", 1)
	}
	g.hearsAll(kids, `"n":4`)

	m.adopts(other, kids[0], kids[1])
	m.adopts(id, other) // so that the other's own is what a child's is, and its children's are not
	lone.subscribe("devices/+/desired", 1)
	lone.hearsAll(kids[:2], `"n":4`)
	m.adopts(other, kids[2])
	lone.hearsAll(kids[2:3], `"n":4`)
	m.desireAll(id, 5)
	lone.hearsAll(kids[:3], `"n":5`)
	g.hearsAll(kids[3:], `"n":5`)
	m.desire(other, `{"last":true}`)
	if got := g.next(); got.topic != "devices/"+other+"/desired" {
		t.Errorf("after all that it hears %s", got)
	}
	if n := len(lone.heard) + len(g.heard); n != 0 {
		t.Errorf("%d messages more are heard", n)
	}
}

// family returns the names of a gateway's children, and the CSV that makes them.
func family(gateway string) (kids []string, csv string) {
	csv = "id,parent,groups\n"
	for i := range listenedKids {
		kids = append(kids, fmt.Sprintf("%s-kid-%03d", gateway, i))
		csv += kids[i] + "," + gateway + "," + gateway + "\n"
	}
	return kids, csv
}

// desireAll changes what is wanted of a group.
func (m *muster) desireAll(group string, n int) {
	m.t.Helper()
	m.ask(http.MethodPatch, "/api/v1/groups/"+group+"/desired", map[string]int{"n": n}, http.StatusOK, nil)
}

// adopts makes devices a gateway's children.
func (m *muster) adopts(gateway string, kids ...string) {
	m.t.Helper()
	for _, kid := range kids {
		m.ask(http.MethodPatch, "/api/v1/devices/"+kid, map[string]string{"parent": gateway}, http.StatusOK, nil)
	}
}

// hearsAll wants the desired document of each child next, once, with part in it.
func (s *session3) hearsAll(kids []string, part string) {
	s.t.Helper()
	var topics, want []string
	for _, kid := range kids {
		got := s.next()
		if !strings.Contains(got.payload, part) {
			s.t.Fatalf("heard %s, want %s in it", got, part)
		}
		topics, want = append(topics, got.topic), append(want, "devices/"+kid+"/desired")
	}
	slices.Sort(topics)
	if !slices.Equal(topics, want) {
		s.t.Fatalf("heard %q\nwant  %q", topics, want)
	}
}

// obeysAll has a job command all children, and the gateway answer for them.
func (s *session3) obeysAll(m *muster, group string, kids []string) {
	s.t.Helper()
	var made struct{ Job job }
	m.ask(http.MethodPost, "/api/v1/jobs", map[string]any{"q": "group:" + group, "kind": "command", "method": "go"}, http.StatusCreated, &made)
	obeyed := make(map[string]bool)
	for range kids {
		got := s.next()
		kid, id, ok := strings.Cut(strings.TrimPrefix(got.topic, "devices/"), "/commands/")
		if !ok || obeyed[kid] {
			s.t.Fatalf("heard %s", got)
		}
		obeyed[kid] = true
		s.say("devices/"+kid+"/commands/"+id+"/result", `{"status":"ok"}`)
	}
	m.becomes(made.Job.ID, "done", 1, jobCounts{Succeeded: len(kids)})
}

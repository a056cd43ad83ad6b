package e2e

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/google/go-cmp/cmp"
)

// stormNote is a notification as its topic's publishers see it.
type stormNote struct {
	ID, Title, State string
	DedupKey         string `json:"dedup_key"`
}

// stormDelivery is one as admins see it.
type stormDelivery struct {
	ID, Channel, Target, State, Error, Reference string
	Attempts                                     int
	Tries                                        []struct{ Verdict, Error string }
}

// pages asks for a whole list.
func pages[T any](s *storm, path string) (out []T) {
	s.t.Helper()
	for after := ""; ; {
		var page struct {
			Items []T
			Next  string
		}
		s.m.ask(http.MethodGet, path+"&limit=500"+after, nil, http.StatusOK, &page)
		if out = append(out, page.Items...); page.Next == "" {
			return out
		}
		after = "&after=" + url.QueryEscape(page.Next)
	}
}

// verdict holds the server to what it promised.
func (s *storm) verdict() {
	s.t.Helper()
	s.heard()
	notes, accepted := s.promised()
	states := map[string]int{}
	for _, n := range notes {
		s.delivered(n, states)
	}
	s.t.Logf("%s; %d accepted, %d stored; deliveries: %v; %d mails, %d webhooks taken", s, accepted, len(notes), states, len(s.post.Mails()), len(s.hook.took))
	if accepted == 0 || s.kills == 0 || states["email sent"] == 0 || states["webhook sent"] == 0 || states["mqtt sent"] == 0 {
		s.t.Error("the test was none")
	}
}

// promised holds what is stored to what senders, people and devices were told, and returns
// it with how many were accepted.
func (s *storm) promised() (notes []stormNote, accepted int) {
	s.t.Helper()
	notes = pages[stormNote](s, "/api/v1/notifications?topic=pumps")
	byID, byTitle := map[string]stormNote{}, map[string]int{}
	for _, n := range notes {
		byID[n.ID] = n
		byTitle[n.Title]++
	}
	for title, n := range byTitle {
		if n != 1 {
			s.t.Errorf("%s is there %d times", title, n)
		}
	}
	for _, l := range s.letters {
		if l.accepted {
			accepted++
		}
		if len(l.ids) > 1 {
			s.t.Errorf("%s with the key %s made %v", l.title, l.key, l.ids)
		}
		for id := range l.ids {
			if n, ok := byID[id]; !ok || n.Title != l.title && (l.dedup == "" || n.DedupKey != l.dedup) {
				s.t.Errorf("%s was accepted as %s, which is %+v", l.title, id, n)
			}
		}
		if l.accepted && l.dedup == "" && byTitle[l.title] != 1 {
			s.t.Errorf("%s was accepted and is there %d times", l.title, byTitle[l.title])
		}
	}
	for id := range s.acked {
		if n := byID[id]; n.State != "acked" {
			s.t.Errorf("%s was acked and is %+v", id, n)
		}
	}
	s.inboxes(notes)
	s.identities()
	return notes, accepted
}

// inboxes holds every inbox to all that was sent, each once.
func (s *storm) inboxes(notes []stormNote) {
	s.t.Helper()
	var want []string
	for _, n := range notes {
		want = append(want, n.ID)
	}
	slices.Sort(want)
	for _, p := range []*caretaker{s.ann, s.bea} {
		var have []string
		for after := ""; ; {
			page := p.ask(http.MethodGet, "/api/v1/me/inbox?topic=pumps&limit=200"+after, nil, http.StatusOK)
			items, _ := page["items"].([]any)
			for _, it := range items {
				have = append(have, it.(map[string]any)["notification"].(map[string]any)["id"].(string))
			}
			next, _ := page["next"].(string)
			if next == "" {
				break
			}
			after = "&after=" + url.QueryEscape(next)
		}
		slices.Sort(have)
		if d := cmp.Diff(want, have); d != "" {
			s.t.Errorf("the inbox of %s (-sent +there):\n%s", p.email, d)
		}
	}
}

// delivered holds the deliveries of n to what receivers got.
func (s *storm) delivered(n stormNote, states map[string]int) {
	s.t.Helper()
	list := pages[stormDelivery](s, "/api/v1/deliveries?notification="+n.ID)
	var targets []string
	for _, d := range list {
		targets = append(targets, d.Channel+" "+d.Target)
		states[d.Channel+" "+d.State]++
		switch {
		case d.State == "dead":
			if d.Attempts == 0 || d.Error == "" {
				s.t.Errorf("%s is dead without a reason: %+v", n.Title, d)
			}
		case d.State != "sent":
			s.t.Errorf("%s is %s: %+v", n.Title, d.State, d)
		case !s.received(&d, n.ID):
			s.t.Errorf("%s is sent, and nobody got it: %+v", n.Title, d)
		}
	}
	want := []string{"email " + s.ann.id, "email " + s.bea.id, "mqtt panel-1", "webhook " + s.hookID}
	slices.Sort(want)
	slices.Sort(targets)
	if d := cmp.Diff(want, targets); d != "" {
		s.t.Errorf("deliveries of %s (-want +got):\n%s", n.Title, d)
	}
}

// received says whether the receiver of d got it.
func (s *storm) received(d *stormDelivery, note string) bool {
	switch d.Channel {
	case "webhook":
		return s.hook.took[d.Reference] > 0
	case "mqtt":
		return s.panelHeard[note]
	}
	for _, m := range s.post.Mails() {
		if m.Header.Get("Message-Id") == d.Reference {
			return true
		}
	}
	return false
}

// identities holds receivers' ids to being the same over all attempts.
func (s *storm) identities() {
	s.t.Helper()
	ids := map[string]map[string]bool{}
	for _, m := range s.post.Mails() {
		about := m.To[0] + " " + m.Subject
		if ids[about] == nil {
			ids[about] = map[string]bool{}
		}
		ids[about][m.Header.Get("Message-Id")] = true
	}
	for about, of := range ids {
		if len(of) != 1 {
			s.t.Errorf("mails to %s have the Message-IDs %v", about, of)
		}
	}
	s.hook.mu.Lock()
	defer s.hook.mu.Unlock()
	for note, of := range s.hook.ids {
		if len(of) != 1 {
			s.t.Errorf("webhooks about %s have the ids %v", note, of)
		}
	}
	for _, v := range s.hook.violations {
		s.t.Error(v)
	}
}

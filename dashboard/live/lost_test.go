package live_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"muster/dashboard/live"
	"muster/notify"
)

// wantFigures ticks until a stream is told the figures that must come in the end.
func (o *streamed) wantFigures(s *site, unread, open float64) {
	s.t.Helper()
	var last map[string]any
	for until := time.Now().Add(waitLong); time.Now().Before(until); runtime.Gosched() {
		s.tick(1)
		o.mu.Lock()
		for _, f := range o.frames {
			if f["t"] == "counts" {
				last = f
			}
		}
		o.frames = nil
		o.mu.Unlock()
		if last != nil && last["unread"] == unread && last["open"] == open {
			return
		}
	}
	s.t.Fatalf("the stream's figures are %v, want %v and %v", last, unread, open)
}

// Who loses a private topic, or has it again, is told his figures in all his sessions, though nothing came to his inbox.
func TestTheFiguresOfAnInboxFollowWhoSeesItsTopics(t *testing.T) {
	s, box := mailroom(t, live.Config{}, "anna", "bert")
	ctx, cancel := context.WithCancel(t.Context())
	trimmed := make(chan error, 1)
	go func() { trimmed <- box.RunTrim(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-trimmed
	})
	var err error
	box.topic, _, err = box.CreateTopic(ctx, root, notify.TopicSpec{Name: "secret", Visibility: notify.Private, AckPolicy: notify.AckAny})
	box.must(err)
	see := func(user string, sees bool) {
		t.Helper()
		if sees {
			_, err = box.PutMember(ctx, root, box.topic.ID, "usr_"+user, notify.RoleSubscriber)
		} else {
			err = box.DeleteMember(ctx, root, box.topic.ID, "usr_"+user)
		}
		box.must(err)
	}
	visible := func(v notify.Visibility) {
		t.Helper()
		_, err := box.ChangeTopic(ctx, root, box.topic.ID, notify.TopicChange{Visibility: &v})
		box.must(err)
	}
	own := func(user string) {
		t.Helper()
		owner := "usr_" + user
		_, err := box.ChangeTopic(ctx, root, box.topic.ID, notify.TopicChange{Owner: &owner})
		box.must(err)
	}
	see("anna", true)
	see("bert", true)
	box.subscribe("anna", "bert")
	one, other, bert := s.browser("anna"), s.browser("anna"), s.browser("bert")
	for _, p := range []*peer{one, other, bert} {
		p.follow("")
	}
	st := s.stream(t, live.Principal{ID: "s-anna", Who: whoOf("anna")}, live.Ask{Channel: "inbox"})
	defer st.end()
	anna := func(unread, open float64) {
		t.Helper()
		one.wantCounts(unread, open)
		other.wantCounts(unread, open)
		st.wantFigures(s, unread, open)
	}
	box.tell("pump")
	anna(1, 1)
	bert.wantCounts(1, 1)

	see("anna", false)
	anna(0, 0)
	see("anna", true)
	anna(1, 1)
	see("anna", false)
	anna(0, 0)
	visible(notify.Internal)
	anna(1, 1)
	visible(notify.Private)
	anna(0, 0)
	own("anna")
	anna(1, 1)
	own("root")
	anna(0, 0)
	box.must(box.DeleteTopic(ctx, root, box.topic.ID))
	bert.wantCounts(0, 0)
}

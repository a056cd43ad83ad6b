package notify_test

import (
	"testing"

	"muster"
	"muster/feed"
	"muster/notify"
)

// What happens before the reader of a new database has looked for the first time is looked at all the same.
func TestAReaderBeginsWhereTheServerDid(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		topic := r.topic(notify.TopicSpec{Sources: []notify.Source{{Types: []string{"presence.offline"}}}}, "bob")
		happens := func() {
			ctx := feed.With(t.Context())
			feed.Note(ctx, feed.NewEvent(feed.PresenceOffline, "d1", muster.MicrosOf(r.now()), map[string]string{"device": "d1", "state": "offline"}))
			if err := r.store.WriteNotes(ctx); err != nil {
				t.Fatal(err)
			}
		}
		happens() // before the first server that knows of notifications
		if err := r.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		happens()
		if err := r.Begin(t.Context()); err != nil { // of another process, or of the next start
			t.Fatal(err)
		}
		happens()
		r.runs(r.RunSources)
		r.until("both", func() bool { return len(r.items("bob")) == 2 })
		if list, err := r.List(t.Context(), user("ann"), notify.Query{Topics: []string{topic.ID}, Limit: 10}); err != nil || len(list) != 2 {
			t.Errorf("%d notifications, %v", len(list), err)
		}
	})
}

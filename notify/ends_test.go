package notify_test

import (
	"slices"
	"testing"

	"muster"
	"muster/feed"
	"muster/notify"
	"muster/notify/outbox"
)

// happen puts an event about a device into the feed.
func (r *rig) happen(kind string, device muster.DeviceID) {
	r.t.Helper()
	ctx := feed.With(r.t.Context())
	feed.Note(ctx, feed.NewEvent(kind, device, muster.MicrosOf(r.now()), map[string]string{"device": string(device)}))
	if err := r.store.WriteNotes(ctx); err != nil {
		r.t.Fatal(err)
	}
}

// sources has the sources of topics be read, from here on.
func (r *rig) sources() {
	r.t.Helper()
	if err := r.Begin(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.runs(r.RunSources)
}

func offline() []notify.Source {
	return []notify.Source{{Types: []string{feed.PresenceOffline}, Clears: []string{feed.PresenceOnline}, Query: "id:d1", Severity: notify.Major}}
}

// Whatever became of the topic and its sources meanwhile, what was told of a device ends with it.
func TestWhatASourceToldOfADeviceEndsWhateverBecameOfTheSource(t *testing.T) {
	for name, c := range map[string]struct {
		between func(r *rig, topic string)
		ends    string
	}{
		"as it was": {func(*rig, string) {}, feed.PresenceOnline},
		"the topic is inactive": {func(r *rig, topic string) {
			inactive := notify.Inactive
			r.changeTopic(topic, notify.TopicChange{Status: &inactive})
		}, feed.PresenceOnline},
		"it has other sources": {func(r *rig, topic string) {
			other := []notify.Source{{Types: []string{"command.*"}, Severity: notify.Info}}
			r.changeTopic(topic, notify.TopicChange{Sources: &other})
		}, feed.PresenceOnline},
		"it has none": {func(r *rig, topic string) {
			none := []notify.Source{}
			r.changeTopic(topic, notify.TopicChange{Sources: &none})
		}, feed.PresenceOnline},
		"its source asks for another device": {func(r *rig, topic string) {
			other := offline()
			other[0].Query = "id:d2"
			r.changeTopic(topic, notify.TopicChange{Sources: &other})
		}, feed.PresenceOnline},
		"the device is deleted": {func(r *rig, _ string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.devices, "d1")
		}, feed.DeviceDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			onEachStore(t, func(t *testing.T, r *rig) {
				topic := r.topic(notify.TopicSpec{Sources: offline()}, "bob")
				r.sources()
				r.happen(feed.PresenceOffline, "d1")
				r.until("it is told", func() bool { return len(r.items("bob")) == 1 })
				r.attempt(func(outbox.Delivery) outbox.State { return outbox.StateSent })
				id := r.items("bob")[0].Notification.ID
				c.between(r, topic.ID)
				r.happen(c.ends, "d1")
				r.until("it is over", func() bool { return r.notification(id).State == notify.Resolved })
				got, _ := r.deliveries(id)
				slices.Sort(got)
				r.wants("the end is told", got, "email usr_bob queued", "email usr_bob sent")
			})
		})
	}
}

func (r *rig) changeTopic(topic string, c notify.TopicChange) {
	r.t.Helper()
	if _, err := r.ChangeTopic(r.t.Context(), user("ann"), topic, c); err != nil {
		r.t.Fatal(err)
	}
}

// An event that a source tells of is no end of what it told before, and what is told of a device that
// is gone would never end.
func TestWhatIsToldAgainIsNotEndedAndNothingIsOpenedAboutADeviceThatIsGone(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		r.topic(notify.TopicSpec{Sources: []notify.Source{
			{Types: []string{"presence.*"}, Clears: []string{feed.PresenceOnline}, Severity: notify.Major},
			{Types: []string{feed.DeviceDeleted}, Clears: []string{feed.DeviceCreated}, Severity: notify.Major},
			{Types: []string{"command.*"}, Severity: notify.Info},
		}}, "bob")
		r.sources()
		r.happen(feed.PresenceOffline, "d1")
		r.happen(feed.PresenceOnline, "d1")
		r.happen(feed.PresenceOffline, "gone")
		r.happen(feed.DeviceDeleted, "gone")
		r.happen(feed.DeviceDeleted, "gone")
		r.happen(feed.CommandFailed, "gone")
		r.until("the last", func() bool { return len(r.items("bob")) == 3 })
		var got []string
		for _, it := range r.items("bob") {
			n := it.Notification
			got = append(got, string(n.Device)+" "+string(n.State)+" "+map[int64]string{1: "once", 2: "twice"}[n.Count])
		}
		r.wants("the inbox", got, "gone open once", "gone open twice", "d1 open twice")
	})
}

// A gate of one rollout is not that of another: each has a notification of its own, which ends with it.
func TestWhatASourceToldOfARolloutEndsWithThatOneAlone(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *rig) {
		r.topic(notify.TopicSpec{Sources: []notify.Source{{Types: []string{feed.RolloutGate}, Clears: []string{feed.RolloutGateClosed}, Severity: notify.Warning, Title: "{{.Data.rollout}} waits"}}}, "bob")
		r.sources()
		of := func(kind, id string) {
			t.Helper()
			ctx := feed.With(t.Context())
			feed.Note(ctx, feed.NewEvent(kind, "", muster.MicrosOf(r.now()), map[string]string{"rollout": id}))
			if err := r.store.WriteNotes(ctx); err != nil {
				t.Fatal(err)
			}
		}
		of(feed.RolloutGate, "rol_1")
		of(feed.RolloutGate, "rol_2")
		of(feed.RolloutGateClosed, "rol_1")
		is := func(title string, state notify.NotificationState) bool {
			return slices.ContainsFunc(r.items("bob"), func(it notify.Item) bool {
				return it.Notification.Title == title && it.Notification.State == state
			})
		}
		r.until("the first gate's notification is over", func() bool { return is("rol_1 waits", notify.Resolved) })
		if !is("rol_2 waits", notify.Open) || len(r.items("bob")) != 2 {
			t.Errorf("of two gates, one of which was closed, there are %+v", r.items("bob"))
		}
	})
}

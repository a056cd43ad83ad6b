package control_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/accounts"
	"muster/devices"
	"muster/notify"
	"muster/store/control"
)

func TestTopicsAndTheirMembersAreKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		topics := func(want ...notify.Topic) {
			t.Helper()
			got, err := c.Topics(ctx)
			wantNil(t, err)
			same(t, want, got)
		}
		members := func(want ...notify.Member) {
			t.Helper()
			got, err := c.Members(ctx)
			wantNil(t, err)
			same(t, want, got)
		}
		system := notify.Topic{
			ID: notify.SystemTopic, Name: "system", Title: "Muster", Description: "What Muster itself has to tell", Visibility: notify.Private, Status: notify.Active,
			Retention: 30 * 24 * time.Hour, AckPolicy: notify.AckNone, Version: 1,
		}
		topics(system)
		a := notify.Topic{
			ID: "top_a", Name: "cold-chain", Title: `é "t"`, Description: "'d'", Owner: "usr_1", Visibility: notify.Internal, Status: notify.Inactive,
			Retention: time.Hour, AckPolicy: notify.AckAll, Devices: "tag:a='b'", Version: 3, Created: 4, Updated: 5,
			Escalation: notify.Escalation{Steps: []notify.Step{{After: time.Second, To: []string{"usr_2"}, Channels: []string{"email"}}}, Repeat: 2},
			Sources: []notify.Source{{
				Types: []string{"presence.*"}, Query: "q", Severity: notify.Major, Clears: []string{"presence.online"}, Title: "{{.}}",
			}},
			Template: notify.Template{MailSubject: "s", MailText: "t\n", Webhook: "{}"},
		}
		owner := notify.Member{Topic: "top_a", Principal: "usr_1", Role: notify.RoleOwner, Created: 4}
		key := notify.Member{Topic: "top_a", Principal: "key_1", Role: notify.RolePublisher, Created: 5}
		wantNil(t, c.PutTopic(ctx, a, owner, key))
		topics(a, system)
		members(key, owner)
		b := topicOf("top_b")
		b.Name = a.Name
		wantKind(t, c.PutTopic(ctx, b, notify.Member{Topic: "top_b", Principal: "usr_1"}), muster.Conflict)
		topics(a, system)
		members(key, owner)
		changed := a
		changed.Name, changed.Title, changed.Owner, changed.Status, changed.Escalation = "other", "", "usr_2", notify.Active, notify.Escalation{}
		changed.Sources, changed.Template, changed.Version, changed.Updated, changed.Created = nil, notify.Template{}, 4, 9, 99
		changed.Visibility, changed.Retention, changed.AckPolicy, changed.Devices, changed.Description = notify.Private, time.Minute, notify.AckNone, "", ""
		wantNil(t, c.PutTopic(ctx, changed))
		changed.Created = a.Created // stays as it was
		wantNil(t, c.PutTopic(ctx, b))
		topics(changed, b, system)
		key.Role = notify.RoleSubscriber
		late := key
		late.Created = 77
		wantNil(t, c.PutMember(ctx, late))
		wantKind(t, c.PutMember(ctx, notify.Member{Topic: "top_none", Principal: "usr_1"}), muster.NotFound)
		members(key, owner)
		wantNil(t, c.DeleteMember(ctx, "top_a", "usr_1"))
		wantKind(t, c.DeleteMember(ctx, "top_a", "usr_1"), muster.NotFound)
		members(key)
		wantNil(t, c.PutSubscription(ctx, notify.Subscription{Topic: "top_a", Subject: "usr_1", Version: 1}))
		wantNil(t, c.DeleteTopic(ctx, "top_a"))
		wantKind(t, c.DeleteTopic(ctx, "top_a"), muster.NotFound)
		topics(b, system)
		members()
		_, err := c.Subscription(ctx, "top_a", "usr_1")
		wantKind(t, err, muster.NotFound)
	})
}

// counted compares the counts of subscriptions with what they count.
func counted(t *testing.T, c *control.Control, want map[string]int) {
	t.Helper()
	ids := []string{"top_none"}
	for id := range want {
		ids = append(ids, id)
		list, err := c.Subscriptions(t.Context(), id, "", 1000)
		wantNil(t, err)
		same(t, want[id], len(list))
	}
	got, err := c.CountSubscriptions(t.Context(), ids)
	wantNil(t, err)
	same(t, want, got)
}

func TestSubscriptionsAreKeptAndCounted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		for _, id := range []string{"top_a", "top_b"} {
			wantNil(t, c.PutTopic(ctx, topicOf(id)))
		}
		s := notify.Subscription{
			Topic: "top_a", Subject: "usr_2", Muted: 5, Version: 1, Created: 6, Updated: 6,
			Channels: []notify.Via{
				{Channel: "email", Severity: notify.Major, Digest: time.Minute, Quiet: &notify.Quiet{From: 5, To: 4, Days: []int{0, 6}, Zone: "Europe/Berlin", Except: 3}},
				{Channel: "mqtt"},
			},
		}
		wantNil(t, c.PutSubscription(ctx, s))
		got, err := c.Subscription(ctx, "top_a", "usr_2")
		wantNil(t, err)
		same(t, s, got)
		s.Channels, s.Muted, s.Version, s.Updated = nil, 0, 2, 7
		changed := s
		changed.Created = 99 // stays as it was
		wantNil(t, c.PutSubscription(ctx, changed))
		of := func(topic string, subject notify.Subject) notify.Subscription {
			s := notify.Subscription{Topic: topic, Subject: subject, Version: 1}
			wantNil(t, c.PutSubscription(ctx, s))
			return s
		}
		one, dev, b := of("top_a", "usr_1"), of("top_a", "device/d1"), of("top_b", "usr_2")
		wantKind(t, c.PutSubscription(ctx, notify.Subscription{Topic: "top_none", Subject: "usr_1"}), muster.NotFound)
		counted(t, c, map[string]int{"top_a": 3, "top_b": 1})
		list, err := c.Subscriptions(ctx, "top_a", "device/d1", 1)
		wantNil(t, err)
		same(t, []notify.Subscription{one}, list)
		list, err = c.Subscriptions(ctx, "top_a", "", 100)
		wantNil(t, err)
		same(t, []notify.Subscription{dev, one, s}, list)
		list, err = c.SubscriptionsOf(ctx, "usr_2")
		wantNil(t, err)
		same(t, []notify.Subscription{s, b}, list)
		wantNil(t, c.DeleteSubscription(ctx, "top_a", "usr_1"))
		wantKind(t, c.DeleteSubscription(ctx, "top_a", "usr_1"), muster.NotFound)
		counted(t, c, map[string]int{"top_a": 2, "top_b": 1})
		wantNil(t, c.PutMember(ctx, notify.Member{Topic: "top_b", Principal: "usr_2", Role: notify.RoleOwner}))
		wantNil(t, c.DeleteSubject(ctx, "usr_2"))
		wantNil(t, c.DeleteSubject(ctx, "usr_none"))
		counted(t, c, map[string]int{"top_a": 1, "top_b": 0})
		members, err := c.Members(ctx)
		if err != nil || len(members) != 0 {
			t.Errorf("members are %v, %v", members, err)
		}
	})
}

func TestATopicAndASubjectHaveAsManySubscriptionsAsTheyMay(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		wantNil(t, c.PutTopic(t.Context(), topicOf("top_a")))
		db := c.Database()
		_, err := db.ExecContext(t.Context(), `UPDATE topic SET subscribers = $1 WHERE id = 'top_a'`, notify.MaxSubscribers-1)
		wantNil(t, err)
		put := func(topic string, subject notify.Subject) error {
			return c.PutSubscription(t.Context(), notify.Subscription{Topic: topic, Subject: subject})
		}
		wantNil(t, put("top_a", "usr_1"))
		wantKind(t, put("top_a", "usr_2"), muster.Busy)
		wantNil(t, put("top_a", "usr_1"))
		for i := range notify.MaxSubscriptions - 1 {
			id := fmt.Sprintf("top_%d", i)
			wantNil(t, c.PutTopic(t.Context(), topicOf(id)))
			wantNil(t, put(id, "usr_1"))
		}
		wantKind(t, put(notify.SystemTopic, "usr_1"), muster.Busy)
		wantNil(t, put(notify.SystemTopic, "usr_2"))
		counted(t, c, map[string]int{notify.SystemTopic: 1})
	})
}

func TestSubscriptionsThatComeAndGoTogetherAreCounted(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		want := map[string]int{}
		for i := range 3 {
			want[fmt.Sprintf("top_%d", i)] = 8
			wantNil(t, c.PutTopic(t.Context(), topicOf(fmt.Sprintf("top_%d", i))))
		}
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				subject := notify.Subject(fmt.Sprintf("usr_%d", w))
				for i := range 30 {
					s := notify.Subscription{Topic: fmt.Sprintf("top_%d", (w+i)%3), Subject: subject}
					if err := c.PutSubscription(t.Context(), s); err != nil {
						t.Error(err)
					}
					if err := c.PutSubscription(t.Context(), notify.Subscription{Topic: s.Topic, Subject: "usr_all"}); err != nil {
						t.Error(err)
					}
					if i%7 == 0 {
						if err := c.DeleteSubject(t.Context(), subject); err != nil {
							t.Error(err)
						}
					}
					if err := c.DeleteSubscription(t.Context(), s.Topic, "usr_all"); err != nil && muster.KindOf(err) != muster.NotFound {
						t.Error(err)
					}
				}
				for i := range 3 {
					if err := c.PutSubscription(t.Context(), notify.Subscription{Topic: fmt.Sprintf("top_%d", i), Subject: subject}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		wantNil(t, c.DeleteSubject(t.Context(), "usr_all"))
		counted(t, c, want)
	})
}

func TestWhoIsDeletedLeavesNothingBehind(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		wantNil(t, c.PutTopic(ctx, topicOf("top_a")))
		u := accounts.UserRecord{ID: "usr_1", Email: "a@b.example", Role: "viewer"}
		wantNil(t, c.WriteAccounts(ctx, accounts.Batch{Users: []accounts.UserRecord{u}}))
		for _, key := range []accounts.APIKey{{ID: "key_1", Owner: "usr_1"}, {ID: "key_2"}, {ID: "key_3"}} {
			key.Hash[0] = key.ID[4]
			wantNil(t, c.InsertAPIKey(ctx, key))
		}
		wantNil(t, c.InsertDevices(ctx, []devices.Device{device("d1"), device("d2")}, nil))
		subjects := []notify.Subject{"usr_1", "usr_2", "device/d1", "device/d2"}
		n := notificationTo(1, "top_a")
		write(t, c, notify.Write{New: []notify.Notification{n}, Receipts: receiptsOf(n, subjects...)})
		for _, s := range subjects {
			wantNil(t, c.PutSubscription(ctx, notify.Subscription{Topic: "top_a", Subject: s}))
		}
		for _, p := range []string{"usr_1", "usr_2", "key_1", "key_2", "key_3"} {
			wantNil(t, c.PutMember(ctx, notify.Member{Topic: "top_a", Principal: p, Role: notify.RolePublisher}))
		}
		left := func(wantSubjects []notify.Subject, wantMembers ...string) {
			t.Helper()
			var subscribed, have []notify.Subject
			list, err := c.Subscriptions(ctx, "top_a", "", 100)
			wantNil(t, err)
			for _, s := range list {
				subscribed = append(subscribed, s.Subject)
			}
			receipts, err := c.Receipts(ctx, n.ID, "", 100)
			wantNil(t, err)
			for _, r := range receipts {
				have = append(have, r.Subject)
			}
			var members []string
			all, err := c.Members(ctx)
			wantNil(t, err)
			for _, m := range all {
				members = append(members, m.Principal)
			}
			same(t, wantSubjects, subscribed)
			same(t, wantSubjects, have)
			same(t, wantMembers, members)
			counted(t, c, map[string]int{"top_a": len(wantSubjects)})
		}
		left([]notify.Subject{"device/d1", "device/d2", "usr_1", "usr_2"}, "key_1", "key_2", "key_3", "usr_1", "usr_2")
		wantNil(t, c.WriteAccounts(ctx, accounts.Batch{DropUsers: []string{"usr_1"}}))
		left([]notify.Subject{"device/d1", "device/d2", "usr_2"}, "key_2", "key_3", "usr_2")
		wantNil(t, c.DeleteAPIKey(ctx, "key_2"))
		left([]notify.Subject{"device/d1", "device/d2", "usr_2"}, "key_3", "usr_2")
		wantNil(t, c.DeleteDevices(ctx, []muster.DeviceID{"d1"}))
		left([]notify.Subject{"device/d2", "usr_2"}, "key_3", "usr_2")
		wantNil(t, c.EraseDevices(ctx, []muster.DeviceID{"d2"}, 5))
		left([]notify.Subject{"usr_2"}, "key_3", "usr_2")
	})
}

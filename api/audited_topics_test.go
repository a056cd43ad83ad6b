package api_test

import (
	"fmt"
	"time"

	"muster"
	"muster/accounts"
	mail "muster/notify/outbox"
)

// newTopic makes a topic by the admin key, with somebody subscribed, and returns its id.
func (w *writer) newTopic() (id string, member someone) {
	id = w.ask("POST", "/topics", object{"name": w.name("topic")})["id"].(string)
	member = w.enters(w.name("eve"), accounts.Viewer)
	member.subscribes(id)
	return id, member
}

func (w *writer) newNotification() (id string, member someone) {
	topic, member := w.newTopic()
	sent := w.ask("POST", "/notifications", object{"topic": topic, "title": "Look"})
	return sent["notification"].(object)["id"].(string), member
}

// deadDelivery leaves one in the outbox that was given up.
func (w *writer) deadDelivery(channel, target string) string {
	w.Helper()
	return w.dead(mail.Delivery{Channel: channel, Target: target})
}

func (w *writer) dead(d mail.Delivery) string {
	w.Helper()
	w.made++
	at := muster.MicrosOf(time.Now())
	d.ID, d.Queue, d.State, d.Due, d.Created = fmt.Sprintf("dlv_%04d", w.made), d.Channel+":"+d.Target, mail.StateQueued, at, at
	d.Content = "c" + d.ID
	w.must(w.control.AddDeliveries(w.Context(), mail.Batch{Contents: []mail.Content{{ID: d.Content, Body: []byte(`{}`)}}, Deliveries: []mail.Delivery{d}}))
	list, err := w.control.ClaimDeliveries(w.Context(), mail.Claim{Queue: d.Queue, Lanes: []mail.Lane{mail.Urgent}, Now: at, Until: at + 1e6, Worker: "w", Limit: 10})
	w.must(err)
	const refused = "550 <eve@secret-address.example> is unknown"
	for _, c := range list {
		_, err := w.control.SettleDeliveries(w.Context(), []mail.Settlement{{
			ID: c.ID, Worker: "w", State: mail.StateDead, Attempts: 1, Ended: at, Error: refused,
			Tries: []mail.Attempt{{Verdict: mail.Dead, At: at, Status: 550, Error: refused, Response: "who is eve@secret-address.example?"}},
		}})
		w.must(err)
	}
	return d.ID
}

func topicDoings() doings {
	return doings{
		"create-topic": func(w *writer) deed {
			return deed{path: "/topics", body: object{"name": w.name("made")}, want: records("topic.create topics/* a")}
		},
		"change-topic": func(w *writer) deed {
			id, _ := w.newTopic()
			return deed{path: "/topics/" + id, body: object{"title": "Changed"}, want: records("topic.update topics/" + id + " ba")}
		},
		"delete-topic": func(w *writer) deed {
			id, _ := w.newTopic()
			return deed{path: "/topics/" + id, want: records("topic.delete topics/" + id + " b")}
		},
		"preview-template": func(*writer) deed {
			return deed{path: "/topics:preview", body: object{"template": object{"mail_subject": "{{.Title}}"}}}
		},
		"put-member": func(w *writer) deed {
			id, who := w.newTopic()
			return deed{path: "/topics/" + id + "/members/" + who.id, body: object{"role": "publisher"}, want: records("topic.member.put topics/" + id + " a")}
		},
		"delete-member": func(w *writer) deed {
			id, who := w.newTopic()
			w.ask("PUT", "/topics/"+id+"/members/"+who.id, object{"role": "publisher"})
			return deed{path: "/topics/" + id + "/members/" + who.id, want: records("topic.member.delete topics/" + id + " b")}
		},
		"put-subscription": func(w *writer) deed {
			id, who := w.newTopic()
			return deed{path: "/topics/" + id + "/subscriptions/me", body: object{}, who: []option{who.as}, want: records("subscription.put subscriptions/" + id + "/" + who.id + " ba")}
		},
		"delete-subscription": func(w *writer) deed {
			id, who := w.newTopic()
			return deed{path: "/topics/" + id + "/subscriptions/" + who.id, want: records("subscription.delete subscriptions/" + id + "/" + who.id + " b")}
		},
	}
}

func notificationDoings() doings {
	return doings{
		"send-notification": func(w *writer) deed {
			id, _ := w.newTopic()
			return deed{path: "/notifications", body: object{"topic": id, "title": "Look"}}
		},
		"ack-notification": func(w *writer) deed {
			id, who := w.newNotification()
			return deed{path: "/notifications/" + id + "/ack", body: object{"note": "mine"}, who: []option{who.as}}
		},
		"mark-notifications": func(w *writer) deed {
			id, who := w.newNotification()
			return deed{path: "/notifications:mark", body: object{"ids": []string{id}, "state": "seen"}, who: []option{who.as}}
		},
		"send-to-stream": func(*writer) deed {
			return deed{path: "/stream/" + talkID, body: []object{{"t": "ping", "id": 1, "ts": 1}}}
		},
		"read-inbox": func(w *writer) deed {
			_, who := w.newNotification()
			return deed{path: "/me/inbox:read-all", who: []option{who.as}}
		},
		"test-email": func(w *writer) deed {
			who := w.enters(w.name("tom"), accounts.Viewer)
			return deed{path: "/channels/email/test", who: []option{who.as}, want: records("test-email channels/email/test -")}
		},
		"test-inbox": func(w *writer) deed {
			who := w.enters(w.name("tim"), accounts.Viewer)
			return deed{path: "/channels/inbox/test", who: []option{who.as}, want: records("test-inbox channels/inbox/test -")}
		},
		"test-device-notification": func(w *writer) deed {
			id := w.newDevice()
			return deed{path: "/devices/" + id + "/notifications/test", want: records("test-device-notification devices/" + id + "/notifications/test -")}
		},
	}
}

func deliveryDoings() doings {
	return doings{
		"requeue-deliveries": func(w *writer) deed {
			id := w.deadDelivery("email", "usr_x")
			return deed{path: "/deliveries:requeue", body: object{"ids": []string{id}}, want: records("delivery.requeue deliveries a")}
		},
		"replay-webhook": func(w *writer) deed {
			id, _, _ := w.newWebhook("https://127.0.0.1:1/x")
			w.deadDelivery("webhook", id)
			return deed{path: "/webhooks/" + id + "/replay", body: object{}, want: records("delivery.requeue webhooks/" + id + "/deliveries a")}
		},
	}
}

// deadDeliveryOf leaves a mail about a notification in the outbox that was given up.
func (w *writer) deadDeliveryOf(notification, target string) string {
	w.Helper()
	return w.dead(mail.Delivery{Channel: "email", Target: target, Notification: notification})
}

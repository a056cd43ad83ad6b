package server_test

import (
	"testing"

	"muster/server/servertest"
)

// Who has the id of a device that was deleted gets nothing that was for that one: not what waited for
// it, and not what an admin sends again.
func TestADeviceThatIsMadeAgainGetsNothingThatWasForTheOneBeforeIt(t *testing.T) {
	s := servertest.Start(t)
	old := talks(t, s, "pump-7", coldChain(t, s), "")
	send := func(title string) (id string) {
		var sent struct{ Notification struct{ ID string } }
		call(t, s, "POST", "/api/v1/notifications", object{"topic": "cold-chain", "title": title, "dedup_key": title}, &sent)
		return sent.Notification.ID
	}
	type delivery struct{ ID, State, Error string }
	first := func(note string) delivery { // of a notification
		var list struct{ Items []delivery }
		call(t, s, "GET", "/api/v1/deliveries?notification="+note, nil, &list)
		return list.Items[len(list.Items)-1]
	}
	if code := old.listens("devices/me/notifications"); code > 2 {
		t.Fatalf("subscribing is answered %#x", code)
	}
	taken := send("taken")
	if got := old.hears("devices/me/notifications"); got["title"] != "taken" {
		t.Fatalf("the old one is told %v", got)
	}
	awaitTrue(t, "what was taken to be sent", func() bool { return first(taken).State == "sent" })
	if code := old.unlistens("devices/me/notifications"); code > 0x11 {
		t.Fatalf("unsubscribing is answered %#x", code)
	}
	waited := send("waited")
	awaitTrue(t, "an attempt", func() bool { return first(waited).Error != "" })
	call(t, s, "DELETE", "/api/v1/devices/pump-7?data=keep", nil, nil)

	made := talks(t, s, "pump-7 again", create(t, s, "pump-7"), "")
	if code := made.listens("devices/me/notifications"); code > 2 {
		t.Fatalf("subscribing is answered %#x", code)
	}
	if d := first(waited); d.State != "dropped" || d.Error != "the device was deleted" {
		t.Errorf("what waited is %+v", d)
	}
	for _, title := range []string{"taken", "waited"} {
		call(t, s, "POST", "/api/v1/notifications", object{"topic": "cold-chain", "dedup_key": title, "resolve": true}, nil)
	}
	call(t, s, "POST", "/api/v1/deliveries:requeue", object{"ids": []string{first(taken).ID, first(waited).ID}}, nil)
	awaitTrue(t, "what was sent again to end", func() bool { return first(taken).State == "dropped" })
	call(t, s, "PUT", "/api/v1/topics/cold-chain/subscriptions/device:pump-7", object{"channels": []object{{"channel": "mqtt"}}}, nil)
	send("its own")
	if got := made.hears("devices/me/notifications"); got["title"] != "its own" {
		t.Errorf("the new one is told %v", got)
	}
}

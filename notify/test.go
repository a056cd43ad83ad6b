package notify

import (
	"context"

	"muster"
)

// testTitle is what a test of a channel says.
const (
	testTitle = "A test from Muster"
	testBody  = "This shows that notifications reach you here."
)

// TestInbox puts a test into a user's inbox, as the next notification would come there: his
// open pages show it at once. It asks for no ack. NotFound when there is no such user.
func (n *Notify) TestInbox(ctx context.Context, user string) (Notification, error) {
	t, ok := n.topic(SystemTopic)
	if !ok || !n.present(Subject(user)) {
		return Notification{}, muster.Errorf(muster.NotFound, "there is no such user")
	}
	note := newNotification(&t, Sender{"system", "test", "Muster"}, &Message{Title: testTitle, Body: testBody}, n.now())
	note.AckPolicy, note.EscalateAt, note.Recipients = AckNone, 0, 1
	_, err := n.store.Write(ctx, Write{New: []Notification{note}, Receipts: []Receipt{{Notification: note.ID, Subject: Subject(user)}}})
	return note, err //nolint:wrapcheck // the store says what it was doing
}

// TestLetter is the content of a delivery that tests a channel. It is kept nowhere, and asks
// for no ack.
func (n *Notify) TestLetter() (id string, body []byte) {
	t, _ := n.topic(SystemTopic)
	note := newNotification(&t, Sender{"system", "test", "Muster"}, &Message{Title: testTitle, Body: testBody}, n.now())
	note.AckPolicy = AckNone
	return note.ID, encodeLetter(&note, false)
}

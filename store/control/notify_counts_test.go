package control_test

import (
	"fmt"
	"testing"

	"muster/notify"
)

// However many are open in all inboxes, the figures of one are of its own.
func TestAnInboxIsCountedByItsOwnReceipts(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		const many = 2100 // more than are counted one by one
		for _, open := range []int{30, many} {
			who, other := notify.Subject(fmt.Sprint("usr_", open)), notify.Subject(fmt.Sprint("usr_other_", open))
			var w notify.Write
			for i := range open + 20 {
				n := notificationTo(open*10_000+i, notify.SystemTopic)
				n.AckPolicy = notify.AckAny
				rs := receiptsOf(n, who, other)
				switch {
				case i < 3:
					rs = rs[1:] // another's alone
				case i >= open+10:
					n.AckPolicy, rs[0].State = notify.AckNone, notify.Read
				case i >= open:
					n.State = notify.Resolved
				}
				w.New, w.Receipts = append(w.New, n), append(w.Receipts, rs...)
			}
			write(t, c, w)
			for subject, want := range map[notify.Subject]notify.Counts{
				who:        {Unread: min(int64(open)+10-3, notify.MaxCounted), Open: min(int64(open)-3, notify.MaxCounted)},
				other:      {Unread: min(int64(open)+20, notify.MaxCounted), Open: min(int64(open), notify.MaxCounted)},
				"usr_none": {},
			} {
				got, err := c.InboxCounts(t.Context(), subject, nil)
				wantNil(t, err)
				same(t, want, got)
				got, err = c.InboxCounts(t.Context(), subject, []string{notify.SystemTopic})
				wantNil(t, err)
				same(t, notify.Counts{}, got)
			}
		}
	})
}

package ui

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"
)

// inboxOf serves the inbox of one person with n open notifications, 50 a page.
func inboxOf(t *testing.T, n int) *fakeServer {
	t.Helper()
	f := newFake(t)
	f.tally(0)
	f.user = object{"id": "usr_1", "name": "Ada Kern", "confirmed": true}
	f.onAck = func(c *fakeConn, m object) {
		c.send(object{"t": "ok", "re": m["id"], "moved": 1, "missing": []string{}})
	}
	items := make([]object, n)
	for i := range items {
		items[n-1-i] = note(fmt.Sprintf("ntf_%03d", i), i+1)
	}
	f.extra = map[string]http.HandlerFunc{
		"GET /api/v1/topics": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, 200, object{"items": []object{}, "next": nil})
		},
		"GET /api/v1/me/inbox": func(w http.ResponseWriter, r *http.Request) {
			from := 0
			if at := r.URL.Query().Get("after"); at != "" {
				from = 1 + slices.IndexFunc(items, func(it object) bool { return it["notification"].(object)["id"] == at })
			}
			to := min(from+50, n)
			page := object{"items": items[from:to], "next": nil}
			if to < n {
				page["next"] = items[to-1]["notification"].(object)["id"]
			}
			writeJSON(w, 200, page)
		},
	}
	return f
}

// note is an item of the inbox that is open and was sent.
func note(id string, seq int) object {
	now := time.Now().UTC().Format(time.RFC3339Nano)
	n := object{
		"id": id, "topic": "top_1", "topic_name": "alarms", "title": "Title of " + id, "body": "", "severity": "major", "priority": "normal", "state": "open",
		"ack_policy": "any", "acks": 0, "recipients": 1, "count": 1, "version": seq, "created_at": now, "updated_at": now,
		"sender": object{"id": "key_1", "kind": "key", "name": "plc"},
	}
	return object{"notification": n, "receipt": object{"notification": id, "subject": "usr_1", "state": "sent", "seq": seq}}
}

func receiptOf(id string) string {
	return "document.querySelector('.notes li[data-id=" + id + "]').dataset.receipt"
}

func TestOlderNotificationsComeByTheirCursorWithoutDoubles(t *testing.T) {
	f := inboxOf(t, 120)
	b := open(t, f)
	b.visit("/inbox")
	for _, want := range []int{50, 100, 120} {
		b.wait(fmt.Sprintf("%d rows", want), fmt.Sprintf("document.querySelectorAll('.notes li').length === %d", want))
		if want < 120 {
			b.click(".btn.more")
		}
	}
	b.wait("the end", "!document.querySelector('.btn.more')")
	ids := evaluate[[]string](b, "[...document.querySelectorAll('.notes li')].map(e => e.dataset.id)")
	if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 120 || ids[0] != "ntf_119" || ids[119] != "ntf_000" {
		t.Errorf("the rows are %v, want 120 of them, newest first", ids)
	}
}

func TestAnAckShowsAtOnceAndIsTakenBackWhenTheServerRefusesIt(t *testing.T) {
	f := inboxOf(t, 3)
	answers := make(chan func(), 8)
	f.onAck = func(c *fakeConn, m object) {
		ok := object{"t": "ok", "re": m["id"], "moved": 0, "missing": []any{}}
		switch {
		case m["state"] != "acked":
			c.send(ok)
		case m["n"].([]any)[0] == "ntf_002":
			answers <- func() {
				c.send(object{"t": "error", "re": m["id"], "code": "forbidden", "detail": "you may not", "retry": false})
			}
		default:
			ok["missing"] = m["n"]
			answers <- func() { c.send(ok) }
		}
	}
	b := open(t, f)
	b.visit("/inbox")
	b.waitText(".live", "Live")
	for _, c := range []struct{ id, says string }{{"ntf_002", "you may not"}, {"ntf_001", "not in your inbox any more"}} {
		b.wait("the row", "document.querySelector('.notes li[data-id="+c.id+"]')")
		b.click(".notes li[data-id=" + c.id + "] .ack")
		answer := <-answers // the server has not answered yet
		b.wait("the ack to show before the answer", receiptOf(c.id)+" === 'acked'")
		b.waitText(".notes li[data-id="+c.id+"] .how", "acknowledging")
		answer()
		b.waitText(".inbox .error", c.says)
		b.wait("the ack to be taken back", receiptOf(c.id)+" === 'sent' && document.querySelector('.notes li[data-id="+c.id+"] .ack')")
	}
}

func TestAnAckOfAPageThatIsNotConnectedGoesByTheAPI(t *testing.T) {
	f := inboxOf(t, 1)
	marks := make(chan object, 4)
	f.extra["POST /api/v1/notifications:mark"] = func(w http.ResponseWriter, r *http.Request) {
		var in object
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			problem(w, 400, "invalid", err.Error())
			return
		}
		if in["state"] == "acked" {
			marks <- in
		}
		writeJSON(w, 200, object{"moved": 1, "missing": []string{}})
	}
	b := open(t, f)
	b.expect("WebSocket connection")
	b.expect("503")
	b.visit("/inbox")
	b.waitText(".live", "Live")
	b.wait("the row", "document.querySelector('.notes li .ack')")
	f.cut(true)
	b.wait("the page to say that it is cut", "document.querySelector('.live.waiting')")
	b.click(".notes li .ack")
	if in := <-marks; in["ids"].([]any)[0] != "ntf_000" {
		t.Errorf("the API was asked %v", in)
	}
	b.wait("the ack", receiptOf("ntf_000")+" === 'acked' && document.querySelector('.notes li .how').textContent.includes('you acknowledged')")
}

package control_test

import (
	"testing"

	"muster"
	"muster/notify/hooks"
)

func TestWebhooksAreKept(t *testing.T) {
	onEach(t, func(t *testing.T, e engine) {
		c := e.control(t)
		ctx := t.Context()
		want := func(hooks ...hooks.Webhook) {
			t.Helper()
			got, err := c.Webhooks(ctx)
			wantNil(t, err)
			same(t, hooks, got)
		}
		want()
		b := hooks.Webhook{
			ID: "whk_b", URL: "https://x.example/?a=%27;--", Description: `"; DROP TABLE webhook; --ä`, Types: []string{"device.*", "job.started"},
			Query: "tag:a='b'", Secrets: []hooks.Secret{{Sealed: []byte{0, 1, 0xff}, Created: 5}, {Sealed: []byte("old"), Created: 1, Ends: 9}},
			Owner: "ada", Version: 1, Created: 3, Updated: 3,
		}
		a := hooks.Webhook{ID: "whk_a", URL: "http://y.example", Types: []string{"*"}, Disabled: true, Reason: "410", Version: 4}
		wantNil(t, c.PutWebhook(ctx, b))
		wantNil(t, c.PutWebhook(ctx, a))
		want(a, b)
		b.URL, b.Description, b.Types, b.Query, b.Secrets = "https://z.example", "", []string{"*"}, "", b.Secrets[:1]
		b.Disabled, b.Reason, b.Version, b.Updated = true, "gone", 2, 8
		changed := b
		changed.Owner, changed.Created = "eve", 99 // stay as they were
		wantNil(t, c.PutWebhook(ctx, changed))
		want(a, b)
		wantNil(t, c.DeleteWebhook(ctx, "whk_a"))
		wantKind(t, c.DeleteWebhook(ctx, "whk_a"), muster.NotFound)
		want(b)
	})
}

package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
	"muster/notify"
	"muster/notify/outbox"
)

// channelAttempt is what came of a test.
type channelAttempt struct {
	Delivered bool    `json:"delivered" doc:"The mail server or the device took it, or it is in the inbox"`
	Attempt   attempt `json:"attempt"`
}

func (a *API) channelRoutes() {
	tags := []string{"notifications"}
	route(a, anyone, huma.Operation{
		OperationID: "test-email", Method: http.MethodPost, Path: "/channels/email/test", Tags: tags,
		Summary:     "Mail a test to oneself, and say what came of it",
		Description: "To a signed-in user's own address, at most 10 tests a minute, of everything that one tests. 503 when the server has no --smtp. It takes up to 15 s.",
	}, func(ctx context.Context, _ *struct{}) (*body[channelAttempt], error) {
		return a.testOwn(ctx, notify.ChannelEmail)
	})
	route(a, anyone, huma.Operation{
		OperationID: "test-inbox", Method: http.MethodPost, Path: "/channels/inbox/test", Tags: tags,
		Summary:     "Put a test into one's own inbox",
		Description: "It is a notification as any other, which asks for no ack: the user's open pages show it at once. At most 10 tests a minute, of everything that one tests.",
	}, func(ctx context.Context, _ *struct{}) (*body[channelAttempt], error) {
		return a.testOwn(ctx, InboxChannel)
	})
	route(a, accounts.NotifySend, huma.Operation{
		OperationID: "test-device-notification", Method: http.MethodPost, Path: "/devices/{device}/notifications/test", Tags: tags,
		Summary: "Send a device a test at devices/{id}/notifications, and say what came of it",
		Description: "Delivered when the device acknowledged the message; later when it is not connected, or not subscribed. It is kept nowhere and not tried again. " +
			"At most 10 tests a minute. It takes up to 15 s.",
		Errors: []int{404},
	}, func(ctx context.Context, in *DevicePath) (*body[channelAttempt], error) {
		id, err := a.commanded(*in)
		if err != nil {
			return nil, err
		}
		return a.testChannel(ctx, notify.ChannelMQTT, a.asking(ctx), string(id))
	})
}

// testOwn tests a channel to who asks, who is a person.
func (a *API) testOwn(ctx context.Context, channel string) (*body[channelAttempt], error) {
	who, err := a.personal(ctx)
	if err != nil {
		return nil, err
	}
	return a.testChannel(ctx, channel, who, who.User)
}

// testing counts a test of who: over all that is tested, by whichever key of a user.
func (a *API) testing(ctx context.Context, who notify.Who) error {
	if p := a.limited(requestOf(ctx).rec.Header(), caller{policy: a.policies.test, id: cmp.Or(who.User, who.ID)}); p != nil {
		return p
	}
	return nil
}

// testChannel tests a channel to target for who asks.
func (a *API) testChannel(ctx context.Context, channel string, who notify.Who, target string) (*body[channelAttempt], error) {
	if a.ChannelTester == nil {
		return nil, muster.Errorf(muster.Unavailable, "the server does not have the channel %s", channel)
	}
	if err := a.testing(ctx, who); err != nil {
		return nil, err
	}
	t, err := a.ChannelTester.TestChannel(ctx, channel, target)
	if err != nil {
		return nil, err
	}
	return &body[channelAttempt]{channelAttempt{t.Verdict == outbox.Delivered, attemptOf(&t)}}, nil
}

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"muster"
	"muster/accounts"
)

const maxTalk = 64 << 10 // bytes of commands in one request, as in one frame of the WebSocket

// talkInput is what a page without a WebSocket sends.
type talkInput struct {
	Stream string           `path:"stream" maxLength:"32" doc:"The sid of the welcome that the stream began with"`
	Body   []map[string]any `minItems:"1" maxItems:"256" doc:"Commands as the WebSocket has them, obeyed one after the other" example:"[{\"t\":\"sub\",\"id\":2,\"ch\":\"fleet\"}]"`
}

// talkRoute is the way up of a stream of the channel page.
func (a *API) talkRoute() {
	route(a, accounts.DevicesRead, huma.Operation{
		OperationID: "send-to-stream", Method: http.MethodPost, Path: "/stream/{stream}", Tags: []string{"events"}, DefaultStatus: http.StatusNoContent,
		Summary: "Send commands to a stream of the channel page", Metadata: map[string]any{unaudited: true}, MaxBodyBytes: maxTalk,
		Description: "The commands are those of the WebSocket, but for hello, and what they are answered comes in the stream (docs/stream.md). " +
			"404 when this server has no such stream of the same session or key: open another.",
		Errors: []int{http.StatusNotFound},
	}, a.talk)
}

func (a *API) talk(ctx context.Context, in *talkInput) (*struct{}, error) {
	if a.Channels == nil {
		return nil, muster.Errorf(muster.NotFound, "there is no such stream")
	}
	commands, err := json.Marshal(in.Body)
	if err != nil {
		return nil, fmt.Errorf("write commands: %w", err)
	}
	return nil, a.Channels.Say(requestOf(ctx).who, in.Stream, commands)
}

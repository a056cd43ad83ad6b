package server

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"muster/accounts"
	"muster/api"
	"muster/dashboard/live"
	"muster/devices"
	"muster/feed"
	"muster/firmware/operator"
	"muster/notify"
	"muster/tasks"
)

// liveTasks shows the live gateway the tasks, in the API's words.
type liveTasks struct{ *tasks.Tasks }

func taskViewer(who live.Principal) tasks.Viewer {
	return tasks.Viewer{ID: who.Owner, Admin: who.Admin}
}

// Newest implements live.Tasks.
func (t liveTasks) Newest(who live.Principal, limit int) []live.Member {
	page, _ := t.List(tasks.Query{By: taskViewer(who), Limit: limit})
	out := make([]live.Member, len(page))
	for i := range page {
		out[i] = live.Member{Name: page[i].ID, JSON: encodeTask(&page[i])}
	}
	return out
}

// Task implements live.Tasks.
func (t liveTasks) Task(who live.Principal, id string) ([]byte, error) {
	task, err := t.Tasks.Task(id, taskViewer(who))
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is not there
	}
	return encodeTask(&task), nil
}

func encodeTask(t *tasks.Task) []byte {
	b, err := json.Marshal(api.TaskOf(t))
	if err != nil { // plain data; the input is JSON that was checked
		panic(fmt.Errorf("write a task: %w", err))
	}
	return b
}

// rolloutTime bounds the look at a rollout.
const rolloutTime = 2 * time.Second

// liveRollouts gives rollouts to the live gateway.
type liveRollouts struct{ *operator.Operator }

// Rollout implements live.Rollouts.
func (l liveRollouts) Rollout(id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), rolloutTime)
	defer cancel()
	p, err := l.Progress(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is not there
	}
	b, err := json.Marshal(api.RolloutProgressOf(&p))
	if err != nil { // plain data
		panic(fmt.Errorf("write a rollout: %w", err))
	}
	return b, nil
}

// liveEvents opens the feed to the live gateway.
type liveEvents struct {
	feed     *feed.Feed
	registry *devices.Registry
	notify   *notify.Notify
}

// Follow implements live.Events.
func (l liveEvents) Follow(who live.Principal, types, q, place string) (*feed.Follower, error) {
	match, err := l.registry.Matcher(q, who.Only)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is wrong with the query
	}
	show := func(ctx context.Context, e *feed.Event) bool { return l.notify.Shows(ctx, who.Who, e) }
	return l.feed.Open(feed.Ask{Types: types, Place: place, Match: match, Show: show}) //nolint:wrapcheck // likewise
}

// channels opens the live gateway's channels to streams of server-sent events, to those
// who may open its sockets.
type channels struct {
	gateway *live.Gateway
	viewers viewers
}

// OpenChannel implements api.Channels.
func (c channels) OpenChannel(who accounts.Principal, ask api.ChannelAsk, write func([]byte, int) error) (api.Channel, error) {
	p, err := c.viewers.viewer(who, nil)
	if err != nil {
		return nil, err
	}
	st, err := c.gateway.Attach(p, live.Ask{
		Channel: ask.Channel, Q: ask.Q, Sort: ask.Sort, After: ask.After, Limit: ask.Limit, Cols: ask.Cols,
	}, write)
	if err != nil {
		return nil, err //nolint:wrapcheck // it says what is not there
	}
	return st, nil
}

// Say implements api.Channels.
func (c channels) Say(who accounts.Principal, id string, commands []byte) error {
	p, err := c.viewers.viewer(who, nil)
	if err != nil {
		return err
	}
	return c.gateway.Say(p, id, commands) //nolint:wrapcheck // it says what is not there
}

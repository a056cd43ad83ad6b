package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"

	"muster/client"
	"muster/store/control/controltest"
)

// thirdParty is a program of somebody else: it has the address, a key, the generated client, and
// nothing else of ours.
type thirdParty struct {
	api  *client.Client
	last string // id of the last event that it has read
}

func newThirdParty(base, key string) (*thirdParty, error) {
	api, err := client.New(base, key, client.WithHTTPClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}))
	return &thirdParty{api: api}, err
}

// looksAround lists what it can reach, page by page, and tries what it cannot.
func (p *thirdParty) looksAround(ctx context.Context) (found []string, err error) {
	cursor := ""
	for {
		page, err := p.api.ListDevices(ctx, &client.ListDevicesParams{Limit: 2, Cursor: cursor, Total: true, Sort: "id"})
		if err != nil {
			return nil, fmt.Errorf("list devices: %w", err)
		}
		for _, d := range page.Items {
			found = append(found, d.ID)
		}
		if *page.Total != 3 {
			return nil, fmt.Errorf("the total is %d", *page.Total)
		}
		if page.Next == nil {
			break
		}
		cursor = *page.Next
	}
	_, hidden := p.api.GetDevice(ctx, "rome-1")
	_, nobody := p.api.GetDevice(ctx, "nobody-1")
	if client.Code(hidden) != "not_found" || strings.ReplaceAll(fmt.Sprint(hidden), "rome", "nobody") != fmt.Sprint(nobody) {
		return nil, fmt.Errorf("a device outside is told from none: %w", errors.Join(hidden, nobody))
	}
	_, err = p.api.CreateAPIKey(ctx, &client.NewKey{Name: "more", Scopes: []string{"devices:read"}}, nil)
	if client.Code(err) != "forbidden" {
		return nil, fmt.Errorf("it makes a key: %w", err)
	}
	return found, nil
}

// measures writes telemetry for a device that it has and one that it has not, and reads it.
func (p *thirdParty) measures(ctx context.Context, value float64) error {
	done, err := p.api.WriteTelemetry(ctx, []map[string]any{{"device": "berlin-1", "t": value}, {"device": "rome-1", "t": value}}, nil)
	switch {
	case err != nil:
		return fmt.Errorf("write telemetry: %w", err)
	case done.Accepted != 1 || done.RejectedCount != 1 || done.Rejected[0].Line != 2 || done.Rejected[0].Device != "rome-1":
		return fmt.Errorf("what was written is %+v", done)
	}
	latest, err := p.api.GetLatest(ctx, "berlin-1", nil)
	if err != nil {
		return fmt.Errorf("read the latest values: %w", err)
	}
	if got := latest.Values["t"].Value; got != value {
		return fmt.Errorf("the latest value is %v, want %v", got, value)
	}
	return nil
}

// commands sends a command and waits for the device's answer.
func (p *thirdParty) commands(ctx context.Context) error {
	got, err := p.api.SendCommand(ctx, "berlin-1", &client.NewCommand{Method: "measure", Params: map[string]any{"unit": "C"}}, &client.SendCommandParams{Wait: "20s"})
	if err != nil {
		return fmt.Errorf("send a command: %w", err)
	}
	if got.State != "succeeded" || fmt.Sprint(got.Result) != "map[t:21.5]" {
		return fmt.Errorf("the command is %s with %v", got.State, got.Result)
	}
	_, err = p.api.SendCommand(ctx, "rome-1", &client.NewCommand{Method: "measure"}, nil)
	if client.Code(err) != "not_found" {
		return fmt.Errorf("a device outside is commanded: %w", err)
	}
	return nil
}

// hears reads n events that come after the last it has read, and returns what they say.
func (p *thirdParty) hears(ctx context.Context, n int, ready func()) (said []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	res, err := p.api.Stream(ctx, &client.StreamParams{Channel: "events", Types: "device.*", LastEventID: p.last})
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it has no end
	ready()
	for m, err := range client.Messages(res.Body) {
		if err != nil {
			return said, fmt.Errorf("read events: %w", err)
		}
		var e struct {
			Type string
			Data struct{ Device string }
		}
		if err := json.Unmarshal([]byte(m.Data), &e); err != nil {
			return said, fmt.Errorf("read an event: %w", err)
		}
		p.last = m.ID
		if said = append(said, e.Type+" "+e.Data.Device); len(said) == n {
			return said, nil
		}
	}
	return said, errors.New("the stream has ended")
}

// answersCommands is a device that answers each command.
func answersCommands(t *testing.T, m *muster, id, token string) {
	t.Helper()
	l, err := openLink3(m, login{clientID: id, user: token})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.leave)
	tok := l.(*link3).c.Subscribe("devices/me/commands/+", 1, func(c paho3.Client, msg paho3.Message) { //nolint:forcetypeassert // it made it
		c.Publish(msg.Topic()+"/result", 1, false, `{"status":"ok","result":{"t":21.5}}`)
	})
	if err := answered3(tok); err != nil {
		t.Fatal(err)
	}
}

// TestAThirdPartyWorksWithItsDevicesByTheGeneratedClient gives a program a key for the devices of
// one site. It finds, reads, writes, commands and follows those and no others, and a kill -9
// makes it miss no event.
func TestAThirdPartyWorksWithItsDevicesByTheGeneratedClient(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			var args []string
			if engine == "postgres" {
				args = []string{"--database", controltest.Database(t, timescale(t))}
			}
			m := serve(t, args...)
			tokens := map[string]string{}
			for _, site := range []string{"berlin", "rome"} {
				for i := range 3 {
					id := fmt.Sprintf("%s-%d", site, i)
					var made struct{ Credential credential }
					m.ask(http.MethodPost, "/api/v1/devices", map[string]any{"id": id, "tags": map[string]string{"site": site}}, http.StatusCreated, &made)
					tokens[id] = made.Credential.Token
				}
			}
			var key struct{ Secret string }
			m.ask(http.MethodPost, "/api/v1/api-keys", map[string]any{
				"name": "third party", "selector": "tag:site=berlin", "scopes": []string{"devices:read", "telemetry:read", "telemetry:write", "commands:send"},
			}, http.StatusCreated, &key)
			p, err := newThirdParty("http://"+m.http, key.Secret)
			if err != nil {
				t.Fatal(err)
			}
			rename := func(name string, ids ...string) {
				for _, id := range ids {
					m.ask(http.MethodPatch, "/api/v1/devices/"+id, map[string]string{"name": name}, http.StatusOK, nil)
				}
			}
			found, err := p.looksAround(t.Context())
			if d := cmp.Diff([]string{"berlin-0", "berlin-1", "berlin-2"}, found); d != "" || err != nil {
				t.Errorf("%v, %s", err, d)
			}
			answersCommands(t, m, "berlin-1", tokens["berlin-1"])
			for _, do := range []func() error{func() error { return p.measures(t.Context(), 21.5) }, func() error { return p.commands(t.Context()) }} {
				if err := do(); err != nil {
					t.Error(err)
				}
			}
			said, err := p.hears(t.Context(), 2, func() { rename("first", "rome-1", "berlin-1", "rome-2", "berlin-2") })
			if err != nil || !slices.Equal(said, []string{"device.updated berlin-1", "device.updated berlin-2"}) {
				t.Errorf("it hears %v, %v", said, err)
			}
			rename("while nobody listens", "rome-0", "berlin-0", "berlin-1")
			m.kill()
			m.start()
			m.ready()
			rename("after the kill", "berlin-2", "rome-2")
			said, err = p.hears(t.Context(), 3, func() {})
			if err != nil || !slices.Equal(said, []string{"device.updated berlin-0", "device.updated berlin-1", "device.updated berlin-2"}) {
				t.Errorf("after the kill it hears %v, %v", said, err)
			}
			if err := p.measures(t.Context(), 22.75); err != nil {
				t.Error(err)
			}
			m.ask(http.MethodPatch, "/api/v1/devices/berlin-0", map[string]any{"tags": map[string]string{"site": "rome"}}, http.StatusOK, nil)
			if _, err := p.api.GetDevice(t.Context(), "berlin-0"); client.Code(err) != "not_found" {
				t.Errorf("a device that has left gives %v", err)
			}
		})
	}
}

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"
)

// inboxFrame is what a reader of an inbox is told.
type inboxFrame struct {
	T, Ch, Epoch, Reason string
	Seq                  int64
	Items                []json.RawMessage
	Ev                   struct {
		Notification struct {
			ID, State string
			Version   int64
		}
		Receipt struct{ State string }
	}
	place string // its id in a stream of server-sent events
}

// inboxRoad opens one connection to a person's inbox after a place, empty for none. What it
// returns reads the next frames, and fails when the connection ends.
type inboxRoad func(ctx context.Context, who *caretaker, host, place string) (next func() ([]inboxFrame, error), err error)

// bySocket follows the inbox over a WebSocket as the page does.
func bySocket(ctx context.Context, who *caretaker, host, place string) (func() ([]inboxFrame, error), error) {
	base := &url.URL{Scheme: "http", Host: host}
	d := websocket.Dialer{Subprotocols: []string{"muster.v1"}, HandshakeTimeout: requestLimit, Jar: who.c.Jar}
	conn, res, err := d.DialContext(ctx, "ws://"+host+"/api/v1/live", http.Header{"Origin": {base.String()}})
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	_ = res.Body.Close()
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	for _, text := range []string{`{"t":"hello","id":1}`, fmt.Sprintf(`{"t":"sub","id":2,"ch":"inbox","after":%q}`, place)} {
		if err := conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			return nil, fmt.Errorf("follow the inbox: %w", err)
		}
	}
	return func() ([]inboxFrame, error) {
		_, data, err := conn.ReadMessage()
		if err != nil {
			_ = conn.Close()
			return nil, fmt.Errorf("read a socket: %w", err)
		}
		if data[0] != '[' {
			data = append(append([]byte{'['}, data...), ']')
		}
		var out []inboxFrame
		err = json.Unmarshal(data, &out)
		return out, err
	}, nil
}

// byStream follows it by server-sent events.
func byStream(ctx context.Context, who *caretaker, host, place string) (func() ([]inboxFrame, error), error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+"/api/v1/stream?channel=inbox", nil)
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if place != "" {
		req.Header.Set("Last-Event-ID", place)
	}
	client := &http.Client{Jar: who.c.Jar, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	for tries := 1; err == nil && res.StatusCode == http.StatusServiceUnavailable && tries < 10; tries++ {
		_ = res.Body.Close() // the database was too slow to count an inbox, which took the server seconds to find
		res, err = client.Do(req)
	}
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		_ = res.Body.Close()
		return nil, fmt.Errorf("a stream of the inbox gives %d", res.StatusCode)
	}
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(nil, 1<<20)
	id := ""
	return func() ([]inboxFrame, error) {
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			if name == "id" {
				id = value
			}
			if name == "data" {
				f := inboxFrame{place: id}
				return []inboxFrame{f}, json.Unmarshal([]byte(value), &f)
			}
		}
		_ = res.Body.Close()
		return nil, errors.Join(errors.New("the stream ended"), lines.Err())
	}, nil
}

// inboxReader follows one person's inbox over any number of connections, each after the
// place that it had come to.
type inboxReader struct {
	name string
	who  *caretaker
	road inboxRoad

	stop context.CancelFunc
	wg   sync.WaitGroup

	mu         sync.Mutex
	begun      bool // of this connection: its snapshot came
	ended      bool
	place      string
	epoch      string
	at         int64
	known      map[string]string // what it was told last of each notification
	anew       map[string]int    // what was new to it on this connection, and how often
	events     int
	violations []string
}

func newInboxReader(name string, who *caretaker, road inboxRoad) *inboxReader {
	return &inboxReader{name: name, who: who, road: road, known: map[string]string{}, anew: map[string]int{}}
}

// follow connects, and reads until the connection ends.
func (r *inboxReader) follow(t *testing.T, host string) {
	t.Helper()
	r.mu.Lock()
	r.begun, r.ended = false, false
	clear(r.anew)
	place := r.place
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	next, err := r.road(ctx, r.who, host, place)
	if err != nil {
		t.Fatalf("%s: %v", r.name, err)
	}
	r.wg.Go(func() {
		for {
			frames, err := next()
			r.mu.Lock()
			for i := range frames {
				r.take(&frames[i], place != "")
			}
			if err != nil {
				r.ended = true
				r.mu.Unlock()
				return
			}
			r.mu.Unlock()
		}
	})
}

// leave ends the connection and waits for it.
func (r *inboxReader) leave() {
	if r.stop != nil {
		r.stop()
	}
	r.wg.Wait()
}

func (r *inboxReader) violation(format string, args ...any) {
	if len(r.violations) < 10 {
		r.violations = append(r.violations, r.name+": "+fmt.Sprintf(format, args...))
	}
}

// take is called with mu held.
func (r *inboxReader) take(f *inboxFrame, resumes bool) {
	switch {
	case f.Ch != "inbox":
	case f.T == "snapshot":
		r.begun = true
		if f.Reason != "" || len(f.Items) > 0 || resumes && (f.Epoch != r.epoch || f.Seq != r.at) {
			r.violation("its place is %s-%d, and it is told %+v", r.epoch, r.at, f)
		}
		r.epoch, r.at = f.Epoch, f.Seq
		r.moved(f)
	case f.T == "event":
		n := &f.Ev.Notification
		if f.Seq <= r.at {
			r.violation("is told change %d after %d", f.Seq, r.at)
		}
		r.at = f.Seq
		r.moved(f)
		r.events++
		says := fmt.Sprint(n.State, n.Version, f.Ev.Receipt.State)
		was, known := r.known[n.ID]
		if !known {
			r.anew[n.ID]++
		}
		if known && was == says {
			r.violation("is told twice that %s is %s", n.ID, says)
		}
		r.known[n.ID] = says
	case f.T == "bye" || f.T == "error" || f.T == "reset":
		r.violation("is told %+v", f)
	}
}

func (r *inboxReader) moved(f *inboxFrame) {
	r.place = fmt.Sprintf("%s-%d", r.epoch, r.at)
	if f.place != "" && f.place != r.place {
		r.violation("change %s has the id %s", r.place, f.place)
	}
}

// is says whether the connection has begun, or has ended.
func (r *inboxReader) is(what *bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return *what
}

// missing returns which of ids it was never told of.
func (r *inboxReader) missing(ids []string) (out []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if _, ok := r.known[id]; !ok {
			out = append(out, id)
		}
	}
	return out
}

// acceptedID returns the id of a notification that was answered with 202.
func acceptedID(body []byte) string {
	var out struct{ Notification struct{ ID string } }
	if err := json.Unmarshal(body, &out); err != nil {
		return ""
	}
	return out.Notification.ID
}

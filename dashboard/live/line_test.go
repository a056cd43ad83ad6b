package live_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"muster"
	"muster/dashboard/live"
)

// line is a page without a WebSocket: what comes is a stream of the channel page, what it says goes by Say.
type line struct {
	*peer
	who    live.Principal
	st     *live.Stream
	sid    string
	cancel context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	frames []map[string]any
	came   chan struct{}
}

func (s *site) line(t *testing.T, user string) *line {
	t.Helper()
	l := &line{
		peer: &peer{t: t, s: s}, who: live.Principal{ID: "ses-" + user, Name: user, Owner: user, Who: whoOf(user)},
		done: make(chan struct{}), came: make(chan struct{}, 1),
	}
	var err error
	if l.st, err = s.g.Attach(l.who, live.Ask{Channel: "page"}, l.write); err != nil {
		t.Fatalf("open a page: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() {
		defer close(l.done)
		l.st.Run(ctx)
		l.st.Close()
	}()
	t.Cleanup(l.end)
	l.sid = l.await("welcome")["sid"].(string)
	return l
}

func (l *line) end() { l.cancel(); <-l.done }

func (l *line) write(events []byte, frames int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if frames == 0 {
		return nil
	}
	blocks := strings.Split(strings.TrimSuffix(string(events), "\n\n"), "\n\n")
	if len(blocks) != frames {
		return fmt.Errorf("%d events are said to be %d", len(blocks), frames)
	}
	for _, b := range blocks {
		f := map[string]any{}
		if data, ok := strings.CutPrefix(b, "event: binary\ndata: "); ok {
			raw, err := base64.StdEncoding.DecodeString(data)
			if err != nil {
				return err
			}
			f = map[string]any{"t": "binary", "ch": "dots", "data": raw}
		} else if err := json.Unmarshal([]byte(b[strings.Index(b, "data: ")+len("data: "):]), &f); err != nil {
			return err
		}
		l.frames = append(l.frames, f)
	}
	select {
	case l.came <- struct{}{}:
	default:
	}
	return nil
}

func (l *line) say(frame string) {
	l.t.Helper()
	if err := l.s.g.Say(l.who, l.sid, []byte(frame)); err != nil {
		l.t.Fatalf("say %s: %v", frame, err)
	}
}

// await returns the next frame of a kind, and passes over others.
func (l *line) await(kind string) map[string]any {
	l.t.Helper()
	patience := time.After(waitLong)
	for {
		l.mu.Lock()
		for i, f := range l.frames {
			if f["t"] == kind {
				l.frames = l.frames[i+1:]
				l.mu.Unlock()
				return f
			}
		}
		l.mu.Unlock()
		select {
		case <-l.came:
		case <-patience:
			l.t.Fatalf("no %s comes", kind)
		}
	}
}

func TestAPageWithoutAWebSocketIsSentAllThatASocketIs(t *testing.T) {
	w := newWorld(3)
	s := open(t, w, live.Config{})
	l := s.line(t, "anna")
	id := deviceName(1)
	l.say(`[{"t":"sub","id":2,"ch":"fleet"},{"t":"sub","id":3,"ch":"devices","limit":2},{"t":"sub","id":4,"ch":"device:` + string(id) + `"},{"t":"sub","id":5,"ch":"here:` + string(id) + `"}]`)
	for re, ch := range map[float64]string{2: "fleet", 3: "devices", 4: "device:" + string(id), 5: "here:" + string(id)} {
		_ = re
		f := l.await("snapshot")
		if f["re"] == nil {
			t.Errorf("a snapshot answers nothing: %v, with %s to come", f, ch)
		}
	}
	l.say(`{"t":"sub","id":6,"ch":"dots"}`)
	l.await("snapshot")
	if b := l.await("binary")["data"].([]byte); len(b) != 8+3 || b[0] != 1 {
		t.Errorf("the dots are %v", b)
	}
	l.say(`{"t":"ping","id":7,"ts":42}`)
	if f := l.await("pong"); f["ts"] != 42.0 || f["re"] != 7.0 {
		t.Errorf("a ping is answered %v", f)
	}
	s.observe(id, number("t", 21.5))
	s.tick(3)
	if f := l.await("delta"); !strings.Contains(fmt.Sprint(f["set"]), "21.5") {
		t.Errorf("of a value comes %v", f)
	}
	if got := s.g.Stats(); got.Streams != 1 || got.Connections != 0 {
		t.Errorf("%+v", got)
	}
	l.say(`{"t":"vis","id":8,"on":false}`)
	l.await("ok")
	if n := s.g.Stats().Rows; n != 0 {
		t.Errorf("a hidden page watches %d devices", n)
	}
	l.say(`{"t":"vis","id":9,"on":true}`)
	l.await("snapshot")
	l.say(`{"t":"hello","id":10}`)
	if f := l.await("error"); f["code"] != "conflict" {
		t.Errorf("a second hello is answered %v", f)
	}
	l.say(`not even JSON`)
	if f := l.await("error"); f["code"] != "bad_json" {
		t.Errorf("it is answered %v", f)
	}
}

func TestCommandsOfAPageAreThoseOfWhoOpenedItWhileItIsOpen(t *testing.T) {
	w := newWorld(2)
	s := open(t, w, live.Config{})
	l := s.line(t, "anna")
	ping := []byte(`{"t":"ping","id":1,"ts":1}`)
	other := live.Principal{ID: "ses-ben", Owner: "ben", Who: whoOf("ben")}
	for name, err := range map[string]error{
		"another's":   s.g.Say(other, l.sid, ping),
		"no stream":   s.g.Say(l.who, "0123456789abcdef", ping),
		"no id":       s.g.Say(l.who, "", ping),
		"a NUL in it": s.g.Say(l.who, l.sid+"\x00", ping),
	} {
		if muster.KindOf(err) != muster.NotFound || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.g.Say(l.who, l.sid, make([]byte, 64<<10+1)); muster.KindOf(err) != muster.Invalid {
		t.Errorf("a frame too long: %v", err)
	}
	l.say(`{"t":"sub","id":2,"ch":"devices"}`)
	l.await("snapshot")
	l.end()
	if err := s.g.Say(l.who, l.sid, ping); muster.KindOf(err) != muster.NotFound {
		t.Errorf("when it has ended: %v", err)
	}
	if got := s.g.Stats(); got.Streams != 0 || got.Rows != 0 {
		t.Errorf("of a page that has ended is left %+v", got)
	}
}

func TestAPageWithoutAWebSocketEndsWithItsSession(t *testing.T) {
	w := newWorld(1)
	s := open(t, w, live.Config{})
	l := s.line(t, "anna")
	s.g.Revoke(l.who.ID)
	if f := l.await("bye"); f["code"] != 4009.0 {
		t.Errorf("it is told %v", f)
	}
	<-l.done
}

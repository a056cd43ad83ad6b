package e2e

import (
	"bufio"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

//go:embed testdata/mqttjs.mjs
var jsDriver []byte

// mqttJS installs MQTT.js beside the binary under test, once, and returns the path
// of the driver; why says what was in the way.
var mqttJS = sync.OnceValues(func() (driver string, why error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", fmt.Errorf("node is not installed: %w", err)
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npm is not installed: %w", err)
	}
	dir := filepath.Join(filepath.Dir(program), "mqttjs")
	driver = filepath.Join(dir, "driver.mjs")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(driver, jsDriver, 0o600)); err != nil {
		return "", fmt.Errorf("make a folder for MQTT.js: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, npm, "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts", "mqtt@5").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("install MQTT.js: %w: %s", err, out)
	}
	return driver, nil
})

// hostJS is one process in which MQTT.js's clients live, started with the first of
// them. It is told what to do in lines of JSON and answers likewise.
type hostJS struct {
	t    *testing.T
	once sync.Once
	why  error // what was in the way of starting it
	cmd  *exec.Cmd
	in   io.WriteCloser
	read sync.WaitGroup

	mu      sync.Mutex
	clients []*sessionJS // by number
}

// newHostJS ends the process with the test.
func newHostJS(t *testing.T) *hostJS {
	h := &hostJS{t: t}
	t.Cleanup(h.end)
	return h
}

// start says in why what was in the way.
func (h *hostJS) start() {
	driver, err := mqttJS()
	if err != nil {
		h.why = err
		return
	}
	h.cmd = exec.Command("node", driver)
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err == nil {
		h.in, err = h.cmd.StdinPipe()
	}
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		h.why = fmt.Errorf("start node: %w", err)
		return
	}
	h.read.Go(func() { h.listen(out) })
}

func (h *hostJS) end() {
	if h.in == nil || h.why != nil {
		return
	}
	h.in.Close() // the driver then ends
	timer := time.AfterFunc(clientLimit, func() { _ = h.cmd.Process.Kill() })
	defer timer.Stop()
	h.read.Wait()
	if err := h.cmd.Wait(); err != nil {
		h.t.Errorf("node: %v", err)
	}
}

// jsLine is a line that the driver prints.
type jsLine struct {
	Client int
	Done   bool
	Error  string
	Heard  *struct {
		Topic, Payload string
		QoS            byte
		Retain         bool
	}
	Granted byte
}

// listen gives the driver's lines to its clients until it ends.
func (h *hostJS) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l jsLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			h.t.Errorf("the driver printed %s", lines.Text())
			continue
		}
		h.mu.Lock()
		s := h.clients[l.Client]
		h.mu.Unlock()
		s.take(l)
	}
}

// sessionJS is a client of MQTT.js.
type sessionJS struct {
	t       *testing.T
	h       *hostJS
	number  int
	heard   chan message
	answers chan jsLine
	over    chan struct{} // closed when nobody listens any more
}

func (h *hostJS) open(version int) func(*testing.T, *muster, road, opening) session {
	return func(t *testing.T, m *muster, r road, o opening) session {
		t.Helper()
		if h.once.Do(h.start); h.why != nil {
			missing(t, h.why.Error())
		}
		options := map[string]any{"url": r.url, "id": o.id, "user": m.key, "keep": o.keep, "version": version, "ca": r.ca}
		if o.will != nil {
			options["will"] = jsMessage(*o.will)
		}
		s := &sessionJS{t: t, h: h, heard: make(chan message, 100), answers: make(chan jsLine, 10), over: make(chan struct{})}
		h.mu.Lock()
		s.number = len(h.clients)
		h.clients = append(h.clients, s)
		h.mu.Unlock()
		t.Cleanup(func() { s.leave(true) })
		s.tell(map[string]any{"do": "connect", "options": options})
		return s
	}
}

func jsMessage(m message) map[string]any {
	return map[string]any{"topic": m.topic, "payload": m.payload, "qos": m.qos, "retain": m.retain}
}

// take sorts a line; one that comes when the client is over is of no interest.
func (s *sessionJS) take(l jsLine) {
	if l.Heard != nil {
		select {
		case s.heard <- message{l.Heard.Topic, l.Heard.Payload, l.Heard.QoS, l.Heard.Retain}:
		case <-s.over:
		}
		return
	}
	select {
	case s.answers <- l:
	case <-s.over:
	}
}

func (s *sessionJS) tell(what map[string]any) jsLine {
	s.t.Helper()
	what["client"] = s.number
	text, err := json.Marshal(what)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.h.in.Write(append(text, '\n')); err != nil {
		s.t.Fatalf("tell the driver: %v", err)
	}
	select {
	case l := <-s.answers:
		if l.Error != "" {
			s.t.Fatalf("%s: %s", what["do"], l.Error)
		}
		return l
	case <-time.After(2 * clientLimit):
		s.t.Fatalf("%s: no answer", what["do"])
		return jsLine{}
	}
}

func (s *sessionJS) publish(m message) {
	s.t.Helper()
	what := jsMessage(m)
	what["do"] = "publish"
	s.tell(what)
}

func (s *sessionJS) subscribe(filter string, qos byte) {
	s.t.Helper()
	if l := s.tell(map[string]any{"do": "subscribe", "topic": filter, "qos": qos}); l.Granted != qos {
		s.t.Fatalf("subscribe to %s at QoS %d: SUBACK %#x", filter, qos, l.Granted)
	}
}

func (s *sessionJS) next() message { s.t.Helper(); return nextOf(s.t, s.heard) }

// leave disconnects, or closes the connection without DISCONNECT. The client is over.
func (s *sessionJS) leave(politely bool) {
	s.t.Helper()
	select {
	case <-s.over:
		return
	default:
	}
	defer close(s.over)
	if politely {
		s.tell(map[string]any{"do": "leave"})
		return
	}
	s.tell(map[string]any{"do": "lose"})
}

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

// sessionJS is MQTT.js in a process of its own, which is told what to do in lines
// of JSON and answers likewise.
type sessionJS struct {
	t       *testing.T
	cmd     *exec.Cmd
	in      io.WriteCloser
	heard   chan message
	answers chan jsLine
	read    sync.WaitGroup
	gone    bool
}

// jsLine is a line that the driver prints.
type jsLine struct {
	Done  bool
	Error string
	Heard *struct {
		Topic, Payload string
		QoS            byte
		Retain         bool
	}
	Granted byte
}

func openJS(version int) func(*testing.T, *muster, road, opening) session {
	return func(t *testing.T, m *muster, r road, o opening) session {
		t.Helper()
		driver, err := mqttJS()
		if err != nil {
			missing(t, err.Error())
		}
		options := map[string]any{"url": r.url, "id": o.id, "user": m.key, "keep": o.keep, "version": version, "ca": r.ca}
		if o.will != nil {
			options["will"] = jsMessage(*o.will)
		}
		text, err := json.Marshal(options)
		if err != nil {
			t.Fatal(err)
		}
		s := &sessionJS{t: t, cmd: exec.Command("node", driver), heard: make(chan message, 100), answers: make(chan jsLine, 10)}
		s.start(string(text))
		return s
	}
}

func jsMessage(m message) map[string]any {
	return map[string]any{"topic": m.topic, "payload": m.payload, "qos": m.qos, "retain": m.retain}
}

func (s *sessionJS) start(options string) {
	s.t.Helper()
	s.cmd.Env = append(os.Environ(), "MQTTJS_OPTIONS="+options)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		s.in, err = s.cmd.StdinPipe()
	}
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		s.t.Fatalf("start node: %v", err)
	}
	s.read.Go(func() { s.listen(out) })
	s.t.Cleanup(func() { s.end(true) })
	s.answer("connect")
}

// listen sorts the driver's lines until it ends.
func (s *sessionJS) listen(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l jsLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			l.Error = "the driver printed " + lines.Text()
		}
		if l.Heard != nil {
			s.heard <- message{l.Heard.Topic, l.Heard.Payload, l.Heard.QoS, l.Heard.Retain}
			continue
		}
		s.answers <- l
	}
}

func (s *sessionJS) answer(to string) jsLine {
	s.t.Helper()
	select {
	case l := <-s.answers:
		if l.Error != "" {
			s.t.Fatalf("%s: %s", to, l.Error)
		}
		return l
	case <-time.After(2 * clientLimit):
		s.t.Fatalf("%s: no answer", to)
		return jsLine{}
	}
}

func (s *sessionJS) tell(what map[string]any) jsLine {
	s.t.Helper()
	text, err := json.Marshal(what)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(text, '\n')); err != nil {
		s.t.Fatalf("tell the driver: %v", err)
	}
	return s.answer(fmt.Sprint(what["do"]))
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

func (s *sessionJS) leave(politely bool) {
	s.t.Helper()
	if politely {
		s.tell(map[string]any{"do": "leave"})
	}
	s.end(politely)
}

// end waits for the process, which it kills unless it goes politely.
func (s *sessionJS) end(politely bool) {
	if s.gone {
		return
	}
	s.gone = true
	if politely {
		s.in.Close() // the driver then disconnects and ends
	} else {
		_ = s.cmd.Process.Kill() // it may have ended
	}
	timer := time.AfterFunc(clientLimit, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	s.read.Wait()
	if err := s.cmd.Wait(); err != nil && politely {
		s.t.Errorf("node: %v", err)
	}
}

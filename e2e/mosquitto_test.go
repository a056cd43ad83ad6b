package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMosquittoClients runs every case with mosquitto_pub and mosquitto_sub, by both
// versions over every road they know.
func TestMosquittoClients(t *testing.T) {
	t.Parallel()
	needs(t, "mosquitto_pub")
	m := serve(t, roadArgs(t)...)
	for _, version := range []string{"mqttv311", "mqttv5"} {
		for _, r := range roads(t, m) {
			if r.missing == "" && r.mosquitto == nil {
				continue // they know no WebSocket
			}
			t.Run(version+" over "+r.name, func(t *testing.T) {
				r.needed(t)
				for i, c := range mosquittoCases() {
					t.Run(c.name, func(t *testing.T) {
						id := fmt.Sprintf("%s-%d-%d", version, len(r.name), i)
						c.run(t, &mosquittoPair{t: t, m: m, road: r, version: version, id: id, base: "mosquitto/" + id})
					})
				}
			})
		}
	}
}

func mosquittoCases() []struct {
	name string
	run  func(t *testing.T, p *mosquittoPair)
} {
	return []struct {
		name string
		run  func(t *testing.T, p *mosquittoPair)
	}{
		{"QoS 0, 1 and 2 arrive at the QoS they are sent at", mosquittoQoS},
		{"a retained message meets who subscribes later, and an empty one ends it", mosquittoRetained},
		{"a will is heard when its client is killed", mosquittoWill},
		{"a kept session gets what came while it was away, in order", mosquittoOffline},
	}
}

// mosquittoPair runs the two programs as the administrator.
type mosquittoPair struct {
	t                 *testing.T
	m                 *muster
	road              road
	version, id, base string
}

func (p *mosquittoPair) args(more ...string) []string {
	args := append([]string{"-V", p.version, "-u", p.m.key}, p.road.mosquitto...)
	return append(args, more...)
}

func (p *mosquittoPair) pub(topic, payload string, more ...string) {
	p.t.Helper()
	args := append(p.args(more...), "-t", p.base+topic, "-m", payload)
	if r := command(p.t, needs(p.t, "mosquitto_pub"), args...); r.code != 0 {
		p.t.Fatalf("mosquitto_pub: %s", r)
	}
}

// listening is a mosquitto_sub that runs.
type listening struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

// sub starts mosquitto_sub and waits until its subscription stands. What it hears
// are lines of topic, payload, QoS and retained. stdbuf has it print them as they
// come, and becomes it.
func (p *mosquittoPair) sub(more ...string) *listening {
	p.t.Helper()
	args := append([]string{"-oL", needs(p.t, "mosquitto_sub")}, p.args(more...)...)
	args = append(args, "-d", "-q", "2", "-t", p.base+"/#", "-F", "heard %t %p %q %r")
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*clientLimit)
	l := &listening{t: p.t, cmd: exec.CommandContext(ctx, needs(p.t, "stdbuf"), args...), lines: make(chan string, 1000)}
	out, err := l.cmd.StdoutPipe()
	if err == nil {
		err = l.cmd.Start()
	}
	if err != nil {
		p.t.Fatalf("start mosquitto_sub: %v", err)
	}
	stands := make(chan struct{}, 10)
	read := make(chan struct{})
	go func() { // ends with the program, which the cleanup ends
		defer close(read)
		in := bufio.NewScanner(out)
		for in.Scan() {
			if text, ok := strings.CutPrefix(in.Text(), "heard "); ok {
				l.lines <- text
			}
			if strings.HasPrefix(in.Text(), "Subscribed (mid") {
				stands <- struct{}{}
			}
		}
	}()
	p.t.Cleanup(func() { cancel(); <-read; _ = l.cmd.Wait() }) // it is killed
	select {
	case <-stands:
	case <-time.After(clientLimit):
		p.t.Fatal("mosquitto_sub did not subscribe")
	}
	return l
}

func (l *listening) expect(want string) {
	l.t.Helper()
	select {
	case got := <-l.lines:
		if got != want {
			l.t.Fatalf("mosquitto_sub heard %q, want %q", got, want)
		}
	case <-time.After(clientLimit):
		l.t.Fatalf("mosquitto_sub did not hear %q", want)
	}
}

func mosquittoQoS(t *testing.T, p *mosquittoPair) {
	l := p.sub()
	for qos := range 3 {
		p.pub("/q", fmt.Sprint("at-", qos), "-q", fmt.Sprint(qos))
		l.expect(fmt.Sprintf("%s/q at-%d %d 0", p.base, qos, qos))
	}
}

func mosquittoRetained(t *testing.T, p *mosquittoPair) {
	p.pub("/kept", "still-here", "-r", "-q", "1")
	l := p.sub()
	l.expect(p.base + "/kept still-here 1 1")
	args := append(p.args("-r", "-q", "1"), "-t", p.base+"/kept", "-n")
	if r := command(t, needs(t, "mosquitto_pub"), args...); r.code != 0 {
		t.Fatalf("mosquitto_pub: %s", r)
	}
	l.expect(p.base + "/kept  1 0")
	after := p.sub()
	p.pub("/end", "end", "-q", "1")
	after.expect(p.base + "/end end 1 0")
}

func mosquittoWill(t *testing.T, p *mosquittoPair) {
	watcher := p.sub()
	mortal := &mosquittoPair{t: t, m: p.m, road: p.road, version: p.version, id: p.id + "-mortal", base: p.base + "-mortal"}
	l := mortal.sub("-i", mortal.id, "--will-topic", p.base+"/will", "--will-payload", "killed", "--will-qos", "1")
	if err := l.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	watcher.expect(p.base + "/will killed 1 0")
}

func mosquittoOffline(t *testing.T, p *mosquittoPair) {
	const n = 10
	keep := []string{"-c", "-i", p.id}
	if p.version == "mqttv5" {
		keep = append(keep, "-x", "3600")
	}
	// -E ends it, politely, as soon as the subscription stands.
	args := append(p.args(keep...), "-E", "-q", "2", "-t", p.base+"/#")
	if r := command(t, needs(t, "mosquitto_sub"), args...); r.code != 0 {
		t.Fatalf("mosquitto_sub -E: %s", r)
	}
	for i := range n {
		p.pub("/queue", fmt.Sprint("no-", i), "-q", "1")
	}
	l := p.sub(keep...)
	for i := range n {
		l.expect(fmt.Sprintf("%s/queue no-%d 1 0", p.base, i))
	}
}

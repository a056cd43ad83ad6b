package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// streamed is one event of /api/v1/stream.
type streamed struct {
	id   string
	seq  int
	name string // empty for an event of the catalogue
	data string
}

// curlStream follows the stream with curl, and hands on events until each says false.
func (m *muster) curlStream(lastID string, each func(streamed) bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{"-sSN", "-H", "Authorization: Bearer " + m.key, "http://" + m.http + "/api/v1/stream"}
	if lastID != "" {
		args = append([]string{"-H", "Last-Event-ID: " + lastID}, args...)
	}
	cmd := exec.CommandContext(ctx, "curl", args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatalf("start curl: %v", err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was ended
	}()
	var e streamed
	for lines := bufio.NewScanner(out); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			e.id = value
			_, seq, _ := strings.Cut(value, "-")
			if e.seq, err = strconv.Atoi(seq); err != nil {
				m.t.Fatalf("an event has the id %q", value)
			}
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.id != "" && !each(e) {
				return
			}
			e = streamed{}
		}
	}
	m.t.Fatal("the stream ended")
}

func TestAReaderOfTheStreamGetsExactlyWhatItMissedOverAKill(t *testing.T) {
	t.Parallel()
	m := serve(t)
	var place streamed
	m.curlStream("", func(e streamed) bool { place = e; return false })
	var acked []string
	ack := func(id string) bool {
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		status, _, err := request(ctx, http.MethodPost, "http://"+m.http+"/api/v1/devices", m.key, map[string]string{"id": id})
		return err == nil && status == http.StatusCreated
	}
	seen := map[string]int{}
	order := []string{}
	follow := func(until string) {
		last := place.seq
		m.curlStream(place.id, func(e streamed) bool {
			if e.data == "" { // the place where it begins
				return true
			}
			if e.name != "" || e.seq != last+1 {
				t.Fatalf("after number %d comes %+v", last, e)
			}
			last, place = e.seq, e
			_, rest, _ := strings.Cut(e.data, `"device":"`)
			id, _, _ := strings.Cut(rest, `"`)
			if strings.Contains(e.data, `"type":"device.created"`) {
				seen[id]++
				order = append(order, id)
			}
			return id != until
		})
	}
	for round := range 3 {
		killed := make(chan struct{})
		began := make(chan struct{})
		go func() { // kill and the test's own goroutine take turns: only this one runs now
			defer close(killed)
			<-began
			<-time.After(time.Duration(round*40) * time.Millisecond) // a kill between any two steps
			_ = m.cmd.Process.Kill()
		}()
		for i := range 200 {
			if i == 5 {
				close(began)
			}
			id := fmt.Sprintf("r%d-%d", round, i)
			if !ack(id) {
				break
			}
			acked = append(acked, id)
		}
		<-killed
		m.kill()
		m.start()
		m.ready()
		last := fmt.Sprintf("r%d-last", round)
		if !ack(last) {
			t.Fatal("a device cannot be made after a restart")
		}
		acked = append(acked, last)
		follow(last)
	}
	at := 0
	for _, id := range acked {
		if seen[id] != 1 {
			t.Errorf("%s was told %d times", id, seen[id])
		}
		for at < len(order) && order[at] != id {
			at++
		}
	}
	if at >= len(order) {
		t.Errorf("the order is another than that of the making: %v", order)
	}
	t.Logf("%d devices, %d events", len(acked), place.seq)
}

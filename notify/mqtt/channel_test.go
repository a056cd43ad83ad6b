package mqtt_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster"
	"muster/notify/channeltest"
	"muster/notify/mqtt"
	"muster/notify/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is one at the other end of a TCP connection: it gets a payload a line, and answers
// each with a line, as a broker's PUBACK would come.
type device struct {
	l        net.Listener
	behaves  atomic.Value // channeltest.Behaviour
	mu       sync.Mutex
	payloads []string
}

func newDevice(t *testing.T) *device {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &device{l: l}
	d.behaves.Store(channeltest.Takes)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { d.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); conns.Wait() })
	return d
}

func (d *device) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		answer := "taken\n"
		switch d.behaves.Load() {
		case channeltest.Stalls:
			_, _ = r.ReadString('\n') // until the other side hangs up
			return
		case channeltest.Cuts:
			return
		case channeltest.Busy:
			answer = "busy\n"
		case channeltest.Refuses:
			answer = "never\n"
		default:
			d.mu.Lock()
			d.payloads = append(d.payloads, line)
			d.mu.Unlock()
		}
		if _, err := c.Write([]byte(answer)); err != nil {
			return
		}
	}
}

// Publish implements mqtt.Publisher.
func (d *device) Publish(ctx context.Context, to muster.DeviceID, _ muster.Micros, payload []byte) (bool, error) {
	if to != "pump-1" {
		return false, nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "tcp", d.l.Addr().String())
	if err != nil {
		return false, fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := fmt.Fprintf(c, "%s\n", payload); err != nil {
		return false, fmt.Errorf("write %s: %w", payload, err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	switch {
	case err != nil:
		return false, fmt.Errorf("no answer to %s: %w", payload, err)
	case answer == "busy\n":
		return false, muster.Errorf(muster.Busy, "the device's queue is full")
	case answer == "never\n":
		return false, muster.Errorf(muster.TooLarge, "the payload is longer than the device takes")
	}
	return true, nil
}

func (d *device) refs(t *testing.T) (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.payloads {
		var v struct{ ID string }
		if err := json.Unmarshal([]byte(p), &v); err != nil {
			t.Error(err)
		}
		out = append(out, v.ID)
	}
	return out
}

func TestMQTTIsAChannel(t *testing.T) {
	channeltest.Run(t, func(t *testing.T) channeltest.Rig {
		d := newDevice(t)
		return channeltest.Rig{
			Channel: mqtt.New(d, time.Now), Behave: func(b channeltest.Behaviour) { d.behaves.Store(b) }, Target: "pump-1",
			Refs: func() []string { return d.refs(t) },
		}
	})
}

// answers is a Publisher of one answer.
type answers struct {
	taken bool
	err   error
}

func (a answers) Publish(context.Context, muster.DeviceID, muster.Micros, []byte) (bool, error) {
	return a.taken, a.err
}

func TestWhatADeviceCannotTakeNowIsForLater(t *testing.T) {
	for name, tt := range map[string]struct {
		target  string
		answer  answers
		verdict outbox.Verdict
	}{
		"taken":                     {"d1", answers{true, nil}, outbox.Delivered},
		"not connected":             {"d1", answers{false, nil}, outbox.Later},
		"there is no such device":   {"d1", answers{false, muster.Errorf(muster.NotFound, "no such device")}, outbox.Dropped},
		"it may not":                {"d1", answers{false, muster.Errorf(muster.Forbidden, "it may not")}, outbox.Dead},
		"a fault that nobody knows": {"d1", answers{false, errors.New("token abc")}, outbox.Again},
		"what is no device":         {"usr/1", answers{true, nil}, outbox.Dead},
	} {
		t.Run(name, func(t *testing.T) {
			a := mqtt.New(tt.answer, time.Now).Deliver(t.Context(), []outbox.Delivery{{ID: "dlv_1", Content: "ntf_1", Target: tt.target}})
			if a.Verdict != tt.verdict || (a.Error == "") != (tt.verdict == outbox.Delivered) || strings.Contains(a.Error, "abc") || a.Reference != "ntf_1" || a.Alone != (tt.verdict == outbox.Again) {
				t.Errorf("%+v", a)
			}
		})
	}
}

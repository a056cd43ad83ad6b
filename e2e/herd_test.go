package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"
)

// herd is what gateways have heard and answered for the devices behind them.
type herd struct {
	addr  string
	mu    sync.Mutex
	clock int             // counts what is heard and answered
	tasks map[string]*ask // by method
	wrong []string
}

// ask is what is known of all commands of one method.
type ask struct {
	limit    int // no more devices are answered for
	heard    map[string]hearing
	answered map[string]int // when first, by the herd's clock
}

type hearing struct {
	id int64
	at int
}

// allow lets the gateways answer for n devices in all.
func (h *herd) allow(method string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.task(method).limit = n
}

func (h *herd) task(method string) *ask {
	if h.tasks[method] == nil {
		h.tasks[method] = &ask{heard: map[string]hearing{}, answered: map[string]int{}}
	}
	return h.tasks[method]
}

// has is how many devices were sent a command of that method.
func (h *herd) has(method string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.task(method).heard)
}

func (h *herd) hear(r rpcRequest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	t := h.task(r.Data.Method)
	before, known := t.heard[r.Device]
	if known && before.id != r.Data.ID && len(h.wrong) < 10 {
		h.wrong = append(h.wrong, fmt.Sprintf("%s was sent the commands %d and %d", r.Device, before.id, r.Data.ID))
	}
	if !known {
		t.heard[r.Device] = hearing{r.Data.ID, h.clock}
	}
}

// may says whether a device may be answered for now, and counts it.
func (h *herd) may(r rpcRequest) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.task(r.Data.Method)
	if _, again := t.answered[r.Device]; again {
		return true
	}
	if len(t.answered) >= t.limit {
		return false
	}
	h.clock++
	t.answered[r.Device] = h.clock
	return true
}

// rpcRequest is a command at v1/gateway/rpc.
type rpcRequest struct {
	Device string `json:"device"`
	Data   struct {
		ID     int64  `json:"id"`
		Method string `json:"method"`
	} `json:"data"`
}

// shepherd is a gateway. It answers each command of a device behind it, over as many
// connections as it takes, until the answer is acknowledged. Its goroutine owns it.
type shepherd struct {
	*herd
	id, token string
	open      []*rpcAnswer
	last      uint16
}

type rpcAnswer struct {
	rpcRequest
	packet uint16 // 0 when it was not sent on this connection
}

func (s *shepherd) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = s.connection(ctx) // the server is killed among others
		pause(ctx, 30*time.Millisecond)
	}
}

func (s *shepherd) connection(ctx context.Context) error {
	w, err := dialWire(ctx, s.addr, 4)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.connect(s.id, s.token, false); err != nil {
		return err
	}
	for _, a := range s.open {
		a.packet = 0
	}
	if _, err := w.Write(w.subscribePacket(1, "v1/gateway/rpc", 1)); err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := s.turn(w); err != nil {
			return err
		}
	}
	_, err = w.Write([]byte{disconnectPacket, 0})
	return err
}

// turn sends what may be answered and takes one packet.
func (s *shepherd) turn(w *wire) error {
	for _, a := range s.open {
		if a.packet != 0 || !s.may(a.rpcRequest) {
			continue
		}
		s.last = s.last%60_000 + 1
		a.packet = s.last
		text := fmt.Sprintf(`{"device":%q,"id":%d,"data":{"done":true}}`, a.Device, a.Data.ID)
		if _, err := w.Write(w.publishPacket(a.packet, "v1/gateway/rpc", text, 1, false, false)); err != nil {
			return err
		}
	}
	if err := w.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		return err
	}
	head, body, err := w.packet()
	switch {
	case timedOut(err):
		return nil
	case err != nil:
		return err
	case head == pubackPacket:
		s.acked(uint16(body[0])<<8 | uint16(body[1]))
		return nil
	case head>>4 == 3:
		return s.take(w, head, body)
	case head == subackPacket && body[2] == 1:
		return nil
	default:
		return errors.New("a packet that is not wanted")
	}
}

func (s *shepherd) acked(packet uint16) {
	for i, a := range s.open {
		if a.packet == packet {
			s.open = append(s.open[:i], s.open[i+1:]...)
			return
		}
	}
}

func (s *shepherd) take(w *wire, head byte, body []byte) error {
	p, err := w.parsePublish(head, body)
	if err != nil {
		return err
	}
	a := &rpcAnswer{}
	if err := json.Unmarshal([]byte(p.payload), &a.rpcRequest); err != nil {
		return err
	}
	s.hear(a.rpcRequest)
	s.open = append(s.open, a)
	_, err = w.Write(ack(pubackPacket, p.id))
	return err
}

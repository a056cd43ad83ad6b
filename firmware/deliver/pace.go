package deliver

import (
	"context"
	"time"
)

const (
	largest  = 1 << 20   // bytes that are sent at a time when there is no limit
	larger   = 256 << 10 // likewise, when there is one
	smallest = 4 << 10
	pieces   = 50 // a second that the bandwidth is shared out in, within these sizes
)

// pace shares a number of bytes a second among all that send: who wants to send a piece stands in
// a queue, each download with one piece at a time, so that all get the same. Who leaves the
// queue takes nothing with him. It is safe for concurrent use.
type pace struct {
	rate  int64 // bytes a second; 0 for no limit
	piece int64 // bytes
	now   func() time.Time
	turn  chan struct{} // holds a token of who is at the head; the runtime serves senders in their order
	free  time.Time     // when the next piece may be sent; of who is at the head
}

func newPace(rate int64, now func() time.Time) *pace {
	p := &pace{rate: rate, piece: largest, now: now, turn: make(chan struct{}, 1)}
	if rate > 0 {
		p.piece = min(max(rate/pieces, smallest), larger)
	}
	return p
}

// wait returns when n bytes may be sent, at most p.piece, or with ctx's error.
func (p *pace) wait(ctx context.Context, n int64) error {
	if p.rate == 0 {
		return ctx.Err() //nolint:wrapcheck // nobody is told
	}
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // likewise
	}
	defer func() { <-p.turn }()
	if d := p.free.Sub(p.now()); d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // likewise
		}
	}
	if now := p.now(); p.free.Before(now.Add(-time.Second / pieces)) {
		p.free = now // what was not used is not saved up
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	return nil
}

package chunk

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"muster"
	"muster/firmware/budget"
)

// Bounds.
const (
	MinLen     = 256      // bytes of a piece
	MaxLen     = 64 << 10 // likewise
	MaxPieces  = 8        // that one request asks for
	MaxWhole   = 1 << 20  // bytes of an image that is asked for in one piece
	window     = 16       // pieces that wait for one device
	windowLen  = 2 * MaxPieces * MaxLen
	maxClients = 16384 // devices that fetch at a time
	maxWaiting = 65536 // pieces of all
	later      = 20 * time.Millisecond
	patience   = 30 * time.Second // that a piece waits for a device that does not read
	forgotten  = time.Hour        // after which a device's place is free when there is no room
	burst      = 50 * time.Millisecond
)

// Given says what became of a piece.
type Given uint8

// What becomes of pieces.
const (
	Taken Given = iota // it is on its way
	Later              // the device has not read what it was sent before
	Gone               // the device is not there any more
)

// Image is an open image. Nobody writes to it.
type Image interface {
	io.ReaderAt
	io.Closer
}

// Images are those that are kept, by their SHA-256 in hex.
type Images interface {
	// Open returns an image; NotFound when there is none.
	Open(sha256 string) (Image, error)
}

// Piece is a part of an image that a device is given. Data is the callee's for the call.
type Piece struct {
	Off  int64
	Data []byte
}

// Receiver is given the pieces. Its methods are called by Run's goroutine, and do not wait.
type Receiver interface {
	Give(p Piece) Given
	// Fail says that the piece at an offset cannot be had.
	Fail(off int64, err error)
}

// Request asks for N pieces of Len bytes each, from Off on; the image's end may cut them.
type Request struct {
	Device muster.DeviceID
	Action int32
	Total  int64 // bytes of the whole release, of which the device has a budget
	SHA256 string
	Size   int64 // bytes of the image
	Off    int64
	Len    int
	N      int
	To     Receiver
}

// Budgets count the bytes that devices are sent, by whatever door. It is firmware/budget's.
type Budgets interface {
	// TakeAll takes n bytes or none, and may wait for the store.
	TakeAll(ctx context.Context, k budget.Key, n, release int64) (bool, error)
	Give(k budget.Key, n int64)
	Times() int
}

// Config is what New needs.
type Config struct {
	Images  Images
	Budgets Budgets
	Rate    int64 // bytes a second to all devices; 0 for no limit
	Now     func() time.Time
	Metrics prometheus.Registerer // nil for none
}

// Pump sends pieces. It is safe for concurrent use; Run must be running.
type Pump struct {
	cfg     Config
	files   *files
	metrics *metrics
	wake    chan struct{} // holds one signal: something waits
	buf     []byte
	level   float64 // bytes that may leave now; Run's own
	filled  time.Time

	mu      sync.Mutex
	clients map[muster.DeviceID]*client
	ready   []*client // those with pieces, in turn
	slow    []*client // those that do not read, in the order of their times
	waiting int       // pieces of all
}

// client is a device that fetches an image.
type client struct {
	id      muster.DeviceID
	action  int32
	owed    int64 // bytes that wait, which were taken of the budget
	serving int64 // of them, bytes of the piece that is being given
	pieces  []piece
	queued  bool // in ready or slow, or being served
	again   time.Time
	touched time.Time
}

type piece struct {
	r    *Request
	off  int64
	n    int
	came time.Time
}

// New returns a Pump.
func New(cfg Config) (*Pump, error) {
	p := &Pump{
		cfg: cfg, files: newFiles(cfg.Images, cfg.Now), wake: make(chan struct{}, 1), filled: cfg.Now(),
		clients: map[muster.DeviceID]*client{}, metrics: newMetrics(),
	}
	return p, p.metrics.register(cfg.Metrics, p)
}

// Ask queues pieces. What waits already is not queued twice. It may wait until what is sent is
// counted. An error is a *RefusedError.
func (p *Pump) Ask(ctx context.Context, r Request) error {
	if r.Off < 0 || r.Off >= r.Size || r.Len <= 0 || r.N <= 0 {
		return p.refuse(OutOfRange, 0, "the image has %d bytes", r.Size)
	}
	bytes, err := p.offer(&r, 0)
	if bytes == 0 || err != nil {
		return err
	}
	k := r.key()
	switch ok, err := p.cfg.Budgets.TakeAll(ctx, k, bytes, r.Total); {
	case err != nil:
		return p.refuse(Busy, 5*time.Second, "what is sent cannot be counted now")
	case !ok:
		return p.refuse(Budget, 0, "the device has fetched %d times what the release has", p.cfg.Budgets.Times())
	}
	used, err := p.offer(&r, bytes)
	p.cfg.Budgets.Give(k, bytes-used)
	return err
}

// key names the budget of a request.
func (r *Request) key() budget.Key { return budget.Key{Device: r.Device, Action: int64(r.Action)} }

// offer looks whether the pieces of a request can be queued, and queues them as far as bytes were
// taken for them. It returns how many they have: those that wait already are not among them.
func (p *Pump) offer(r *Request, taken int64) (int64, error) {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	c, err := p.client(r, now)
	if err != nil {
		return 0, err
	}
	fresh, bytes := c.fresh(r, now)
	switch {
	case len(fresh) == 0:
		return 0, nil
	case len(c.pieces)+len(fresh) > window || c.owed > 0 && c.owed+bytes > windowLen:
		return 0, p.refuse(Window, time.Second, "%d pieces wait for the device already", len(c.pieces))
	case p.waiting+len(fresh) > maxWaiting:
		return 0, p.refuse(Busy, 5*time.Second, "too many pieces wait for all devices")
	case taken == 0:
		return bytes, nil
	}
	for bytes > taken { // something that waited has left meanwhile: the last is asked for again
		bytes -= int64(fresh[len(fresh)-1].n)
		fresh = fresh[:len(fresh)-1]
	}
	if len(fresh) == 0 {
		return 0, nil
	}
	c.pieces, c.owed, c.touched = append(c.pieces, fresh...), c.owed+bytes, now
	p.waiting += len(fresh)
	if !c.queued {
		c.queued = true
		p.ready = append(p.ready, c)
	}
	select {
	case p.wake <- struct{}{}:
	default: // a signal waits already
	}
	return bytes, nil
}

// fresh returns the pieces that a request asks for and that do not wait yet.
func (c *client) fresh(r *Request, now time.Time) (out []piece, bytes int64) {
	for i := range r.N {
		off := r.Off + int64(i)*int64(r.Len)
		if off >= r.Size {
			break
		}
		x := piece{r: r, off: off, n: int(min(int64(r.Len), r.Size-off)), came: now}
		if c.waits(&x) {
			continue
		}
		out, bytes = append(out, x), bytes+int64(x.n)
	}
	return out, bytes
}

func (c *client) waits(x *piece) bool {
	for i := range c.pieces {
		if y := &c.pieces[i]; y.off == x.off && y.n == x.n && y.r.SHA256 == x.r.SHA256 && y.r.To == x.r.To {
			return true
		}
	}
	return false
}

// client returns the device's place, which begins anew with each action.
func (p *Pump) client(r *Request, now time.Time) (*client, error) {
	c := p.clients[r.Device]
	if c == nil {
		if len(p.clients) >= maxClients && !p.evict(now) {
			return nil, p.refuse(Busy, 10*time.Second, "too many devices fetch images now")
		}
		c = &client{id: r.Device, action: r.Action}
		p.clients[r.Device] = c
	}
	if c.action != r.Action {
		p.drop(c)
		c.action = r.Action
	}
	return c, nil
}

// evict makes room: one of some devices that fetch nothing now is forgotten. Those that did a while ago come first; a few are looked at, so that it is quick.
func (p *Pump) evict(now time.Time) bool {
	var oldest *client
	looked := 0
	for _, c := range p.clients { // in no order
		if looked++; looked > 64 {
			break
		}
		if c.queued {
			continue
		}
		if oldest == nil || c.touched.Before(oldest.touched) {
			oldest = c
		}
		if now.Sub(c.touched) > forgotten {
			break
		}
	}
	if oldest == nil {
		return false
	}
	delete(p.clients, oldest.id)
	return true
}

// Drop forgets the pieces that wait for a device: its action is over.
func (p *Pump) Drop(device muster.DeviceID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[device]; c != nil {
		p.drop(c)
	}
}

// drop is Drop with the lock held. The device stays in its queue, and is found empty. What is being
// given just then is settled by itself.
func (p *Pump) drop(c *client) {
	p.waiting -= len(c.pieces)
	p.cfg.Budgets.Give(budget.Key{Device: c.id, Action: int64(c.action)}, c.owed-c.serving)
	c.pieces, c.owed, c.serving = nil, 0, 0
}

// End forgets all pieces that wait, and gives their bytes back, for a server that stops. Run has ended.
func (p *Pump) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		p.drop(c)
	}
}

// Run sends pieces until ctx ends.
func (p *Pump) Run(ctx context.Context) error {
	defer p.files.close()
	p.line()
	for {
		c, x, wait := p.next()
		if c == nil {
			if err := p.rest(ctx, wait); err != nil {
				return err
			}
			continue
		}
		if err := p.pace(ctx, x.n); err != nil {
			return err
		}
		p.serve(c, x)
	}
}

// line puts all that have pieces in line anew: a Run before may have ended in between.
func (p *Pump) line() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ready, p.slow = nil, nil
	for _, c := range p.clients {
		c.serving = 0
		if c.queued = len(c.pieces) > 0; c.queued {
			p.ready = append(p.ready, c)
		}
	}
}

// idle is how long Run waits at most when nobody asks for anything.
const idle = time.Minute

// rest waits until something is to be done.
func (p *Pump) rest(ctx context.Context, wait time.Duration) error {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err() //nolint:wrapcheck // the loop's own end
	case <-p.wake:
	case <-t.C:
		p.files.sweep()
	}
	return nil
}

// next returns the piece whose turn it is, or how long to wait for one.
func (p *Pump) next() (c *client, x piece, wait time.Duration) {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.slow) > 0 && !now.Before(p.slow[0].again) {
		p.ready = append(p.ready, p.slow[0])
		p.slow = p.slow[1:]
	}
	for len(p.ready) > 0 {
		c = p.ready[0]
		p.ready[0] = nil
		p.ready = p.ready[1:]
		if len(c.pieces) > 0 {
			c.serving = int64(c.pieces[0].n)
			return c, c.pieces[0], 0
		}
		c.queued = false
	}
	if len(p.slow) > 0 {
		return nil, piece{}, max(p.slow[0].again.Sub(now), time.Millisecond)
	}
	return nil, piece{}, idle
}

// pace waits until n bytes may leave.
func (p *Pump) pace(ctx context.Context, n int) error {
	if p.cfg.Rate <= 0 {
		return ctx.Err() //nolint:wrapcheck // the loop's own end
	}
	rate := float64(p.cfg.Rate)
	for {
		now := p.cfg.Now()
		p.level = min(p.level+rate*now.Sub(p.filled).Seconds(), rate*burst.Seconds())
		p.filled = now
		if p.level >= 0 { // a piece may be more than all that is saved up: who comes next waits for it
			p.level -= float64(n)
			return ctx.Err() //nolint:wrapcheck // likewise
		}
		t := time.NewTimer(max(time.Duration(-p.level/rate*float64(time.Second)), time.Millisecond))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err() //nolint:wrapcheck // likewise
		case <-t.C:
		}
	}
}

// serve reads a piece and gives it.
func (p *Pump) serve(c *client, x piece) {
	if cap(p.buf) < x.n {
		p.buf = make([]byte, max(x.n, MaxLen))
	}
	data := p.buf[:x.n]
	became := Gone
	if err := p.files.read(x.r.SHA256, data, x.off); err != nil {
		x.r.To.Fail(x.off, err)
		p.metrics.refused.WithLabelValues(string(Unavailable)).Inc()
	} else {
		became = x.r.To.Give(Piece{Off: x.off, Data: data})
	}
	if cap(p.buf) > MaxLen { // a whole image, which few ask for
		p.buf = nil
	}
	p.settle(c, x, became)
}

// settle notes what became of a piece, and gives the device its next turn.
func (p *Pump) settle(c *client, x piece, became Given) {
	now := p.cfg.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if became == Taken {
		p.metrics.pieces.Inc()
		p.metrics.bytes.Add(float64(x.n))
	}
	first := len(c.pieces) > 0 && c.pieces[0] == x // else they were dropped meanwhile
	if first {
		c.serving = 0
	}
	if became == Later && first && now.Sub(x.came) < patience {
		c.again = now.Add(later)
		p.slow = append(p.slow, c)
		return
	}
	if first {
		c.pieces = c.pieces[1:]
		c.owed -= int64(x.n)
		p.waiting--
	}
	if became != Taken {
		p.cfg.Budgets.Give(x.r.key(), int64(x.n))
	}
	if became == Later {
		p.drop(c)
		p.metrics.refused.WithLabelValues("unread").Inc()
	}
	if c.touched = now; len(c.pieces) == 0 {
		c.pieces, c.queued = nil, false
		return
	}
	p.ready = append(p.ready, c)
}

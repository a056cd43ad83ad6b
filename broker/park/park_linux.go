package park

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// batch is how many readable sockets are taken from the kernel at once. The
// goroutines woken for one batch run before the next is taken, which bounds them
// when all clients speak at the same moment.
const batch = 128

// Waker is told, on a goroutine of its own, that its socket is readable or was
// closed by its peer. It is told once per Park.
type Waker interface{ Wake() }

// Lot holds parked sockets.
type Lot struct {
	epfd   int
	poller *os.File // epfd, non-blocking and itself polled
	raw    syscall.RawConn

	mu      sync.Mutex
	watched []*Ticket // by file descriptor: 8 bytes for each that the process may have
	count   int
	closed  bool
	woken   sync.WaitGroup
}

// Ticket is one socket's place. Its zero value with Waker set is ready; it must not
// be copied once it is used.
type Ticket struct {
	Waker Waker

	fd    int32
	known bool // the kernel watches fd for this ticket
	in    bool // parked: Wake is owed
	gone  bool // Unpark was called: the socket may be closed by now
}

// New returns an empty Lot.
func New() (*Lot, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll instance: %w", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(fmt.Errorf("make epoll instance non-blocking: %w", err), syscall.Close(fd))
	}
	f := os.NewFile(uintptr(fd), "epoll")
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open epoll instance: %w", err), f.Close())
	}
	return &Lot{epfd: fd, poller: f, raw: raw}, nil
}

// Park has t.Waker woken once when the socket is readable; it is woken at once
// when there are bytes already. It fails when the socket or the lot is closed.
func (l *Lot) Park(t *Ticket, socket syscall.RawConn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || t.gone {
		return os.ErrClosed
	}
	if t.known {
		return l.watch(t, syscall.EPOLL_CTL_MOD)
	}
	err := socket.Control(func(fd uintptr) { t.fd = int32(fd) })
	if err != nil {
		return fmt.Errorf("park socket: %w", err)
	}
	if err := l.watch(t, syscall.EPOLL_CTL_ADD); err != nil {
		return err
	}
	t.known = true
	for int(t.fd) >= len(l.watched) {
		l.watched = append(l.watched, nil)
	}
	l.watched[t.fd] = t
	l.count++
	return nil
}

func (l *Lot) watch(t *Ticket, op int) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT, Fd: t.fd}
	if err := syscall.EpollCtl(l.epfd, op, int(t.fd), &ev); err != nil {
		return fmt.Errorf("park socket: %w", err)
	}
	t.in = true
	return nil
}

// Unpark takes t out for good and says whether Wake was still owed: then it is not
// called any more. It must be called before the socket is closed.
func (l *Lot) Unpark(t *Ticket) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	owed := t.in
	t.in, t.gone = false, true
	if t.known && l.watched[t.fd] == t {
		l.watched[t.fd] = nil
		l.count--
	}
	return owed
}

// Wake wakes t now, as if its socket were readable, if it is parked.
func (l *Lot) Wake(t *Ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wake(t)
}

func (l *Lot) wake(t *Ticket) {
	if t == nil || !t.in || l.closed {
		return
	}
	t.in = false
	l.woken.Add(1)
	go l.run(t)
}

func (l *Lot) run(t *Ticket) {
	defer l.woken.Done()
	t.Waker.Wake()
}

// Len returns how many sockets have been parked and not taken out.
func (l *Lot) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Run wakes parked sockets until ctx ends.
func (l *Lot) Run(ctx context.Context) error {
	_ = l.poller.SetReadDeadline(time.Time{}) // a run before may have left one; what is wrong with it the wait tells
	stop := context.AfterFunc(ctx, func() { _ = l.poller.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]syscall.EpollEvent, batch)
	for {
		n, err := l.wait(events)
		l.mu.Lock()
		for i := range n { // each is told once, so also when this run ends
			l.wake(l.watched[events[i].Fd])
		}
		l.mu.Unlock()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for sockets: %w", err)
		}
		runtime.Gosched()
	}
}

func (l *Lot) wait(events []syscall.EpollEvent) (n int, err error) {
	var werr error
	err = l.raw.Read(func(fd uintptr) bool {
		n, werr = syscall.EpollWait(int(fd), events, 0)
		if errors.Is(werr, syscall.EINTR) {
			n, werr = 0, nil
			return true
		}
		return werr != nil || n > 0
	})
	return n, errors.Join(err, werr)
}

// Close forgets all parked sockets and waits for the wakers that run. Run must have
// ended.
func (l *Lot) Close() error {
	l.mu.Lock()
	l.closed = true
	clear(l.watched)
	l.mu.Unlock()
	l.woken.Wait()
	return l.poller.Close()
}

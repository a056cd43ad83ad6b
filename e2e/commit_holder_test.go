package e2e

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// commitTag is how PostgreSQL says that a transaction was committed (its manual, "Message
// Formats", CommandComplete).
const commitTag = "COMMIT\x00"

// commitHolder stands between a server and its database, and can hold back the database's
// word that a transaction was committed.
type commitHolder struct {
	target, dsn string // URLs of the database, and of it through the holder
	host        string
	l           net.Listener
	wg          sync.WaitGroup

	mu    sync.Mutex
	mark  []byte // in what a transaction sends that is to be held; empty for none
	held  chan struct{}
	free  chan struct{} // closed when what is held may go on
	conns map[net.Conn]struct{}
	over  bool
}

func newCommitHolder(t *testing.T, target string) *commitHolder {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal("the database's URL cannot be parsed")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	h := &commitHolder{target: target, host: u.Host, l: l, free: make(chan struct{}), conns: map[net.Conn]struct{}{}}
	u.Host = l.Addr().String()
	h.dsn = u.String()
	h.wg.Go(h.accept)
	t.Cleanup(func() {
		h.release()
		_ = l.Close() // accept ends by it
		h.mu.Lock()
		h.over = true
		for c := range h.conns {
			_ = c.Close() // its pipes end by it
		}
		h.mu.Unlock()
		h.wg.Wait()
	})
	return h
}

// hold has the answer to the commit of the next transaction held back that says mark. The
// channel is closed when that is so.
func (h *commitHolder) hold(mark string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mark, h.held, h.free = []byte(mark), make(chan struct{}), make(chan struct{})
	return h.held
}

// release lets what is held go on, to whoever is there still.
func (h *commitHolder) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mark = nil
	select {
	case <-h.free:
	default:
		close(h.free)
	}
}

func (h *commitHolder) accept() {
	for {
		server, err := h.l.Accept()
		if err != nil {
			return
		}
		db, err := net.DialTimeout("tcp", h.host, 5*time.Second)
		if err != nil {
			_ = server.Close() // it will come again
			continue
		}
		h.mu.Lock()
		if h.over {
			h.mu.Unlock()
			_, _ = server.Close(), db.Close()
			return
		}
		h.conns[server], h.conns[db] = struct{}{}, struct{}{}
		h.mu.Unlock()
		marked := make(chan struct{}, 1)
		h.wg.Go(func() { h.pipe(db, server, 64, func(seen []byte) { h.look(seen, marked) }) })
		h.wg.Go(func() { h.pipe(server, db, len(commitTag)-1, func(seen []byte) { h.wait(seen, marked) }) })
	}
}

// look notes that a connection says what is to be held.
func (h *commitHolder) look(seen []byte, marked chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.mark) > 0 && bytes.Contains(seen, h.mark) {
		h.mark = nil
		marked <- struct{}{}
	}
}

// wait holds back the word of a marked transaction's commit, and what comes after it.
func (h *commitHolder) wait(seen []byte, marked chan struct{}) {
	if len(marked) == 0 || !bytes.Contains(seen, []byte(commitTag)) {
		return
	}
	<-marked
	h.mu.Lock()
	close(h.held)
	free := h.free
	h.mu.Unlock()
	<-free
}

// pipe shows what passes, with the last bytes of what passed before, to each.
func (h *commitHolder) pipe(to, from net.Conn, overlap int, each func(seen []byte)) {
	defer func() {
		_, _ = to.Close(), from.Close()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.conns, to)
		delete(h.conns, from)
	}()
	buf := make([]byte, overlap+32<<10)
	last := 0
	for {
		n, err := from.Read(buf[last:])
		each(buf[:last+n])
		if n > 0 {
			if _, err := to.Write(buf[last : last+n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		keep := min(overlap, last+n)
		copy(buf, buf[last+n-keep:last+n])
		last = keep
	}
}

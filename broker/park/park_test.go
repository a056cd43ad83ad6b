//go:build linux

package park

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

type bell struct{ rung chan struct{} }

func (b bell) Wake() { b.rung <- struct{}{} }

func pair(t testing.TB) (near, far *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = c.Close(), s.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func open(t testing.TB) *Lot {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

func raw(t testing.TB, c *net.TCPConn) syscall.RawConn {
	t.Helper()
	r, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func rings(t testing.TB, b bell) {
	t.Helper()
	select {
	case <-b.rung:
	case <-time.After(patience):
		t.Fatal("not woken")
	}
}

func quiet(t testing.TB, b bell) {
	t.Helper()
	select {
	case <-b.rung:
		t.Fatal("woken without cause")
	default:
	}
}

func newTicket() (*Ticket, bell) {
	b := bell{make(chan struct{}, 8)}
	return &Ticket{Waker: b}, b
}

func TestAParkedSocketIsWokenOnceForItsBytes(t *testing.T) {
	l := open(t)
	near, far := pair(t)
	ticket, b := newTicket()
	for range 3 {
		if err := l.Park(ticket, raw(t, near)); err != nil {
			t.Fatal(err)
		}
		quiet(t, b)
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		rings(t, b)
		if _, err := far.Write([]byte("y")); err != nil { // nobody has parked again
			t.Fatal(err)
		}
		_ = near.SetReadDeadline(time.Time{})
		if _, err := near.Read(make([]byte, 8)); err != nil {
			t.Fatal(err)
		}
		for drained := false; !drained; { // the second byte may come late
			_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			_, err := near.Read(make([]byte, 8))
			drained = err != nil
		}
		quiet(t, b)
	}
	l.Unpark(ticket)
}

func TestBytesThatAreThereAlreadyWakeAtOnce(t *testing.T) {
	l := open(t)
	near, far := pair(t)
	ticket, b := newTicket()
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := l.Park(ticket, raw(t, near)); err != nil {
		t.Fatal(err)
	}
	rings(t, b)
	l.Unpark(ticket)
}

func TestAPeerThatClosesWakes(t *testing.T) {
	l := open(t)
	near, far := pair(t)
	ticket, b := newTicket()
	if err := l.Park(ticket, raw(t, near)); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	rings(t, b)
	l.Unpark(ticket)
}

func TestAnUnparkedSocketIsNeitherWokenNorParkedAgain(t *testing.T) {
	l := open(t)
	near, far := pair(t)
	ticket, b := newTicket()
	if err := l.Park(ticket, raw(t, near)); err != nil {
		t.Fatal(err)
	}
	if !l.Unpark(ticket) || l.Unpark(ticket) || l.Len() != 0 {
		t.Fatal("the first Unpark takes it out, the second finds nothing")
	}
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	l.Wake(ticket)
	if err := l.Park(ticket, raw(t, near)); err == nil {
		t.Fatal("parked after Unpark")
	}
	other, farOther := pair(t)
	second, b2 := newTicket()
	if err := l.Park(second, raw(t, other)); err != nil {
		t.Fatal(err)
	}
	if _, err := farOther.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	rings(t, b2) // by now the first would have been woken too
	quiet(t, b)
	l.Unpark(second)
}

func TestAReusedDescriptorIsNotTakenForTheClosedOne(t *testing.T) {
	l := open(t)
	for range 50 {
		near, far := pair(t)
		ticket, b := newTicket()
		if err := l.Park(ticket, raw(t, near)); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		rings(t, b)
		quiet(t, b)
		l.Unpark(ticket)
		_, _ = near.Close(), far.Close()
	}
	if l.Len() != 0 {
		t.Fatalf("%d tickets left", l.Len())
	}
}

func TestWakeEndsTheWaitOfASilentSocket(t *testing.T) {
	l := open(t)
	near, _ := pair(t)
	ticket, b := newTicket()
	if err := l.Park(ticket, raw(t, near)); err != nil {
		t.Fatal(err)
	}
	l.Wake(ticket)
	rings(t, b)
	l.Wake(ticket)
	quiet(t, b)
	l.Unpark(ticket)
}

func TestAClosedLotTakesNobody(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	near, _ := pair(t)
	ticket, _ := newTicket()
	if err := l.Park(ticket, raw(t, near)); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("parked in a closed lot: %v", err)
	}
}

func BenchmarkParkAndWake(b *testing.B) {
	l := open(b)
	near, far := pair(b)
	ticket, bl := newTicket()
	r := raw(b, near)
	buf := make([]byte, 8)
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Park(ticket, r); err != nil {
			b.Fatal(err)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			b.Fatal(err)
		}
		<-bl.rung
		if _, err := near.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	l.Unpark(ticket)
}

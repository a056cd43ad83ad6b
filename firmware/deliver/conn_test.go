package deliver_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"muster"
	"muster/firmware/deliver"
)

func TestAConnectionGoesOnAfterADownload(t *testing.T) {
	r := newRig(t, 5<<20, deliver.Limits{})
	for range 2 {
		if a := r.do(http.MethodGet, r.at("d1", 1), "Range", "bytes=1000-2000999"); a.status != 206 || !bytes.Equal(a.body, r.image[1000:2001000]) {
			t.Fatalf("status %d, %d bytes: %v", a.status, len(a.body), a.err)
		}
		if a := r.do(http.MethodHead, r.at("d1", 1)); a.status != 200 {
			t.Fatalf("HEAD: status %d: %v", a.status, a.err)
		}
		if a := r.do(http.MethodGet, r.at("d1", 1), "Range", "bytes=0-99,200-299"); a.status != 206 || !bytes.Contains(a.body, r.image[200:300]) {
			t.Fatalf("two ranges: status %d: %v", a.status, a.err)
		}
	}
	if n := r.accepted.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	r.idle()
	if n := r.files.Load(); n != 2*2_000_000 {
		t.Errorf("%d bytes of two ranges went as files", n)
	}
}

func TestAClientOfHTTP10GetsItsImage(t *testing.T) {
	r := newRig(t, 1<<20, deliver.Limits{})
	c := r.dial()
	r.send(c, "GET %s HTTP/1.0\r\n\r\n", "d1")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, r.image) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func (r *rig) dial() net.Conn {
	r.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err == nil {
		err = c.SetDeadline(time.Now().Add(time.Minute))
	}
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { c.Close() })
	return c
}

// send sends a request for the image of a device, and takes nothing of the answer.
func (r *rig) send(c net.Conn, format string, device muster.DeviceID) {
	r.Helper()
	u, err := url.Parse(r.at(device, 1))
	if err == nil {
		_, err = fmt.Fprintf(c, format, u.RequestURI())
	}
	if err != nil {
		r.Fatal(err)
	}
}

// TestADownloadThatWaitsHoldsNoBuffer compares what downloads hold whose clients take nothing with
// what they hold by net/http, which is a buffer of 32 KiB more.
func TestADownloadThatWaitsHoldsNoBuffer(t *testing.T) {
	const many = 60
	held := func(r *rig) int64 {
		before := inUse()
		for i := range many {
			r.send(r.dial(), "GET %s HTTP/1.1\r\nHost: muster\r\n\r\n", muster.DeviceID(fmt.Sprint("d", i)))
		}
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for end := time.After(time.Minute); r.sending.Load() < many; {
			select {
			case <-tick.C:
			case <-end:
				r.Fatalf("%d downloads are being sent", r.sending.Load())
			}
		}
		return (inUse() - before) / many
	}
	straight := held(newRig(t, 64<<20, deliver.Limits{}))
	by := held(newRigOn(t, 64<<20, deliver.Limits{}, func(*httptest.Server) {}))
	t.Logf("a download holds %d bytes, by net/http %d", straight, by)
	if by-straight < 28<<10 {
		t.Errorf("a download holds %d bytes, by net/http %d", straight, by)
	}
}

// inUse returns the bytes of heap in use.
func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestWhoTakesAConnectionOverGetsItAsItIs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	there, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	c, err := deliver.Listen(l).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	wrapped, ok := c.(interface{ Bare() net.Conn })
	if !ok {
		t.Fatalf("%T does not say what it wraps", c)
	}
	if bare, ok := wrapped.Bare().(*net.TCPConn); !ok || bare.RemoteAddr().String() != there.LocalAddr().String() {
		t.Errorf("it wraps a %T from %v", wrapped.Bare(), wrapped.Bare().RemoteAddr())
	}
}

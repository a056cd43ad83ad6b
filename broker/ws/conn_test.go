package ws

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"pgregory.net/rapid"
)

func TestPacketsAndFramesNeedNotAgree(t *testing.T) {
	h := serve(t)
	for _, c := range []struct{ name, in, want string }{
		{"a packet in a frame", frame(fin|opBinary, "packet"), "packet"},
		{"packets in one frame", frame(fin|opBinary, "onetwothree"), "onetwothree"},
		{"a packet over three frames", frame(fin|opBinary, "p") + frame(fin|opBinary, "ack") + frame(fin|opBinary, "et"), "packet"},
		{"a message in fragments", frame(opBinary, "p") + frame(opMore, "ack") + frame(fin|opMore, "et"), "packet"},
		{"empty messages and fragments between", frame(fin|opBinary, "") + frame(opBinary, "p") + frame(opMore, "") + frame(fin|opMore, "q"), "pq"},
		{"pings between fragments", frame(opBinary, "p") + frame(fin|opPing, "?") + frame(fin|opMore, "q"), "pq"},
		{"a pong nobody asked for", frame(fin|opPong, "!") + frame(fin|opBinary, "p"), "p"},
		{"a long frame", frame(fin|opBinary, strings.Repeat("x", 1<<17)), strings.Repeat("x", 1<<17)},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := h.bare(t)
			go func() { _, _ = io.WriteString(client, c.in+frame(fin|opClose, "\x03\xe8")) }()
			got, err := readAll(server)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("read %q, want %q", got, c.want)
			}
		})
	}
}

// TestAnyCutArrivesWhole: however the bytes are cut into messages, fragments and
// reads, they arrive, and in the other direction too.
func TestAnyCutArrivesWhole(t *testing.T) {
	h := serve(t)
	client, server := h.bare(t)
	rapid.Check(t, func(rt *rapid.T) {
		var wire, want strings.Builder
		within := false
		for range rapid.IntRange(1, 30).Draw(rt, "frames") {
			part := strings.Repeat(rapid.SampledFrom([]string{"", "a", "bc", "\x00\xff"}).Draw(rt, "part"), rapid.IntRange(0, 900).Draw(rt, "times"))
			head := byte(opBinary)
			if within {
				head = opMore
			}
			last := rapid.Bool().Draw(rt, "last")
			if last {
				head |= fin
			}
			within = !last
			wire.WriteString(frame(head, part))
			want.WriteString(part)
		}
		end := frame(fin|opBinary, "#")
		if within {
			end = frame(fin|opMore, "#")
		}
		want.WriteString("#")
		go func() { _, _ = io.WriteString(client, wire.String()+end) }()
		var got bytes.Buffer
		buf := make([]byte, rapid.IntRange(1, 5000).Draw(rt, "read"))
		for got.Len() < want.Len() {
			n, err := server.Read(buf)
			if err != nil {
				rt.Fatalf("after %d of %d bytes: %v", got.Len(), want.Len(), err)
			}
			got.Write(buf[:n])
		}
		if got.String() != want.String() {
			rt.Fatalf("%d bytes arrived otherwise than they were sent", got.Len())
		}
	})
}

func TestEachWriteIsOneBinaryMessage(t *testing.T) {
	client, server := serve(t).pair(t)
	for _, want := range []string{"a", strings.Repeat("b", writeBuffer), strings.Repeat("c", 300000)} {
		done := make(chan error, 1)
		go func() {
			n, err := io.WriteString(server, want)
			if n != len(want) && err == nil {
				err = io.ErrShortWrite
			}
			done <- err
		}()
		kind, got, err := client.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || string(got) != want {
			t.Fatalf("kind %d, %d bytes, error %v; want %d bytes", kind, len(got), err, len(want))
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if n, err := server.Write(nil); n != 0 || err != nil {
		t.Errorf("nothing written: %d, %v", n, err)
	}
	if n, err := server.Read(nil); n != 0 || err != nil {
		t.Errorf("nothing read: %d, %v", n, err)
	}
}

func TestWhatTheSpecificationForbidsEndsTheConnection(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		name, in, want string
		code           int
	}{
		{"a text message", frame(fin|opText, "text"), "text message", websocket.CloseUnsupportedData},
		{"an empty text message", frame(fin|opText, ""), "text message", websocket.CloseUnsupportedData},
		{"a frame without a mask", "\x82\x01x", "MASK", websocket.CloseProtocolError},
		{"a reserved bit", frame(fin|0x40|opBinary, "x"), "RSV1", websocket.CloseProtocolError},
		{"an unknown operation", frame(fin|3, "x"), "bad opcode", websocket.CloseProtocolError},
		{"a ping of 126 bytes", frame(fin|opPing, strings.Repeat("x", 126)), "len > 125", websocket.CloseProtocolError},
		{"a ping in fragments", frame(opPing, "x"), "FIN not set", websocket.CloseProtocolError},
		{"a fragment of nothing", frame(fin|opMore, "x"), "continuation after FIN", websocket.CloseProtocolError},
		{"a message within a message", frame(opBinary, "") + frame(fin|opBinary, "x"), "data before FIN", websocket.CloseProtocolError},
		{"a bad close code", frame(fin|opClose, "\x00\x01"), "bad close code", websocket.CloseProtocolError},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, server := h.bare(t)
			if _, err := io.WriteString(client, c.in+frame(fin|opBinary, "after")); err != nil {
				t.Fatal(err)
			}
			got, err := readAll(server)
			if got != "" {
				t.Errorf("read %q", got)
			}
			wantEnd(t, server, err, c.want)
			if code := closeCode(t, client); code != c.code {
				t.Errorf("close code %d, want %d", code, c.code)
			}
		})
	}
	t.Run("a length of 2^63", func(t *testing.T) {
		client, server := h.bare(t)
		if _, err := io.WriteString(client, "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00x"); err != nil {
			t.Fatal(err)
		}
		_, err := readAll(server)
		wantEnd(t, server, err, "read limit")
	})
}

func TestAFrameIsNeverHeldWhole(t *testing.T) {
	client, server := serve(t).bare(t)
	const sent = 8 << 20
	go func() { // announced as 2^62 bytes
		_, _ = io.WriteString(client, "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
		part := make([]byte, 1<<16)
		for range sent >> 16 {
			_, _ = client.Write(part)
		}
	}()
	buf := make([]byte, 4096)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for n := 0; n < sent; {
		k, err := server.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d bytes were allocated for 8 MiB of a frame", grown)
	}
}

func TestFramesWithoutContentAreLimited(t *testing.T) {
	h := serve(t)
	for _, c := range []struct{ name, start, flood string }{
		{"pings", "", frame(fin|opPing, "")},
		{"long pings", "", frame(fin|opPing, strings.Repeat("x", 125))},
		{"pongs", "", frame(fin|opPong, "")},
		{"empty messages", "", frame(fin|opBinary, "")},
		{"empty fragments", frame(opBinary, "x"), frame(opMore, "")},
		{"pings within a message", frame(opBinary, "x"), frame(fin|opPing, "x")},
	} {
		t.Run("a flood of "+c.name+" is cut off", func(t *testing.T) {
			client, server := h.bare(t)
			drained := make(chan int, 1)
			go func() { drained <- closeCode(t, client) }()
			go func() {
				_, _ = io.WriteString(client, c.start)
				for {
					if _, err := io.WriteString(client, strings.Repeat(c.flood, 100)); err != nil {
						return
					}
				}
			}()
			_, err := readAll(server)
			wantEnd(t, server, err, "without content")
			if code := <-drained; code != websocket.ClosePolicyViolation {
				t.Errorf("close code %d, want %d", code, websocket.ClosePolicyViolation)
			}
			_ = client.Close()
		})
	}
	t.Run("a ping a second goes on for hours, and each is answered", func(t *testing.T) {
		client, server := h.bare(t)
		ended := make(chan error, 1)
		go func() {
			_, err := readAll(server)
			ended <- err
		}()
		pong := make([]byte, 2+125)
		for i := range 3 * 3600 {
			h.clock.forward(time.Second)
			if _, err := io.WriteString(client, frame(fin|opPing, strings.Repeat("x", 125))); err != nil {
				t.Fatalf("ping %d: %v", i, err)
			}
			if _, err := io.ReadFull(client, pong); err != nil || pong[0] != fin|opPong {
				t.Fatalf("pong %d: %x, error %v", i, pong[0], err)
			}
		}
		_ = client.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Run("frames of one byte pay for themselves", func(t *testing.T) {
		client, server := h.bare(t)
		const n = 100000
		go func() {
			_, _ = io.WriteString(client, strings.Repeat(frame(fin|opBinary, "x"), n)+frame(fin|opClose, ""))
		}()
		got, err := readAll(server)
		if err != nil || len(got) != n {
			t.Errorf("%d bytes, error %v; want %d", len(got), err, n)
		}
	})
}

func TestAPingFloodOnDeafEarsEndsTheConnection(t *testing.T) {
	client, server := serve(t).bare(t)
	near, _ := server.(*conn).sock.Conn.(*net.TCPConn)
	if err := near.SetWriteBuffer(1 << 14); err != nil {
		t.Fatal(err)
	}
	go func() { // content pays for the pings, whose pongs nobody reads
		for {
			if _, err := io.WriteString(client, frame(fin|opBinary, strings.Repeat("x", 100))+frame(fin|opPing, strings.Repeat("x", 125))); err != nil {
				return
			}
		}
	}()
	// Reading goes on: what cannot be answered is given up after a second.
	buf, n := make([]byte, 4096), 0
	for n < 64<<20 {
		k, err := server.Read(buf)
		if err != nil {
			return // the pongs' deadline ended it, which is as good
		}
		n += k
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("a connection whose pong was cut in two goes on")
	}
}

func TestHowAConnectionEnds(t *testing.T) {
	h := serve(t)
	t.Run("the client's close frame is the end of file, and is answered", func(t *testing.T) {
		client, server := h.bare(t)
		if _, err := io.WriteString(client, frame(fin|opBinary, "last")+frame(fin|opClose, "\x03\xe9bye")); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(server); got != "last" || err != nil {
			t.Errorf("read %q, error %v", got, err)
		}
		if code := closeCode(t, client); code != websocket.CloseGoingAway {
			t.Errorf("close code %d", code)
		}
	})
	t.Run("a socket that closes is the end of file, within a frame too", func(t *testing.T) {
		for _, in := range []string{"", "\x82", "\x82\x85\x00\x00\x00\x00xy", frame(opBinary, "xy")} {
			client, server := h.bare(t)
			if _, err := io.WriteString(client, in); err != nil {
				t.Fatal(err)
			}
			_ = client.Close()
			if _, err := readAll(server); err != nil {
				t.Errorf("after %q: %v", in, err)
			}
		}
	})
	t.Run("CloseWrite says so, and reading goes on", func(t *testing.T) {
		client, server := h.bare(t)
		half, ok := server.(interface{ CloseWrite() error })
		if !ok {
			t.Fatal("there is no CloseWrite")
		}
		if err := half.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if code := closeCode(t, client); code != websocket.CloseNormalClosure {
			t.Errorf("close code %d", code)
		}
		if _, err := server.Write([]byte("x")); err == nil {
			t.Error("a write succeeded")
		}
		if _, err := io.WriteString(client, frame(fin|opBinary, "late")+frame(fin|opClose, "\x03\xe8")); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(server); got != "late" || err != nil {
			t.Errorf("read %q, error %v", got, err)
		}
	})
	t.Run("Close ends a Read under way", func(t *testing.T) {
		_, server := h.bare(t)
		done := make(chan error, 1)
		go func() { _, err := server.Read(make([]byte, 1)); done <- err }()
		_ = server.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "closed") {
			t.Errorf("error %v", err)
		}
	})
}

func TestDeadlines(t *testing.T) {
	h := serve(t)
	t.Run("a read deadline is known as one, whatever pings come", func(t *testing.T) {
		client, server := h.bare(t)
		if err := server.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(client, frame(fin|opPing, "")); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a write deadline set by another goroutine ends a Write under way", func(t *testing.T) {
		_, server := h.bare(t) // the client does not read
		done := make(chan error, 1)
		go func() { _, err := server.Write(make([]byte, 64<<20)); done <- err }()
		if err := server.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("a pong's deadline does not outlive it", func(t *testing.T) {
		client, server := h.bare(t)
		if _, err := io.WriteString(client, frame(fin|opPing, "")+frame(fin|opBinary, "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		sock := server.(*conn).sock
		sock.mu.Lock()
		left := sock.frames
		sock.mu.Unlock()
		if left.IsZero() {
			t.Fatal("the pong had no deadline")
		}
		if err := server.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := server.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		sock.mu.Lock()
		defer sock.mu.Unlock()
		if !sock.frames.IsZero() || !sock.callers.IsZero() {
			t.Errorf("deadlines %v and %v are left", sock.frames, sock.callers)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	client, server := serve(b).bare(b)
	packet := strings.Repeat(frame(fin|opBinary, strings.Repeat("x", 64)), 100)
	go func() {
		for {
			if _, err := io.WriteString(client, packet); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := server.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = client.Close()
}

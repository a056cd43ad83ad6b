package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// sinkVariable makes the test binary the server that the load client's own cost is
// measured against: a process of its own, so that only the client's time counts.
const sinkVariable = "MUSTER_BENCH_SINK"

// sink accepts connections and acks what comes until its standard input ends.
func sink() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, "sink:", err)
		return 1
	}
	fmt.Println(l.Addr())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); acknowledge(c) })
		}
	})
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it, or is gone
	l.Close()
	return 0 // what is still connected ends with the process
}

// acknowledge answers CONNECT, and PUBLISH at QoS 1, of which it writes the acks of
// one read together.
func acknowledge(c net.Conn) {
	in := bufio.NewReaderSize(c, 64<<10)
	var out []byte
	for {
		head, err := in.ReadByte()
		if err != nil {
			return
		}
		size, err := binary.ReadUvarint(in)
		if err != nil {
			return
		}
		packet, err := in.Peek(int(size))
		if err != nil {
			return
		}
		switch {
		case head == 0x10:
			out = append(out, 0x20, 2, 0, 0)
		case head&0xf6 == 0x32:
			at := 2 + int(binary.BigEndian.Uint16(packet))
			out = append(out, 0x40, 2, packet[at], packet[at+1])
		}
		if _, err := in.Discard(int(size)); err != nil {
			return
		}
		if in.Buffered() > 0 {
			continue
		}
		if _, err := c.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

// startSink starts the sink and returns its address; the benchmark's end ends it.
func startSink(b *testing.B) string {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sinkVariable+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatalf("start the sink: %v", err)
	}
	b.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			b.Errorf("the sink ended with %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatalf("read the sink's address: %v", err)
	}
	return strings.TrimSpace(line)
}

// BenchmarkClient measures what the load client itself costs, against a sink that
// does nothing: above 1 us a message it would measure itself.
func BenchmarkClient(b *testing.B) {
	addr := startSink(b)
	for range b.N {
		fmt.Printf("\nload client against a sink in another process\n%-24s %12s %14s\n", "", "messages/s", "us a message")
		for _, test := range []struct {
			name    string
			clients int
			qos0    bool
		}{{"QoS 1, 20 x window 20", 20, false}, {"QoS 1, 100 x window 20", 100, false}, {"QoS 0, 100", 100, true}} {
			l := load{addr: addr, logins: make([]login, test.clients), window: 20, payload: threeKeys, qos0: test.qos0}
			ctx, cancel := context.WithTimeout(b.Context(), measured)
			began := time.Now()
			own := ownCPU(b)
			if err := l.run(ctx, func() {}); err != nil {
				b.Fatalf("%s: %v", test.name, err)
			}
			cancel()
			cost := float64((ownCPU(b) - own).Nanoseconds()) / 1000 / float64(l.total())
			fmt.Printf("%-24s %12.0f %14.2f\n", test.name, float64(l.total())/time.Since(began).Seconds(), cost)
			b.ReportMetric(cost, fmt.Sprintf("us/message-%dx-qos0=%v", test.clients, test.qos0))
		}
		fmt.Println("goal: less than 1 us")
	}
	b.ReportMetric(0, "ns/op")
}

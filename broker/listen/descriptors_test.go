package listen

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// childEnv makes the test binary a server with few file descriptors.
const childEnv = "MUSTER_LISTEN_CHILD"

// childMain serves echo until its standard input ends. It writes its address, and
// "accept" for the first accept error.
func childMain() {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 40, Max: 40}); err != nil {
		panic(err)
	}
	first := make(chan struct{}, 1)
	l, err := Open(context.Background(), Config{Kind: TCP, Addr: "127.0.0.1:0", Hooks: Hooks{AcceptError: func(Kind) {
		select {
		case first <- struct{}{}:
			_, _ = os.Stdout.WriteString("accept\n")
		default:
		}
	}}})
	if err != nil {
		panic(err)
	}
	_, _ = fmt.Fprintln(os.Stdout, l.Addr())
	done := make(chan error, 1)
	go func() {
		done <- l.Serve(context.Background(), func(nc net.Conn, _ Info) {
			defer nc.Close()
			buf := make([]byte, 1)
			for {
				if _, err := nc.Read(buf); err != nil {
					return
				}
				if _, err := nc.Write(buf); err != nil {
					return
				}
			}
		})
	}()
	_, _ = os.Stdin.Read(make([]byte, 1))
	_ = l.Close()
	<-done
}

func TestTheListenerOutlivesRunningOutOfFileDescriptors(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error("the child:", err)
		}
	}()
	lines := bufio.NewReader(out)
	addr := line(t, lines)
	conns := make([]net.Conn, 60)
	for i := range conns {
		if conns[i], err = net.Dial("tcp", addr); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	if got := line(t, lines); got != "accept" {
		t.Fatalf("the child says %q", got)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	say(t, c, "x")
	hear(t, c, "x")
}

func line(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	s, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"muster/broker/journal"
	"muster/bus"
)

// What the kill test tells its child process.
const (
	childDir  = "MUSTER_JOURNAL_CHILD"
	childFrom = "MUSTER_JOURNAL_FROM"
)

const killBound = 16 << 20 // bytes of the log, small enough to be cleaned and purged

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		err := write(dir, os.Getenv(childFrom))
		fmt.Fprintln(os.Stderr, "the child ended:", err)
		os.Exit(1) //nolint:forbidigo // the child process of the kill test
	}
	goleak.VerifyTestMain(m)
}

// The writes of the kill test are known by their numbers: write n puts key
// killKey(n), or ends it where killDrop(n) and it is there.
func killKey(n int) uint64   { return uint64(n) * 2654435761 % 1499 }
func killDrop(n int) bool    { return n%5 == 3 }
func killValue(n int) string { return fmt.Sprintf("%d %s", n, strings.Repeat("v", n%400)) }

// write writes from number from on until it is killed, and prints the number of each
// write that was answered.
func write(dir, from string) error {
	n, err := strconv.Atoi(from)
	if err != nil {
		return fmt.Errorf("read the first number: %w", err)
	}
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	b, err := bus.Open(ctx, bus.Config{Dir: dir, MaxBytes: 8 << 20, SessionBytes: killBound, Logger: logger})
	if err != nil {
		return err
	}
	defer b.Close()
	l, err := b.OpenLog(ctx, "MQTT_00", killBound)
	if err != nil {
		return err
	}
	j, err := journal.New(journal.Config{Log: l, Logger: logger, MinClean: 1 << 20})
	if err != nil {
		return err
	}
	s := &store{j: j, items: map[uint64]*entry{}}
	if err := j.Replay(ctx, s.apply); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	for ; len(ended) == 0; n++ {
		if err := j.Room(ctx); err != nil {
			return err
		}
		number := n
		done := func(err error) {
			if err == nil {
				_, _ = fmt.Printf("%d\n", number) //nolint:forbidigo // the child's word to its parent
			}
		}
		switch key := killKey(n); {
		case !killDrop(n):
			s.put(key, []byte(killValue(n)), done)
		case s.items[key] != nil:
			s.drop(key, done)
		}
	}
	return <-ended
}

// killed runs a child from write number from on, kills it after some answers, and
// returns the number of the last.
func killed(t *testing.T, dir string, from int) int {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^$")
	cmd.Env = append(os.Environ(), childDir+"="+dir, childFrom+"="+strconv.Itoa(from))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last, kill := from-1, sync.OnceFunc(func() { _ = cmd.Process.Kill() })
	after := from + 20000 + rand.IntN(60000)
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what is cut off counts as not said
		}
		if last, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
			t.Fatal(err)
		}
		if last > after {
			kill()
		}
	}
	kill()
	if err := cmd.Wait(); err == nil || last < from {
		t.Fatalf("the child ended by itself: %v, %s", err, said.String())
	}
	if said.Len() > 0 {
		t.Errorf("the child said %s", said.String())
	}
	return last
}

func killStep(m map[uint64]string, n int) {
	if killDrop(n) {
		delete(m, killKey(n))
	} else {
		m[killKey(n)] = killValue(n)
	}
}

func TestKill9LosesNothingThatWasAnswered(t *testing.T) {
	dir := t.TempDir()
	want, next := map[uint64]string{}, 0
	for life := range 4 {
		last := killed(t, dir, next)
		for ; next <= last; next++ {
			killStep(want, next)
		}
		o := openReal(t, dir, killBound, 1<<30)
		got, answered := o.values(), next
		for !maps.Equal(got, want) {
			if next > last+200000 {
				t.Fatalf("life %d: after answer %d the %d keys found are no state of the writer's", life, last, len(got))
			}
			killStep(want, next)
			next++
		}
		st := o.j.Stats()
		t.Logf("killed after %d answers: %d writes more are there, %d items, %d bytes of log", answered, next-answered, st.Items, st.LogBytes)
		o.stop()
	}
}

package sqlite

import (
	"context"
	"errors"
	"testing"

	"muster"
)

func TestShrinkClosesIdleReadersAndTheStoreGoesOn(t *testing.T) {
	s, _ := openTest(t)
	mustAppend(t, s, numbered("d", 0, 5000))
	if n := count(t, s, "d"); n != 5000 {
		t.Fatalf("%d readings", n)
	}
	if n := s.read.Stats().Idle; n == 0 {
		t.Fatal("no reader is idle")
	}
	if err := s.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := s.read.Stats().OpenConnections; n != 0 {
		t.Errorf("%d readers are left", n)
	}
	mustAppend(t, s, numbered("d", 5000, 10))
	if n := count(t, s, "d"); n != 5010 {
		t.Errorf("%d readings", n)
	}
	if n := s.read.Stats().Idle; n == 0 {
		t.Error("readers are not kept any more")
	}
}

func TestShrinkOfControlClosesIdleReaders(t *testing.T) {
	c, err := OpenControl(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := c.Query.PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r, q := c.Read.Stats().OpenConnections, c.Query.Stats().OpenConnections; r != 0 || q != 0 {
		t.Errorf("%d and %d readers are left", r, q)
	}
}

func TestShrinkWaitsNoLongerThanItsContext(t *testing.T) {
	s, _ := openTest(t)
	<-s.turn // a write is under way
	defer func() { s.turn <- struct{}{} }()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shrink(ctx); muster.KindOf(err) != muster.Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

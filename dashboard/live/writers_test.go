package live

import (
	"sync"
	"testing"
)

func TestAQueueOfWritersThatIsNeverEmptyDoesNotGrow(t *testing.T) {
	const waiting = 10
	w := &writers{life: &sync.WaitGroup{}} // none starts: the test takes in their place
	for range waiting {
		w.add(&client{})
	}
	for i := range 10_000 {
		c := &client{}
		w.add(c)
		if w.take(0) == nil {
			t.Fatalf("nobody is next after %d", i)
		}
	}
	if n := cap(w.queue); n > 8*waiting {
		t.Errorf("a queue of %d has room for %d", waiting, n)
	}
	for range waiting {
		if w.take(0) == nil {
			t.Fatal("one of those who wait was lost")
		}
	}
	if c := w.take(0); c != nil {
		t.Errorf("one is taken twice: %v", c)
	}
}

package live_test

import (
	"fmt"
	"testing"

	"muster/dashboard/live"
)

func TestATickWritesToTheViewersInTurnsAndToEachOnce(t *testing.T) {
	const viewers, phases = 10, 5
	s := open(t, newWorld(1), live.Config{Phases: phases})
	peers := make([]*peer, viewers)
	for i := range peers {
		peers[i] = s.browser(fmt.Sprint("viewer-", i))
		peers[i].send(`{"t":"sub","id":2,"ch":"devices"}`)
		peers[i].expect("snapshot")
	}
	s.tick(phases) // what comes with their coming is told
	for _, p := range peers {
		p.sync()
	}
	s.observe(deviceName(0), number("temperature", 21))
	told := make([]int, viewers)
	for range phases + 1 {
		s.tick(1)
		now := 0
		for i, p := range peers {
			n := len(p.sync())
			told[i] += n
			now += n
		}
		if most := 2 * viewers / phases; now > most { // the phase's own, and those of the one before whose write was still under way
			t.Errorf("%d of %d viewers were told in one phase, want at most %d", now, viewers, most)
		}
	}
	for i, n := range told {
		if n != 1 {
			t.Errorf("viewer %d was told %d times of one change in one tick, want once", i, n)
		}
	}
}

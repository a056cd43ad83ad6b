package server

import "testing"

func TestMemoryIsGivenBackAfterABurstAndNotDuringOne(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name        string
		before, now memory
		freed       uint64
		want        bool
	}{
		{"quiet, with much to gain", memory{allocated: 500 * mb}, memory{501 * mb, 50 * mb, 120 * mb}, 0, true},
		{"quiet, with little to gain", memory{allocated: 500 * mb}, memory{501 * mb, 50 * mb, 57 * mb}, 0, false},
		{"quiet, with less than a sixteenth of what is in use to gain", memory{allocated: 500 * mb}, memory{501 * mb, 400 * mb, 424 * mb}, 0, false},
		{"busy, with much to gain", memory{allocated: 500 * mb}, memory{520 * mb, 50 * mb, 120 * mb}, 0, false},
		{"quiet, and it was just done", memory{allocated: 500 * mb}, memory{501 * mb, 50 * mb, 120 * mb}, 494 * mb, false},
		{"quiet, long after it was done", memory{allocated: 500 * mb}, memory{501 * mb, 50 * mb, 120 * mb}, 480 * mb, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := worthFreeing(c.before, c.now, c.freed); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	percent := usualGrowth
	for i, c := range []struct {
		live uint64
		want int
	}{{10 * mb, smallGrowth}, {70 * mb, smallGrowth}, {90 * mb, usualGrowth}, {70 * mb, usualGrowth}, {60 * mb, smallGrowth}} {
		if percent = growth(percent, c.live); percent != c.want {
			t.Errorf("look %d, at %d bytes: %d percent", i, c.live, percent)
		}
	}
	if m := readMemory(); m.allocated == 0 || m.held == 0 {
		t.Errorf("the runtime says %+v", m)
	}
}

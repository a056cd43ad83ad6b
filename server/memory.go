package server

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A burst, such as a reconnect storm, leaves memory behind that Go gives back slowly
// or, on an idle server, only after two minutes; and a server that has little to do
// lets its heap grow to twice what is in use. These say when memory is given back at
// once: when hardly anything is allocated any more and enough would be gained.
const (
	memoryLook  = 2 * time.Second
	memoryPause = 5       // looks, between one time and the next
	memoryQuiet = 4 << 20 // bytes allocated between two looks
	memoryGain  = 8 << 20 // bytes, and a sixteenth of what is in use
)

// A small heap is collected when it has grown by half, and not to twice what is in use: that costs
// little while there is little to look at, and keeps the process small under load.
const (
	smallHeap   = 64 << 20 // bytes in use
	smallGrowth = 50       // percent
	usualGrowth = 100
)

// growth returns by how many percent a heap may grow before it is collected. Between the two it
// stays as it is.
func growth(now int, live uint64) int {
	switch {
	case live < smallHeap:
		return smallGrowth
	case live > smallHeap+smallHeap/4:
		return usualGrowth
	}
	return now
}

// memory is what the runtime says of the heap, in bytes.
type memory struct {
	allocated uint64 // since start
	live      uint64 // after the last collection
	held      uint64 // from the system, whatever it is used for
}

func readMemory() memory {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	v := func(i int) uint64 { return s[i].Value.Uint64() }
	return memory{allocated: v(0), live: v(1), held: v(2) + v(3) + v(4)}
}

// worthFreeing says whether memory should be given back now. No more can be gained than
// was allocated since it was last done. With the pause this bounds what it costs.
func worthFreeing(before, now memory, freed uint64) bool {
	gain := max(memoryGain, now.live/16)
	return now.allocated-before.allocated < memoryQuiet && now.allocated-freed >= gain && now.held > now.live+gain
}

// freeMemory is the loop that gives memory back.
func (s *Server) freeMemory(ctx context.Context) error {
	t := time.NewTicker(memoryLook)
	defer t.Stop()
	before := readMemory()
	freed := uint64(0) // allocated when it was last done
	percent, own := usualGrowth, os.Getenv("GOGC") == ""
	defer func() {
		if percent != usualGrowth {
			debug.SetGCPercent(usualGrowth)
		}
	}()
	for looks := memoryPause; ; looks++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now := readMemory()
		if next := growth(percent, now.live); own && next != percent {
			debug.SetGCPercent(next)
			percent = next
		}
		if looks >= memoryPause && worthFreeing(before, now, freed) {
			s.giveBack(ctx)
			freed, looks = now.allocated, 0
		}
		before = now
	}
}

// shrinkTimeout is how long a database may take to give its memory back.
const shrinkTimeout = 5 * time.Second

func (s *Server) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, shrinkTimeout)
	defer cancel()
	for _, shrink := range s.stores.shrink {
		if err := shrink(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("a database keeps its memory", "err", err)
		}
	}
	debug.FreeOSMemory()
}

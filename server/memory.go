package server

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A burst, such as a reconnect storm, leaves memory behind that Go gives back slowly
// or, on an idle server, only after two minutes. These say when it is given back at
// once: when hardly anything is allocated any more and enough would be gained.
const (
	memoryLook  = 2 * time.Second
	memoryQuiet = 4 << 20  // bytes allocated between two looks
	memoryGain  = 16 << 20 // bytes, and a quarter of what is in use
)

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

// worthFreeing says whether memory should be given back now.
func worthFreeing(before, now memory) bool {
	return now.allocated-before.allocated < memoryQuiet && now.held > now.live+max(memoryGain, now.live/4)
}

// freeMemory is the loop that gives memory back after a burst.
func (s *Server) freeMemory(ctx context.Context) error {
	t := time.NewTicker(memoryLook)
	defer t.Stop()
	before := readMemory()
	freed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		now := readMemory()
		quiet := now.allocated-before.allocated < memoryQuiet
		if !quiet {
			freed = false
		}
		if !freed && worthFreeing(before, now) { // once for each burst: what stays then is in use
			debug.FreeOSMemory()
			freed = true
		}
		before = now
	}
}
